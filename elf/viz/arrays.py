"""What a picture is given, in one form: finite numbers of the right shape, in double precision on the CPU."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e100  # its square, too, is a number
doubles = functools.partial(torch.tensor, dtype=torch.float64, device="cpu")
"""Numbers from Python as a tensor."""
AS_IT_IS = torch.eye(3, dtype=torch.float64, device="cpu")
"""The rotation to the page that turns nothing."""


def finite(name: str, value: Any, *layouts: str) -> Tensor:
    """A tensor, an array or nested lists as a float64 tensor on the CPU.

    Args:
        name: of the argument, for the error.
        value: any real numbers; gradients are left behind.
        layouts: axes that it may have, "atoms 3": a number is an axis of that length, a word any length above zero.

    Raises:
        ValueError: no array of real numbers, another shape, NaN, infinity or more than 1e100.
    """
    try:
        # To the CPU first: not every accelerator has double precision.
        plain = value.detach().cpu() if isinstance(value, Tensor) else np.array(value, order="C")
        if isinstance(plain, np.ndarray):
            plain = doubles(plain) if plain.dtype.kind in "iuf" else torch.from_numpy(plain)
        if plain.is_complex() or plain.dtype == torch.bool:
            raise TypeError(f"{plain.dtype} is no real number")
        plain = plain.double()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} is a {type(value).__name__} that is no array of numbers: {error}") from error
    if not any(_fits(tuple(plain.shape), layout.split()) for layout in layouts):
        wanted = " or ".join(f"({', '.join(layout.split())})" for layout in layouts)
        raise ValueError(f"{name} has shape {tuple(plain.shape)}; it should be {wanted}, no axis empty")
    if not bool((plain.abs() <= LARGEST).all()):  # false for NaN
        raise ValueError(f"{name} holds NaN or infinite values; all should be finite numbers, at most {LARGEST:.0e}")
    return plain


def _fits(shape: tuple[int, ...], axes: list[str]) -> bool:
    if len(shape) != len(axes):
        return False
    return all(length == int(axis) if axis.isdigit() else length > 0 for axis, length in zip(axes, shape, strict=True))
