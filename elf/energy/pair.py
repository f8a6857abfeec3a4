"""The quadratic pair energy: springs between all pairs of atoms, or along the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from elf.checks import require_count, values_are_known
from elf.energy.base import Energy
from elf.energy.closed_form import ValueAndGradient, applies, closed_form
from elf.energy.dense import value_and_gradient
from elf.energy.edges import undirected_pairs
from elf.energy.sparse import terms_and_gradient
from elf.energy.springs import Exponential, Spring
from elf.geometry.distances import cross_distances, edge_distances


@final
class PairEnergy(Energy):
    """E(y_hat, y) = sum_{i<j} k_ij(y) (|y_i - y_j| - |y_hat_i - y_hat_j|)^2: Eq. 7 of arXiv:2511.02087.

    Eq. 7 writes the same sum over ordered pairs, with a factor 1/2. Every pair of atoms is joined by a spring whose
    rest length is the target's distance. The energy is invariant to E(d), mirror images included, and to relabelling
    atoms by an automorphism of the target's distance matrix (Prop. 4.2); on the complete graph with k > 0, the images
    of the target under these are its only minimisers (Cor. 4.3). Dimensionless, as k is in 1 / angstrom^2.

    Value and gradient are finite everywhere. Where two predicted atoms coincide, their spring pulls in no direction.
    One-atom samples have energy and gradient zero. The springs depend on the target alone, differentiably.

    Value and gradient to the prediction come from one pass over the pairs (`elf.energy.dense`, `elf.energy.sparse`),
    which keeps (B, N, D) for the backward pass and needs no N x N array. Where more is asked for (derivatives of the
    gradient, gradients to the target or to parameters of the springs, torch.func, torch.compile), autograd works
    through the plain formula instead, and its N x N arrays.

    Args:
        springs: k(r), a callable that answers target distances (angstrom) with spring constants, each distance for
            itself: it is given distances in portions of any shape. None is `elf.springs.Exponential()`. It is asked
            about the distances of real pairs and, elsewhere, about r = 1 as a filler. It should answer with finite
            numbers, also at r = 0 if target atoms coincide, and none negative: a negative spring makes the energy
            unbounded below, and the target no longer a minimum.
        normalize: see `Energy`.
        edges: sum over these pairs alone, in O(edges) time and memory (Sec. 4.3). Integers: (2, E), shared by all
            samples; or (B, 2, E), one list per sample, where columns (-1, -1) pad the shorter lists; or, for flat input
            with `batch`, (2, E) node indices that join nodes of one sample. Each undirected pair stands there once.
            Edges that touch a masked atom contribute nothing.
        chunk_size: where the plain formula is needed, work through this many rows of the distance matrix at a time:
            memory grows as chunk_size * N instead of N^2, in the backward pass too, which computes each chunk again.
            Value and gradient stay the same.

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
        self.register_buffer("edges", None if edges is None else undirected_pairs(edges), persistent=False)
        # Plain numbers: looking at them in each call costs no device synchronisation.
        self._largest_node = int(edges.max()) if edges is not None and edges.numel() and values_are_known(edges) else -1
        self._may_be_padded = edges is not None and edges.ndim == 3

    def _energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        if self.edges is not None:
            return self._edge_energy(prediction, target, mask)
        if self._closed_form_applies(prediction, target):
            return closed_form(prediction, target, mask, self._one_pass, self._plain_energy)
        return self._plain_energy(prediction, target, mask)

    def _closed_form_applies(self, prediction: Tensor, target: Tensor) -> bool:
        """Springs that learn (parameters of a module, tensors that a function refers to) need autograd, too."""
        if not applies(prediction, target):
            return False
        if self._ours or not torch.is_grad_enabled():
            return True
        return not getattr(self.springs(target.new_ones(1)), "requires_grad", False)

    @property
    def _ours(self) -> bool:
        """Whether the springs are those of this package, which need no filler and give no bad answers."""
        return type(self.springs).__module__ == Spring.__module__

    def _one_pass(self, prediction: Tensor, target: Tensor, mask: Tensor | None, gradient: bool) -> ValueAndGradient:
        tile = None if self.chunk_size is None else self.chunk_size * prediction.shape[1]
        return value_and_gradient(
            prediction, target, mask, gradient, constants=self._constants, filler=not self._ours, tile=tile
        )

    def _plain_energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        """Eq. 7 as it stands, for autograd to differentiate as often, and in whatever, as it is asked to."""
        atoms = prediction.shape[1]
        # torch.func knows no checkpoints.
        if self.chunk_size is None or torch._C._are_functorch_transforms_active():
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
        if self._may_be_padded:
            edges = edges.clamp(min=0)  # (-1, -1) becomes the loop (0, 0), which has no length to stretch
        if samples > 1:
            first_nodes = atoms * torch.arange(samples, device=edges.device)
            edges = (edges.expand(samples, -1, -1) + first_nodes[:, None, None]).movedim(1, 0)
        return self._sum_over_edges(prediction, target, mask, edges.reshape(2, -1), samples, None)

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
        return self._sum_over_edges(prediction, target, mask, edges, int(batch[-1]) + 1, batch)

    def _sum_over_edges(
        self,
        prediction: Float[Tensor, "*nodes dim"],
        target: Float[Tensor, "*nodes dim"],
        mask: Bool[Tensor, "*nodes"] | None,
        edges: Int[Tensor, "2 edges"],
        samples: int,
        batch: Int[Tensor, " nodes"] | None,
    ) -> Float[Tensor, " samples"]:
        """Edges join flat node indices. Without `batch`, nodes are (batch, atoms), and every sample has equally many
        edges, in order."""
        first, second = edges

        def flat(x: Any) -> Any:
            return x if x is None or batch is not None else x.flatten(0, 1)

        def total(terms: Tensor) -> Tensor:
            if batch is None:
                return terms.view(samples, -1).sum(1)
            return terms.new_zeros(samples).index_add(0, batch[first], terms)

        def plain(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
            prediction, target, mask = flat(prediction), flat(target), flat(mask)
            real = first != second
            if mask is not None:
                real = real & mask[first] & mask[second]
            return total(self._stretch(edge_distances(prediction, edges), edge_distances(target, edges), real))

        def one_pass(prediction: Tensor, target: Tensor, mask: Tensor | None, gradient: bool) -> ValueAndGradient:
            terms, force = terms_and_gradient(
                flat(prediction),
                flat(target),
                flat(mask),
                first,
                second,
                gradient,
                constants=self._constants,
                filler=not self._ours,
            )
            return ValueAndGradient(total(terms), None if force is None else force.view_as(prediction))

        if self._closed_form_applies(prediction, target):
            return closed_form(prediction, target, mask, one_pass, plain, batch)
        return plain(prediction, target, mask)

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
        if not values_are_known(constants):
            return constants
        smallest, largest = constants.detach().aminmax()
        if not 0 <= float(smallest) <= float(largest) < inf:
            good = (constants >= 0) & constants.isfinite()
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
