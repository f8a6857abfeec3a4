"""Symmetry as something to test and to compute: invariance of an energy, automorphisms of a distance matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import require_count, require_one_of, require_positive, require_tensor
from elf.geometry.alignment import center, centroid, random_rotations

GROUP = ("rotations", "reflections", "translations")
Move = Callable[[Tensor], Tensor]
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
        group: which of "rotations" (proper, about the centroid), "reflections" (improper) and "translations" (by about
            the size of the target).
        permutations: further group elements p, that send x to x[:, p]; `automorphisms` finds those of a target.
        samples: random elements per entry of `group`.
        tolerance: allowed change relative to 1 + |value|; by default 1e-5 in float32, 1e-11 in float64.
        generator: source of random elements; None draws the same ones in every call.

    Raises:
        AssertionError: says which element, applied to what, changed which sample's energy, and by how much.
    """
    for name in group:
        require_one_of("group", name, GROUP)
    samples = require_count("samples", samples)
    if tolerance is None:
        tolerance = TOLERANCES.get(target.dtype, 1e-2)
    tolerance = require_positive("tolerance", tolerance)
    if generator is None:
        generator = torch.Generator(target.device).manual_seed(0)
    prediction, target = prediction.detach(), target.detach()
    before = energy(prediction, target, mask).detach()
    for description, move in _elements(target, mask, group, permutations, samples, generator):
        for name, after in (
            ("prediction", energy(move(prediction), target, mask)),
            ("target", energy(prediction, move(target), mask)),
        ):
            change = (after.detach() - before).abs() / (1 + before.abs())
            # Not `change > tolerance`, which NaN passes.
            if not bool((change <= tolerance).all()):
                worst = int(change.nan_to_num(torch.inf).argmax())
                raise AssertionError(
                    f"not invariant: {description} of the {name} changes the value of sample {worst} from "
                    f"{before[worst].item():.8g} to {after[worst].item():.8g}, by {change[worst].item():.2g} in "
                    f"relative terms where {tolerance:.2g} is allowed"
                )


def _elements(
    target: Tensor,
    mask: Tensor | None,
    group: Sequence[str],
    permutations: Tensor | None,
    samples: int,
    generator: torch.Generator,
) -> list[tuple[str, Move]]:
    """Group elements as (description, map of coordinates)."""
    dim, middle = target.shape[-1], centroid(target, mask).unsqueeze(-2)
    size = center(target, mask).square().sum(-1).mean().sqrt()
    rotations = random_rotations(2 * samples, dim, generator, dtype=target.dtype, device=target.device)
    mirror = torch.ones(dim, dtype=target.dtype, device=target.device)
    mirror[0] = -1
    shifts = torch.randn(samples, dim, generator=generator, dtype=target.dtype, device=target.device) * size

    def turn(matrix: Tensor, x: Tensor) -> Tensor:
        return (x - middle) @ matrix.mT + middle

    kinds: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Sequence[Tensor] | Tensor]] = {
        "rotations": (turn, rotations[:samples]),
        "reflections": (turn, rotations[samples:] * mirror),
        "translations": (lambda vector, x: x + vector, shifts),
        "permutations": (lambda order, x: x[:, order], () if permutations is None else permutations),
    }
    chosen = [(kind, *kinds[kind]) for kind in kinds if kind in (*group, "permutations")]
    return [(f"the {kind[:-1]} {g.tolist()}", partial(move, g)) for kind, move, elements in chosen for g in elements]


def automorphisms(
    distances: Tensor,
    *,
    labels: Sequence[object] | Tensor | None = None,
    tolerance: float = 1e-3,
    limit: int = 1000,
) -> Int[Tensor, "elements atoms"]:
    """All relabellings that leave a distance matrix as it is: Aut(Delta y) of Prop. 4.2 of arXiv:2511.02087.

    A permutation p is in if |D[p_i, p_j] - D[i, j]| <= tolerance for all i, j (and labels[p_i] = labels[i]), that is
    P D P^T = D: isomorphisms of the complete graph, its edges coloured by distance, onto itself (VF2, networkx).
    Mirror symmetries and improper rotations are among them, as distances do not see handedness.

    Args:
        distances: the distance matrix of one sample, (N, N), symmetric; `elf.geometry.pairwise_distances`.
        labels: what must not be mixed up, such as N atomic numbers; None if distances alone decide.
        tolerance: in the unit of the distances (angstrom).
        limit: the most elements to enumerate.

    Returns:
        (elements, N) int64 permutations, in lexicographic order (the identity first), on the device of `distances`.

    Raises:
        ValueError: the matrix is not a symmetric finite square; labels do not fit; more than `limit` automorphisms;
            or the tolerance cuts through a cluster of nearly equal distances, so that what it finds is no group.
    """
    import networkx as nx

    tolerance, limit = require_positive("tolerance", tolerance), require_count("limit", limit)
    matrix = require_tensor("distances", distances).detach().cpu().numpy()
    n = len(matrix)
    if matrix.shape != (n, n) or n == 0:
        raise ValueError(f"distances has shape {matrix.shape}; it should be (N, N) with N >= 1")
    if not np.isfinite(matrix).all() or np.abs(matrix - matrix.T).max() > tolerance:
        raise ValueError("distances should be finite and symmetric")
    names = np.zeros(n) if labels is None else np.asarray(labels.tolist() if isinstance(labels, Tensor) else labels)
    if names.shape != (n,):
        raise ValueError(f"labels has shape {names.shape}; it should hold one label for each of the {n} atoms")

    # Necessary for p_i = j: atoms i and j have the same sorted distances.
    profiles = np.sort(matrix, axis=1)
    alike = (np.abs(profiles[:, None] - profiles[None]).max(-1) <= tolerance) & (names[:, None] == names[None])

    class Matcher(nx.algorithms.isomorphism.GraphMatcher):
        """VF2 that proposes images along short distances and compares every distance."""

        def semantic_feasibility(self, i: int, j: int) -> bool:
            placed, images = list(self.core_1), list(self.core_1.values())
            return bool(alike[i, j] and (np.abs(matrix[i, placed] - matrix[j, images]) <= tolerance).all())

    graph = nx.Graph(_short_pairs(matrix, tolerance))
    graph.add_nodes_from(range(n))
    found: set[tuple[int, ...]] = set()
    for mapping in Matcher(graph, graph).isomorphisms_iter():
        found.add(tuple(mapping[i] for i in range(n)))
        if len(found) > limit:
            raise ValueError(
                f"more than {limit} automorphisms; raise limit, or lower tolerance = {tolerance} if too coarse"
            )
    elements = np.array(sorted(found))
    # A finite set of permutations that is closed under composition is a group.
    if any(tuple(product) not in found for p in elements for product in p[elements].tolist()):
        raise ValueError(
            f"at tolerance {tolerance}, the relabellings of distances are not a group: some distances differ by less "
            "and some by little more than the tolerance; choose another one"
        )
    return torch.from_numpy(elements).to(distances.device)


def _short_pairs(matrix: np.ndarray, tolerance: float) -> list[tuple[int, int]]:
    """The shortest pairs that connect all atoms, up to a gap in the distances that no automorphism can cross.

    VF2 walks along these few edges instead of all pairs: at N = 128, seconds instead of minutes.
    """
    import networkx as nx

    pairs = [(i, j, float(matrix[i, j])) for i in range(len(matrix)) for j in range(i)]
    complete = nx.Graph()
    complete.add_weighted_edges_from(pairs)
    reach = max((edge["weight"] for *_, edge in nx.minimum_spanning_edges(complete)), default=0.0)
    longer = np.sort([length for *_, length in pairs if length >= reach])
    gaps = np.flatnonzero(np.diff(longer) > tolerance)
    cutoff = longer[gaps[0]] if len(gaps) else np.inf
    return [(i, j) for i, j, length in pairs if length <= cutoff]
