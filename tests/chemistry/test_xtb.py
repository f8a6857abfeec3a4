"""GFN2-xTB as a reference: units and order against a stand-in for tblite; its own numbers where it is installed."""

import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

import elf
from elf.chemistry import xtb

WATER = torch.tensor([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]], dtype=torch.float64)
NUMBERS = torch.tensor([8, 1, 1])


class Springs:
    """In place of tblite's calculator: half a hartree a squared bohr between the first two atoms."""

    def __init__(self, method, numbers, positions, charge=None):
        Springs.made.append((method, numbers.tolist(), charge))
        self.positions = positions

    def set(self, name, value):
        assert (name, value) == ("verbosity", 0)

    def update(self, positions):
        self.positions = positions

    def singlepoint(self):
        apart = self.positions[0] - self.positions[1]
        return {"energy": 0.5 * np.sum(apart**2), "gradient": np.stack([apart, -apart, *0 * self.positions[2:]])}


@pytest.fixture
def stand_in(monkeypatch):
    package, interface = ModuleType("tblite"), ModuleType("tblite.interface")
    interface.Calculator = Springs
    monkeypatch.setitem(sys.modules, "tblite", package)
    monkeypatch.setitem(sys.modules, "tblite.interface", interface)
    monkeypatch.setattr(Springs, "made", [], raising=False)


def test_angstrom_become_bohr_and_hartree_become_kilocalories(stand_in):
    shapes = torch.stack((WATER, 2 * WATER))
    found = xtb.gfn2_energy(NUMBERS, shapes.float(), charge=1)
    length = (WATER[0] - WATER[1]).square().sum() / 0.529177**2
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, 0.5 * 627.5095 * length * WATER.new_tensor([1.0, 4.0]), rtol=1e-5, atol=0)
    assert Springs.made == [("GFN2-xTB", [8, 1, 1], 1)]


def test_gradients_are_slopes_of_the_energies(stand_in):
    energies, gradients = xtb.gfn2_energy_and_gradient(NUMBERS, torch.stack((WATER, 2 * WATER)))
    assert torch.equal(energies, xtb.gfn2_energy(NUMBERS, torch.stack((WATER, 2 * WATER))))
    torch.testing.assert_close(gradients, _slopes(torch.stack((WATER, 2 * WATER))), atol=1e-4, rtol=0)


def _slopes(shapes):
    """Of the energy, by central differences."""
    steps = 1e-4 * torch.eye(9, dtype=torch.float64).view(9, 3, 3)
    ends = [xtb.gfn2_energy(NUMBERS, (shapes[:, None] + sign * steps).flatten(0, 1)) for sign in (1, -1)]
    return ((ends[0] - ends[1]) / 2e-4).view(shapes.shape)


def test_the_report_card_takes_it_by_name_and_hides_padding(stand_in):
    targets = torch.stack((torch.cat((WATER, torch.zeros(1, 3).double())), torch.randn(4, 3).double()))
    numbers, mask = torch.tensor([[8, 1, 1, 0], [6, 1, 1, 1]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]) > 0
    card = elf.report_card(elf.PairEnergy(), targets, mask, labels=numbers, reference="gfn2")
    assert card.rank_correlation is not None
    assert [made[1] for made in Springs.made] == [[8, 1, 1], [6, 1, 1, 1]]
    for name, given in (("gfn2", None), ("gfn1", numbers)):
        with pytest.raises(ValueError, match=f"reference is '{name}'; it should be a function, or 'gfn2' with"):
            elf.report_card(elf.PairEnergy(), targets, mask, labels=given, reference=name)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"numbers has shape \(2,\); it should be \(3,\), positions"):
        xtb.gfn2_energy(NUMBERS[:2], WATER[None])
    with pytest.raises(TypeError, match=r"numbers has dtype torch\.float32; it should be an integer type"):
        xtb.gfn2_energy(NUMBERS.float(), WATER[None])


if find_spec("tblite"):  # an extra of its own, in no lock

    def test_water_as_published():
        """GFN2-xTB's water is -5.07 hartree; stretching it by a tenth costs."""
        found = xtb.gfn2_energy(NUMBERS, torch.stack((WATER, 1.1 * WATER)))
        assert float(found[0]) / xtb.HARTREE == pytest.approx(-5.070, abs=0.002)
        assert found[1] > found[0] + 5

    def test_its_gradients_are_slopes_of_its_energies():
        shapes = torch.stack((WATER, 1.1 * WATER))
        found = xtb.gfn2_energy_and_gradient(NUMBERS, shapes)[1]
        torch.testing.assert_close(found, _slopes(shapes), atol=0.02, rtol=0)
