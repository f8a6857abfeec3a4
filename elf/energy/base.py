"""The contract of an energy: `energy(prediction, target, mask) -> one value per sample`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from elf.checks import (
    require_alike,
    require_coordinates,
    require_count,
    require_finite,
    require_mask,
    require_occupied,
    require_one_of,
    require_tensor,
    values_are_known,
    widen,
)

NORMALIZATIONS = ("sum", "atoms")


class Energy(nn.Module, ABC):
    """E(y_hat, y) of a predicted configuration y_hat around a target y: Eq. 4 and 5 of arXiv:2511.02087, T absorbed.

    A subclass says what the energy of dense samples is (`_energy`); this class checks the arguments, hides what is
    masked, unpacks flat batches, keeps the arithmetic in float32 or better, and normalises. Energies hold no state: no
    parameters, and buffers (an edge list) that stay out of `state_dict`.

    Args:
        normalize: "sum" leaves the sum over atoms or pairs as it is; "atoms" divides it by the number of real atoms.
    """

    def __init__(self, normalize: str = "sum") -> None:
        super().__init__()
        require_one_of("normalize", normalize, NORMALIZATIONS)
        self.normalize = normalize

    # Plain `Tensor` annotations on purpose: the checks below are the ones that speak to the user.
    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        *,
        batch: Tensor | None = None,
        num_samples: int | None = None,
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

        Returns:
            (B,) in the inputs' dtype. float16 and bfloat16, also under autocast, are computed and returned in float32.

        Raises:
            TypeError: an argument is not a tensor, coordinates are not floating point, the mask is not bool.
            ValueError: shapes, dtypes or devices differ; a real atom has a NaN or infinite coordinate, or one whose
                square overflows (beyond 1e15 in float32, 1e150 in float64); a sample has no atom, or no real one;
                `batch` is unsorted. Checks of values (not of shapes) are left out for meta and fake tensors, under
                torch.compile, torch.export and torch.vmap, and while a CUDA graph is captured.
        """
        mask = _check(prediction, target, mask, batch, num_samples)
        prediction, target = widen(prediction), widen(target)
        if mask is not None:
            hidden = ~mask.unsqueeze(-1)
            prediction, target = prediction.masked_fill(hidden, 0), target.masked_fill(hidden, 0)
        with _full_precision(prediction.device.type):
            if batch is None:
                value = self._energy(prediction, target, mask)
            else:
                samples = int(batch[-1]) + 1 if num_samples is None else int(num_samples)
                value = self._flat_energy(prediction, target, mask, batch.long(), samples)
        if self.normalize == "sum":
            return value
        whole = mask is None and batch is None
        return value / (prediction.shape[1] if whole else _atom_counts(prediction, mask, batch))

    if TYPE_CHECKING:
        __call__ = forward

    @abstractmethod
    def _energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        """The sum over atoms or pairs, not normalised. Inputs are valid, float32 or float64, zero at masked atoms."""

    def _flat_energy(
        self,
        prediction: Float[Tensor, "nodes dim"],
        target: Float[Tensor, "nodes dim"],
        mask: Bool[Tensor, " nodes"] | None,
        batch: Int[Tensor, " nodes"],
        samples: int,
    ) -> Float[Tensor, " {samples}"]:
        """The same for flat samples: pads them and calls `_energy`, unless a subclass knows a leaner way."""
        counts = batch.bincount(minlength=samples)
        starts, width = counts.cumsum(0) - counts, int(counts.max())
        slots = batch * width + torch.arange(batch.shape[0], device=batch.device) - starts[batch]

        def pad(x: Tensor) -> Tensor:
            empty = x.new_zeros(samples * width, *x.shape[1:])
            return empty.index_copy(0, slots, x).unflatten(0, (samples, width))

        real = torch.ones_like(batch, dtype=torch.bool) if mask is None else mask
        return self._energy(pad(prediction), pad(target), pad(real))

    @override
    def extra_repr(self) -> str:
        return f"normalize={self.normalize!r}"


def _check(
    prediction: Tensor, target: Tensor, mask: Tensor | None, batch: Tensor | None, num_samples: int | None
) -> Tensor | None:
    """The mask, once all arguments are known to be good; or None, if it is known to hide nothing."""
    ndim = 3 if batch is None else 2
    require_coordinates("prediction", prediction, ndim)
    require_coordinates("target", target, ndim)
    require_alike("prediction", prediction, "target", target)
    if mask is not None:
        require_mask(mask, prediction, "(batch, atoms)" if batch is None else "(nodes,)")
    if batch is not None:
        _check_batch_index(batch, prediction, num_samples)
    elif num_samples is not None:
        raise ValueError(f"num_samples is {num_samples!r}; it should be given together with batch, for flat input")
    if not values_are_known(prediction, target, mask):
        return mask
    require_finite("prediction", prediction, mask)
    require_finite("target", target, mask)
    if mask is not None and bool(mask.all()):
        return None
    if mask is not None:
        require_occupied(mask if batch is None else _atom_counts(prediction, mask, batch)[:, None] > 0)
    return mask


def _check_batch_index(batch: Tensor, prediction: Tensor, num_samples: int | None) -> None:
    require_tensor("batch", batch)
    if num_samples is not None:
        num_samples = require_count("num_samples", num_samples)
    if batch.dtype.is_floating_point or batch.dtype.is_complex or batch.dtype == torch.bool:
        raise TypeError(f"batch has dtype {batch.dtype}; it should be an integer type (torch.int64)")
    if batch.shape != prediction.shape[:1]:
        raise ValueError(f"batch has shape {tuple(batch.shape)}; it should be (nodes,) = {tuple(prediction.shape[:1])}")
    if batch.device != prediction.device:
        raise ValueError(f"batch is on {batch.device}; it should be on {prediction.device}, where the coordinates are")
    if not values_are_known(batch):
        return
    if int(batch[0]) != 0:
        raise ValueError(f"batch starts with sample {int(batch[0])}; it should start with 0")
    steps = batch.diff()
    if bool(((steps < 0) | (steps > 1)).any()):
        where = int(((steps < 0) | (steps > 1)).nonzero()[0])
        raise ValueError(
            f"batch goes from {int(batch[where])} to {int(batch[where + 1])} at node {where + 1}; "
            "it should be sorted, and no sample may be empty"
        )
    if num_samples is not None and (found := int(batch[-1]) + 1) != num_samples:
        raise ValueError(
            f"num_samples is {num_samples}, but batch holds samples 0 to {found - 1}; "
            + (f"sample {found} is empty, and no sample may be" if found < num_samples else "these should agree")
        )


def _atom_counts(prediction: Tensor, mask: Tensor | None, batch: Tensor | None) -> Tensor:
    """The number of real atoms in each sample, (B,); where neither mask nor batch is given, it is N."""
    if batch is None:
        assert mask is not None
        return mask.sum(1)
    batch = batch.long()
    if mask is None:
        return batch.bincount()
    return torch.zeros_like(batch.bincount()).index_add(0, batch, mask.long())


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """Inside an autocast region matrix products would fall back to half precision: switch that off."""
    available = torch.amp.autocast_mode.is_autocast_available(device_type)
    if available and not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type if available else "cpu", enabled=False)
