"""The contract of an energy: `energy(prediction, target, mask) -> one value per sample`; and sums of energies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from elf.checks import (
    LARGEST,
    require_alike,
    require_batch_index,
    require_coordinates,
    require_finite,
    require_mask,
    require_number,
    require_occupied,
    require_one_of,
    values_are_known,
    widen,
)

Coordinates = Float[Tensor, "batch atoms dim"]
Mask = Bool[Tensor, "batch atoms"] | None
Values = Float[Tensor, " batch"]
"""What energies of dense samples take and give."""
Nodes = Float[Tensor, "*nodes dim"]
NodeMask = Bool[Tensor, "*nodes"] | None
Edges = Int[Tensor, "2 edges"]
"""What those along edges take: samples one after the other, or one beside the other."""
Found = tuple[Tensor, Tensor | None]
"""Values, and their gradient to the prediction if it was asked for; of dense or of flat samples."""
NORMALIZATIONS = ("sum", "atoms", "pairs")
OPTIONS = {"edges": "edges", "k": "spring constants", "cell": "periodic distances"}
"""What only some energies take in a call, and what the others lack."""


class Call(NamedTuple):
    """What an energy is asked, once it is known to be good."""

    prediction: Tensor
    target: Tensor
    mask: Tensor | None
    batch: Tensor | None
    samples: int
    options: dict[str, Tensor]

    def atoms(self) -> Tensor | int:
        """The number of real atoms in each sample, (B,); where neither mask nor batch is given, N."""
        if self.mask is None and self.batch is None:
            return self.prediction.shape[1]
        real = torch.ones_like(self.prediction[..., 0], dtype=torch.bool) if self.mask is None else self.mask
        return _summed(real, self.batch, self.samples)

    def without_bad_samples(self) -> tuple[Call, Tensor]:
        """The same with zeros for samples that have a bad coordinate or no real atom; and NaN for these, (B,).

        The NaN hang on the prediction, whose gradient gets them.
        """
        prediction, target, mask, batch, samples, _ = self
        largest = LARGEST[prediction.dtype]
        good = ((prediction.abs() <= largest) & (target.abs() <= largest)).all(-1)
        bad = _summed(~good, batch, samples) > 0
        if mask is not None:
            bad = bad | (_summed(mask, batch, samples) == 0)
        bad = bad.unsqueeze(1).expand_as(good) if batch is None else bad[batch]
        nothing = prediction * torch.zeros_like(prediction).masked_fill(bad.unsqueeze(-1), torch.nan)
        prediction, target = (x.masked_fill(bad.unsqueeze(-1), 0) for x in (prediction, target))
        clean = self._replace(prediction=prediction, target=target, mask=None if mask is None else mask | bad)
        return clean, _summed(nothing.sum(-1), batch, samples)


class Energy(nn.Module, ABC):
    """E(y_hat, y) of a predicted configuration y_hat around a target y: Eq. 4 and 5 of arXiv:2511.02087, T absorbed.

    A subclass says what the energy of dense samples is (`_energy`); this class checks the arguments, hides what is
    masked, unpacks flat batches, keeps the arithmetic in float32 or better, and normalises. Energies hold no state: no
    parameters, and buffers (an edge list) that stay out of `state_dict`. They add and scale, and each keeps its own
    `normalize`: `PairEnergy() + 0.1 * HeightEnergy()` is an energy like any other, and so is `sum([...])`.

    Args:
        normalize: "sum" leaves the sum over atoms or pairs as it is; "atoms" divides it by the number of real atoms,
            "pairs" by the number of their pairs (with edges: of edges that count), or by one where there is none.
        nonfinite: "error" refuses coordinates that are not finite. "nan" makes value and gradient of such a sample NaN,
            as those of a sample without a real atom, and leaves the other samples alone: gradient scalers skip the
            step. Coordinates and mask are then not looked at, which spares dense input the device synchronisation.
    """

    takes: frozenset[str] = frozenset()
    """Which of `OPTIONS` the subclass's `_energy` takes, by keyword."""
    sees_masked = True
    """False if `_energy` leaves out masked atoms itself, wherever they are: it may then be given them as they stand."""
    __array_ufunc__ = None  # NumPy's numbers leave their product with an energy to the energy

    def __init__(self, normalize: str = "sum", nonfinite: str = "error") -> None:
        super().__init__()
        require_one_of("normalize", normalize, NORMALIZATIONS)
        require_one_of("nonfinite", nonfinite, ("error", "nan"))
        self.normalize, self.nonfinite = normalize, nonfinite

    # Plain `Tensor` annotations on purpose: the checks below are the ones that speak to the user.
    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        *unnamed: object,
        batch: Tensor | None = None,
        num_samples: int | None = None,
        edges: Tensor | None = None,
        k: Tensor | None = None,
        cell: Tensor | None = None,
    ) -> Tensor:
        """The energy of each sample, not reduced over the batch.

        Args:
            prediction: coordinates y_hat, (B, N, D) in angstrom; or flat, (sum N, D), together with `batch`.
            target: coordinates y; same shape, device and dtype.
            mask: bool, (B, N), or flat (sum N,); True marks a real atom, None means that all are. What stands at
                masked atoms (NaN included) influences neither value nor gradient.
            batch: for flat input, the sample of each node, (sum N,) integers: sorted, from 0, without gaps.
            num_samples: how many samples `batch` should hold. Without it, nobody can tell that the last ones are empty:
                there is then no value for them.
            edges, k, cell: which pairs count, their spring constants, the periods of space: see `PairEnergy`. A sum
                hands edges and k to the parts that have a use for them; all of its parts should have one for a cell.

        Returns:
            (B,) in the inputs' dtype. float16 and bfloat16, also under autocast, are computed and returned in float32.

        Raises:
            TypeError: an argument is not a tensor, coordinates are not floating point, the mask is not bool.
            ValueError: the energy has no use for an option; shapes, dtypes or devices differ; a real atom has a NaN or
                infinite coordinate, or one whose square overflows (beyond 1e15 in float32, 1e150 in float64); a sample
                has no real atom; `batch` is unsorted. Checks of values (not of shapes) are left out for meta and fake
                tensors, under torch.compile, torch.export and torch.vmap, and while a CUDA graph is captured.
        """
        if unnamed:
            raise TypeError("an argument after the mask has no name; it should have one: batch=... tells samples apart")
        given = {name: x for name, x in (("edges", edges), ("k", k), ("cell", cell)) if x is not None}
        for name in given:
            if (who := self.lacks(name)) is not None:
                raise ValueError(f"{name} is given; {who} has no {OPTIONS[name]}")
        mask, finite = _check(prediction, target, mask, batch, num_samples, look=self.nonfinite == "error")
        prediction, target = widen(prediction), widen(target)
        if mask is not None and (self.sees_masked or not finite):
            hidden = ~mask.unsqueeze(-1)
            prediction, target = prediction.masked_fill(hidden, 0), target.masked_fill(hidden, 0)
        samples = prediction.shape[0]
        if batch is not None:
            batch = batch.long()
            samples = int(batch[-1]) + 1 if num_samples is None else int(num_samples)
        call = Call(prediction, target, mask, batch, samples, given)
        with _full_precision(prediction):
            if self.nonfinite == "error":
                return self._normalised(call)
            call, nothing = call.without_bad_samples()
            return self._normalised(call) + nothing

    if TYPE_CHECKING:
        __call__ = forward

    @abstractmethod
    def _energy(self, prediction: Coordinates, target: Coordinates, mask: Mask) -> Values:
        """The sum over atoms or pairs, not normalised. Inputs are valid, float32 or float64, zero at masked atoms."""

    def _flat_energy(
        self,
        prediction: Float[Tensor, "nodes dim"],
        target: Float[Tensor, "nodes dim"],
        mask: Bool[Tensor, " nodes"] | None,
        batch: Int[Tensor, " nodes"],
        samples: int,
        /,
        **given: Tensor,
    ) -> Float[Tensor, " {samples}"]:
        """The same for flat samples: pads them and calls `_energy`, unless a subclass knows a leaner way."""
        counts = batch.bincount(minlength=samples)
        starts, width = counts.cumsum(0) - counts, int(counts.max())
        slots = batch * width + torch.arange(batch.shape[0], device=batch.device) - starts[batch]

        def pad(x: Tensor) -> Tensor:
            empty = x.new_zeros(samples * width, *x.shape[1:])
            return empty.index_copy(0, slots, x).unflatten(0, (samples, width))

        real = torch.ones_like(batch, dtype=torch.bool) if mask is None else mask
        return self._energy(pad(prediction), pad(target), pad(real), **given)

    def _normalised(self, call: Call) -> Tensor:
        if call.batch is None:
            value = self._energy(*call[:3], **call.options)
        else:
            value = self._flat_energy(*call[:3], call.batch, call.samples, **call.options)
        if self.normalize == "sum":
            return value
        if self.normalize == "atoms":
            return value / call.atoms()
        pairs = self._pairs_of(call)
        return value / (pairs + (pairs == 0))

    def _pairs_of(self, call: Call) -> Tensor | int:
        """The number of pairs that count in each sample."""
        atoms = call.atoms()
        return atoms * (atoms - 1) // 2

    def lacks(self, option: str) -> str | None:
        """The name of the energy that has no use for this option, if there is one."""
        return None if option in self.takes else type(self).__name__

    def __add__(self, other: Energy | float) -> Energy:
        if isinstance(other, int | float) and other == 0:  # what `sum` starts with
            return self
        if not isinstance(other, Energy):
            raise TypeError(f"an energy is added to {other!r}; it should be another energy")
        return Sum([*_terms(self), *_terms(other)])

    __radd__ = __add__

    def __mul__(self, weight: float) -> Sum:
        number = require_number("weight", weight)
        if not 0 <= number < torch.inf:
            raise ValueError(f"weight is {weight!r}; it should be finite and not negative, for a minimum to stay one")
        return Sum([(number * inner, part) for inner, part in _terms(self)])

    __rmul__ = __mul__

    @override
    def extra_repr(self) -> str:
        nonfinite = "" if self.nonfinite == "error" else f", nonfinite={self.nonfinite!r}"
        return f"normalize={self.normalize!r}{nonfinite}"


@final
class Sum(Energy):
    """w_1 E_1 + w_2 E_2 + ...: what adding and scaling energies makes. Weights are not negative.

    Arguments are checked once, for all parts. Each part is normalised as it says itself.

    Raises:
        ValueError: the parts do not agree on `nonfinite`.
    """

    def __init__(self, terms: Sequence[tuple[float, Energy]]) -> None:
        weights, parts = zip(*terms, strict=True)
        if len(ways := sorted({part.nonfinite for part in parts})) > 1:
            raise ValueError(f"nonfinite is {ways[0]!r} in one part and {ways[1]!r} in another; it should be the same")
        super().__init__(nonfinite=ways[0])
        self.weights, self.parts = weights, nn.ModuleList(parts)
        self.sees_masked = any(part.sees_masked for part in parts)

    def terms(self) -> list[tuple[float, Energy]]:
        """Weights and parts."""
        return list(zip(self.weights, self.parts, strict=True))  # type: ignore[arg-type]  # these modules are energies

    def _energy(self, prediction: Tensor, target: Tensor, mask: Tensor | None, *flat: Any, **given: Tensor) -> Tensor:
        batch, samples = flat or (None, prediction.shape[0])
        values = []
        for weight, part in self.terms():
            used = {name: x for name, x in given.items() if part.lacks(name) is None}
            value = part._normalised(Call(prediction, target, mask, batch, samples, used))
            values.append(value if weight == 1 else weight * value)
        return torch.stack(values).sum(0)

    _flat_energy = _energy  # type: ignore[assignment]  # an option might be called prediction, says mypy

    @override
    def lacks(self, option: str) -> str | None:
        lacking = [who for _, part in self.terms() if (who := part.lacks(option)) is not None]
        return lacking[0] if lacking and (option == "cell" or len(lacking) == len(self.parts)) else None

    @override
    def __repr__(self) -> str:
        return " + ".join(f"{'' if weight == 1 else f'{weight:g} * '}{part!r}" for weight, part in self.terms())


def _terms(energy: Energy) -> list[tuple[float, Energy]]:
    return energy.terms() if isinstance(energy, Sum) and energy.normalize == "sum" else [(1.0, energy)]


def _check(
    prediction: Tensor, target: Tensor, mask: Tensor | None, batch: Tensor | None, num_samples: int | None, look: bool
) -> tuple[Tensor | None, bool]:
    """The mask, once all arguments are known to be good; or None, if it is known to hide nothing. And whether all
    coordinates are known to be finite, what is masked included.

    Without `look`, numbers of coordinates and mask are left alone.
    """
    ndim = 3 if batch is None else 2
    require_coordinates("prediction", prediction, ndim)
    require_coordinates("target", target, ndim)
    require_alike("prediction", prediction, "target", target)
    if mask is not None:
        require_mask(mask, prediction, "(batch, atoms)" if batch is None else "(nodes,)")
    require_batch_index(batch, prediction, num_samples)
    if not look or not values_are_known(prediction, target, mask):
        return mask, False
    finite = require_finite("prediction", prediction, mask) & require_finite("target", target, mask)
    if mask is None or bool(mask.all()):
        return None, finite
    require_occupied(mask if batch is None else _summed(mask, batch, int(batch[-1]) + 1).unsqueeze(1) > 0)
    return mask, finite


def _summed(nodes: Tensor, batch: Tensor | None, samples: int) -> Tensor:
    """Sums over the nodes of each sample, (B, N) or (nodes,); of bool values, how many are true."""
    nodes = nodes.long() if nodes.dtype == torch.bool else nodes
    return nodes.sum(1) if batch is None else nodes.new_zeros(samples).index_add(0, batch.long(), nodes)


def _full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Inside an autocast region matrix products would fall back to half precision: switch that off."""
    device_type = "cpu" if like.is_cpu else like.device.type  # to ask for the name takes time
    available = like.is_cpu or torch.amp.autocast_mode.is_autocast_available(device_type)
    if available and not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type if available else "cpu", enabled=False)
