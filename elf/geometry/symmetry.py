"""Symmetry as something to test and to compute: invariance of an energy, automorphisms of a distance matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf._checks import require_count, require_one_of, require_positive
from elf.geometry.alignment import centroid, random_rotations

GROUP = ("rotations", "reflections", "translations")
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}


def assert_invariant(
    energy: Callable[..., Tensor],
    prediction: Float[Tensor, "batch atoms dim"],
    target: Float[Tensor, "batch atoms dim"],
    mask: Bool[Tensor, "batch atoms"] | None = None,
    *,
    group: Sequence[str] = GROUP,
    permutations: Int[Tensor, "elements atoms"] | None = None,
    samples: int = 4,
    tolerance: float | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Asserts Def. 4.1 of arXiv:2511.02087: l(g y_hat, y) = l(y_hat, g y) = l(y_hat, y), for elements g of a group.

    Prediction and target are moved separately: an invariant loss does not care where either of them is.

    Args:
        energy: anything with an energy's call, (prediction, target, mask) -> (B,).
        prediction, target: coordinates, (B, N, D); take them away from each other's minimum, where errors hide.
        mask: bool, (B, N), True for a real atom.
        group: which of "rotations" (proper, about the centroid), "reflections" (improper), "translations" (by about the
            size of the target).
        permutations: further group elements p, that send x to x[:, p]; `automorphisms` finds those of a target.
        samples: random elements per entry of `group`.
        tolerance: allowed change relative to 1 + |value|; by default 1e-5 in float32, 1e-11 in float64.
        generator: source of random elements; None draws the same ones in every call.

    Raises:
        AssertionError: says which element, applied to what, changed which sample's energy, and by how much.
    """
    for name in group:
        require_one_of("group", name, GROUP)
    require_count("samples", samples)
    if tolerance is None:
        tolerance = TOLERANCES.get(target.dtype, 1e-2)
    require_positive("tolerance", tolerance)
    if generator is None:
        generator = torch.Generator(target.device).manual_seed(0)
    before = energy(prediction, target, mask)
    for description, move in _elements(target, mask, group, permutations, samples, generator):
        for name, after in (
            ("prediction", energy(move(prediction), target, mask)),
            ("target", energy(prediction, move(target), mask)),
        ):
            change = (after - before).abs() / (1 + before.abs())
            # Not `change > tolerance`, which NaN passes.
            if not bool((change <= tolerance).all()):
                worst = int(change.nan_to_num(torch.inf).argmax())
                raise AssertionError(
                    f"not invariant: {description} of the {name} changes the value of sample {worst} from "
                    f"{float(before[worst]):.8g} to {float(after[worst]):.8g}, relatively by {float(change[worst]):.2g} "
                    f"where {tolerance:.2g} is allowed"
                )


Move = Callable[[Tensor], Tensor]


def _elements(
    target: Tensor,
    mask: Tensor | None,
    group: Sequence[str],
    permutations: Tensor | None,
    samples: int,
    generator: torch.Generator,
) -> list[tuple[str, Move]]:
    """Group elements as (description, map of coordinates)."""
    elements: list[tuple[str, Move]] = []
    dim = target.shape[-1]
    middle = centroid(target, mask).unsqueeze(-2)
    offsets = target - middle if mask is None else (target - middle).where(mask[..., None], target.new_zeros(()))
    size = offsets.square().sum(-1).mean().sqrt()
    rotations = random_rotations(2 * samples, dim, generator, dtype=target.dtype, device=target.device)
    mirror = torch.ones(dim, dtype=target.dtype, device=target.device)
    mirror[0] = -1
    shifts = torch.randn(samples, dim, generator=generator, dtype=target.dtype, device=target.device) * size

    def turn(matrix: Tensor) -> Move:
        return lambda x: (x - middle) @ matrix.mT + middle

    def shift(vector: Tensor) -> Move:
        return lambda x: x + vector

    def relabel(permutation: Tensor) -> Move:
        return lambda x: x[:, permutation]

    if "rotations" in group:
        elements += [(f"the rotation {matrix.tolist()}", turn(matrix)) for matrix in rotations[:samples]]
    if "reflections" in group:
        elements += [(f"the reflection {m.tolist()}", turn(m)) for m in rotations[samples:] * mirror]
    if "translations" in group:
        elements += [(f"the translation {vector.tolist()}", shift(vector)) for vector in shifts]
    if permutations is not None:
        elements += [(f"the permutation {p.tolist()}", relabel(p)) for p in permutations]
    return elements


def automorphisms(
    distances: Float[Tensor, "atoms atoms"],
    *,
    labels: Sequence[object] | Tensor | None = None,
    tolerance: float = 1e-3,
    limit: int = 1000,
) -> Int[Tensor, "elements atoms"]:
    """All relabellings that leave a distance matrix as it is: Aut(Delta y) of Prop. 4.2 of arXiv:2511.02087.

    A permutation p is in if |D[p_i, p_j] - D[i, j]| <= tolerance for all i, j (and labels[p_i] = labels[i]), that is
    P D P^T = D. Found as isomorphisms of the complete graph with distances as edge colours onto itself (VF2, networkx).
    Mirror symmetries and improper rotations are among them, as distances do not see handedness.

    Args:
        distances: the distance matrix of one sample, (N, N), symmetric; `elf.geometry.pairwise_distances`.
        labels: what must not be mixed up, such as N atomic numbers; None if distances alone decide.
        tolerance: in the unit of the distances (angstrom).
        limit: the most elements to enumerate.

    Returns:
        (elements, N) int64 permutations, the identity among them, in lexicographic order, on the device of `distances`.

    Raises:
        ValueError: the matrix is not a symmetric finite square; labels do not fit; more than `limit` automorphisms; or the
            tolerance cuts through a cluster of nearly equal distances, so that what it finds is not a group.
    """
    import networkx as nx
    import numpy as np

    require_positive("tolerance", tolerance)
    require_count("limit", limit)
    matrix = distances.detach().cpu().numpy()
    n = matrix.shape[0]
    if matrix.shape != (n, n) or n == 0:
        raise ValueError(f"distances has shape {matrix.shape}; it should be (N, N) with N >= 1")
    if not np.isfinite(matrix).all() or np.abs(matrix - matrix.T).max() > tolerance:
        raise ValueError("distances should be finite and symmetric")
    names = [None] * n if labels is None else labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if len(names) != n:
        raise ValueError(f"labels has {len(names)} entries; it should have one for each of the {n} atoms")

    # An automorphism matches atoms with the same sorted distances: a necessary condition that prunes the search.
    profiles = np.sort(matrix, axis=1)
    graph = nx.Graph()
    graph.add_nodes_from((i, {"label": names[i], "profile": profiles[i]}) for i in range(n))
    graph.add_edges_from((i, j, {"distance": matrix[i, j]}) for i in range(n) for j in range(i))

    def same_atom(a: dict, b: dict) -> bool:
        return a["label"] == b["label"] and bool(np.abs(a["profile"] - b["profile"]).max() <= tolerance)

    def same_edge(a: dict, b: dict) -> bool:
        return bool(abs(a["distance"] - b["distance"]) <= tolerance)

    matcher = nx.algorithms.isomorphism.GraphMatcher(graph, graph, node_match=same_atom, edge_match=same_edge)
    found: set[tuple[int, ...]] = set()
    for mapping in matcher.isomorphisms_iter():
        found.add(tuple(mapping[i] for i in range(n)))
        if len(found) > limit:
            raise ValueError(f"more than {limit} automorphisms; raise limit, or lower tolerance ({tolerance}) if it is too coarse")
    elements = np.array(sorted(found))
    # A finite set of permutations that is closed under composition is a group.
    if any(tuple(product) not in found for p in elements for product in p[elements].tolist()):
        raise ValueError(
            f"at tolerance {tolerance}, the relabellings of distances are not a group: some distances differ by less "
            "and some by little more than the tolerance; choose another one"
        )
    return torch.from_numpy(elements).to(distances.device)
