"""EDM's table for GEOM-Drugs, typed a second time, and what it makes of molecules."""

from __future__ import annotations

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from small_molecules import NUMBER, WATER, molecule

from elf.chemistry import bonds
from elf.chemistry.force_field import ForceField
from elf.chemistry.molecular_graph import bond_orders
from elf.data import qm9
from elf.metrics import molecules as metrics
from elf.springs import BondAware

# EDM's dictionaries row by row, as text: an independent typing of the longer table.
ROWS = """
H: H74 C109 N101 O96 F92 B119 Si148 P144 As152 S134 Cl127 Br141 I161
C: H109 C154 N147 O143 F135 Si185 P184 S182 Cl177 Br194 I214
N: H101 C147 N145 O140 F136 Cl175 Br214 S168 I222 P177
O: H96 C143 N140 O148 F142 Br172 S151 P163 Si163 Cl164 I194
F: H92 C135 N136 O142 F142 S158 Si160 Cl166 Br178 P156 I187
B: H119 Cl175
Si: Si233 H148 C185 O163 S200 F160 Cl202 Br215 I243
Cl: Cl199 H127 C177 N175 O164 P203 S207 B175 Si202 F166 Br214
S: H134 C182 N168 O151 S204 F158 Cl207 Br225 Si200 P210 I234
Br: Br228 H141 C194 O172 N214 Si215 S225 F178 Cl214 P222
P: P221 H144 C184 O163 Cl203 S210 F156 N177 Br222
I: H161 C214 Si243 N222 O194 S234 F187 I266
As: H152
"""
AXES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1))


def test_geom_single_bonds_equal_edm_row_by_row():
    table = torch.zeros(84, 84)
    for row in ROWS.strip().splitlines():
        first, _, others = row.partition(": ")
        for entry in others.split():
            second = entry.rstrip("0123456789")
            table[NUMBER[first], NUMBER[second]] = int(entry.removeprefix(second)) + 10
    assert torch.equal(bonds.GEOM.thresholds()[0], table)


def test_geom_adds_to_qm9_and_changes_nothing_there():
    assert torch.equal(bonds.GEOM.thresholds()[:, :10, :10][:, [0, 1, 6, 7, 8, 9]][:, :, [0, 1, 6, 7, 8, 9]],
                       bonds.QM9.thresholds()[:, [0, 1, 6, 7, 8, 9]][:, :, [0, 1, 6, 7, 8, 9]])  # fmt: skip
    wide = bonds.GEOM.thresholds()
    assert torch.equal(wide, wide.mT)
    assert (wide[1:] <= wide[:-1]).all()


@pytest.mark.parametrize(
    ("atoms", "stable"),
    [
        (WATER, True),
        ((("H", 0, 0, 0), ("Cl", 1.27, 0, 0)), True),
        ((("P", 0, 0, 0), ("H", 1.42, 0, 0), ("H", 0, 1.42, 0), ("H", 0, 0, 1.42)), True),  # three bonds
        ((("P", 0, 0, 0), ("H", 1.42, 0, 0), ("H", 0, 1.42, 0)), False),
        ((("P", 0, 0, 0), *(("F", *(1.56 * s for s in f)) for f in AXES)), True),  # five
        ((("S", 0, 0, 0), ("H", 1.34, 0, 0), ("H", 0, 1.34, 0)), False),  # EDM's rule: sulphur has four bonds or none
        ((("B", 0, 0, 0), ("C", 1.56, 0, 0)), False),  # no entry, no bond
    ],
)  # fmt: skip
def test_stability_under_the_rules_of_geom(atoms, stable):
    positions, numbers = molecule(*atoms)
    assert bool(metrics.stability(positions, numbers, rules=bonds.GEOM).molecule_stable) is stable


def test_more_bonds_than_any_valence_is_not_stable():
    positions, numbers = torch.zeros(1, 9, 3), torch.full((1, 9), 6)
    assert not metrics.stability(positions, numbers, rules=bonds.GEOM).atom_stable.any()


def test_elements_are_those_of_the_rules():
    chloride = molecule(("H", 0, 0, 0), ("Cl", 1.27, 0, 0))
    with pytest.raises(ValueError, match=r"unknown elements \[17\]"):
        metrics.stability(*chloride)
    assert metrics.evaluate(*chloride, rules=bonds.GEOM)["molecule_stability"] == 1
    assert metrics.to_smiles(*chloride, rules=bonds.GEOM) == ["Cl"]
    with pytest.raises(ValueError, match=r"unknown elements \[2\]"):
        metrics.stability(torch.zeros(1, 1, 3), torch.tensor([[2]]), rules=bonds.GEOM)


def test_a_cutoff_does_not_tell_bonds(all_of_qm9):
    """The figures in BondAware's docstring, from QM9's graphs, RDKit's force field and water."""
    rows = []
    for part in torch.arange(len(all_of_qm9)).split(8000):
        carbon = all_of_qm9.numbers[part] == 6
        distance = torch.cdist(all_of_qm9.positions[part], all_of_qm9.positions[part])
        near = (distance > 1.7) & (distance < 1.8) & carbon[:, :, None] & carbon[:, None, :]
        rows.append(part[near.flatten(1).any(1)])
    some = all_of_qm9[torch.cat(rows)]
    orders, _ = bond_orders(some)
    carbon = (some.numbers == 6) & orders.any(-1)  # of the verified ones
    distance = torch.cdist(some.positions, some.positions)
    pair = (carbon[:, :, None] & carbon[:, None, :]).triu(1)
    longest, shortest = distance[pair & (orders > 0)].max(), distance[pair & (orders == 0)].min()
    assert (float(longest), float(shortest)) == (pytest.approx(1.772, abs=1e-3), pytest.approx(1.744, abs=1e-3))

    for smiles, atoms, length in (
        ("CCl", (0, 1), 1.77),
        ("CS", (0, 1), 1.81),
        ("CBr", (0, 1), 1.94),
        ("CSSC", (1, 2), 2.05),
    ):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(mol, randomSeed=1)
        field = ForceField(mol)
        bond = field.minimise()[list(atoms)]
        assert float((bond[0] - bond[1]).norm()) == pytest.approx(length, abs=0.015)
        assert BondAware(k_bond=7.0)((bond[0] - bond[1]).norm()) < 1  # not bonded, it says
    for name, length in (("water", 1.513), ("ammonia", 1.619), ("methane", 1.783)):
        found = qm9.find(name, within=all_of_qm9)
        hydrogens = torch.pdist(found.positions[0, found.numbers[0] == 1])
        assert float(hydrogens.min()) == pytest.approx(length, abs=2e-3)
        assert bool((BondAware(k_bond=7.0)(hydrogens) == 7).all()) is (name != "methane")


@pytest.mark.parametrize(
    ("smiles", "read"),
    [("Clc1ccccc1", "ClC1CCCCC1"), ("c1ccccc1", "C1CCCCC1"), ("CC(=O)[O-]", "CC(O)O"), ("C[NH3+]", None)],
)
def test_what_the_rules_do_not_see(smiles, read):
    """Aromatic bonds and charges, as the docstrings say; RDKit finds what is read "valid"."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    positions = ForceField(mol).minimise()[None]
    numbers = torch.tensor([[atom.GetAtomicNum() for atom in mol.GetAtoms()]])
    assert metrics.to_smiles(positions, numbers, rules=bonds.GEOM) == [read]
    found = metrics.evaluate(positions, numbers, rules=bonds.GEOM)
    assert (found["validity"], found["molecule_stability"]) == (read is not None, 0)


def test_a_gas_of_separate_atoms_is_valid(all_of_qm9):
    some = all_of_qm9[::1000]
    gas = 1000 * torch.rand(some.positions.shape, generator=torch.Generator().manual_seed(0))
    found = metrics.evaluate(gas, some.numbers)
    assert (found["validity"], found["molecule_stability"], found["completeness"]) == (1, 0, 0)


def test_why_qm9_is_not_all_stable(all_of_qm9):
    """The figures of the module's docstring: the table fails in rings, one bond short or one over."""
    result = metrics.stability(all_of_qm9.positions, all_of_qm9.numbers)
    unstable = all_of_qm9.numbers[~result.atom_stable & result.mask]
    assert len(unstable) == 15_145
    assert (unstable == 6).float().mean() == pytest.approx(0.617, abs=1e-3)
    assert (unstable == 7).float().mean() == pytest.approx(0.362, abs=1e-3)
    assert int((~result.molecule_stable).sum()) == 6_181
