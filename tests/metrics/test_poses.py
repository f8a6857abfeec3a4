"""PoseBusters on good molecules and on ones broken in a known way; RDKit's logs are left as they were."""

from __future__ import annotations

import sys

import pytest
import torch
from rdkit import rdBase
from small_molecules import ETHYLENE, FIVE_BONDS, METHANE, TWO_WATERS, WATER, batch

from elf.data import qm9
from elf.metrics.poses import pose_checks


def test_good_molecules_pass_everything():
    shares = pose_checks(*batch(WATER, METHANE, ETHYLENE))
    assert len(shares) == 12
    assert all(share == 1 for share in shares.values()), shares


@pytest.mark.parametrize(
    ("atoms", "failed"),
    [
        (TWO_WATERS, {"all_atoms_connected"}),
        (FIVE_BONDS, {"sanitization", "inchi_convertible", "bond_lengths", "bond_angles"}),
    ],
)
def test_broken_molecules_fail_what_is_broken(atoms, failed):
    shares = pose_checks(*batch(atoms))
    assert failed <= {name for name, share in shares.items() if share < 1}
    assert shares["all"] == 0


def test_a_twisted_double_bond_is_not_flat(all_of_qm9):
    positions, numbers = batch((*ETHYLENE[:4], ("H", 1.87, 0, 0.93), ("H", 1.87, 0, -0.93)))
    assert pose_checks(positions, numbers)["double_bond_flatness"] == 0


def test_shares_are_over_all_molecules(all_of_qm9):
    positions, numbers = batch(WATER, METHANE, FIVE_BONDS, TWO_WATERS)
    shares = pose_checks(positions, numbers)
    assert (shares["sanitization"], shares["all_atoms_connected"], shares["all"]) == (0.75, 0.75, 0.5)


def test_qm9_itself(all_of_qm9):
    sample = all_of_qm9[torch.arange(500, len(all_of_qm9), 3500)]
    shares = pose_checks(sample.positions, sample.numbers)
    # What RDKit refuses, for a bond that the table misreads, and stiff six-rings that DFT makes flat.
    assert shares["all"] > 0.9
    assert shares["sanitization"] > 0.94


def test_internal_energy(all_of_qm9):
    positions, numbers = (
        qm9.find("ethanol", within=all_of_qm9).positions,
        qm9.find("ethanol", within=all_of_qm9).numbers,
    )
    assert pose_checks(positions, numbers, internal_energy=True)["internal_energy"] == 1


def test_rdkit_logs_are_left_as_they_were(capfd):
    from rdkit import Chem

    before = rdBase.LogStatus()
    pose_checks(*batch(FIVE_BONDS))
    assert rdBase.LogStatus() == before
    assert capfd.readouterr() == ("", "")
    with rdBase.BlockLogs():
        assert Chem.MolFromSmiles("nonsense") is None
    assert capfd.readouterr().err == ""


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="sample 0 without a real atom"):
        pose_checks(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long))
    for name in [name for name in sys.modules if name.split(".")[0] == "posebusters"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "posebusters", None)
    with pytest.raises(ImportError, match="need the package posebusters"):
        pose_checks(*batch(WATER))
