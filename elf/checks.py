"""Argument validation for the whole package: an error names the argument, what it was, and what it should be."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Real

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

HALF_PRECISION = (torch.float16, torch.bfloat16)


def values_are_known(*tensors: Tensor | None) -> bool:
    """Whether the tensors hold numbers that Python may look at now.

    False for meta and fake tensors, while torch.compile or torch.export traces, inside torch.func.vmap, and while a
    CUDA graph is captured: there, only shapes, dtypes and devices can be checked.
    """
    if torch.compiler.is_compiling():
        return False
    present = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in present):
        return False
    if torch._C._are_functorch_transforms_active() and any(map(_is_batched, present)):
        return False
    return not (any(tensor.is_cuda for tensor in present) and torch.cuda.is_current_stream_capturing())


def _is_batched(tensor: Tensor) -> bool:
    """Whether vmap stands in at any depth of the transforms around this tensor."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def require_tensor(name: str, value: object) -> Tensor:
    """Raises TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; it should be a torch.Tensor")
    return value


def require_coordinates(name: str, value: object, ndim: int) -> Tensor:
    """A floating-point tensor with `ndim` axes, none of them empty."""
    tensor = require_tensor(name, value)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has dtype {tensor.dtype}; it should be a floating-point type")
    if tensor.ndim != ndim:
        layout = "(batch, atoms, dim)" if ndim == 3 else "(nodes, dim), as the argument batch is given"
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it should be {layout}")
    if 0 in tensor.shape:
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
    if working_dtype(value.dtype) != working_dtype(other.dtype):
        raise ValueError(f"{name} has dtype {value.dtype}, {other_name} has {other.dtype}; they should be equal")


def require_mask(mask: object, like: Tensor, layout: str = "(batch, atoms)") -> None:
    """A bool tensor of the shape of `like` without its last axis, on its device; True marks a real atom."""
    tensor = require_tensor("mask", mask)
    if tensor.dtype != torch.bool:
        raise TypeError(f"mask has dtype {tensor.dtype}; it should be torch.bool, True for a real atom")
    if tensor.shape != like.shape[:-1]:
        raise ValueError(f"mask has shape {tuple(tensor.shape)}; it should be {layout} = {tuple(like.shape[:-1])}")
    if tensor.device != like.device:
        raise ValueError(f"mask is on {tensor.device}; it should be on {like.device}, where the coordinates are")


def require_occupied(mask: Tensor) -> None:
    """At least one real atom in each sample of a (B, N) mask."""
    if not bool((occupied := mask.any(-1)).all()):
        empty = int((~occupied).nonzero()[0])
        raise ValueError(f"mask leaves sample {empty} without a real atom; every sample should have at least one")


def require_finite(name: str, value: Tensor, mask: Tensor | None) -> None:
    """No NaN and no infinity, except at atoms that the mask leaves out."""
    # One sum tells that all is well, at a tenth of the cost; where it is not (or overflows), look closer.
    if isfinite(value.detach().sum()):
        return
    finite = value.isfinite().all(-1)
    if mask is not None:
        finite = finite | ~mask
    if not bool(finite.all()):
        where = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(
            f"{name} holds {int((~finite).sum())} atoms with a NaN or infinite coordinate, the first at index {where}; "
            "coordinates of real atoms should be finite"
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
    return value.to(working_dtype(value.dtype))
