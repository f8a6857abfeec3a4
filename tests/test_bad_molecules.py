"""The same bad molecules at every door: each is refused by name, before it can spoil anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from elf.data import qm9
from elf.data.molecules import Molecules, SmilesList
from elf.energy import AlignedHarmonic, Harmonic, PairEnergy
from elf.generative.molecules import KarrasDenoiser, NoisePredictor, denoising_loss
from elf.metrics import molecules as metrics
from elf.metrics.poses import pose_checks
from elf.metrics.strain import strain
from elf.metrics.substructures import bond_angles, bond_lengths, dihedral_angles
from elf.models.egnn import EGNN, GNN
from elf.models.transformer import EquivariantTransformer


def paper_loss(positions: Tensor, numbers: Tensor) -> object:
    predictor = NoisePredictor(EGNN(channels=4, layers=1))
    return denoising_loss(predictor, PairEnergy(), positions, numbers, torch.Generator().manual_seed(0))


def notebook_loss(positions: Tensor, numbers: Tensor) -> object:
    denoiser = KarrasDenoiser(EquivariantTransformer(channels=4, heads=1, layers=1))
    return denoising_loss(denoiser, PairEnergy(), positions, numbers, torch.Generator().manual_seed(0))


def energy_of(energy: torch.nn.Module) -> Callable[[Tensor, Tensor], object]:
    return lambda positions, numbers: energy(positions, torch.zeros_like(positions), numbers > 0)


# What looks at elements as well as at coordinates, and what at coordinates alone.
CHEMICAL = {
    "stability": metrics.stability,
    "evaluate": metrics.evaluate,
    "to_smiles": metrics.to_smiles,
    "bond_lengths": bond_lengths,
    "bond_angles": bond_angles,
    "dihedral_angles": dihedral_angles,
    "pose_checks": pose_checks,
    "strain": strain,
    "denoising_loss, NoisePredictor": paper_loss,
    "denoising_loss, KarrasDenoiser": notebook_loss,
}
DOORS = {
    **CHEMICAL,
    **{type(energy).__name__: energy_of(energy) for energy in (Harmonic(), AlignedHarmonic(), PairEnergy())},
}
NUMBERS = torch.tensor([[6, 1, 1], [8, 1, 0]])
POSITIONS = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_good_molecules_pass(door):
    door(POSITIONS, NUMBERS)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_coordinates_that_are_not_finite(door, value):
    bad = POSITIONS.clone()
    bad[1, 0, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        door(bad, NUMBERS)
    harmless = POSITIONS.clone()
    harmless[1, 2] = value  # padding
    door(harmless, NUMBERS)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_empty_molecule(door):
    with pytest.raises(ValueError, match=r"(molecule|sample) 1 (is empty|without a real atom)"):
        door(POSITIONS, torch.tensor([[6, 1, 1], [0, 0, 0]]))


@pytest.mark.parametrize("door", CHEMICAL.values(), ids=CHEMICAL.keys())
def test_unknown_element(door):
    with pytest.raises(ValueError, match=r"unknown elements \[17\]"):
        door(POSITIONS, torch.tensor([[6, 1, 17], [8, 1, 0]]))


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_one_atom_is_a_molecule(door):
    door(torch.zeros(1, 1, 3), torch.tensor([[6]]))


def test_more_atoms_than_any_molecule_of_the_data():
    """Nothing here has a largest size; the data do, and say so."""
    positions = 3 * torch.randn(1, 300, 3, generator=torch.Generator().manual_seed(1))
    numbers = torch.full((1, 300), 6)
    for door in (metrics.stability, bond_angles, paper_loss, notebook_loss, energy_of(PairEnergy())):
        door(positions, numbers)
    with pytest.raises(ValueError, match=r"no QM9 molecule has atoms=\(30, 99\)"):
        qm9.load(atoms=(30, 99))


@pytest.mark.parametrize("network", [EGNN(channels=4, layers=1), GNN(channels=4, layers=1)])
def test_networks_say_what_they_were_built_for(network):
    with pytest.raises(ValueError, match=r"features has shape \(1, 2, 16\); it should be \(1, 2, 6\)"):
        network(torch.zeros(1, 2, 3), torch.zeros(1, 2, 16), torch.zeros(1), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", ["positions", "numbers", "index", "charges"])
def test_a_record_of_what_is_no_tensor_is_refused_by_name(name):
    """As where nothing checks annotations."""
    record = object.__new__(Molecules)
    good = {"positions": torch.zeros(1, 2, 3), "numbers": torch.ones(1, 2).long(), "index": torch.ones(1).long()}
    for field, value in {**good, "smiles": SmilesList.from_strings(["C"]), "charges": None, name: [1]}.items():
        object.__setattr__(record, field, value)
    with pytest.raises(TypeError, match=f"{name} is a list; it should be a torch.Tensor"):
        record.__post_init__()


@pytest.mark.parametrize("elements", [np.zeros((2, 2)), [[6, 1]], [6.0], "C"], ids=["matrix", "list", "float", "text"])
def test_elements_of_one_hots_are_integers(elements):
    with pytest.raises(TypeError, match=r"elements is .*; it should be an integer"):
        inspect.unwrap(qm9.one_hot)(torch.tensor([[6]]), elements)
