"""A heat bath to look into: a bond under two energies, or particles in a double well, kicked in the browser."""

from __future__ import annotations

from typing import Any, ClassVar, SupportsIndex

import torch
from matplotlib.axes import Axes
from torch import Tensor

from course import boltzmann as bz
from course.boltzmann.distribution import EnergyFunction
from course.widgets import web
from course.widgets.sketch import Sketch
from course.widgets.widget import Checked
from elf.checks import require_count, require_positive, require_seed
from elf.energy import Harmonic, PairEnergy
from elf.springs import Constant
from elf.viz import style
from elf.viz.arrays import doubles

BOND = 1.5
"""Length of the bond, angstrom, in the unit of whose squares the energies are."""
MOST = 5_000


def double_well(y: Tensor) -> Tensor:
    """(y^2 - 1)^2 of (points, 1) places, (points,)."""
    return (y[..., 0] ** 2 - 1) ** 2


def energies() -> dict[str, EnergyFunction]:
    """What the bath heats, by the name that the browser knows it by: functions of (points, dim)."""
    bond = doubles([[0.0, 0.0], [BOND, 0.0]])
    around = {"mse": Harmonic(), "energy": PairEnergy(springs=Constant())}
    return {**{name: bz.around(energy, bond, free=[1]) for name, energy in around.items()}, "well": double_well}


def _count(name: str, value: Any) -> int:
    if require_count(name, value) > MOST:
        raise ValueError(f"{name} is {value}; it should be at most {MOST}")
    return int(value)


class HeatBath(Sketch):
    """Particles that slide downhill and are kicked by a bath, live: overdamped Langevin dynamics (App. A.2).

    Args:
        world: "bond", one end of which is pinned, under MSE and the pair energy (k = 1); or "well", E = (y^2 - 1)^2.
        temperature: T, in the energy's units.
        step: h of an Euler-Maruyama step.
        count: particles, at most 5,000.
        seed: of the kicks.

    Attributes:
        temperature, step: follow the sliders, and may be set.

    Raises:
        ValueError: an unknown world, T or h not above zero, no particle or too many; also when they are set later.
    """

    module_name = "bath"
    _esm = web.module("bath")

    world = Checked(("bond", "well"), "bond")
    temperature = Checked(require_positive, 0.08)
    step = Checked(require_positive, 0.05)
    count = Checked(_count, 300)
    seed = Checked(require_seed, 0)

    names: ClassVar[dict[str, str]] = {"mse": "MSE: a place", "energy": "Pair energy: a length"}

    def __init__(
        self,
        world: str = "bond",
        *,
        temperature: float | None = None,
        step: float | None = None,
        count: SupportsIndex = 300,
        seed: SupportsIndex = 0,
    ) -> None:
        usual = {"bond": (0.08, 0.05), "well": (0.4, 0.01)}.get(world, (0.08, 0.05))
        super().__init__(
            world=world,
            temperature=usual[0] if temperature is None else temperature,
            step=usual[1] if step is None else step,
            count=count,
            seed=seed,
        )

    @property
    def alt(self) -> str:
        """What is heated, in words."""
        if self.world == "well":
            return f"Particles in a double well in a heat bath of T = {self.temperature:.2f}, all from the left."
        words = "under MSE a blob, under the pair energy a ring"
        return f"Ends of a bond in a heat bath of T = {self.temperature:.2f}: {words}."

    def heated(self, name: str, steps: int) -> Tensor:
        """The particles after some steps, by `course.boltzmann.langevin`: (count, dim)."""
        begin = doubles([[BOND, 0.0]] if name != "well" else [[-1.0]]).expand(self.count, -1)
        generator = torch.Generator().manual_seed(self.seed)
        options: dict[str, Any] = {"step": self.step, "steps": steps, "keep_every": steps, "generator": generator}
        return bz.langevin(energies()[name], begin, self.temperature, **options).positions[-1]

    def draw(self, axes: list[Axes]) -> None:
        """The particles after a while."""
        if self.world == "well":
            self._draw_well(*axes)
            return
        for ax, (name, title) in zip(axes, self.names.items(), strict=True):
            ax.plot(*self.heated(name, 1500).T, ".", color=style.COLORS[name], markersize=3.5, alpha=0.7)
            ax.plot(0, 0, "o", color=style.INK)
            ax.plot(BOND, 0, "o", markersize=9, markerfacecolor="none", color=style.COLORS["target"])
            ax.set(aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), title=title, xlabel="x (angstrom)")

    def _draw_well(self, left: Axes, right: Axes) -> None:
        found = bz.distribution(double_well, bz.grid((-2.6, 2.6), points=521, dtype=torch.float64), self.temperature)
        line, y = found.grid.axes[0], self.heated("well", 1500)
        left.plot(line, double_well(line[:, None]), color=style.COLORS["energy"])
        left.plot(y[:, 0], double_well(y) + 0.15, ".", color=style.COLORS["prediction"], alpha=0.7)
        left.set(xlim=(-2.2, 2.2), ylim=(-0.3, 4), title="In the well", xlabel="y")
        right.hist(y[:, 0], bins=44, range=(-2.2, 2.2), density=True, color=style.COLORS["prediction"], alpha=0.55)
        right.plot(line, found.density, color=style.COLORS["target"])
        right.set(xlim=(-2.2, 2.2), title="Histogram", xlabel="y")

    def __repr__(self) -> str:
        return f"HeatBath({self.world!r}, temperature={self.temperature}, step={self.step})"
