"""Argument validation for the whole package: an error names the argument, what it was, and what it should be."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Real

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

HALF_PRECISION = (torch.float16, torch.bfloat16)
LARGEST = {torch.float32: 1e15, torch.float64: 1e150}
"""Coordinates up to here have squares that can be added up, by the million and with stiff springs."""


def values_are_known(*tensors: Tensor | None) -> bool:
    """Whether the tensors hold numbers that Python may look at now.

    False for meta and fake tensors, while torch.compile or torch.export traces, inside torch.func.vmap, and while a
    CUDA graph is captured: there, only shapes, dtypes and devices can be checked.
    """
    if torch.compiler.is_compiling():
        return False
    try:  # Asking a wrapper costs a hundred times as much as seeing that there is none.
        for tensor in tensors:
            if tensor is None:
                continue
            if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
                return False
            is_plain(tensor) or bool(tensor.detach().flatten()[:1].any())
    except RuntimeError:
        return False
    return True


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor itself holds its numbers: no subclass, no wrapper of torch.func, neither meta nor fake."""
    if type(tensor) not in (Tensor, Parameter) or tensor.is_meta:
        return False
    try:
        return bool(tensor.data_ptr()) or not tensor.numel()
    except RuntimeError:
        return False


def transforms_are_active() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp, ...) is: none of them lets a tensor ask for its gradient."""
    if torch.compiler.is_compiling():
        return False
    try:
        torch.empty(0, dtype=torch.float32, device="cpu").requires_grad_()
    except RuntimeError:
        return True
    return False


def require_tensor(name: str, value: object) -> Tensor:
    """Raises TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; it should be a torch.Tensor")
    return value


def require_integers(name: str, value: object) -> Tensor:
    """A tensor of integers."""
    tensor = require_tensor(name, value)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tensor.dtype}; it should be an integer type (torch.int64)")
    return tensor


def require_coordinates(name: str, value: object, ndim: int) -> Tensor:
    """A floating-point tensor with `ndim` axes, none of them empty."""
    tensor = require_tensor(name, value)
    if tensor.dtype not in LARGEST and tensor.dtype not in HALF_PRECISION:
        raise TypeError(f"{name} has dtype {tensor.dtype}; it should be a floating-point type of 16, 32 or 64 bits")
    if tensor.ndim != ndim:
        layout = "(batch, atoms, dim)" if ndim == 3 else "(nodes, dim), as the argument batch is given"
        if ndim == 3 and tensor.ndim == 2:
            layout += f": {name}[None] for one sample; batch=... where nodes of several samples are in a row"
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it should be {layout}")
    if not tensor.numel():
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; no axis may be empty")
    return tensor


def require_alike(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Same shape, device and working precision (half precision counts as float32: see `widen`)."""
    if value.shape != other.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, {other_name} has {tuple(other.shape)}; they should be equal"
        )
    if value.device != other.device:
        raise ValueError(f"{name} is on {value.device}, {other_name} on {other.device}; they should be on one device")
    if value.dtype != other.dtype and working_dtype(value.dtype) != working_dtype(other.dtype):
        raise ValueError(f"{name} has dtype {value.dtype}, {other_name} has {other.dtype}; they should be equal")


def require_mask(mask: object, like: Tensor, layout: str = "(batch, atoms)") -> None:
    """A bool tensor of the shape of `like` without its last axis, on its device; True marks a real atom."""
    tensor = require_tensor("mask", mask)
    if tensor.dtype != torch.bool:
        words = (
            "mask > 0.5" if tensor.is_floating_point() else "mask.bool(); if it tells samples apart, it is batch=..."
        )
        raise TypeError(f"mask has dtype {tensor.dtype}; it should be torch.bool, True for a real atom: {words}")
    if tensor.shape != like.shape[:-1]:
        words = ": mask.squeeze(-1)" if tensor.shape == (*like.shape[:-1], 1) else ""
        shapes = f"{tuple(tensor.shape)}; it should be {layout} = {tuple(like.shape[:-1])}{words}"
        raise ValueError(f"mask has shape {shapes}")
    if tensor.device != like.device:
        raise ValueError(f"mask is on {tensor.device}; it should be on {like.device}, where the coordinates are")


def require_occupied(mask: Tensor) -> None:
    """At least one real atom in each sample of a (B, N) mask."""
    if not bool((occupied := mask.any(-1)).all()):
        empty = int((~occupied).nonzero()[0])
        raise ValueError(f"mask leaves sample {empty} without a real atom; every sample should have at least one")


def require_finite(name: str, value: Tensor, mask: Tensor | None) -> bool:
    """No NaN, no infinity and nothing whose square overflows, except at atoms that the mask leaves out.

    Returns:
        Whether there is nothing of these at all.
    """
    wide = widen(value.detach())
    dtype, largest = wide.dtype, LARGEST[wide.dtype]
    # One sum tells that all is well, at a tenth of the cost; where it does not, look closer.
    if (wide * wide).sum().item() < largest * largest:
        return True
    value = value.detach()  # for the words: Python numbers of what has a gradient are warned of
    good = (wide.abs() <= largest).all(-1)  # wide: in half precision `largest` would be infinite
    if mask is not None:
        good = good | ~mask
    if bool(good.all()):
        return False
    where = tuple((~good).nonzero()[0].tolist())
    if bool(value[where].isfinite().all()):
        what = f"holds a coordinate of {float(value[where].abs().max()):.3g} at index {where}"
        raise ValueError(f"{name} {what}; in {dtype}, whose squares overflow, it should be at most {largest:.0e}")
    finite = value.isfinite().all(-1) | (False if mask is None else ~mask)
    raise ValueError(
        f"{name} holds {int((~finite).sum())} atoms with a NaN or infinite coordinate, the first at index {where}; "
        "coordinates of real atoms should be finite"
    )


def require_batch_index(index: object, like: Tensor, num_samples: int | None) -> None:
    """The sample of each node, row of `like`: integers, sorted, from 0, without gaps; to `num_samples`, if told."""
    if index is None:
        if num_samples is not None:
            raise ValueError(f"num_samples is {num_samples!r}; it should be given together with batch, for flat input")
        return
    batch = require_integers("batch", index)
    if num_samples is not None:
        num_samples = require_count("num_samples", num_samples)
    if batch.shape != like.shape[:1]:
        raise ValueError(f"batch has shape {tuple(batch.shape)}; it should be (nodes,) = {tuple(like.shape[:1])}")
    if batch.device != like.device:
        raise ValueError(f"batch is on {batch.device}; it should be on {like.device}, where the coordinates are")
    if not values_are_known(batch):
        return
    if int(batch[0]) != 0:
        raise ValueError(f"batch starts with sample {int(batch[0])}; it should start with 0")
    if bool((wrong := (batch.diff() < 0) | (batch.diff() > 1)).any()):
        where = int(wrong.nonzero()[0])
        raise ValueError(
            f"batch goes from {int(batch[where])} to {int(batch[where + 1])} at node {where + 1}; "
            "it should be sorted, and no sample may be empty"
        )
    if num_samples is not None and (found := int(batch[-1]) + 1) != num_samples:
        raise ValueError(
            f"num_samples is {num_samples}, but batch holds samples 0 to {found - 1}; "
            + (f"sample {found} is empty, and no sample may be" if found < num_samples else "these should agree")
        )


def require_one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """`value` is one of the strings in `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it should be one of {', '.join(map(repr, choices))}")


def require_strings(name: str, value: object) -> list[str]:
    """Strings, as a list; one string alone is refused, since its letters would be taken for them."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; it should be a collection of strings")
    strings = list(value)
    for string in strings:
        if not isinstance(string, str):
            raise TypeError(f"{name} holds {string!r}; it should hold strings")
    return strings


def require_number(name: str, value: object) -> float:
    """A real number, Python's or NumPy's, as a Python float."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; it should be a number")
    return float(value)


def require_positive(name: str, value: object) -> float:
    """A finite real number above zero, as a Python float."""
    number = require_number(name, value)
    if not (isfinite(number) and number > 0):
        raise ValueError(f"{name} is {value!r}; it should be finite and greater than zero")
    return number


def require_integer(name: str, value: object, least: int | None = None) -> int:
    """An integer, Python's, NumPy's or whatever else counts as an index, as a Python int; at least `least`."""
    try:
        if isinstance(value, bool | np.bool_ | Tensor):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it should be an integer") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; it should be at least {least}")
    return number


def require_count(name: str, value: object) -> int:
    """An integer of at least one, as a Python int."""
    return require_integer(name, value, least=1)


def require_counts(**values: object) -> list[int]:
    """Integers of at least one, as Python ints, in the order of the arguments."""
    return [require_count(name, value) for name, value in values.items()]


def require_seed(name: str, value: object) -> int:
    """A non-negative integer, as a Python int."""
    return require_integer(name, value, least=0)


def require_bool(name: str, value: object) -> None:
    """`value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it should be True or False")


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in HALF_PRECISION else dtype


def widen(value: Tensor) -> Tensor:
    """Half precision to float32: squared distances overflow float16 from 256 angstrom on; bfloat16 has 2 digits."""
    return value.to(torch.float32) if value.dtype in HALF_PRECISION else value
