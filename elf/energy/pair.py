"""The quadratic pair energy: springs between all pairs of atoms, or along the edges of a graph."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from elf.checks import require_count, transforms_are_active
from elf.energy import one_pass
from elf.energy.base import Call, Coordinates, Edges, Energy, Found, Mask, NodeMask, Nodes, Values
from elf.energy.known_gradient import with_known_gradient
from elf.geometry.distances import checked_cell, cross_distances, edge_distances
from elf.geometry.graphs import edge_lists, joined_lists
from elf.springs.constants import checked_constants
from elf.springs.laws import Exponential, SpringFunction, Springs, is_trusted, spring_constants


@final
class PairEnergy(Energy):
    """E(y_hat, y) = sum_{i<j} k_ij(y) (|y_i - y_j| - |y_hat_i - y_hat_j|)^2: Eq. 7 of arXiv:2511.02087.

    Eq. 7 writes the same sum over ordered pairs, with a factor 1/2. Every pair of atoms is joined by a spring whose
    rest length is the target's distance. The energy is invariant to E(d), mirror images included, and to relabelling
    atoms by an automorphism of the target's distance matrix (Prop. 4.2); on the complete graph with k > 0, the images
    of the target under these are its only minimisers (Cor. 4.3). Dimensionless, as k is in 1 / angstrom^2.

    Value and gradient are finite everywhere. Where two predicted atoms coincide, their spring pulls in no direction:
    a prediction whose atoms all coincide has no gradient at all, and one that lies flat has none out of its plane, so
    that descent from there never leaves it. One-atom samples have energy and gradient zero. The springs depend on the
    target alone, differentiably.

    Value and gradient to the prediction come from one pass over the pairs (`elf.energy.one_pass`) without any N x N
    array; where more is asked for (see `elf.energy.known_gradient`), autograd works through the formula as it stands
    (`all_pairs` and `along_edges` in this file), and its N x N arrays.

    A call may say more, by keyword:

    - k: the spring constants themselves, instead of springs (`elf.springs.by_bonds` and others), in the precision of
      the coordinates. (N, N) for all samples, or (B, N, N), also for flat input, whose samples are then N nodes or
      fewer, the largest of them N; with edges, (E,) or, for dense input, (B, E). Symmetric, finite, not negative; what
      stands on the diagonal, or at masked atoms in (B, N, N), does not count. Gradients reach it.
    - edges: as below, for this call, if the energy has none of its own.
    - cell: periodic space. Distances are those to the nearest image, in prediction and target: (D,) lengths of a box,
      or (D, D), whose rows are the vectors of a lattice. These should be reduced, none of them made shorter by adding
      or subtracting others, as then the 3^D images around are enough. The energy is continuous, its gradient not, where
      two images are equally near. Autograd's formula serves, not the pass over pairs.

    Args:
        springs: k(r), a callable that answers target distances (angstrom) with spring constants, each distance for
            itself: it is given distances in portions of any shape. None is `elf.springs.Exponential()`. It is asked
            about the distances of real pairs and, elsewhere, about r = 1 as a filler. It should answer with finite
            numbers, also at r = 0 if target atoms coincide, and none negative: a negative spring makes the energy
            unbounded below, and the target no longer a minimum.
        normalize, nonfinite: see `Energy`.
        edges: sum over these pairs alone, in O(edges) time and memory (Sec. 4.3). Integers: (2, E), shared by all
            samples; or (B, 2, E), one list per sample, where columns (-1, -1) pad the shorter lists; or, for flat input
            with `batch`, (2, E) node indices that join nodes of one sample. Each undirected pair stands there once: of
            both directions (PyG's `edge_index`), `elf.geometry.undirected` keeps one. Edges that touch a masked atom
            contribute nothing.
        chunk_size: where the formula as it stands is needed, work through this many rows of the distance matrix at a
            time: memory grows as chunk_size * N instead of N^2, in the backward pass too, which computes each chunk
            again. Value and gradient stay the same.

    Raises:
        TypeError, ValueError: an argument is not as described; edges hold a self-loop, a duplicate or a bad index.
    """

    takes, sees_masked = frozenset({"edges", "k", "cell"}), False
    edges: Tensor | None

    def __init__(
        self,
        springs: SpringFunction | None = None,
        normalize: str = "sum",
        edges: Tensor | None = None,
        chunk_size: int | None = None,
        nonfinite: str = "error",
    ) -> None:
        super().__init__(normalize, nonfinite)
        if springs is not None and not callable(springs):
            raise TypeError(
                f"springs is a {type(springs).__name__}; it should be a callable of distances (elf.springs)"
            )
        if chunk_size is not None and edges is not None:
            raise ValueError("chunk_size is given together with edges, whose memory is linear anyway; drop one of them")
        self.springs = Exponential() if springs is None else springs
        self.chunk_size = None if chunk_size is None else require_count("chunk_size", chunk_size)
        # A plain number: looking at it in each call costs no device synchronisation.
        edges, self._largest_node = (None, -1) if edges is None else edge_lists(edges)
        self.register_buffer("edges", edges, persistent=False)

    def _energy(
        self, prediction: Tensor, target: Tensor, mask: Tensor | None, *flat: Any, **given: Tensor
    ) -> Float[Tensor, " samples"]:
        batch, samples = flat or (None, prediction.shape[0])
        call = Call(prediction, target, mask, batch, samples, given)
        return self._pairs(call).energy(prediction, target, mask)

    @override
    def _flat_energy(self, *configuration: Any, **given: Tensor) -> Float[Tensor, " samples"]:
        if self.edges is None and "edges" not in given:
            return super()._flat_energy(*configuration, **given)
        return self._energy(*configuration, **given)

    @override
    def _pairs_of(self, call: Call) -> Tensor | int:
        if self.edges is None and "edges" not in call.options:
            return super()._pairs_of(call)
        return self._pairs(call).counts(call.mask)

    def _pairs(self, call: Call) -> _Pairs:
        """What a call sums over."""
        if self.edges is None and not call.options:
            return _Pairs(self.springs, self.chunk_size)
        prediction, _, mask, batch, samples, given = call
        edges, k, cell = map(given.get, ("edges", "k", "cell"))
        cell = None if cell is None else checked_cell(cell, prediction)
        if self.edges is None and edges is None:
            atoms = prediction.shape[-2]
            shapes = [(atoms, atoms), (samples, atoms, atoms)]
            springs = self.springs if k is None else checked_constants(k, prediction, shapes, mask)
            return _Pairs(springs, self.chunk_size, cell=cell)
        if self.edges is not None and edges is not None:
            raise ValueError("edges is given, but the energy has edges of its own; drop one of them")
        own, largest = edge_lists(edges) if self.edges is None else (self.edges, self._largest_node)
        edges, lists = joined_lists(own, largest, prediction, samples, batch)
        if k is None:
            return _Pairs(self.springs, None, edges, samples, batch, cell)
        real = one_pass.real_edges(edges, mask).view(lists, -1)
        k = checked_constants(k, prediction, [tuple(real.shape[1:]), tuple(real.shape)], real)
        return _Pairs(k.expand(lists, -1).flatten(), None, edges, samples, batch, cell)

    @override
    def extra_repr(self) -> str:
        springs = "" if isinstance(self.springs, torch.nn.Module) else f"springs={self.springs}, "
        edges = "" if self.edges is None else f", edges={tuple(self.edges.shape)}"
        chunks = "" if self.chunk_size is None else f", chunk_size={self.chunk_size}"
        return f"{springs}{super().extra_repr()}{edges}{chunks}"


def all_pairs(
    prediction: Coordinates,
    target: Coordinates,
    mask: Mask,
    springs: Springs,
    start: int,
    stop: int,
    cell: Tensor | None = None,
) -> Values:
    """Eq. 7 as it stands, for the atoms start <= i < stop and j > i; with 0 and N, all of it.

    Autograd differentiates it as often, and in whatever, as it is asked to.
    """
    rows, columns = slice(start, stop), slice(start, None)  # n = stop - start rows, m = N - start columns
    upper = torch.ones(stop - start, prediction.shape[1] - start, dtype=torch.bool, device=prediction.device)
    real = upper.triu(1)  # (n, m): each pair once
    if mask is not None:
        real = real & mask[:, rows, None] & mask[:, None, columns]  # (B, n, m)
    r_hat = cross_distances(prediction[:, rows], prediction[:, columns], cell)  # (B, n, m)
    r = cross_distances(target[:, rows], target[:, columns], cell)  # (B, n, m)
    if isinstance(springs, Tensor):  # with equal gradients to k_ij and k_ji
        springs = (springs[..., rows, columns] + springs[..., columns, rows].mT) / 2
    return _stretches(r_hat, r, real, springs).sum((-2, -1))  # (B,)


def along_edges(
    prediction: Nodes, target: Nodes, mask: NodeMask, springs: Springs, edges: Edges, cell: Tensor | None = None
) -> Float[Tensor, " edges"]:
    """The terms of Eq. 7 along edges of flat nodes; an edge from a node to itself is padding."""
    r_hat = edge_distances(prediction.flatten(0, -2), edges, cell)  # (E,)
    r = edge_distances(target.flatten(0, -2), edges, cell)  # (E,)
    return _stretches(r_hat, r, one_pass.real_edges(edges, mask), springs)  # (E,)


def _stretches(
    r_hat: Float[Tensor, "*pairs"],
    r: Float[Tensor, "*pairs"],
    real: Bool[Tensor, "*#pairs"],
    springs: SpringFunction | Float[Tensor, "*#pairs"],
) -> Float[Tensor, "*pairs"]:
    """k (r - r_hat)^2 at real pairs, zero elsewhere; k as given, or k(r)."""
    r = r.masked_fill(~real, 1)
    k = springs if isinstance(springs, Tensor) else spring_constants(springs, r)
    return (k * (r - r_hat).square()).masked_fill(~real, 0)


class _Pairs(NamedTuple):
    """What Eq. 7 is summed over; for autograd, and in one pass."""

    springs: Springs
    """k(r), or k: (N, N), (B, N, N), or (E,), zero where nothing counts."""
    chunk_size: int | None = None
    edges: Edges | None = None
    """Of nodes as if they were flat, (nodes, dim); None means all pairs of each sample."""
    samples: int = 0
    batch: Int[Tensor, " nodes"] | None = None
    """The sample of each node; None where all samples have equally many nodes, and equally many edges, in order."""
    cell: Tensor | None = None

    def energy(self, prediction: Tensor, target: Tensor, mask: Tensor | None) -> Float[Tensor, " samples"]:
        # What a function answers tells whether it refers to tensors that learn.
        answer: object = self.springs
        if not isinstance(self.springs, Tensor):
            answer = None if is_trusted(self.springs) else self.springs(target.new_ones(1))
        if self.cell is not None:
            return self.formula(prediction, target, mask)
        both = self.formula, self.one_pass
        return with_known_gradient(*both, prediction, target, mask, batch=self.batch, depends_on=[answer])

    def counts(self, mask: Tensor | None) -> Int[Tensor, " samples"]:
        """How many edges of each sample count."""
        assert self.edges is not None
        return self._summed(one_pass.real_edges(self.edges, mask).long())

    def formula(self, prediction: Tensor, target: Tensor, mask: Tensor | None) -> Float[Tensor, " samples"]:
        if self.edges is not None:
            return self._summed(along_edges(prediction, target, mask, self.springs, self.edges, self.cell))
        samples, atoms, _ = prediction.shape
        if self.chunk_size is None or transforms_are_active():
            return all_pairs(prediction, target, mask, self.springs, 0, atoms, self.cell)
        value = prediction.new_zeros(samples)
        for start in range(0, atoms, self.chunk_size):
            arguments = prediction, target, mask, self.springs, start, min(start + self.chunk_size, atoms), self.cell
            value = value + checkpoint(all_pairs, *arguments, use_reentrant=False, preserve_rng_state=False)
        return value

    def one_pass(self, prediction: Tensor, target: Tensor, mask: Tensor | None, gradient: bool) -> Found:
        if self.edges is None:
            tile = 0 if self.chunk_size is None else self.chunk_size * prediction.shape[1]
            return one_pass.all_pairs(prediction, target, mask, self.springs, gradient, tile=tile)
        terms, forces = one_pass.along_edges(prediction, target, mask, self.edges, self.springs, gradient)
        return self._summed(terms), forces

    def _summed(self, terms: Shaped[Tensor, " edges"]) -> Shaped[Tensor, " samples"]:
        if self.batch is None or self.edges is None:
            return terms.view(self.samples, -1).sum(1)
        return terms.new_zeros(self.samples).index_add(0, self.batch[self.edges[0]], terms)
