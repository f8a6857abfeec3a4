"""The spin board: flip the spins of a lattice by hand, watch the energy, and compare with the ground state.

The widget (anywidget; `board.js` beside this file) works with a kernel, where `board.spins` follows the clicks, and
from saved widget state on a static page without one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import traitlets
from torch import Tensor

from elf.metrics.spins import overlap
from elf.spins import Couplings, ground_state, ising_energy, local_fields
from elf.viz.widgets import web
from elf.viz.widgets.widget import Widget

_doubles = partial(torch.tensor, dtype=torch.float64, device="cpu")

LARGEST_SIDE = 24
Table = list[list[int]]


def _table(name: str, value: Any, height: int, width: int) -> Table:
    """Spins as nested lists of +1 and -1, (H, W); (1, H, W) is taken too."""
    try:
        # To the CPU first: not every accelerator has double precision.
        value = value.detach().cpu() if isinstance(value, Tensor) else value
        array = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: got {type(value).__name__} that is no array of numbers ({error})") from error
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if tuple(array.shape) != (height, width):
        raise ValueError(f"{name}: got shape {tuple(array.shape)}; it should be ({height}, {width}), as the couplings")
    if not bool((array.abs() == 1).all()):
        raise ValueError(f"{name}: got {array[array.abs() != 1][0].item()}; spins should be +1 or -1")
    return array.int().tolist()


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
        ValueError: several lattices, periodic boundaries, a side over 24, or spins that are not +-1 of that shape.
    """

    module_name = "board"
    _esm = web.module("board")

    right: traitlets.List[Any] = traitlets.List().tag(sync=True)
    down: traitlets.List[Any] = traitlets.List().tag(sync=True)
    spins: traitlets.List[Any] = traitlets.List().tag(sync=True)
    ground: traitlets.List[Any] = traitlets.List().tag(sync=True)
    optimal = traitlets.Bool(True).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    fields = traitlets.Bool(True).tag(sync=True)
    plaquettes = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        couplings: Couplings,
        spins: Any = None,
        *,
        ground: Any = None,
        seed: int = 0,
        fields: bool = True,
        plaquettes: bool = True,
    ) -> None:
        if len(couplings) != 1 or couplings.periodic:
            kind = "periodic" if couplings.periodic else "free"
            raise ValueError(
                f"couplings: got {len(couplings)} lattices with {kind} boundaries; it should be one with free ones"
            )
        _, height, width = couplings.shape
        if max(height, width) > LARGEST_SIDE:
            raise ValueError(f"couplings: got {height} x {width} spins; no side should be over {LARGEST_SIDE}")
        self.couplings = couplings.to("cpu", torch.float64)
        known = ground_state(self.couplings) if ground is None else None
        if spins is None:
            generator = torch.Generator("cpu").manual_seed(seed)
            spins = torch.randint(2, (height, width), generator=generator, device="cpu") * 2 - 1
        super().__init__(
            right=self.couplings.right[0].tolist(),
            down=self.couplings.down[0].tolist(),
            spins=_table("spins", spins, height, width),
            ground=_table("ground", known.spins if known is not None else ground, height, width),
            optimal=bool(known.optimal[0]) if known is not None else True,
            seed=seed,
            fields=fields,
            plaquettes=plaquettes,
        )

    @traitlets.validate("spins", "ground")
    def _validate_spins(self, proposal: Any) -> Table:
        return _table(proposal["trait"].name, proposal["value"], *self.couplings.shape[1:])

    def __repr__(self) -> str:
        _, height, width = self.couplings.shape
        return f"SpinBoard({height} x {width} spins, energy {self.energy:.2f})"

    @property
    def alt(self) -> str:
        """The board in words."""
        _, height, width = self.couplings.shape
        return (
            f"Spin board, {height} x {width} spins: energy {self.energy:.2f}, {self.excess:.2f} above the ground state"
        )

    def still(self) -> bytes:
        """The lattice as a PNG: bonds (broken ones orange), frustrated plaquettes, spins."""
        from matplotlib.figure import Figure

        from elf.viz import spins, style

        _, height, width = self.couplings.shape
        figure = Figure(figsize=(0.7 * width + 0.2, 0.7 * height + 0.2), layout="constrained")
        spins.plot_lattice(figure.subplots(), self.couplings, self.tensor)
        return style.png(figure, dpi=92)

    @property
    def tensor(self) -> Tensor:
        """The spins now, (1, H, W), float64: what `elf.spins` takes."""
        return _doubles(self.spins)[None]

    @property
    def energy(self) -> float:
        """E of the spins now, by `elf.spins` in double precision."""
        return float(ising_energy(self.tensor, self.couplings))

    @property
    def excess(self) -> float:
        """Energy above the ground state."""
        best = _doubles(self.ground)[None]
        return self.energy - float(ising_energy(best, self.couplings))

    @property
    def overlap(self) -> float:
        """|q| with the ground state, up to a global flip."""
        return float(overlap(self.tensor, _doubles(self.ground)[None], self.couplings))

    @property
    def local_fields(self) -> Tensor:
        """h_i of the spins now, (H, W)."""
        return local_fields(self.tensor, self.couplings)[0]
