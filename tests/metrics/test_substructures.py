"""Lengths, angles and dihedrals: by hand, and against RDKit's own geometry."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
import torch
from rdkit.Chem import rdMolTransforms as transforms
from small_molecules import ACETYLENE, ETHYLENE, METHANE, PEROXIDE, WATER, batch, molecule

from elf.chemistry import bonds
from elf.metrics import molecules as metrics
from elf.metrics.substructures import ANGLES, BONDS, DIHEDRALS, bond_angles, bond_lengths, dihedral_angles


def test_by_hand():
    positions, numbers = batch(WATER, METHANE, ETHYLENE)
    lengths = bond_lengths(positions, numbers)
    assert {name: len(values) for name, values in lengths.items()} == {"C1H": 8, "C2C": 1, "H1O": 2}
    assert lengths["C2C"].tolist() == pytest.approx([1.33])
    angles = bond_angles(positions, numbers)
    assert {name: len(values) for name, values in angles.items()} == {"C2C1H": 4, "H1C1H": 8, "H1O1H": 1}
    assert angles["H1C1H"][:6].tolist() == pytest.approx([109.471] * 6, abs=1e-3)
    dihedrals = dihedral_angles(positions, numbers)
    assert set(dihedrals) == {"H1C2C1H"}
    assert sorted(abs(dihedrals["H1C2C1H"]).tolist()) == pytest.approx([0, 0, 180, 180], abs=1e-3)


def test_the_sign_of_a_dihedral_turns_with_the_mirror():
    positions, numbers = molecule(*PEROXIDE)
    here, there = (dihedral_angles(x, numbers)["H1O1O1H"] for x in (positions, positions * torch.tensor([1, 1, -1.0])))
    assert here.tolist() == pytest.approx([90.0], abs=1e-3)
    assert there.tolist() == pytest.approx([-90.0], abs=1e-3)


def test_in_line_there_is_an_angle_and_no_dihedral():
    positions, numbers = molecule(*ACETYLENE)
    assert bond_angles(positions, numbers)["C3C1H"].tolist() == pytest.approx([180.0, 180.0], abs=1e-3)
    assert dihedral_angles(positions, numbers) == {}


def test_four_points_anywhere_by_the_textbook():
    """Angles by the arc cosine; the dihedral between what of the outer bonds is normal to the middle one."""
    x = 3 + torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    orders = torch.diag(torch.ones(3, dtype=torch.long), 1).expand(5, 4, 4)
    numbers, orders = torch.full((5, 4), 6), orders + orders.mT
    a, b, c = x.diff(dim=1).unbind(1)
    lengths = torch.stack([a, b, c]).norm(dim=-1)
    assert sorted(bond_lengths(x, numbers, orders)["C1C"].tolist()) == pytest.approx(sorted(lengths.flatten().tolist()))
    cosines = torch.stack([-(a * b).sum(-1) / lengths[0] / lengths[1], -(b * c).sum(-1) / lengths[1] / lengths[2]])
    angles = cosines.acos().rad2deg().flatten().tolist()
    assert sorted(bond_angles(x, numbers, orders)["C1C1C"].tolist()) == pytest.approx(sorted(angles))
    along = b / lengths[1][:, None]
    near, far = (v - (v * along).sum(-1, keepdim=True) * along for v in (-a, c))
    turned = torch.atan2((torch.linalg.cross(near, far) * along).sum(-1), (near * far).sum(-1)).rad2deg()
    assert sorted(dihedral_angles(x, numbers, orders)["C1C1C1C"].tolist()) == pytest.approx(sorted(turned.tolist()))


@pytest.mark.parametrize("size", [1.0, 100.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_how_nearly_in_line_is_a_matter_of_angle_not_of_size(size, reverse):
    orders = torch.diag(torch.ones(3, dtype=torch.long), 1)[None]
    for sine, expected in ((5e-4, 0), (2e-3, 1)):
        x = torch.tensor([[[0, 0, 0], [1, 0, 0], [2, sine, 0], [3, 1, 1]]], dtype=torch.float64)
        x = size * (x.flip(1) if reverse else x)
        found = dihedral_angles(x, torch.full((1, 4), 6), orders + orders.mT)
        assert len(found.get("C1C1C1C", ())) == expected


def rdkit_values(sample) -> tuple[dict, dict, dict]:
    """The three tables atom by atom, with RDKit's functions."""
    found = defaultdict(list), defaultdict(list), defaultdict(list)
    for x, z in zip(sample.positions, sample.numbers, strict=True):
        mol = metrics.to_rdkit(x[z > 0], z[z > 0])
        conformer = mol.GetConformer()

        def name(*path, mol=mol):
            words = [mol.GetAtomWithIdx(path[0]).GetSymbol()]
            for a, b in pairwise(path):
                order = int(mol.GetBondBetweenAtoms(a, b).GetBondTypeAsDouble())
                words += [str(order), mol.GetAtomWithIdx(b).GetSymbol()]
            return min("".join(words), "".join(reversed(words)))

        near = [[n.GetIdx() for n in atom.GetNeighbors()] for atom in mol.GetAtoms()]
        for j, around in enumerate(near):
            for i in around:
                if i < j:
                    found[0][name(i, j)].append(transforms.GetBondLength(conformer, i, j))
                for k in around:
                    if i < k:
                        found[1][name(i, j, k)].append(transforms.GetAngleDeg(conformer, i, j, k))
                    for l in near[k]:
                        if j < k and i not in (k, l) and l != j:
                            bent = all(
                                0.1 < transforms.GetAngleDeg(conformer, *three) < 179.9
                                for three in ((i, j, k), (j, k, l))
                            )
                            if bent:
                                angle = transforms.GetDihedralDeg(conformer, i, j, k, l)
                                found[2][name(i, j, k, l)].append(angle)
    return found


def test_equals_rdkit_on_qm9(all_of_qm9):
    sample = all_of_qm9[torch.arange(30, len(all_of_qm9), 3500)]
    ours = [f(sample.positions.double(), sample.numbers) for f in (bond_lengths, bond_angles, dihedral_angles)]
    for mine, theirs, tolerance in zip(ours, rdkit_values(sample), (1e-5, 1e-3, 1e-2), strict=True):
        assert {name: len(values) for name, values in mine.items()} == {k: len(v) for k, v in theirs.items()}
        for name, values in mine.items():
            # +180 and -180 are the same angle, and either may be written.
            a, b = (torch.as_tensor(v).double() for v in (values, theirs[name]))
            a, b = (torch.where(v < -179.99, v + 360, v).sort().values for v in (a, b))
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_the_types_compared_are_the_most_frequent_ones(all_of_qm9):
    sample = all_of_qm9[::100]
    for types, f in ((BONDS, bond_lengths), (ANGLES, bond_angles), (DIHEDRALS, dihedral_angles)):
        counts = {name: len(values) for name, values in f(sample.positions, sample.numbers).items()}
        assert all(counts[name] > 300 for name in types)
        assert max(counts, key=counts.__getitem__) in types


def test_given_bonds_are_used():
    positions, numbers = molecule(*WATER)
    stretched = positions * 1.5
    assert bond_lengths(stretched, numbers) == {}
    orders = torch.tensor([[[0, 1, 1], [1, 0, 0], [1, 0, 0]]])
    assert bond_lengths(stretched, numbers, orders)["H1O"].tolist() == pytest.approx([1.44, 1.44], abs=1e-2)
    with pytest.raises(ValueError, match=r"orders has torch.int64 \(1, 2, 2\); it should be integers \(1, 3, 3\)"):
        bond_angles(positions, numbers, orders[:, :2, :2])


def test_rules_and_errors():
    positions, numbers = molecule(("H", 0, 0, 0), ("Cl", 1.27, 0, 0))
    assert set(bond_lengths(positions, numbers, rules=bonds.GEOM)) == {"Cl1H"}
    with pytest.raises(ValueError, match=r"unknown elements \[17\]"):
        bond_lengths(positions, numbers)
    with pytest.raises(ValueError, match="NaN"):
        dihedral_angles(positions + torch.nan, torch.tensor([[6, 6]]))
