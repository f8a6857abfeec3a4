import math

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.Geometry import Point3D

from elf.chemistry import molecular_graph as graphs
from elf.chemistry.force_field import ForceField, force_fields
from elf.chemistry.vibrations import rigid_motions
from elf.data import qm9

MDYNE = 143.9325
"""kcal/mol/angstrom^2 in 1 mdyn/angstrom, the unit of MMFF94's bond force constants."""


def embed(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    return mol


@pytest.fixture(scope="module")
def ethanol():
    return ForceField(embed("CCO"))


def noise(shape, size, seed=0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_water_is_halgrens_quartic_bond():
    # MMFFBOND.PAR, types 31-70: kb = 7.880 mdyn/angstrom, r0 = 0.969 angstrom; cubic-stretch constant -2 / angstrom.
    field = ForceField(embed("O"))
    minimum = field.minimise()
    bond = minimum[1] - minimum[0]
    assert float(bond.norm()) == pytest.approx(0.969, abs=1e-6)
    for stretch in (-0.1, 0.05, 0.2):
        moved = minimum.clone()
        moved[1] += stretch * bond / bond.norm()
        quartic = MDYNE / 2 * 7.880 * stretch**2 * (1 - 2 * stretch + 7 / 12 * 4 * stretch**2)
        assert float(field.energy(moved) - field.energy(minimum)) == pytest.approx(quartic, rel=1e-6)


def test_gradient_is_that_of_the_energy(ethanol):
    x = ethanol.positions + noise((9, 3), 0.05)
    steps = 1e-5 * torch.eye(27, dtype=torch.float64).view(27, 9, 3)
    slopes = (ethanol.energy(x + steps) - ethanol.energy(x - steps)) / 2e-5
    torch.testing.assert_close(ethanol.gradient(x).flatten(), slopes, rtol=1e-6, atol=1e-5)


def test_gradient_does_not_depend_on_what_was_asked_before(ethanol):
    # RDKit's own CalcGrad does: its distances are those of the last energy.
    x, elsewhere = ethanol.positions, ethanol.positions + noise((9, 3), 0.3)
    ethanol.energy(x)
    fresh = ethanol.gradient(x)
    ethanol.energy(elsewhere)
    torch.testing.assert_close(ethanol.gradient(x), fresh, rtol=0, atol=0)
    ethanol.energy(elsewhere)
    stale = torch.tensor(ethanol._field.CalcGrad(x.flatten().tolist()), dtype=torch.float64).view(9, 3)
    assert not torch.allclose(stale, fresh, rtol=1e-2)


def test_hessian_is_the_energys_curvature(ethanol):
    x = ethanol.minimise()
    hessian = ethanol.hessian(x)
    torch.testing.assert_close(hessian, hessian.T)
    for seed in range(3):
        d = noise((9, 3), 1.0, seed)
        d /= d.norm()
        h = 1e-3
        curvature = float(ethanol.energy(x + h * d) - 2 * ethanol.energy(x) + ethanol.energy(x - h * d)) / h**2
        assert float(d.flatten() @ hessian @ d.flatten()) == pytest.approx(curvature, rel=1e-3)


def test_energy_is_invariant_and_its_hessian_lets_rigid_motions_pass(ethanol):
    x = ethanol.minimise()
    turn = torch.linalg.qr(noise((3, 3), 1.0)).Q
    turn *= torch.linalg.det(turn).sign()
    torch.testing.assert_close(ethanol.energy(x @ turn.T + 3), ethanol.energy(x), rtol=1e-9, atol=1e-9)
    assert float((rigid_motions(x) @ ethanol.hessian(x)).abs().max()) < 1e-3
    other = rigid_motions(x + noise((9, 3), 0.3))
    assert float((other @ ethanol.hessian(x)).abs().max()) > 1


def test_batches_of_any_shape(ethanol):
    x = ethanol.positions + noise((2, 3, 9, 3), 0.1)
    assert ethanol.energy(x).shape == (2, 3)
    assert ethanol.gradient(x.float()).dtype == torch.float64
    torch.testing.assert_close(ethanol.energy(x)[1, 2], ethanol.energy(x[1, 2]), rtol=0, atol=0)


def test_minimum_is_a_minimum(ethanol):
    x = ethanol.minimise()
    assert float(ethanol.gradient(x).abs().max()) < 1e-3
    assert bool((ethanol.energy(x + noise((50, 9, 3), 0.02)) > ethanol.energy(x)).all())


def test_flat_ammonia_leaves_its_saddle():
    mol = embed("N")
    angles = [2 * math.pi * i / 3 for i in range(3)]
    for atom, place in enumerate([(0, 0, 0), *((math.cos(a), math.sin(a), 0) for a in angles)]):
        mol.GetConformer().SetAtomPosition(atom, Point3D(*map(float, place)))
    field = ForceField(mol)
    assert float(field._descend(field.positions)[:, 2].abs().max()) < 1e-3
    minimum = field.minimise()
    normal = torch.linalg.cross(minimum[2] - minimum[1], minimum[3] - minimum[1])
    height = (minimum[0] - minimum[1]) @ normal / normal.norm()
    assert abs(float(height)) > 0.2
    with pytest.raises(ValueError, match="no minimum within 1 descents"):
        field.minimise(field.positions, tolerance=1e-30, attempts=1)


def test_a_descent_that_stops_on_a_slope_is_no_minimum(monkeypatch):
    """A bond too long by 0.05, in the plane z = 0: of the gradient, only components along z are zero."""
    monkeypatch.setattr(ForceField, "_descend", lambda self, positions: positions)
    water = torch.tensor([[0.0, 0, 0], [1.02, 0, 0], [-0.23, 0.94, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"within 2 descents; the largest gradient component there is [1-9]"):
        ForceField(embed("O")).minimise(water, attempts=2)


def test_what_mmff_cannot_type_is_named_and_counted(qm9_cache):
    with pytest.raises(ValueError, match=r"mol is .*B.*MMFF94 has no atom types"):
        ForceField(embed("CB(C)C"))
    with pytest.raises(ValueError, match="0 conformers"):
        ForceField(Chem.AddHs(Chem.MolFromSmiles("C")))
    molecules = qm9.load(cache_dir=qm9_cache)[[0, 22, 2, 3]]
    builders = {0: embed("CB(C)C"), 2: embed("O"), 3: embed("C#C")}

    def build(record, i):
        return graphs.to_rdkit(record, i) if i == 1 else builders[i]

    good, lost = force_fields(molecules, build)
    # Molecule 22, diacetylene, is one of the eight whose SMILES does not fit the geometry.
    assert [i for i, _, _ in good] == [2, 3]
    assert lost == {"unreadable": [1], "untyped": [0], "no_minimum": []}


def test_bad_positions(ethanol):
    with pytest.raises(ValueError, match=r"positions has shape \(8, 3\); it should end in \(9, 3\)"):
        ethanol.energy(ethanol.positions[:8])
    with pytest.raises(ValueError, match="NaN or infinite"):
        ethanol.gradient(ethanol.positions * math.nan)
    with pytest.raises(ValueError, match="step"):
        ethanol.hessian(ethanol.positions, step=0.0)


def test_atoms_at_one_point_have_no_hessian():
    """Displaced by a little, some of their energies are finite and no gradient is."""
    ((_, water, _),), _ = force_fields(qm9.find("water"), graphs.to_rdkit)
    with pytest.raises(ValueError, match="no two atoms should coincide"):
        water.hessian(torch.zeros(3, 3))
