"""Report cards side by side: how stiff an energy is against every displacement of its targets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes

from elf.metrics.card import ReportCard
from elf.metrics.probes import SOFT_MODE
from elf.viz.style import COLORS, INK, label

FLOOR = 1e-6


def draw_stiffness(ax: Axes, cards: Mapping[str, ReportCard]) -> None:
    """One column of dots for each energy: the eigenvalues of its Hessian at all targets, over each target's median.

    What costs nothing (rigid motions, and shapes the energy cannot feel) lies on the lowest line; numbers under the
    columns say how many free modes beyond rigid motions the worst target has.

    Columns are in the order of `cards`, name -> card, in the palette's colours where it knows the name.

    Raises:
        ValueError: no card.
    """
    if not cards:
        raise ValueError("cards is empty; it should hold at least one report card")
    for column, (name, card) in enumerate(cards.items()):
        values = torch.cat([modes / modes[modes > 0].median() for modes in card.stiffness]).clamp_min(FLOOR)
        # Side by side by rank, so that a column's shape shows; no randomness in a figure.
        places = column + 0.7 * (values.argsort().argsort() / len(values) - 0.5)
        ax.scatter(places, values, s=5, color=COLORS.get(name, INK), alpha=0.6, linewidths=0)
        free = "no free mode" if card.free_modes == 0 else f"{card.free_modes} free modes"
        below = {"xytext": (0, -8), "ha": "center", "va": "top"}
        label(ax, f"{name}\n{free}", column, FLOOR / 3, COLORS.get(name, INK), **below)
    ax.axhline(SOFT_MODE, color=INK, linewidth=0.6, linestyle=":")
    label(ax, "soft", len(cards) - 0.55, SOFT_MODE, xytext=(5, 7))
    label(ax, "free", len(cards) - 0.55, FLOOR)
    ax.set_yscale("log")
    ax.set_ylim(FLOOR / 3, None)
    ax.set_xlim(-0.6, len(cards) - 0.1)
    ax.set_xticks([])
    ax.set_ylabel("stiffness / median stiffness")
