"""An energy over two chosen coordinates: a grid of values, contours, and paths across them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from elf.checks import require_integer
from elf.viz.fields import EnergyFunction
from elf.viz.style import INK

Coordinate = tuple[int, int]  # (particle, axis)


class Landscape(NamedTuple):
    """Energies on a grid of two coordinates."""

    x: Float[Tensor, " columns"]
    y: Float[Tensor, " rows"]
    values: Float[Tensor, "rows columns"]
    coordinates: tuple[Coordinate, Coordinate]


def landscape(
    energy: EnergyFunction,
    target: Float[Tensor, "particles dim"],
    coordinates: tuple[Coordinate, Coordinate],
    limits: tuple[float, float] | tuple[tuple[float, float], tuple[float, float]] = (-2.0, 2.0),
    *,
    base: Float[Tensor, "particles dim"] | None = None,
    points: SupportsIndex = 121,
) -> Landscape:
    """E(prediction, target) where two coordinates of the prediction run over a grid and the others stay at `base`.

    Args:
        energy: called as energy(prediction, target) on (batch, particles, dim), returns (batch,).
        target: (particles, dim).
        coordinates: two (particle, axis) pairs; the first runs along the picture's horizontal axis.
        limits: (low, high) for both, or one pair each.
        base: where the other coordinates rest; the target by default.
        points: grid points along each axis, 2 or more.

    Raises:
        ValueError: a coordinate outside the configuration, the same one twice, or fewer than 2 points.
    """
    particles, dim = target.shape
    for particle, axis in coordinates:
        if not (0 <= particle < particles and 0 <= axis < dim):
            raise ValueError(
                f"coordinates holds ({particle}, {axis}); it should be a particle in 0..{particles - 1} "
                f"and an axis in 0..{dim - 1}"
            )
    if coordinates[0] == coordinates[1]:
        raise ValueError(f"coordinates holds {coordinates[0]} twice; the two should differ")
    points = require_integer("points", points, least=2)
    (x_low, x_high), (y_low, y_high) = limits if isinstance(limits[0], Sequence) else (limits, limits)
    x = torch.linspace(x_low, x_high, points, dtype=target.dtype, device=target.device)
    y = torch.linspace(y_low, y_high, points, dtype=target.dtype, device=target.device)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = (target if base is None else base).detach().expand(points * points, particles, dim).clone()
    grid[:, coordinates[0][0], coordinates[0][1]] = columns.reshape(-1)
    grid[:, coordinates[1][0], coordinates[1][1]] = rows.reshape(-1)
    with torch.no_grad():
        values = energy(grid, target.expand_as(grid))
    return Landscape(x, y, values.reshape(points, points), coordinates)


def plot_landscape(ax: Axes, field: Landscape, color: str, *, levels: int = 12, highest: float | None = None) -> None:
    """Filled contours from white (zero energy) to `color`, evenly spaced in the square root of the energy.

    The square root makes a quadratic bowl's contours evenly spaced; `highest` sets the energy of full colour (values
    above it take the same colour), so that several pictures can share one scale.
    """
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    values = field.values.detach().cpu().double().numpy()
    top = float(values.max()) if highest is None else highest
    steps = np.linspace(0, np.sqrt(max(top, 1e-12)), levels) ** 2
    shades = LinearSegmentedColormap.from_list("energy", ["#ffffff", color])
    x, y = field.x.cpu().double().numpy(), field.y.cpu().double().numpy()
    tints = [shades(0.75 * index / (levels - 1)) for index in range(levels)]
    ax.contourf(x, y, values, levels=steps, colors=tints[: len(steps) - 1], extend="max")
    ax.contour(x, y, values, levels=steps[1:], colors=[color], linewidths=0.5, alpha=0.7)


def plot_descent(ax: Axes, positions: Tensor, coordinates: tuple[Coordinate, Coordinate], **kwargs: Any) -> None:
    """Draw a (steps, particles, dim) path over a landscape's two coordinates, from the hollow dot to the filled one."""
    (first, first_axis), (second, second_axis) = coordinates
    track_x = positions[:, first, first_axis].detach().cpu().double().numpy()
    track_y = positions[:, second, second_axis].detach().cpu().double().numpy()
    options: dict[str, Any] = {"color": INK, "linewidth": 1.8, "zorder": 6} | kwargs
    ax.plot(track_x, track_y, **options)
    color = options["color"]
    ax.scatter(track_x[:1], track_y[:1], s=34, facecolors="white", edgecolors=color, linewidths=1.5, zorder=7)
    ax.scatter(track_x[-1:], track_y[-1:], s=34, color=color, zorder=7)
