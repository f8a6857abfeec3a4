"""GFN2-xTB's row of the curvature table: the whole way against a stand-in for tblite whose Hessian is known."""

from __future__ import annotations

import itertools
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from elf.chemistry.vibrations import normal_modes
from experiments.framework.experiment import find
from experiments.molecules import curvatures, tight_binding
from experiments.molecules.tight_binding import TightBinding, quantum_minimum

STIFFNESS = 0.05
"""Of every pair, in hartree a squared bohr."""


class Springs:
    """In place of tblite's calculator: equal springs between all pairs, at rest in the first shape times `scale`."""

    rests: dict[tuple[int, ...], np.ndarray]
    scale = 1.02

    def __init__(self, method, numbers, positions, charge=None):
        assert (method, charge) == ("GFN2-xTB", 0)
        self.rest = Springs.rests.setdefault(tuple(numbers.tolist()), Springs.scale * positions)

    def set(self, name, value):
        assert (name, value) == ("verbosity", 0)

    def update(self, positions):
        self.positions = positions

    def singlepoint(self):
        energy, gradient = 0.0, np.zeros_like(self.positions)
        for i, j in itertools.combinations(range(len(self.positions)), 2):
            apart = self.positions[i] - self.positions[j]
            length = np.linalg.norm(apart)
            stretch = length - np.linalg.norm(self.rest[i] - self.rest[j])
            energy += STIFFNESS / 2 * stretch**2
            gradient[i] += STIFFNESS * stretch * apart / length
            gradient[j] -= STIFFNESS * stretch * apart / length
        return {"energy": np.array(energy), "gradient": gradient}


@pytest.fixture
def stand_in(monkeypatch):
    package, interface = ModuleType("tblite"), ModuleType("tblite.interface")
    package.interface, interface.Calculator = interface, Springs
    monkeypatch.setitem(sys.modules, "tblite", package)
    monkeypatch.setitem(sys.modules, "tblite.interface", interface)
    monkeypatch.setattr(tight_binding, "version", lambda name: f"{name} 0")
    monkeypatch.setattr(Springs, "rests", {}, raising=False)


@pytest.fixture
def water() -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles("O"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return mol


def test_minimum_and_hessian_are_those_of_the_springs(stand_in, water):
    start = torch.from_numpy(water.GetConformer().GetPositions())
    minimum, hessian = quantum_minimum(water, start, [(0, 1), (0, 2)])
    torch.testing.assert_close(torch.cdist(minimum, minimum), 1.02 * torch.cdist(start, start), atol=1e-4, rtol=0)
    known = torch.zeros(9, 9, dtype=torch.float64)
    for i, j in itertools.combinations(range(3), 2):
        row = torch.zeros(3, 3, dtype=torch.float64)
        row[i], row[j] = minimum[i] - minimum[j], minimum[j] - minimum[i]
        row = row.flatten() / (minimum[i] - minimum[j]).norm()
        known += 627.5095 / 0.529177**2 * STIFFNESS * torch.outer(row, row)
    torch.testing.assert_close(hessian, known, atol=1e-2, rtol=1e-4)


def test_energies_and_gradients_come_in_the_shape_of_the_positions(stand_in, water):
    field = TightBinding(water)
    x = field.positions + 0.1 * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    field.gradient(field.positions)
    energy, gradient = field.energy(x), field.gradient(x)
    assert (energy.shape, gradient.shape) == ((4, 2), x.shape)
    moved = x.clone()
    moved[..., 1, 2] += 1e-4
    slope = (field.energy(moved) - energy) / 1e-4
    torch.testing.assert_close(slope, gradient[..., 1, 2], atol=0.02, rtol=0)


def test_the_row_is_that_of_constant_springs_where_these_are_the_truth(stand_in, tmp_path):
    settings = curvatures.Settings(2)
    found = curvatures.run_cell(settings, {"energy": "gfn2", "seed": 0}, tmp_path, ())
    usual = curvatures.run_cell(settings, {"seed": 0}, tmp_path, ())
    assert len(Springs.rests) == 2
    assert (found["tblite"], found["lost"], found["molecules"]) == ("tblite 0", [], 2)
    assert found["coordinates"] == usual["coordinates"]
    for kind, share in usual["share"]["constant"].items():
        assert found["share"]["gfn2"][kind]["mean"] == pytest.approx(share["mean"], rel=2e-3)
    rows = [{"cell": {}, "result": result} for result in (usual, found)]
    summary = curvatures.summarise(rows)
    assert [row["energy"] for row in summary][:3] == ["mmff94", "gfn2", "mse"]
    assert "Left out" not in curvatures.table({"summary": summary, "cells": rows})


def test_a_molecule_that_comes_apart_or_does_not_converge_is_counted(stand_in, water, tmp_path, monkeypatch):
    start = torch.from_numpy(water.GetConformer().GetPositions())
    monkeypatch.setattr(Springs, "scale", 1.3)
    assert quantum_minimum(water, start, [(0, 1), (0, 2)]) is None
    found = curvatures.run_cell(curvatures.Settings(2), {"energy": "gfn2", "seed": 0}, tmp_path, ())
    assert (found["lost"], found["molecules"], found["share"]) == ([0, 1], 0, {})

    def fails(self):
        raise RuntimeError("charges do not converge")

    monkeypatch.setattr(Springs, "singlepoint", fails)
    assert quantum_minimum(water, start, [(0, 1), (0, 2)]) is None


def test_without_tblite_the_row_is_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite", None)
    settings = curvatures.Settings(1)
    cells = curvatures.cells(settings, 2)
    assert cells == [{"seed": 0}, {"seed": 1}, {"energy": "gfn2", "seed": 0}, {"energy": "gfn2", "seed": 1}]
    rows = [{"cell": cell, "result": curvatures.run_cell(settings, cell, tmp_path, ())} for cell in cells[1:]]
    assert [list(row["result"]) for row in rows[1:]] == [["left_out"]] * 2
    summary = curvatures.summarise(rows)
    assert [row["energy"] for row in summary][:2] == ["mmff94", "mse"]
    text = find("curvatures").table({"summary": summary, "cells": rows}).splitlines()
    for line, seed in zip(text[-2:], (0, 1), strict=True):
        assert line.startswith(f"Left out: energy=gfn2,seed={seed}. ")
        assert "tblite" in line


if find_spec("tblite"):  # an extra of its own, in no lock

    def test_water_vibrates_as_measured():
        """Harmonic wavenumbers from spectra: 1649, 3832, 3943 (Benedict et al. 1956); GFN2-xTB is some per cent low."""
        mol = Chem.AddHs(Chem.MolFromSmiles("O"))
        AllChem.EmbedMolecule(mol, randomSeed=1)
        field = TightBinding(mol)
        minimum = field.minimise(tolerance=tight_binding.FLAT_ENOUGH)
        waves = normal_modes(field.hessian(minimum), minimum, field.masses).wavenumbers
        assert waves.tolist() == pytest.approx([1649, 3832, 3943], rel=0.1)
        zeros = torch.linalg.eigvalsh(field.hessian(minimum))[:6]
        assert zeros.abs().max() < 0.05
