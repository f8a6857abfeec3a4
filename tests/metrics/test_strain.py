"""Strain against the force field's own expansion, and what has none."""

from __future__ import annotations

import pytest
import torch
from small_molecules import FIVE_BONDS, METHANE, RADICAL, TWO_WATERS, WATER, batch, molecule

from elf.chemistry.force_field import ForceField
from elf.data import qm9
from elf.metrics.molecules import to_rdkit
from elf.metrics.strain import REASONS, strain


def test_zero_at_the_minimum_and_quadratic_around_it():
    from rdkit import Chem

    positions, numbers = molecule(*METHANE)
    mol = to_rdkit(positions[0], numbers[0])
    Chem.SanitizeMol(mol)
    field = ForceField(mol)
    minimum = field.minimise()
    assert strain(minimum[None], numbers).energies.tolist() == pytest.approx([0.0], abs=1e-6)
    kick = 0.01 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = 0.5 * kick.flatten() @ field.hessian(minimum) @ kick.flatten()
    assert strain((minimum + kick)[None], numbers).energies.tolist() == pytest.approx([float(wanted)], rel=0.1)


def test_broken_molecules_are_counted_by_reason():
    positions, numbers = batch(METHANE, FIVE_BONDS, RADICAL, TWO_WATERS, WATER)
    result = strain(positions, numbers)
    assert result.index == (0, 4)
    assert result.lost == {"invalid": 1, "open_valences": 1, "fragments": 1, "untyped": 0, "no_minimum": 0}
    assert set(result.lost) == set(REASONS)
    assert strain(*molecule(*FIVE_BONDS)).median is None


def test_turning_a_molecule_changes_nothing(all_of_qm9):
    ethanol = qm9.find("ethanol", within=all_of_qm9)
    turned = (
        ethanol.positions.double()
        @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
        + 5
    )
    here, there = (strain(x, ethanol.numbers).median for x in (ethanol.positions, turned))
    assert here == pytest.approx(there, abs=1e-3)


def test_qm9_itself(all_of_qm9):
    sample = all_of_qm9[torch.arange(700, len(all_of_qm9), 2200)]
    result = strain(sample.positions, sample.numbers)
    assert len(result.energies) + sum(result.lost.values()) == len(sample)
    assert len(result.energies) > 0.85 * len(sample)
    assert (result.energies >= -1e-6).all()
    assert 3 < result.median < 7
    noise = 0.03 * torch.randn(sample.positions.shape, generator=torch.Generator().manual_seed(0))
    assert strain(sample.positions + noise, sample.numbers).median > 2 * result.median


def test_bad_molecules_are_named():
    with pytest.raises(ValueError, match="sample 0 without a real atom"):
        strain(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long))
