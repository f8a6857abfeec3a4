"""Forces of an energy, as numbers and as arrows, and the path that gradient descent takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from elf.checks import require_count, require_positive
from elf.viz.style import COLORS, FAINT, INK, equal_aspect

EnergyFunction = Callable[[Tensor, Tensor], Tensor]


class Descent(NamedTuple):
    """What gradient descent did."""

    positions: Float[Tensor, "steps ... particles dim"]  # the start first, in the units of the input
    energies: Float[Tensor, "steps ..."]


def energy_and_forces(energy: EnergyFunction, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Values E(prediction, target) and forces -dE/dprediction, by automatic differentiation.

    Args:
        energy: called as energy(prediction, target) on (batch, particles, dim), returns (batch,).
        prediction: (particles, dim) or (batch, particles, dim).
        target: the same particles and dim; one target may serve a whole batch.

    Returns:
        Energies of shape () or (batch,), and forces in the prediction's shape (energy per unit length).

    Raises:
        ValueError: shapes do not fit.
    """
    shapes = tuple(prediction.shape), tuple(target.shape)
    if not {prediction.ndim, target.ndim} <= {2, 3} or shapes[0][-2:] != shapes[1][-2:]:
        alike = "both should be (particles, dim) or (batch, particles, dim), of equally many particles and dim"
        raise ValueError(f"prediction has shape {shapes[0]}, the target {shapes[1]}; {alike}")
    single = prediction.ndim == 2
    moving = (prediction[None] if single else prediction).detach().clone().requires_grad_(True)
    fixed = (target if target.ndim == 3 else target[None]).expand_as(moving)
    with torch.enable_grad():
        values = energy(moving, fixed)
        (gradient,) = torch.autograd.grad(values.sum(), moving)
    values = values.detach()
    return (values[0], -gradient[0]) if single else (values, -gradient)


def forces(energy: EnergyFunction, prediction: Tensor, target: Tensor) -> Tensor:
    """The force on every particle, -dE(prediction, target)/dprediction, in the prediction's shape.

    This is minus the gradient that a training step sees (Eq. 5 of arXiv:2511.02087, at T = 1). Arguments and errors are
    those of `energy_and_forces`.
    """
    return energy_and_forces(energy, prediction, target)[1]


def descent_path(
    energy: EnergyFunction, start: Tensor, target: Tensor, steps: SupportsIndex = 200, step_size: float = 0.05
) -> Descent:
    """Plain gradient descent on the coordinates: x <- x + step_size * force, `steps` times.

    Args:
        energy: called as energy(prediction, target) on (batch, particles, dim), returns (batch,).
        start, target: (particles, dim) or (batch, particles, dim).
        steps: number of steps, 1 or more.
        step_size: length^2 per unit of energy; below 1/curvature the energy can only fall.

    Raises:
        ValueError: shapes do not fit, steps < 1, or step_size is not positive and finite.
    """
    steps, step_size = require_count("steps", steps), require_positive("step_size", step_size)
    position = start.detach().clone()
    positions, energies = [position], []
    for _ in range(steps):
        value, force = energy_and_forces(energy, position, target)
        position = position + step_size * force
        positions.append(position)
        energies.append(value)
    energies.append(energy_and_forces(energy, position, target)[0])
    return Descent(torch.stack(positions), torch.stack(energies))


def _nice(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9))


def plot_particles(
    ax: Axes,
    positions: Tensor,
    color: str,
    *,
    hollow: bool = False,
    edges: bool = True,
    names: bool = False,
    **kwargs: Any,
) -> None:
    """Draw 2D particles, hollow for a target, filled for a prediction.

    `edges` joins them by thin lines in their order; `names` writes 1, 2, 3 ... into them.
    """
    xy = positions.detach().cpu().double().numpy()
    if edges and len(xy) > 1:
        closed = list(range(len(xy))) + ([0] if len(xy) > 2 else [])
        ax.plot(xy[closed, 0], xy[closed, 1], color=color, linewidth=1.2, alpha=0.55, zorder=2)
    defaults = {"s": 130 if names else 70, "linewidths": 1.8, "zorder": 3, "edgecolors": color}
    options: dict[str, Any] = defaults | kwargs
    ax.scatter(xy[:, 0], xy[:, 1], facecolors="white" if hollow else color, **options)
    for index in range(len(xy) if names else 0):
        style: dict[str, Any] = {"color": color if hollow else "white", "ha": "center", "va": "center_baseline"}
        ax.annotate(str(index + 1), xy[index], fontsize=8, fontweight="bold", zorder=options["zorder"], **style)


def plot_forces(
    ax: Axes,
    prediction: Tensor,
    target: Tensor,
    energy: EnergyFunction,
    *,
    color: str = COLORS["energy"],
    scale: float | None = None,
    scale_bar: bool = True,
    unit: str = "",
    edges: bool = True,
    names: bool = False,
) -> Tensor:
    """Draw target (hollow), prediction (filled) and the force on every predicted particle, with a scale bar.

    Args:
        ax: axes to draw on; they are set to equal aspect.
        prediction, target: (particles, dim); the first two coordinates are drawn.
        energy: its forces are drawn.
        scale: length on the page per unit of force; by default the largest arrow is 0.4 of the picture's width.
            Give the same `scale` to several axes to compare them.
        unit: written after the scale bar's number.
        edges, names: see `plot_particles`.

    Returns:
        The forces, (particles, dim).
    """
    field = forces(energy, prediction, target)
    points = torch.cat([prediction, target])[:, :2].detach()
    low, high = points.min(0).values, points.max(0).values
    width = float((high - low).max().clamp_min(1e-6))
    largest = float(field[:, :2].norm(dim=1).max())
    length = scale if scale is not None else (0.4 * width / largest if largest > 1e-9 else 1.0)
    plot_particles(ax, target[:, :2], COLORS["target"], hollow=True, edges=edges, names=names)
    plot_particles(ax, prediction[:, :2], COLORS["prediction"], edges=edges, names=names)
    xy, uv = prediction.detach().cpu().double().numpy(), (field * length).cpu().double().numpy()
    ax.quiver(
        xy[:, 0], xy[:, 1], uv[:, 0], uv[:, 1], color=color, angles="xy", scale_units="xy", scale=1, width=0.011,
        headwidth=3.6, headlength=4.2, headaxislength=3.8, minlength=0.2, zorder=2.5 if names else 5,
        edgecolor="white", linewidth=0.5,
    )  # fmt: skip
    equal_aspect(ax)
    ax.margins(0.22)
    # Arrows do not enter matplotlib's data limits, so that their tips could fall outside the axes.
    ax.update_datalim(xy[:, :2] + uv[:, :2])
    ax.autoscale_view()
    if scale_bar and largest > 1e-9:
        _draw_scale_bar(ax, length, _nice(0.3 * width / length), color, unit)
    return field


def _draw_scale_bar(ax: Axes, length: float, amount: float, color: str, unit: str) -> None:
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    text = f"force {amount:g}" + (f" {unit}" if unit else "")
    bar = AnchoredSizeBar(
        ax.transData, amount * length, text, "lower right", pad=0.2, color=color, frameon=False, size_vertical=0,
        fontproperties={"size": 8.5},
    )  # fmt: skip
    ax.add_artist(bar)


def plot_paths(ax: Axes, positions: Tensor, color: str) -> None:
    """Draw the way of every particle in a (steps, particles, dim) path: a line, and a small dot at its start."""
    tracks = positions.detach().cpu().double().numpy()
    for particle in range(tracks.shape[1]):
        ax.plot(tracks[:, particle, 0], tracks[:, particle, 1], color=color, linewidth=1.6, zorder=4)
    ax.scatter(tracks[0, :, 0], tracks[0, :, 1], s=26, color=FAINT, edgecolors=INK, linewidths=0.8, zorder=5)
