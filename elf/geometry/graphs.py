"""Undirected graphs as edge lists (2, E): checked, complete, random regular, connected or not, made symmetric."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from elf.checks import require_count, require_integers, require_one_of, require_seed, values_are_known


def complete_edges(n: int) -> Int[Tensor, "2 edges"]:
    """All n (n - 1) / 2 pairs i < j."""
    n = require_count("n", n)
    return torch.triu_indices(n, n, 1, device="cpu")


def random_regular_edges(
    n: int,
    degree: int,
    generator: torch.Generator | int,
    *,
    count: int | None = None,
    method: str = "pairing",
) -> Int[Tensor, "*count 2 edges"]:
    """Random graphs in which every one of n nodes has the same degree (Sec. 4.3 of arXiv:2511.02087 takes 2 D).

    Both methods are nearly uniform among all simple regular graphs, disconnected ones included; they draw different
    graphs from the same seed. "pairing" is Steger and Wormald's, one graph after the other, as networkx has it: the
    graphs behind the committed results. "switching" joins the ends of all edges of all graphs at random, all at once,
    and exchanges ends of the few loops and double edges with ends of random edges until none is left: 100 graphs of 300
    nodes and degree 6 in 0.05 s, one of 300,000 nodes in half a second.

    Args:
        n: nodes.
        degree: edges at each node.
        generator: the source of randomness, or its seed. With a seed, the last few graphs are remembered.
        count: None for one graph, (2, E); a number for that many, (count, 2, E). E = n * degree / 2.
        method: "pairing" or "switching".

    Returns:
        int64 on the CPU, i < j in each column, columns in lexicographic order.

    Raises:
        ValueError: n * degree is odd, or degree is n or more: there is no such graph; or no such method.
    """
    n, degree = require_count("n", n), require_count("degree", degree)
    require_one_of("method", method, ("pairing", "switching"))
    if degree >= n:
        raise ValueError(
            f"degree is {degree} with n = {n}; a node has at most n - 1 = {n - 1} neighbours: "
            "take a smaller degree, or all pairs (complete_edges)"
        )
    if n * degree % 2:
        raise ValueError(f"n * degree = {n} * {degree} is odd; it should be even, as it counts every edge twice")
    wanted = 1 if count is None else require_count("count", count)
    if isinstance(generator, torch.Generator):
        graphs = _drawn(n, degree, generator, wanted, method)
    else:
        graphs = _drawn_from_seed(n, degree, require_seed("generator", generator), wanted, method).clone()
    return graphs[0] if count is None else graphs


@lru_cache(maxsize=8)
def _drawn_from_seed(n: int, degree: int, seed: int, count: int, method: str) -> Tensor:
    return _drawn(n, degree, torch.Generator("cpu").manual_seed(seed), count, method)


def _drawn(n: int, degree: int, generator: torch.Generator, count: int, method: str) -> Tensor:
    if method == "switching" and (graphs := _by_switching(n, degree, generator, count)) is not None:
        return graphs
    import networkx as nx

    seeds = torch.randint(2**31, (count,), generator=generator, device=generator.device).tolist()
    drawn = (nx.random_regular_graph(degree, n, seed=seed).edges for seed in seeds)
    lists = [sorted(map(sorted, edges)) for edges in drawn]
    return torch.tensor(lists, dtype=torch.int64, device="cpu").mT.contiguous()


def _by_switching(n: int, degree: int, generator: torch.Generator, count: int) -> Tensor | None:
    """The configuration model, repaired by switchings; None if dense graphs keep it from coming to an end."""
    import numpy as np

    random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
    ends = np.tile(np.repeat(np.arange(n), degree), (count, 1))
    ends = random.permuted(ends, axis=1).reshape(count, -1, 2)
    edges = ends.shape[1]
    for _ in range(100):
        keys = np.sort(ends, axis=2) @ np.array([n, 1])
        order = np.argsort(keys, axis=1, kind="stable")
        ranked = np.take_along_axis(keys, order, axis=1)
        bad = ends[:, :, 0] == ends[:, :, 1]
        graph, place = np.nonzero(ranked[:, 1:] == ranked[:, :-1])
        bad[graph, order[graph, place + 1]] = True
        graph, edge = np.nonzero(bad)
        if not len(graph):
            return torch.from_numpy(np.stack(np.divmod(ranked, n), axis=1))
        # Each in its turn, as several may fall on one partner.
        for g, e, partner in zip(graph, edge, random.integers(edges, size=len(graph)), strict=True):
            ends[g, e, 1], ends[g, partner, 1] = ends[g, partner, 1], ends[g, e, 1]
    return None


PADDING = -1
"""Both ends of an edge that only fills up a list shorter than the others."""


def undirected_pairs(edges: object, n: int | None = None, *, padded: bool = False) -> Int[Tensor, "*batch 2 edges"]:
    """The edge lists as int64, once each is known to be a set of undirected pairs.

    Args:
        edges: integers, (2, E), or (..., 2, E) for many lists with as many columns.
        n: nodes, if their number is known.
        padded: columns of two `PADDING` may fill up the shorter lists.

    Raises:
        TypeError: `edges` is not a tensor of integers.
        ValueError: a wrong shape, a node out of range, a self-loop, or a pair twice (in one or both directions).
    """
    edges = require_integers("edges", edges)
    if edges.ndim < 2 or edges.shape[-2] != 2:
        raise ValueError(f"edges has shape {tuple(edges.shape)}; it should be (2, E), or (B, 2, E), a list per sample")
    edges = edges.long()
    if not values_are_known(edges) or edges.numel() == 0:
        return edges
    low, high = edges.amin(-2), edges.amax(-2)
    filler = (low == PADDING) & (high == PADDING) & padded
    if bool((bad := (low < 0) & ~filler).any()):
        raise ValueError(f"edges mentions node {int(low[bad][0])}; node indices should not be negative")
    if n is not None and int(high.max()) >= n:
        raise ValueError(f"edges mentions node {int(high.max())}; with n = {n} nodes it should be in 0 .. {n - 1}")
    if bool((loops := (low == high) & ~filler).any()):
        raise ValueError(f"edges joins node {int(low[loops][0])} to itself; a self-loop has no length")
    # One number per pair: equal neighbours after sorting are duplicates. Padding gets numbers that no pair has.
    base = int(high.max()) + 1
    nowhere = -1 - torch.arange(edges.shape[-1], device=edges.device).expand_as(low)
    keys = (low * base + high).where(~filler, nowhere).sort(-1).values
    if bool((twice := keys.diff() == 0).any()):
        pair = divmod(int(keys[..., 1:][twice][0]), base)
        raise ValueError(
            f"edges holds the pair {pair} more than once, in one or both directions; once is enough: "
            "elf.geometry.undirected(edges) keeps one of each"
        )
    return edges


def undirected(edge_index: Tensor) -> Int[Tensor, "2 edges"]:
    """Each pair of a list with both directions (PyTorch Geometric's `edge_index`) once; loops are left out.

    Returns:
        int64, i < j in each column, columns in lexicographic order. `edge_index[0] < edge_index[1]` picks, of a list
        that PyG has coalesced, the same columns in the same order: for what belongs to the edges.

    Raises:
        TypeError, ValueError: `edge_index` is no tensor of integers (2, edges).
    """
    edge_index = require_integers("edge_index", edge_index)
    if edge_index.ndim != 2 or len(edge_index) != 2:
        raise ValueError(f"edge_index has shape {tuple(edge_index.shape)}; it should be (2, edges)")
    return edge_index.long().sort(0).values[:, edge_index[0] != edge_index[1]].unique(dim=1)


def require_graph(n: int, edges: Int[Tensor, "*batch 2 edges"]) -> None:
    """Raises unless each edge list is a simple graph on nodes 0 .. n - 1 with at least one edge."""
    if undirected_pairs(edges, require_count("n", n)).shape[-1] == 0:
        raise ValueError(f"edges has shape {tuple(edges.shape)}; it should hold at least one edge")


def is_connected(n: int, edges: Int[Tensor, "*batch 2 edges"]) -> Bool[Tensor, "*batch"]:
    """Whether each graph hangs together: one piece, no node left alone. Nodes 0 .. n - 1."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    require_graph(n, edges)
    flat = edges.reshape(-1, *edges.shape[-2:]).cpu()
    graphs = flat.shape[0]
    # One big graph of all graphs, side by side.
    first, second = (flat + n * torch.arange(graphs, device="cpu")[:, None, None]).movedim(1, 0).reshape(2, -1).numpy()
    matrix = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(graphs * n, graphs * n))
    _, labels = connected_components(matrix, directed=False)
    whole = (labels.reshape(graphs, n) == labels.reshape(graphs, n)[:, :1]).all(1)
    return torch.from_numpy(whole).reshape(edges.shape[:-2]).to(edges.device)


def symmetrise_edges(
    edges: Int[Tensor, "2 edges"], permutations: Int[Tensor, "elements atoms"]
) -> Int[Tensor, "2 symmetric_edges"]:
    """The edges and all their images under a group of relabellings: Eq. 57 of arXiv:2511.02087, as a set.

    With the automorphisms of the target's distance matrix (`elf.geometry.symmetry.automorphisms`), the sparse pair
    energy becomes invariant to Aut(Delta y) as the dense one is (Prop. 4.2), and symmetric atoms of a symmetric
    prediction get forces that the symmetry maps to each other. An image that falls on an edge already there is not
    counted twice: no spring gets stiffer. A globally rigid graph stays so, as edges are only added.

    Args:
        edges: (2, E), nodes 0 .. N - 1.
        permutations: (elements, N), a group: closed under composition, the identity among them.

    Returns:
        (2, E') int64, E' >= E, i < j in each column, columns in lexicographic order.

    Raises:
        ValueError: `edges` is not a simple graph on N nodes; a row is no permutation; the identity is missing; or the
            result is not closed under the permutations, so that these are no group.
    """
    elements, n = permutations.shape
    require_graph(n, edges)
    identity = torch.arange(n, device=permutations.device)
    if not bool((permutations.sort(-1).values == identity).all()):
        raise ValueError(f"permutations has a row that is not a rearrangement of 0 .. {n - 1}")
    if not bool((permutations == identity).all(-1).any()):
        raise ValueError(f"permutations ({elements} rows) lacks the identity; it should be a group")
    symmetric = _images(edges, permutations)
    if _images(symmetric, permutations).shape != symmetric.shape:
        raise ValueError("permutations is not closed under composition; it should be a group")
    return symmetric


def _images(edges: Tensor, permutations: Tensor) -> Tensor:
    """The set of all images of all edges."""
    n = permutations.shape[1]
    low, high = permutations[:, edges.long()].sort(1).values.unbind(1)
    keys = (low * n + high).unique()
    return torch.stack([keys // n, keys % n])


def edge_lists(edges: object) -> tuple[Int[Tensor, "*batch 2 edges"], int]:
    """Undirected pairs, (2, E) for all samples, or (B, 2, E), one list a sample, whose end (-1, -1) may pad.

    And the largest node, as a plain number; -1 where there is none, or nobody can tell.
    """
    lists = undirected_pairs(edges, padded=isinstance(edges, Tensor) and edges.ndim == 3)
    if lists.ndim > 3:
        raise ValueError(f"edges has shape {tuple(lists.shape)}; it should be (2, E), or (B, 2, E)")
    return lists, int(lists.max()) if lists.numel() and values_are_known(lists) else -1


def joined_lists(
    edges: Int[Tensor, "*batch 2 edges"], largest: int, coordinates: Tensor, samples: int, batch: Tensor | None
) -> tuple[Int[Tensor, "2 joined"], int]:
    """Edges between the nodes of all samples as one list, and how many lists went into it; padding becomes loops.

    Args:
        edges, largest: from `edge_lists`.
        coordinates: dense, or flat with `batch`, the sample of each node.

    Raises:
        ValueError: the edges do not belong to these samples.
    """
    nodes = coordinates.shape[-2]
    if edges.device != coordinates.device:
        raise ValueError(
            f"edges is on {edges.device}, the coordinates on {coordinates.device}; move the energy there by .to"
        )
    if largest >= nodes:
        raise ValueError(f"edges mentions node {largest}; among {nodes} nodes it should be below {nodes}")
    if batch is not None:
        if edges.ndim != 2:
            raise ValueError(f"edges has shape {tuple(edges.shape)}; for flat input with batch, it should be (2, E)")
        if values_are_known(batch, edges) and not bool((inside := batch[edges[0]] == batch[edges[1]]).all()):
            worst = int((~inside).nonzero()[0])
            raise ValueError(
                f"edges joins nodes {edges[:, worst].tolist()}, of samples {batch[edges[:, worst]].tolist()}; "
                "an edge should stay inside its sample"
            )
        return edges, 1
    if edges.ndim == 3 and edges.shape[0] != samples:
        raise ValueError(f"edges holds a list for each of {edges.shape[0]} samples, but the batch has {samples}")
    if edges.ndim == 3:
        edges = edges.clamp(min=0)  # (-1, -1) becomes the loop (0, 0), which has no length to stretch
    if samples > 1:
        first_nodes = nodes * torch.arange(samples, device=edges.device)
        edges = (edges.expand(samples, -1, -1) + first_nodes[:, None, None]).movedim(1, 0)
    return edges.reshape(2, -1), samples
