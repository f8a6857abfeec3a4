"""Pictures of spin glasses: satisfied and broken bonds, frustrated plaquettes, matchings, domain walls."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from elf.metrics.spins import domain_walls
from elf.spins import Couplings, frustrated_plaquettes, unsatisfied_bonds
from elf.viz import style

SATISFIED, BROKEN, FRUSTRATED, WALL = (style.COLORS[name] for name in ("target", "mse", "energy", "prediction"))


def require_one(couplings: Couplings, *others: Tensor | None) -> None:
    """Raise ValueError unless the couplings are of one lattice with free boundaries, and the spins of its shape."""
    if len(couplings) != 1 or couplings.periodic:
        kind = "periodic" if couplings.periodic else "free"
        raise ValueError(
            f"couplings holds {len(couplings)} lattices with {kind} boundaries; it should be one with free"
        )
    for spins in others:
        if spins is not None and tuple(spins.shape) != couplings.shape:
            raise ValueError(f"spins has shape {tuple(spins.shape)}; the couplings are of {couplings.shape}")


def plot_bonds(ax: Axes, couplings: Couplings, spins: Tensor | None = None) -> None:
    """Bonds as lines, the wider the larger |J|: solid for J > 0, dashed for J < 0.

    With spins (1, H, W): satisfied bonds green, broken ones orange. Without: all in ink.
    """
    require_one(couplings, spins)
    width = couplings.shape[2]
    broken = None if spins is None else torch.cat([x.flatten() for x in unsatisfied_bonds(spins, couplings)])
    ends = [[(int(i) % width, int(i) // width) for i in edge] for edge in couplings.edges.T]
    values = couplings.values[0].tolist()
    largest = max(map(abs, values), default=1.0) or 1.0
    colors = [style.INK] * len(ends) if broken is None else [BROKEN if b else SATISFIED for b in broken.tolist()]
    widths = [0.6 + 3.4 * abs(value) / largest for value in values]
    styles = ["solid" if value >= 0 else (0, (2, 1.2)) for value in values]
    ax.add_collection(LineCollection(ends, colors=colors, linewidths=widths, linestyles=styles, zorder=2))
    ax.set(xlim=(-0.6, width - 0.4), ylim=(couplings.shape[1] - 0.4, -0.6), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def plot_spins(ax: Axes, spins: Tensor, size: float = 60) -> None:
    """Spins (1, H, W) as discs: filled for +1, open for -1."""
    _, height, width = spins.shape
    x, y = zip(*((c, r) for r in range(height) for c in range(width)), strict=True)
    face = [style.INK if value > 0 else style.PAPER for value in spins.flatten().tolist()]
    ax.scatter(x, y, s=size, c=face, edgecolors=style.INK, linewidths=1.2, zorder=4)


def plot_frustration(ax: Axes, couplings: Couplings) -> None:
    """Frustrated plaquettes as tinted squares."""
    require_one(couplings)
    from matplotlib.patches import Rectangle

    for row, column in frustrated_plaquettes(couplings)[0].nonzero().tolist():
        ax.add_patch(Rectangle((column, row), 1, 1, color=FRUSTRATED, alpha=0.22, linewidth=0, zorder=1))


def _dual_segments(right: Tensor, down: Tensor) -> list[list[tuple[float, float]]]:
    """For each marked bond, the unit segment that crosses it: from plaquette centre to plaquette centre."""
    across = [[(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)] for r, c in right.nonzero().tolist()]
    along = [[(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)] for r, c in down.nonzero().tolist()]
    return across + along


def plot_matching(ax: Axes, couplings: Couplings, spins: Tensor) -> None:
    """The broken bonds of spins (1, H, W) as paths that join frustrated plaquettes, or lead from one to the outside."""
    require_one(couplings, spins)
    right, down = unsatisfied_bonds(spins, couplings)
    ax.add_collection(LineCollection(_dual_segments(right[0], down[0]), colors=FRUSTRATED, linewidths=3, zorder=5))
    centres = frustrated_plaquettes(couplings)[0].nonzero().cpu()
    ax.scatter(centres[:, 1].numpy() + 0.5, centres[:, 0].numpy() + 0.5, s=26, color=FRUSTRATED, zorder=6)


def plot_walls(ax: Axes, couplings: Couplings, spins: Tensor, target: Tensor) -> None:
    """Domain walls between spins and target, both (1, H, W); white where they agree, grey where they are opposite."""
    require_one(couplings, spins, target)
    ax.imshow((spins * target)[0].cpu().float().numpy(), cmap="Greys_r", vmin=-4, vmax=1, zorder=0)
    right, down = domain_walls(spins, target, couplings)
    segments = _dual_segments(right[0], down[0])
    ax.add_collection(LineCollection(segments, colors=WALL, linewidths=1.8, zorder=3, capstyle="round"))
    _, height, width = couplings.shape
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])


def plot_lattice(ax: Axes, couplings: Couplings, spins: Tensor | None = None) -> None:
    """Bonds, frustrated plaquettes and, if given, spins (1, H, W) in one picture."""
    plot_bonds(ax, couplings, spins)
    plot_frustration(ax, couplings)
    if spins is not None:
        plot_spins(ax, spins)
