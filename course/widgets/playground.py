"""The playground: drag the particles of a small configuration and watch two energies disagree.

The widget (anywidget; JavaScript beside this file, no build step, no network) works with a kernel, where
`playground.prediction` follows the drag, and from saved widget state on a static page without one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor

from course.widgets import web
from course.widgets.widget import Checked, Refused, Widget, sound
from elf import springs as elf_springs
from elf.checks import require_one_of, require_positive
from elf.energy import Energy, Harmonic, PairEnergy
from elf.geometry.distances import pairwise_distances
from elf.viz import style
from elf.viz.arrays import doubles, finite
from elf.viz.fields import forces, plot_forces

MAX_PARTICLES = 64
Points = list[list[float]]
SpringFunction = Callable[[Tensor], Tensor]

_FORMULAS: dict[str, type[elf_springs.Spring]] = {
    "constant": elf_springs.Constant,
    "inverse": elf_springs.Inverse,
    "inverse_square": elf_springs.InverseSquare,
    "exponential": elf_springs.Exponential,
}


def _points(name: str, value: Any) -> Points:
    points = finite(name, value, "particles 2").tolist()
    if len(points) > MAX_PARTICLES:
        raise ValueError(f"{name} has {len(points)} particles; it should have 1 to {MAX_PARTICLES}")
    return points


def _springs(spring: SpringFunction, target: Points) -> dict[str, Any]:
    """A spring that the browser knows by formula goes by name; any other goes as its matrix of constants."""
    for name, formula in _FORMULAS.items():
        if type(spring) is formula and getattr(spring, "r_min", 1e-2) == 1e-2:
            values = {field: float(getattr(spring, field)) for field in ("k", "length") if hasattr(spring, field)}
            return {"name": name, **values}
    # A particle is no neighbour of its own: many springs diverge at the diagonal's r = 0.
    away = torch.eye(len(target), dtype=torch.float64, device="cpu")
    constants = spring(pairwise_distances(doubles(target)) + away)
    return {
        "name": "custom",
        "matrix": (finite("springs", constants, f"{len(target)} {len(target)}") * (1 - away)).tolist(),
    }


def _by_name(springs: dict[str, Any]) -> elf_springs.Spring:
    """The spring of a formula's name and parameters; ValueError where its constants are too large for one."""
    formula = _FORMULAS[springs["name"]]
    return formula(**{key: value for key, value in springs.items() if key in formula.__dataclass_fields__})


def _check_springs(name: str, value: Any) -> dict[str, Any]:
    given = sound(name, value, {"name": str, "k?": require_positive, "length?": require_positive, "matrix?": "n n"})
    require_one_of(f"{name}['name']", given["name"], (*_FORMULAS, "custom"))
    needed = {"custom": ["matrix"], "exponential": ["k", "length"]}.get(given["name"], ["k"])
    if missing := [key for key in needed if key not in given]:
        raise ValueError(f"{name} has {list(given)}; it should have {missing} too")
    if any(constant < 0 for row in given.get("matrix", []) for constant in row):
        raise ValueError(f"{name} has constants {given['matrix']}; they should be 0 or more")
    if given["name"] != "custom":
        _by_name(given)
    return given


_PRESET = {"name": str, "target": _points, "prediction": _points, "names?": [str]}


def polygon(sides: int, radius: float = 1.0, angle: float = math.pi / 2) -> Tensor:
    """Vertices of a regular polygon, (sides, 2), float64; the first at `angle` (radians, counter-clockwise from x)."""
    turns = angle + torch.arange(sides, dtype=torch.float64, device="cpu") * (2 * math.pi / sides)
    return radius * torch.stack([turns.cos(), turns.sin()], dim=1)


def rotate(points: Tensor, degrees: float) -> Tensor:
    """2D points turned about their centroid, counter-clockwise."""
    angle = math.radians(degrees)
    turn = points.new_tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = points.mean(-2, keepdim=True)
    return (points - centre) @ turn.T + centre


def presets() -> list[dict[str, Any]]:
    """Configurations offered in the playground: name, target, the prediction to begin with, and names of the particles.

    Water and benzene are QM9's, in their plane (angstrom), from `presets.json`; the tests compare them with the data.
    """
    pair = doubles([[-1.0, 0.0], [1.0, 0.0]])
    shapes = {"triangle": polygon(3), "square": polygon(4, angle=math.pi / 4), "hexagon": polygon(6)}
    molecules = json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
    shapes |= {name: doubles(entry["points"]) for name, entry in molecules.items()}
    starts = {"two on a line": (pair, -pair)} | {name: (shape, rotate(shape, 40.0)) for name, shape in shapes.items()}
    names = {name: {"names": entry["names"]} for name, entry in molecules.items()}
    return [
        {"name": name, "target": target.tolist(), "prediction": start.tolist(), **names.get(name, {})}
        for name, (target, start) in starts.items()
    ]


class Playground(Widget):
    """A configuration to drag, with the squared error (Eq. 6) and the pair energy (Eq. 7) of it side by side.

    Args:
        target: (particles, 2), 1 to 64 particles; tensor, array or nested list.
        prediction: same shape; by default the target turned by 40 degrees.
        springs: an `elf.springs` spring or any function of distances; constant springs by default.
        choices: offer the presets in a menu.
        names: a short name for each particle, written on it; numbers by default.

    Attributes:
        prediction: where the particles are now, nested lists; follows the drag, and may be set.
        target: the target, nested lists.

    Raises:
        ValueError: wrong shape, no particle or more than 64, coordinates that are not finite, or bad spring constants;
            also when they are set later.
    """

    module_name = "playground"
    _esm = web.module("playground")

    target = Checked(_points, [[0.0, 0.0]])
    prediction = Checked(_points, [[0.0, 0.0]])
    springs = Checked(_check_springs, {"name": "constant", "k": 1.0})
    presets = Checked([_PRESET], [])
    names = Checked([str], [])

    def __init__(
        self,
        target: Tensor | np.ndarray | Sequence[Any] | None = None,
        prediction: Tensor | np.ndarray | Sequence[Any] | None = None,
        springs: SpringFunction | None = None,
        *,
        choices: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:
        goal = _points("target", polygon(3) if target is None else target)
        self._spring: SpringFunction = elf_springs.Constant() if springs is None else springs
        super().__init__(
            target=goal,
            prediction=rotate(doubles(goal), 40.0) if prediction is None else prediction,
            springs=_springs(self._spring, goal),
            presets=presets() if choices else [],
            names=list(names or []),
        )

    def fit(self, state: dict[str, Any]) -> None:
        """As many predictions, and names if any, as the target has particles."""
        count = len(state["target"])
        for name in ("prediction", "names"):
            if len(state[name]) != count and state[name] != []:
                raise ValueError(f"{name} has {len(state[name])} entries; the target has {count} particles")

    @traitlets.validate("target", "prediction", "names")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    @traitlets.validate("springs")
    def _validate_springs(self, proposal: Any) -> Any:
        given = proposal["value"]
        if given["name"] == "custom" and given != _springs(self._spring, self.target):
            raise Refused("springs is another matrix; springs of one's own should be given as Playground(springs=...)")
        return given

    @traitlets.observe("target")
    def _follow(self, change: Any) -> None:
        if self.springs["name"] == "custom":
            self.springs = _springs(self._spring, self.target)

    def __repr__(self) -> str:
        return f"Playground({len(self.target)} particles, springs={self.springs.get('name')})"

    @property
    def alt(self) -> str:
        """The playground in words."""
        mse, energy = self.energies().values()
        return f"Playground with {len(self.target)} particles: squared error {mse:.3f}, pair energy {energy:.3f}"

    def still(self) -> bytes:
        """Both panels as a PNG: target, prediction, and the forces of each energy on one scale."""
        from matplotlib.figure import Figure

        prediction, target = doubles(self.prediction), doubles(self.target)
        energies, values = self._both(), self.energies()
        figure = Figure(figsize=(6.6, 3.2), layout="constrained")
        titles = {"mse": "Squared error", "energy": "Pair energy"}
        for ax, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            plot_forces(
                ax, prediction, target, energies[name], color=style.COLORS[name], scale=0.25, scale_bar=False,
                names=len(target) < 10, edges=name == "energy",
            )  # fmt: skip
            ax.set_title(f"{title} {values[name]:.3f}", color=style.COLORS[name])
            ax.set(xticks=[], yticks=[])
        return style.png(figure, dpi=92)

    def pair_energy(self) -> PairEnergy:
        """The pair energy of the springs chosen now, as in the browser (normalize="sum")."""
        return PairEnergy(springs=self._spring if self.springs["name"] == "custom" else _by_name(self.springs))

    def _both(self) -> dict[str, Energy]:
        return {"mse": Harmonic(), "energy": self.pair_energy()}

    def energies(self) -> dict[str, float]:
        """Both energies of the present prediction, by `elf` in double precision: {"mse": ..., "energy": ...}."""
        prediction, target = doubles([self.prediction]), doubles([self.target])
        return {name: energy(prediction, target).item() for name, energy in self._both().items()}

    def forces(self) -> dict[str, Tensor]:
        """Both energies' forces on the particles of the present prediction, each (particles, 2)."""
        prediction, target = doubles(self.prediction), doubles(self.target)
        return {name: forces(energy, prediction, target) for name, energy in self._both().items()}
