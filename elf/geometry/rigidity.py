"""Rigidity of frameworks: balls joined by rods (Sec. 4.3 and App. A.5 of arXiv:2511.02087).

A graph is *rigid* in R^D if, at generic positions, no motion but a rigid one keeps its edge lengths; it is *globally
rigid* if its edge lengths allow no other positions at all, up to rigid motions and mirror images. A sparse pair energy
(`elf.PairEnergy(edges=...)`) has the dense one's global minimisers exactly if its graph is globally rigid.

Both are properties of the graph alone, at almost all positions. Here they are decided exactly, at random integer
positions modulo a prime p = 3e7 (`elf.geometry.modular`): True is a proof, False is wrong with a probability of at most
about n^2 D / p (4e-4 for n = 64, D = 3).

Sources: L. Asimow, B. Roth, Trans. AMS 245 (1978) 279; R. Connelly, Discrete Comput. Geom. 33 (2005) 549; S. J.
Gortler, A. D. Healy, D. P. Thurston, Am. J. Math. 132 (2010) 897.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import require_count, require_finite, require_positive, require_seed
from elf.geometry.graphs import is_connected, random_regular_edges, require_graph
from elf.geometry.modular import eliminate, random_null_vector, random_residues, residue

_ENTRIES_AT_A_TIME = 2**22


class RigidGraphs(NamedTuple):
    """Globally rigid graphs and what it took to find them."""

    edges: Int[Tensor, "*count 2 edges"]
    tries: int
    """Graphs drawn, the rejected ones included."""


def full_rank(n: int, dim: int) -> int:
    """The rank of a rigid framework's rigidity matrix: n D coordinates less D (D + 1) / 2 rigid motions.

    For n <= D, where the points cannot span the space, all n (n - 1) / 2 distances.
    """
    n, dim = require_count("n", n), require_count("dim", dim)
    return n * dim - dim * (dim + 1) // 2 if n > dim else n * (n - 1) // 2


def rigidity_matrix(
    x: Float[Tensor, "*batch nodes dim"], edges: Int[Tensor, "2 edges"]
) -> Float[Tensor, "*batch edges coordinates"]:
    """R: its row for edge (i, j) holds x_i - x_j in i's columns, x_j - x_i in j's.

    R v = 0 says that the velocities v (flattened, n D) change no edge length: R is the derivative of |x_i - x_j|^2 / 2.
    Of Eq. 7 with springs k, the Hessian at the target is 2 R^T diag(k / r^2) R.

    Raises:
        ValueError: `edges` is not a simple graph on the nodes of x.
    """
    require_graph(x.shape[-2], edges)
    return _rigidity_matrix(x, edges.expand(*x.shape[:-2], -1, -1))


def _rigidity_matrix(x: Tensor, edges: Tensor) -> Tensor:
    """The same for one edge list a sample."""
    *batch, n, dim = x.shape
    first, second = edges.long()[..., None].expand(*edges.shape, dim).unbind(-3)
    rods = x.gather(-2, first) - x.gather(-2, second)
    slots = torch.arange(dim, device=x.device)
    matrix = x.new_zeros(*batch, edges.shape[-1], n * dim)
    matrix.scatter_(-1, first * dim + slots, rods)
    return matrix.scatter_(-1, second * dim + slots, -rods)


def stress_matrix(
    stress: Float[Tensor, "*batch edges"], edges: Int[Tensor, "*batch 2 edges"], n: int
) -> Float[Tensor, "*batch {n} {n}"]:
    """Omega: -w_ij off the diagonal, sum_j w_ij on it: the Laplacian of a graph weighted by a stress.

    A stress w balances the forces w_ij (x_j - x_i) at every node, R^T w = 0. Then Omega has the coordinates of x and
    the constants in its kernel, so that its rank is at most n - D - 1.
    """
    require_graph(n, edges)
    first, second = edges.long().unbind(-2)
    matrix = stress.new_zeros(*stress.shape[:-1], n * n)
    for i, j, sign in ((first, second, -1), (second, first, -1), (first, first, 1), (second, second, 1)):
        matrix = matrix.scatter_add(-1, i * n + j, sign * stress)
    return matrix.unflatten(-1, (n, n))


def generic_rank(n: int, edges: Int[Tensor, "*batch 2 edges"], dim: int, *, seed: int = 0) -> Int[Tensor, "*batch"]:
    """The rank of the rigidity matrix at generic positions: how many of the edges constrain independently.

    Args:
        n: nodes 0 .. n - 1 of each graph.
        edges: one graph, (2, E), or many with the same number of edges.
        dim: D.
        seed: of the random positions.

    Raises:
        ValueError: an edge list is not a simple graph (`elf.geometry.graphs.require_graph`).
    """
    return _examine(n, edges, dim, seed)[0]


def is_rigid(n: int, edges: Int[Tensor, "*batch 2 edges"], dim: int, *, seed: int = 0) -> Bool[Tensor, "*batch"]:
    """Whether generic frameworks on these graphs have no motion but rigid ones. Arguments: see `generic_rank`.

    Raises:
        ValueError: an edge list is not a simple graph, or not connected.
    """
    _require_connected(n, edges)
    return generic_rank(n, edges, dim, seed=seed) == full_rank(n, dim)


def is_globally_rigid(
    n: int, edges: Int[Tensor, "*batch 2 edges"], dim: int, *, seed: int = 0
) -> Bool[Tensor, "*batch"]:
    """Whether edge lengths determine generic positions up to E(D), by the random stress test of Gortler et al.

    For n >= D + 2: the graph is rigid, and a random stress of it has a stress matrix of rank n - D - 1. Smaller graphs
    have to be complete. Arguments: see `generic_rank`.

    Raises:
        ValueError: an edge list is not a simple graph, or not connected.
    """
    _require_connected(n, edges)
    if n <= dim + 1:
        complete = edges.shape[-1] == n * (n - 1) // 2
        return torch.full(edges.shape[:-2], complete, dtype=torch.bool, device=edges.device)
    rank, stress_rank = _examine(n, edges, dim, seed, with_stress=True)
    return (rank == full_rank(n, dim)) & (stress_rank == n - dim - 1)


def _require_connected(n: int, edges: Tensor) -> None:
    if n < 2:
        raise ValueError(f"n is {n}; it should be at least 2, for an edge to join")
    if not bool((whole := is_connected(n, edges)).all()):
        which = "" if whole.ndim == 0 else f" of graph {(~whole).nonzero()[0].tolist()}"
        raise ValueError(
            f"edges{which} leaves the {n} nodes in several pieces, which move freely; the graph should be connected"
        )


def _examine(n: int, edges: Tensor, dim: int, seed: int, with_stress: bool = False) -> tuple[Tensor, Tensor]:
    """Ranks of the rigidity matrix and of a random stress' matrix, in chunks that fit a cache."""
    require_graph(n, edges)
    n, dim = require_count("n", n), require_count("dim", dim)
    generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
    lists = edges.reshape(-1, *edges.shape[-2:]).cpu().long()
    at_a_time = max(1, _ENTRIES_AT_A_TIME // (n * dim * lists.shape[-1]))
    ranks, stress_ranks = [], []
    for chunk in lists.split(at_a_time):
        x = random_residues(len(chunk), n, dim, generator=generator)
        reduced = eliminate(residue(_rigidity_matrix(x, chunk)).mT)
        ranks.append(reduced.rank)
        if with_stress:
            stress = random_null_vector(reduced, generator)
            stress_ranks.append(eliminate(residue(stress_matrix(stress, chunk, n))).rank)
    parts = ranks, stress_ranks or ranks
    rank, stress_rank = (torch.cat(part).reshape(edges.shape[:-2]).to(edges.device) for part in parts)
    return rank, stress_rank


def flexes(
    x: Float[Tensor, "nodes dim"], edges: Int[Tensor, "2 edges"], *, tolerance: float | None = None
) -> Float[Tensor, "motions nodes dim"]:
    """An orthonormal basis of the motions that, to first order, bend the framework: no rod gets longer, yet the shape
    changes. Empty for a (first-order) rigid framework.

    They span the kernel of the rigidity matrix R of x, orthogonal to translations and rotations. Kernel means singular
    values below `tolerance` times the largest; default: 1e-9 in float64, 1e-4 in float32.

    Raises:
        ValueError: `edges` is not a simple graph on the nodes of x; positions are not finite.
    """
    n, dim = x.shape
    if not bool(x.isfinite().all()):
        raise ValueError("x holds a NaN or infinite coordinate; positions should be finite")
    if tolerance is None:
        tolerance = 1e-9 if x.dtype == torch.float64 else 1e-4
    tolerance = require_positive("tolerance", tolerance)
    centred = x - x.mean(0)
    matrix = rigidity_matrix(centred, edges)
    # Rigid motions as further rows: what is orthogonal to all rows bends.
    scale = centred.square().sum().sqrt().clamp(min=torch.finfo(x.dtype).tiny)
    _, values, rows = torch.linalg.svd(torch.cat([matrix, rigid_motions(x) * scale]))
    rank = int((values > tolerance * values[0]).sum())
    return rows[rank:].unflatten(-1, (n, dim))


def rigid_motions(
    x: Float[Tensor, "nodes dim"], masses: Float[Tensor, " nodes"] | None = None
) -> Float[Tensor, "motions coordinates"]:
    """An orthonormal basis of translations and infinitesimal rotations.

    In space 6 rows, 5 for points on a line, 3 for a single one. With masses, of the mass-weighted motions: displacement
    times sqrt(mass). Squares of coordinates should fit the dtype.
    """
    centred, dim = x - x.mean(0), x.shape[1]
    axes = torch.eye(dim, dtype=x.dtype, device=x.device)
    # Rotations in each plane, the last first; the sign makes them cross products with the axes in space.
    planes = [(a, b, (-1) ** (a + b + 1)) for a, b in combinations(range(dim), 2)][::-1]
    turns = [sign * (centred[:, a, None] * axes[b] - centred[:, b, None] * axes[a]) for a, b, sign in planes]
    # Of order one whatever the size, so that one threshold tells a line from what is none.
    size = centred.square().sum(-1).mean().sqrt().clamp(min=1e-6)
    rows = torch.stack([*(axis.expand_as(x) for axis in axes), *(turn / size for turn in turns)])
    if masses is not None:
        rows = rows * masses.sqrt()[:, None]
    require_finite("x, squared,", rows, None)
    _, values, basis = torch.linalg.svd(rows.flatten(1), full_matrices=False)
    return basis[values > 1e-3 * values[0]]


def draw_rigid_graph(
    n: int,
    dim: int,
    generator: torch.Generator | int,
    *,
    degree: int | None = None,
    count: int | None = None,
    max_tries: int = 100,
) -> RigidGraphs:
    """Random regular graphs, drawn until they are globally rigid (Sec. 4.3: 100 a size, and one of them an evaluation).

    Args:
        n: nodes.
        dim: D.
        generator: the source of randomness, or its seed.
        degree: edges at each node; default 2 D, which makes n D edges.
        count: None for one graph, (2, E); a number for that many, (count, 2, E).
        max_tries: draws allowed a graph.

    Returns:
        `edges`, and `tries`: how many graphs were drawn for them.

    Raises:
        ValueError: n nodes allow no such degree; too few edges to be globally rigid in D dimensions; or `max_tries`
            is exhausted.
    """
    n, dim, max_tries = require_count("n", n), require_count("dim", dim), require_count("max_tries", max_tries)
    degree = 2 * dim if degree is None else require_count("degree", degree)
    if not isinstance(generator, torch.Generator):
        generator = torch.Generator("cpu").manual_seed(require_seed("generator", generator))
    first = random_regular_edges(n, degree, generator)
    needed = full_rank(n, dim) + 1 if n > dim + 1 else n * (n - 1) // 2
    if first.shape[-1] < needed:
        raise ValueError(
            f"degree is {degree} with n = {n}, dim = {dim}: {first.shape[-1]} edges, where global rigidity needs "
            f"{needed}; take a larger degree (2 * dim = {2 * dim} is always enough edges)"
        )
    wanted = 1 if count is None else require_count("count", count)
    kept: list[Tensor] = []
    tries = 0
    candidates = first[None]
    while len(kept) < wanted:
        tries += len(candidates)
        connected = candidates[is_connected(n, candidates)]
        if len(connected):
            seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
            kept += connected[is_globally_rigid(n, connected, dim, seed=seed)].unbind()
        left = min(wanted - len(kept), max_tries * wanted - tries)
        if len(kept) < wanted and left < 1:
            raise ValueError(
                f"max_tries is {max_tries}: of {tries} random graphs with n = {n} and degree {degree}, {len(kept)} "
                f"were globally rigid in {dim} dimensions; take a larger degree"
            )
        if left > 0:
            candidates = random_regular_edges(n, degree, generator, count=left)
    return RigidGraphs(kept[0] if count is None else torch.stack(kept), tries)
