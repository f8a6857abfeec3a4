"""The quadratic pair energy: springs between all pairs of atoms, or along the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from elf._checks import require_count, require_tensor, values_are_known
from elf.energy.base import Energy
from elf.energy.springs import Exponential, Spring
from elf.geometry.distances import cross_distances, edge_distances

Springs = Callable[[Tensor], Tensor]

PADDING = -1


@final
class PairEnergy(Energy):
    """E(y_hat, y) = sum_{i<j} k_ij(y) (|y_i - y_j| - |y_hat_i - y_hat_j|)^2: Eq. 7 of arXiv:2511.02087.

    Eq. 7 writes the same sum over ordered pairs, with a factor 1/2. Every pair of atoms is joined by a spring whose rest
    length is the target's distance. Invariant to E(d), mirror images included, and to relabelling atoms by an automorphism
    of the distance matrix, applied to prediction or target (Prop. 4.2); on the complete graph with k > 0 these are the only
    minimisers (Cor. 4.3). Dimensionless, as k is in 1 / angstrom^2.

    The gradient is finite everywhere; where two predicted atoms coincide, their spring pulls in no direction. One-atom
    samples have value and gradient zero. The springs depend on the target only, and are differentiable in it.

    Args:
        springs: k(r), a callable of target distances (angstrom), of any shape, that answers with constants of the same
            shape; see `elf.springs`. It is only asked about distances of real pairs and, as a filler elsewhere, r = 1. It
            should answer with finite constants, also at r = 0 if target atoms coincide, and none negative: a negative
            spring makes the energy unbounded below, and the target no longer a minimum.
        normalize: see `Energy`.
        edges: sum over these pairs only, in O(edges) time and memory (Sec. 4.3). Integers: (2, E), shared by all samples;
            or (B, 2, E), one list per sample, where columns (-1, -1) pad shorter lists; or, for flat input with `batch`,
            (2, E) node indices that join nodes of the same sample. Each undirected pair may stand there once. Edges that
            touch a masked atom contribute nothing.
        chunk_size: work through this many rows of the distance matrix at a time, so that memory grows as
            chunk_size * N instead of N^2, in the backward pass too (it recomputes each chunk). Same value and gradient.

    Raises:
        TypeError, ValueError: an argument is not as described; edges hold a self-loop, a duplicate or a bad index.
    """

    edges: Tensor | None

    def __init__(
        self,
        springs: Springs | None = None,
        normalize: str = "sum",
        edges: Tensor | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(normalize)
        springs = Exponential() if springs is None else springs
        if not callable(springs):
            raise TypeError(f"springs is a {type(springs).__name__}; it should be a callable of distances, see elf.springs")
        if chunk_size is not None:
            require_count("chunk_size", chunk_size)
            if edges is not None:
                raise ValueError("chunk_size is given together with edges, whose memory is already linear; give one of them")
        self.springs = springs
        self.chunk_size = chunk_size
        self.register_buffer("edges", None if edges is None else _checked_edges(edges), persistent=False)
        # Kept as a number: comparing it with N at each call costs no device synchronisation.
        self._largest_node = int(edges.max()) if edges is not None and edges.numel() and values_are_known(edges) else -1

    def _energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        if self.edges is not None:
            return self._edge_energy(prediction, target, mask)
        if self.chunk_size is None:
            return self._rows(prediction, target, mask, 0, prediction.shape[1])
        value = prediction.new_zeros(prediction.shape[0])
        for start in range(0, prediction.shape[1], self.chunk_size):
            stop = min(start + self.chunk_size, prediction.shape[1])
            value = value + checkpoint(
                self._rows, prediction, target, mask, start, stop, use_reentrant=False, preserve_rng_state=False
            )
        return value

    def _rows(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
        start: int,
        stop: int,
    ) -> Float[Tensor, " batch"]:
        """The terms with start <= i < stop and i < j: a block that begins at column `start`."""
        pairs = torch.ones(stop - start, prediction.shape[1] - start, dtype=torch.bool, device=prediction.device).triu(1)
        if mask is not None:
            pairs = pairs & mask[:, start:stop, None] & mask[:, None, start:]
        return self._stretch(
            cross_distances(prediction[:, start:stop], prediction[:, start:]),
            cross_distances(target[:, start:stop], target[:, start:]),
            pairs,
        ).sum((-2, -1))

    def _edge_energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        edges = self._edges_for(prediction, prediction.shape[1])
        if edges.ndim == 3 and edges.shape[0] != prediction.shape[0]:
            raise ValueError(
                f"edges holds {edges.shape[0]} lists, one per sample, but the batch has {prediction.shape[0]} samples"
            )
        real = edges[..., 0, :] != PADDING
        nodes = edges.clamp(min=0)
        if mask is not None:
            every = nodes.expand(prediction.shape[0], -1, -1)
            real = real & mask.gather(1, every[:, 0]) & mask.gather(1, every[:, 1])
        return self._stretch(edge_distances(prediction, nodes), edge_distances(target, nodes), real).sum(-1)

    def _flat_energy(
        self,
        prediction: Float[Tensor, "nodes dim"],
        target: Float[Tensor, "nodes dim"],
        mask: Bool[Tensor, " nodes"] | None,
        batch: Int[Tensor, " nodes"],
    ) -> Float[Tensor, " batch"]:
        if self.edges is None:
            return super()._flat_energy(prediction, target, mask, batch)
        edges = self._edges_for(prediction, prediction.shape[0])
        if edges.ndim != 2:
            raise ValueError(f"edges has shape {tuple(edges.shape)}; for flat input with batch it should be (2, E)")
        first, second = batch[edges[0]], batch[edges[1]]
        if values_are_known(batch) and not bool((same := first == second).all()):
            where = int((~same).nonzero()[0])
            raise ValueError(
                f"edges joins nodes {edges[:, where].tolist()} of samples {int(first[where])} and {int(second[where])}; "
                "an edge should stay inside its sample"
            )
        real = torch.ones_like(first, dtype=torch.bool) if mask is None else mask[edges[0]] & mask[edges[1]]
        terms = self._stretch(edge_distances(prediction, edges), edge_distances(target, edges), real)
        return terms.new_zeros(int(batch[-1]) + 1).index_add(0, first, terms)

    def _stretch(
        self, predicted: Float[Tensor, "*pairs"], rest: Float[Tensor, "*pairs"], real: Bool[Tensor, "*#pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """k(r) (r - r_hat)^2 at real pairs, zero elsewhere."""
        rest = rest.where(real, rest.new_ones(()))
        return (self._constants(rest) * (rest - predicted).square()).where(real, rest.new_zeros(()))

    def _constants(self, rest: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """k(r), with what a user's function answers checked; ours are right by construction."""
        constants = self.springs(rest)
        if isinstance(self.springs, Spring):
            return constants
        if not isinstance(constants, Tensor) or constants.shape != rest.shape or constants.dtype != rest.dtype:
            answer = f"{constants.dtype} {tuple(constants.shape)}" if isinstance(constants, Tensor) else repr(constants)
            raise ValueError(f"springs answers {answer} to distances {rest.dtype} {tuple(rest.shape)}; these should agree")
        if values_are_known(constants) and not bool((good := (constants >= 0) & constants.isfinite()).all()):
            where = tuple((~good).nonzero()[0].tolist())
            raise ValueError(
                f"springs answers {float(constants[where])} at distance {float(rest[where])}; "
                "spring constants should be finite and not negative"
            )
        return constants

    def _edges_for(self, coordinates: Tensor, nodes: int) -> Tensor:
        assert self.edges is not None
        if self.edges.device != coordinates.device:
            raise ValueError(
                f"edges is on {self.edges.device}, the coordinates on {coordinates.device}; move the energy with .to(device)"
            )
        if self._largest_node >= nodes:
            raise ValueError(f"edges mentions node {self._largest_node}; with {nodes} nodes, it should be below {nodes}")
        return self.edges

    def extra_repr(self) -> str:
        springs = "" if isinstance(self.springs, torch.nn.Module) else f"springs={self.springs}, "
        edges = "" if self.edges is None else f", edges={tuple(self.edges.shape)}"
        chunks = "" if self.chunk_size is None else f", chunk_size={self.chunk_size}"
        return f"{springs}{super().extra_repr()}{edges}{chunks}"


def _checked_edges(edges: object) -> Tensor:
    """The edge list as int64, once it is known to be a set of undirected pairs (per sample)."""
    edges = require_tensor("edges", edges)
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"edges has dtype {edges.dtype}; it should be an integer type (torch.int64)")
    if edges.ndim not in (2, 3) or edges.shape[-2] != 2:
        raise ValueError(f"edges has shape {tuple(edges.shape)}; it should be (2, E), or (B, 2, E) with a list per sample")
    edges = edges.long()
    if not values_are_known(edges) or edges.numel() == 0:
        return edges
    low, high = edges.amin(-2), edges.amax(-2)
    padding = (low == PADDING) & (high == PADDING) if edges.ndim == 3 else torch.zeros_like(low, dtype=torch.bool)
    if bool(((low < 0) & ~padding).any()):
        raise ValueError(f"edges mentions node {int(low.min())}; node indices should not be negative")
    if bool(((low == high) & ~padding).any()):
        raise ValueError(f"edges joins node {int(low[(low == high) & ~padding][0])} to itself; self-loops have no length")
    # One number per pair; after sorting, equal neighbours are duplicates.
    keys = (low * (int(high.max()) + 1) + high).where(~padding, keys_of_padding(low)).sort(-1).values
    if bool((twice := keys.diff(dim=-1) == 0).any()):
        key = int(keys[..., 1:][twice][0])
        pair = divmod(key, int(high.max()) + 1)
        raise ValueError(f"edges holds the pair {pair} more than once (both directions count); each should be there once")
    return edges


def keys_of_padding(low: Tensor) -> Tensor:
    """Distinct negative keys, which no pair has."""
    return -1 - torch.arange(low.shape[-1], device=low.device).expand_as(low)
