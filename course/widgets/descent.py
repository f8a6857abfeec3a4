"""Click anywhere on two landscapes: two particles on a line descend MSE and the pair energy from there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from contourpy import FillType, contour_generator
from matplotlib.axes import Axes

from course.widgets import web
from course.widgets.sketch import Sketch
from course.widgets.widget import Checked
from elf.checks import require_positive
from elf.energy import Energy, Harmonic, PairEnergy
from elf.springs import Constant
from elf.viz import fields, landscapes, style
from elf.viz.arrays import doubles

ENERGIES: dict[str, Energy] = {"mse": Harmonic(), "energy": PairEnergy(springs=Constant())}
Places = torch.Tensor | np.ndarray | Sequence[float]
TITLES = {"mse": "MSE", "energy": "Pair energy"}
HIGHEST, LEVELS = 8.0, 9
_OUTLINE = re.compile(r"(M[-\d. ]+(L[-\d. ]+)*Z)*")


def _outline(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _OUTLINE.fullmatch(value):
        raise ValueError(f"{name} is {value!r:.30}; it should be closed lines as SVG writes them, 'M0 0L1 0L1 1Z'")
    return value


def _landscape(name: str, target: Sequence[float], half: float) -> landscapes.Landscape:
    goal = doubles(target)[:, None]
    return landscapes.landscape(ENERGIES[name], goal, ((0, 0), (1, 0)), (-half, half), points=81)


def _levels(name: str, target: Sequence[float], half: float) -> list[str]:
    """For each level, evenly spaced in the root of the energy, the outline of where the energy is higher."""
    field = _landscape(name, target, half)
    lines = contour_generator(
        field.x.numpy(), field.y.numpy(), field.values.numpy(), fill_type=FillType.ChunkCombinedOffset
    )
    made = []
    for level in np.linspace(0, HIGHEST**0.5, LEVELS)[1:] ** 2:
        found: Any = lines.filled(float(level), 1e9)
        (points,), (offsets,) = found
        rings = [] if points is None or offsets is None else np.split(points, offsets[1:-1])
        made.append("".join(f"M{'L'.join(f'{x:.2f} {y:.2f}' for x, y in ring)}Z" for ring in rings))
    return made


class Descent(Sketch):
    """Two landscapes over the places of two particles on a line, as in the paper's Fig. 2; a click begins a descent.

    Args:
        start: where the two particles begin, angstrom.
        target: where they belong.
        half: the landscapes show places from -half to half.

    Attributes:
        start: follows the reader's click, and may be set.

    Raises:
        ValueError: not two finite numbers each, two targets at one place, or half not above zero.
    """

    module_name = "descent"
    _esm = web.module("descent")

    target = Checked("2", [-0.5, 0.5])
    start = Checked("2", [1.6, 1.2])
    half = Checked(require_positive, 2.0)
    levels = Checked({"mse": [_outline], "energy": [_outline]}, {"mse": [], "energy": []})

    def __init__(self, start: Places = (1.6, 1.2), *, target: Places = (-0.5, 0.5), half: float = 2.0) -> None:
        super().__init__(target=target, start=start, half=half)
        self.levels = {name: _levels(name, self.target, self.half) for name in ENERGIES}

    def fit(self, state: dict[str, Any]) -> None:
        """Two particles belong at two places."""
        if state["target"][0] == state["target"][1]:
            raise ValueError(f"target is {state['target']}; it should be two different places")

    @traitlets.validate("target")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    def path(self, name: str) -> torch.Tensor:
        """The descent from `start` under "mse" or "energy", (steps + 1, 2), angstrom."""
        goal, start = doubles(self.target)[:, None], doubles(self.start)[:, None]
        return fields.descent_path(ENERGIES[name], start, goal, steps=150, step_size=0.05).positions[..., 0]

    @property
    def alt(self) -> str:
        """Where both descents end, in words."""
        ends = [f"{TITLES[name]} ends at ({', '.join(f'{x:.2f}' for x in self.path(name)[-1])})" for name in ENERGIES]
        start = ", ".join(f"{x:.2f}" for x in self.start)
        return f"Landscapes of two particles on a line, to descend from a click. From ({start}) {' and '.join(ends)}."

    def draw(self, axes: list[Axes]) -> None:
        """Both landscapes with the descent from `start`."""
        for ax, name in zip(axes, ENERGIES, strict=True):
            field = _landscape(name, self.target, self.half)
            landscapes.plot_landscape(ax, field, style.COLORS[name], highest=HIGHEST)
            landscapes.plot_descent(ax, self.path(name)[..., None], field.coordinates)
            ax.set(aspect="equal", title=TITLES[name], xlabel="particle 1 (angstrom)")
        axes[0].set_ylabel("particle 2 (angstrom)")

    def __repr__(self) -> str:
        return f"Descent(start={self.start}, target={self.target})"
