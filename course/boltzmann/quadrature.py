"""Trapezoidal quadrature on a window of the line or of the plane.

For smooth functions that have died out at the window's ends, the trapezoidal rule converges faster than any power of
the spacing, which is all that a Boltzmann distribution asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_count


@dataclass(frozen=True)
class Grid:
    """Nodes and weights of a product rule: the integral of f is (weights * f(points)).sum().

    Fields: `axes`, one (n,) tensor of equally spaced nodes a dimension; `points`, (n^dim, dim), the last axis running
    fastest; `log_weights`, (n^dim,).
    """

    axes: tuple[Tensor, ...]
    points: Float[Tensor, "points dim"]
    log_weights: Float[Tensor, " points"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along each axis; values on `points` reshape to it."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def spacings(self) -> tuple[float, ...]:
        """Distance of neighbouring nodes along each axis."""
        return tuple(float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in self.axes)


def grid(
    *windows: tuple[float, float],
    points: int = 401,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Grid:
    """A grid on one interval, `grid((-3, 3))`, or on a rectangle, `grid((-3, 3), (-2, 2))`.

    Args:
        windows: (low, high) for each of one or two dimensions.
        points: nodes along each axis, odd and at least 5, so that every other node is a coarser rule to compare with.
        dtype: float32 or float64; torch's default if None.
        device: where the nodes live.

    Raises:
        ValueError: not one or two windows, a window that is not finite with low < high, or an unusable `points`.
    """
    if len(windows) not in (1, 2):
        raise ValueError(f"windows holds {len(windows)} intervals; it should be one or two, a dimension each")
    for low, high in windows:
        if not (isfinite(low) and isfinite(high) and low < high):
            raise ValueError(f"windows is ({low}, {high}); it should be finite numbers with low < high")
    points = require_count("points", points)
    if points < 5 or points % 2 == 0:
        raise ValueError(f"points is {points}; it should be odd and at least 5")
    return _product(tuple(torch.linspace(low, high, points, dtype=dtype, device=device) for low, high in windows))


def coarser(fine: Grid) -> tuple[Grid, Tensor]:
    """The grid of every other node along each axis, and the index of its nodes in `fine.points`."""
    index = torch.arange(len(fine.points), device=fine.points.device).reshape(fine.shape)
    for dim in range(len(fine.axes)):
        index = index.index_select(dim, torch.arange(0, fine.shape[dim], 2, device=index.device))
    return _product(tuple(axis[::2] for axis in fine.axes)), index.reshape(-1)


def _product(axes: tuple[Tensor, ...]) -> Grid:
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    logs = [_log_trapezoid(axis) for axis in axes]
    total = logs[0] if len(logs) == 1 else logs[0][:, None] + logs[1]
    return Grid(axes, points, total.reshape(-1))


def _log_trapezoid(axis: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    weights = torch.full_like(axis, log(float(axis[-1] - axis[0]) / (len(axis) - 1)))
    weights[[0, -1]] -= log(2)
    return weights
