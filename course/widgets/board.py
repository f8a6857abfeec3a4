"""The spin board: flip the spins of a lattice by hand, watch the energy, and compare with the ground state.

The widget (anywidget; `board.js` beside this file) works with a kernel, where `board.spins` follows the clicks, and
from saved widget state on a static page without one.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
import traitlets
from torch import Tensor

from course import spins as pictures
from course.widgets import web
from course.widgets.widget import Checked, Widget
from elf.checks import require_seed
from elf.metrics.spins import overlap
from elf.spins import Couplings, ground_state, ising_energy, local_fields
from elf.viz import style
from elf.viz.arrays import doubles, finite

LARGEST_SIDE = 24
Table = list[list[int]]


def _spins(name: str, value: Any) -> Table:
    table = finite(name, value, "height width", "1 height width").flatten(0, -2)
    if max(table.shape) > LARGEST_SIDE:
        raise ValueError(f"{name} has shape {tuple(table.shape)}; no side should be over {LARGEST_SIDE}")
    if bool((table.abs() != 1).any()):
        raise ValueError(f"{name} holds {table[table.abs() != 1][0].item()}; spins should be +1 or -1")
    return table.int().tolist()


class SpinBoard(Widget):
    """A spin glass to play: each click flips a spin; energy, local fields, broken bonds, overlap follow.

    E = -sum_<ij> J_ij y_i y_j (Sec. 5 of arXiv:2511.02087), h_i = sum_j J_ij y_j. Buttons show greedy descent,
    simulated annealing and the ground state.

    Args:
        couplings: one lattice with free boundaries, no side longer than 24.
        spins: +-1 to start from, (H, W) or (1, H, W); drawn from `seed` by default.
        ground: the ground state; solved by matching by default.
        seed: of the first spins, and of the annealing in the browser.
        fields: write the local field into each spin.
        plaquettes: tint the frustrated squares.

    Attributes:
        spins: the spins now, nested lists; follows the clicks, and may be set.
        ground: a ground state, nested lists.

    Raises:
        ValueError: several lattices, periodic boundaries, a side over 24, or spins that are not +-1 of that shape; also
            when they are set later. New couplings bring their own ground state.
    """

    module_name = "board"
    _esm = web.module("board")

    right = Checked(["bonds|"], [[]])  # a lattice one spin wide has rows without bonds
    down = Checked(["bonds|"], [])
    spins = Checked(_spins, [[1]])
    ground = Checked(_spins, [[1]])
    optimal = Checked(bool, True)
    seed = Checked(int, 0)
    fields = Checked(bool, True)
    plaquettes = Checked(bool, True)

    def __init__(
        self,
        couplings: Couplings,
        spins: Any = None,
        *,
        ground: Any = None,
        seed: SupportsIndex = 0,
        **others: Any,
    ) -> None:
        pictures.require_one(couplings)
        shape = couplings.shape[1:]
        if max(shape) > LARGEST_SIDE:
            raise ValueError(f"couplings has {shape[0]} x {shape[1]} spins; no side should be over {LARGEST_SIDE}")
        couplings = couplings.to("cpu", torch.float64)
        known = ground_state(couplings) if ground is None else None
        if spins is None:
            draw = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
            spins = torch.randint(2, shape, generator=draw, dtype=torch.int64, device="cpu") * 2 - 1
        self._solved = (couplings.right[0].tolist(), couplings.down[0].tolist())
        super().__init__(
            right=self._solved[0],
            down=self._solved[1],
            spins=spins,
            ground=ground if known is None else known.spins,
            optimal=known is None or bool(known.optimal[0]),
            seed=seed,
            **others,
        )

    def fit(self, state: dict[str, Any]) -> None:
        """Spins, ground state and bonds are those of one lattice."""
        height, width = len(state["spins"]), len(state["spins"][0])
        shapes = {"ground": (height, width), "right": (height, width - 1), "down": (height - 1, width)}
        for name, (rows, columns) in shapes.items():
            if (found := [len(row) for row in state[name]]) != [columns] * rows:
                fits = f"they should be {rows} of {columns}, as the couplings"
                raise ValueError(f"spins has shape ({height}, {width}), {name} has rows of {found}; {fits}")

    @traitlets.validate("spins", "ground", "right", "down")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    @traitlets.observe("right", "down")
    def _solve(self, change: Any) -> None:
        if (self.right, self.down) != self._solved:
            self._solved = (self.right, self.down)
            known = ground_state(self.couplings)
            self.ground, self.optimal = known.spins, bool(known.optimal[0])

    @property
    def couplings(self) -> Couplings:
        """The lattice's couplings now, float64."""
        height, width = len(self.spins), len(self.spins[0])
        right = doubles(self.right).reshape(1, height, width - 1)
        return Couplings(right, doubles(self.down).reshape(1, height - 1, width))

    def __repr__(self) -> str:
        _, height, width = self.couplings.shape
        return f"SpinBoard({height} x {width} spins, energy {self.energy:.2f})"

    @property
    def alt(self) -> str:
        """The board in words."""
        _, height, width = self.couplings.shape
        above = f"{self.excess:.2f} above the ground state"
        return f"Spin board, {height} x {width} spins: energy {self.energy:.2f}, {above}"

    def still(self) -> bytes:
        """The lattice as a PNG: bonds (broken ones orange), frustrated plaquettes, spins."""
        from matplotlib.figure import Figure

        _, height, width = self.couplings.shape
        figure = Figure(figsize=(0.7 * width + 0.2, 0.7 * height + 0.2), layout="constrained")
        pictures.plot_lattice(figure.subplots(), self.couplings, self.tensor)
        return style.png(figure, dpi=92)

    @property
    def tensor(self) -> Tensor:
        """The spins now, (1, H, W), float64: what `elf.spins` takes."""
        return doubles(self.spins)[None]

    @property
    def energy(self) -> float:
        """E of the spins now, by `elf.spins` in double precision."""
        return float(ising_energy(self.tensor, self.couplings))

    @property
    def excess(self) -> float:
        """Energy above the ground state."""
        return self.energy - float(ising_energy(doubles(self.ground)[None], self.couplings))

    @property
    def overlap(self) -> float:
        """|q| with the ground state, up to a global flip."""
        return float(overlap(self.tensor, doubles(self.ground)[None], self.couplings))

    @property
    def local_fields(self) -> Tensor:
        """h_i of the spins now, (H, W)."""
        return local_fields(self.tensor, self.couplings)[0]
