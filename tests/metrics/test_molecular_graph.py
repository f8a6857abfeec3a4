"""Graphs of molecules beyond QM9: other elements, charges, radicals, hydrogen; and what does not fit is told."""

from __future__ import annotations

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from elf.chemistry.molecular_graph import bond_orders, to_rdkit
from elf.data.molecules import Molecules, SmilesList

SMILES = ["CS", "ClCC1CS1", "BrC=C", "CSSC", "CP", "C[Si](C)C", "CB(C)F", "CI", "C[NH3+]", "CC(=O)[O-]", "Clc1ccccc1"]


def record(smiles: str, *, scale: float = 1.0) -> Molecules:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    positions = torch.tensor(mol.GetConformer().GetPositions(), dtype=torch.float32)[None]
    numbers = torch.tensor([[atom.GetAtomicNum() for atom in mol.GetAtoms()]])
    return Molecules(scale * positions, numbers, SmilesList.from_strings([smiles]), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("smiles", [*SMILES, "[CH3]", "[H][H]", "C[S-].[Na+]", "[2H]C"])
def test_any_element_charges_and_radicals(smiles):
    one = record(smiles)
    mol = to_rdkit(one, 0)
    assert Chem.CanonSmiles(Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)) == Chem.CanonSmiles(
        smiles.replace("[2H]", "")
    )
    assert torch.equal(torch.tensor(mol.GetConformer().GetPositions()), one.positions[0].double())
    orders, verified = bond_orders(one)
    assert verified.tolist() == [True]
    kekule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    by_rdkit = torch.tensor(Chem.GetAdjacencyMatrix(kekule, useBO=True)).long()
    assert torch.equal(orders[0].sum(-1), by_rdkit.sum(-1))


@pytest.mark.parametrize("smiles", SMILES)
def test_a_stretched_bond_is_told_with_its_elements(smiles):
    with pytest.raises(ValueError, match=r"molecule 0: .*the bond [A-Z][a-z]?\d+-[A-Z][a-z]?\d+ is too long in 3D"):
        to_rdkit(record(smiles, scale=1.6), 0)
    assert not bond_orders(record(smiles, scale=1.6))[1].any()


def test_bonds_end_at_1_3_times_rdkits_radii():
    radius = Chem.GetPeriodicTable().GetRcovalent
    for a, b, smiles in ((17, 17, "ClCl"), (35, 9, "FBr")):
        limit = 1.3 * (radius(a) + radius(b))
        for length, fits in ((0.999 * limit, True), (1.001 * limit, False)):
            positions = torch.tensor([[[0.0, 0, 0], [length, 0, 0]]])
            numbers = torch.tensor([[Chem.MolFromSmiles(smiles).GetAtomWithIdx(i).GetAtomicNum() for i in (0, 1)]])
            one = Molecules(positions, numbers, SmilesList.from_strings([smiles]), torch.zeros(1).long())
            assert bool(bond_orders(one)[1]) is fits


@pytest.mark.parametrize(
    ("smiles", "numbers", "message"),
    [
        ("nonsense", [6, 1], "RDKit cannot read it"),
        ("", [6, 1], "another order"),
        ("CO", [8, 6], "another order"),
        ("C*", [6, 6], "another order"),
        ("C", [6, 1], "atom 0 has 1 hydrogens near it, not 4"),
        ("C", [119, 1], r"unknown elements \[119\]"),
        ("C", [-6, 1], r"unknown elements \[-6\]"),
        ("[H][H]", [1, 0], "another order"),
    ],
)
def test_what_does_not_fit_is_told(smiles, numbers, message, capfd):
    positions = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]])
    one = Molecules(positions, torch.tensor([numbers]), SmilesList.from_strings([smiles]), torch.zeros(1).long())
    with pytest.raises(ValueError, match=message):
        to_rdkit(one, 0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        to_rdkit(Molecules(positions * torch.nan, one.numbers, one.smiles, one.index), 0)
    with pytest.raises(IndexError, match="rows of 1 molecules"):
        to_rdkit(one, 1)
    assert capfd.readouterr().err == ""
