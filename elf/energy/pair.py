"""The quadratic pair energy: springs between all pairs of atoms, or along the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from elf._checks import require_count, require_tensor, values_are_known
from elf.energy.base import Energy
from elf.energy.springs import Exponential, Spring
from elf.geometry.distances import cross_distances, edge_distances

PADDING = -1


@final
class PairEnergy(Energy):
    """E(y_hat, y) = sum_{i<j} k_ij(y) (|y_i - y_j| - |y_hat_i - y_hat_j|)^2: Eq. 7 of arXiv:2511.02087.

    Eq. 7 writes the same sum over ordered pairs, with a factor 1/2. Every pair of atoms is joined by a spring whose
    rest length is the target's distance. The energy is invariant to E(d), mirror images included, and to relabelling
    atoms by an automorphism of the target's distance matrix (Prop. 4.2); on the complete graph with k > 0, the images
    of the target under these are its only minimisers (Cor. 4.3). Dimensionless, as k is in 1 / angstrom^2.

    Value and gradient are finite everywhere. Where two predicted atoms coincide, their spring pulls in no direction.
    One-atom samples have energy and gradient zero. The springs depend on the target alone, differentiably.

    Args:
        springs: k(r), a callable that answers target distances (angstrom) with spring constants of the same shape; None
            is `elf.springs.Exponential()`. It is asked about the distances of real pairs and, elsewhere, about r = 1 as
            a filler. It should answer with finite numbers, also at r = 0 if target atoms coincide, and none negative: a
            negative spring makes the energy unbounded below, and the target no longer a minimum.
        normalize: see `Energy`.
        edges: sum over these pairs alone, in O(edges) time and memory (Sec. 4.3). Integers: (2, E), shared by all
            samples; or (B, 2, E), one list per sample, where columns (-1, -1) pad the shorter lists; or, for flat input
            with `batch`, (2, E) node indices that join nodes of one sample. Each undirected pair stands there once.
            Edges that touch a masked atom contribute nothing.
        chunk_size: work through this many rows of the distance matrix at a time: memory grows as chunk_size * N instead
            of N^2, in the backward pass too, which computes each chunk again. Value and gradient stay the same.

    Raises:
        TypeError, ValueError: an argument is not as described; edges hold a self-loop, a duplicate or a bad index.
    """

    edges: Tensor | None

    def __init__(
        self,
        springs: Callable[[Tensor], Tensor] | None = None,
        normalize: str = "sum",
        edges: Tensor | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(normalize)
        if springs is not None and not callable(springs):
            raise TypeError(
                f"springs is a {type(springs).__name__}; it should be a callable of distances (elf.springs)"
            )
        if chunk_size is not None:
            require_count("chunk_size", chunk_size)
            if edges is not None:
                raise ValueError(
                    "chunk_size is given together with edges, whose memory is linear anyway; drop one of them"
                )
        self.springs = Exponential() if springs is None else springs
        self.chunk_size = chunk_size
        self.register_buffer("edges", None if edges is None else _undirected_pairs(edges), persistent=False)
        # A plain number: comparing it with N in each call costs no device synchronisation.
        self._largest_node = int(edges.max()) if edges is not None and edges.numel() and values_are_known(edges) else -1

    def _energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        if self.edges is not None:
            return self._edge_energy(prediction, target, mask)
        atoms = prediction.shape[1]
        if self.chunk_size is None:
            return self._row_energy(prediction, target, mask, 0, atoms)
        value = prediction.new_zeros(prediction.shape[0])
        for start in range(0, atoms, self.chunk_size):
            rows = start, min(start + self.chunk_size, atoms)
            value = value + checkpoint(
                self._row_energy, prediction, target, mask, *rows, use_reentrant=False, preserve_rng_state=False
            )
        return value

    def _row_energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
        start: int,
        stop: int,
    ) -> Float[Tensor, " batch"]:
        """The terms with start <= i < stop and j > i, which stand in the columns from `start` on."""
        rows, columns = slice(start, stop), slice(start, None)
        upper = torch.ones(stop - start, prediction.shape[1] - start, dtype=torch.bool, device=prediction.device).triu(
            1
        )
        return self._stretch(
            cross_distances(prediction[:, rows], prediction[:, columns]),
            cross_distances(target[:, rows], target[:, columns]),
            upper if mask is None else upper & mask[:, rows, None] & mask[:, None, columns],
        ).sum((-2, -1))

    def _edge_energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        samples, atoms, _ = prediction.shape
        edges = self._edges_among(atoms, prediction.device)
        if edges.ndim == 3 and edges.shape[0] != samples:
            raise ValueError(f"edges holds a list for each of {edges.shape[0]} samples, but the batch has {samples}")
        real = edges[..., 0, :] != PADDING
        nodes = edges.clamp(min=0)
        if mask is not None:
            first, second = nodes.expand(samples, -1, -1).unbind(1)
            real = real & mask.gather(1, first) & mask.gather(1, second)
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
        edges = self._edges_among(prediction.shape[0], prediction.device)
        if edges.ndim != 2:
            raise ValueError(f"edges has shape {tuple(edges.shape)}; for flat input with batch, it should be (2, E)")
        first, second = edges
        sample = batch[first]
        if values_are_known(batch) and not bool((inside := sample == batch[second]).all()):
            worst = int((~inside).nonzero()[0])
            raise ValueError(
                f"edges joins nodes {edges[:, worst].tolist()}, of samples {batch[edges[:, worst]].tolist()}; "
                "an edge should stay inside its sample"
            )
        real = torch.ones_like(first, dtype=torch.bool) if mask is None else mask[first] & mask[second]
        terms = self._stretch(edge_distances(prediction, edges), edge_distances(target, edges), real)
        return terms.new_zeros(int(batch[-1]) + 1).index_add(0, sample, terms)

    def _stretch(
        self, predicted: Float[Tensor, "*pairs"], rest: Float[Tensor, "*pairs"], real: Bool[Tensor, "*#pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """k(r) (r - r_hat)^2 at real pairs, zero elsewhere."""
        rest = rest.masked_fill(~real, 1)
        return (self._constants(rest) * (rest - predicted).square()).masked_fill(~real, 0)

    def _constants(self, rest: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """k(r); the answers of a user's function are checked, ours are right by construction."""
        constants = self.springs(rest)
        if type(self.springs).__module__ == Spring.__module__:
            return constants
        if not isinstance(constants, Tensor) or constants.shape != rest.shape or constants.dtype != rest.dtype:
            answer = f"{constants.dtype} {tuple(constants.shape)}" if isinstance(constants, Tensor) else repr(constants)
            raise ValueError(f"springs answers {rest.dtype} {tuple(rest.shape)} with {answer}; these should be alike")
        if values_are_known(constants) and not bool((good := (constants >= 0) & constants.isfinite()).all()):
            worst = tuple((~good).nonzero()[0].tolist())
            raise ValueError(
                f"springs answers distance {rest[worst].item()} with {constants[worst].item()}; "
                "spring constants should be finite and not negative"
            )
        return constants

    def _edges_among(self, nodes: int, device: torch.device) -> Tensor:
        assert self.edges is not None
        if self.edges.device != device:
            raise ValueError(
                f"edges is on {self.edges.device}, the coordinates on {device}; move the energy there by .to"
            )
        if self._largest_node >= nodes:
            raise ValueError(
                f"edges mentions node {self._largest_node}; among {nodes} nodes it should be below {nodes}"
            )
        return self.edges

    @override
    def extra_repr(self) -> str:
        springs = "" if isinstance(self.springs, torch.nn.Module) else f"springs={self.springs}, "
        edges = "" if self.edges is None else f", edges={tuple(self.edges.shape)}"
        chunks = "" if self.chunk_size is None else f", chunk_size={self.chunk_size}"
        return f"{springs}{super().extra_repr()}{edges}{chunks}"


def _undirected_pairs(edges: object) -> Int[Tensor, "*samples 2 edges"]:
    """The edge list as int64, once it is known to be a set of undirected pairs in each sample."""
    edges = require_tensor("edges", edges)
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"edges has dtype {edges.dtype}; it should be an integer type (torch.int64)")
    if edges.ndim not in (2, 3) or edges.shape[-2] != 2:
        raise ValueError(f"edges has shape {tuple(edges.shape)}; it should be (2, E), or (B, 2, E), a list per sample")
    edges = edges.long()
    if not values_are_known(edges) or edges.numel() == 0:
        return edges
    low, high = edges.amin(-2), edges.amax(-2)
    padding = (high == PADDING) & (low == PADDING) & (edges.ndim == 3)
    if bool(((low < 0) & ~padding).any()):
        raise ValueError(f"edges mentions node {int(low[~padding].min())}; node indices should not be negative")
    if bool((loops := (low == high) & ~padding).any()):
        raise ValueError(f"edges joins node {int(low[loops][0])} to itself; a self-loop has no length")
    # One number per pair: equal neighbours after sorting are duplicates. Padding gets numbers that no pair has.
    base = int(high.max()) + 1
    fillers = -1 - torch.arange(edges.shape[-1], device=edges.device).expand_as(low)
    keys = (low * base + high).where(~padding, fillers).sort(-1).values
    if bool((twice := keys.diff() == 0).any()):
        pair = divmod(int(keys[..., 1:][twice][0]), base)
        raise ValueError(f"edges holds the pair {pair} more than once, in one or both directions; once is enough")
    return edges
