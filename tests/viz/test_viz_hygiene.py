"""Pictures do not depend on torch's defaults, and ask no accelerator for double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch.overrides import TorchFunctionMode

import elf
from course import spins
from course.widgets import Descent, HeatBath, Knobs, Playground, SpinBoard, Trajectory, dashboard
from course.widgets.knobs import scene, tag
from elf.viz import fields, landscapes, molecules

WATER = torch.tensor([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
NUMBERS = torch.tensor([8, 1, 1])
RIGHT, DOWN = torch.ones(1, 2, 1), -torch.ones(1, 1, 2)
SPINS = torch.tensor([[[1, -1], [1, 1]]])
COUPLINGS = elf.spins.Couplings(RIGHT, DOWN)


def axes() -> Any:
    return Figure().subplots()


def plane(x: torch.Tensor) -> torch.Tensor:
    return x[:, 1:] if x.ndim == 2 else x[:, :, 1:]


PICTURES: dict[str, Callable[[torch.Tensor], Any]] = {
    "molecule": lambda x: molecules.draw_molecule(axes(), x, NUMBERS, forces=x, target=x),
    "gallery": lambda x: molecules.gallery([x], [NUMBERS], forces=[x], targets=[x]).html,
    "bonds": lambda x: molecules.bonds(x, NUMBERS),
    "frame": lambda x: molecules.principal_frame(x),
    "trajectory": lambda x: Trajectory(x[None], NUMBERS, targets=x, forces=x[None]).still(),
    "points": lambda x: dashboard.draw_points(plane(x)),
    "sample": lambda x: dashboard.draw_molecule((x, NUMBERS)),
    "playground": lambda x: Playground(plane(x), springs=lambda r: 1 / (1 + r)).still(),
    "descent": lambda x: Descent(x[1, 1:] - x[0, 1:], target=x[2, 1:].numpy()).still(),
    "knobs": lambda x: Knobs({"a": ["b"]}, [scene(x[None], NUMBERS, arrows=x[None])], [tag("t", x[1, 1:2])]).still(),
    "bath": lambda x: HeatBath("bond", count=3, temperature=float(x[1, 1])).still(),
    "particles": lambda x: fields.plot_particles(axes(), plane(x), "red"),
    "paths": lambda x: fields.plot_paths(axes(), x[None], "red"),
}


@pytest.fixture(params=["double", "meta"])
def other_defaults(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64) if request.param == "double" else torch.set_default_device("meta")
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


@pytest.mark.parametrize("name", PICTURES)
def test_defaults_of_torch_change_nothing(name: str, other_defaults: None) -> None:
    PICTURES[name](WATER)


def test_boards_and_energies_keep_their_defaults(other_defaults: None) -> None:
    assert SpinBoard(COUPLINGS, ground=[[1, 1], [1, 1]]).energy <= 4
    spins.plot_lattice(axes(), COUPLINGS, SPINS)
    spins.plot_matching(axes(), COUPLINGS, SPINS)
    spins.plot_walls(axes(), COUPLINGS, SPINS, -SPINS)
    x = WATER.double()
    fields.plot_forces(axes(), x, 2 * x, elf.PairEnergy())
    landscapes.plot_landscape(axes(), landscapes.landscape(elf.Harmonic(), x, ((0, 0), (1, 1)), points=5), "red")
    fields.descent_path(elf.Harmonic(), x, 2 * x, steps=2)


class NoDoubleBeforeCpu(TorchFunctionMode):
    """As on an accelerator without double precision (MPS): only what is on the CPU becomes float64."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        double = func is torch.Tensor.double or (func is torch.Tensor.to and torch.float64 in args[1:])
        if double and args[0].dtype != torch.float64 and not any(args[0] is known for known in self.on_cpu):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as MPS doesn't support float64.")
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.cpu, torch.tensor):
            # A new object for each: `cpu` gives back a tensor that is there already.
            result = result.view_as(result)
            self.on_cpu.append(result)
        return result


@pytest.mark.parametrize("name", PICTURES)
def test_double_precision_waits_for_the_cpu(name: str) -> None:
    with NoDoubleBeforeCpu():
        with pytest.raises(TypeError, match="float64"):
            WATER.double()
        PICTURES[name](WATER)
