"""The drug-like molecules that elf brings: what is in the file, that it is chemistry, that the tool makes it again."""

from __future__ import annotations

import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from rdkit import Chem

from elf.chemistry import molecular_graph
from elf.chemistry.bonds import GEOM
from elf.chemistry.force_field import ForceField
from elf.data import druglike
from elf.metrics import molecules as metrics

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import make_druglike  # noqa: E402


@pytest.fixture(scope="module")
def everything():
    return druglike.load()


def test_all_molecules_are_there(everything):
    assert len(everything) == len(set(everything.smiles)) == len(everything.index.unique()) == druglike.SIZE == 10_000
    assert set(everything.numbers.unique().tolist()) == {0, 1, 6, 7, 8, 9, 16, 17, 35}
    assert (everything.counts.min(), everything.counts.max()) == (16, 58)
    assert everything.counts.float().mean() == pytest.approx(39.5, abs=0.1)
    assert everything.positions.dtype == torch.float32
    assert (everything.positions[~everything.mask] == 0).all()
    assert (everything.positions.sum(1) / everything.counts[:, None]).abs().max() < 1e-3
    assert 1 <= everything.index.min() < everything.index.max() <= 1_584_663
    assert druglike.FILE.stat().st_size < 2.5e6
    assert hashlib.sha256(druglike.FILE.read_bytes()).hexdigest() == druglike.SHA256


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    data = bytearray(druglike.FILE.read_bytes())
    data[1000] ^= 1
    (tmp_path / "druglike.npz").write_bytes(data)
    monkeypatch.setattr(druglike, "FILE", tmp_path / "druglike.npz")
    with pytest.raises(ValueError, match=r"druglike.npz has SHA-256 [0-9a-f]{64}; it should be"):
        druglike.load()


def test_splits_are_all_molecules_once_and_arguments_are_those_of_qm9(everything):
    parts = {split: druglike.load(split=split) for split in druglike.SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 8000, "validation": 1000, "test": 1000}
    assert torch.equal(torch.cat([part.index for part in parts.values()]), everything.index)
    # Random order: no split is larger molecules, or later rows of MOSES, than another.
    for part in parts.values():
        assert part.counts.float().mean() == pytest.approx(39.5, abs=0.8)
        assert part.index.float().mean() == pytest.approx(1_584_663 / 2, rel=0.05)
    some = druglike.load(split="test", atoms=(1, 30), limit=20, seed=3)
    assert len(some) == 20
    assert some.positions.shape[1] == some.counts.max() <= 30
    assert set(some.index.tolist()) <= set(parts["test"].index.tolist())
    assert torch.equal(druglike.load(split="test", atoms=(1, 30), limit=20, seed=3).index, some.index)
    for arguments, message in (
        ({"split": "valid"}, "split is 'valid'"),
        ({"limit": 0}, "limit is 0"),
        ({"atoms": 99}, "no drug-like molecule has atoms=99"),
    ):
        with pytest.raises(ValueError, match=message):
            druglike.load(**arguments)


def test_every_smiles_is_found_again_in_its_geometry_and_no_atoms_clash(everything):
    """By the order of atoms and RDKit's covalent radii; a fiftieth of the molecules here, the tool tries all."""
    some = everything[::50].trimmed()
    orders, verified = molecular_graph.bond_orders(some)
    assert verified.all()
    bonded = orders > 0
    near = bonded | (bonded.float() @ bonded.float() > 0)
    real = some.mask[:, :, None] & some.mask[:, None]
    distance = (some.positions[:, :, None] - some.positions[:, None]).norm(dim=-1)
    assert distance[bonded].min() > 0.9
    assert distance[real & ~near].min() > 1.5
    for i in range(0, len(some), 20):
        mol = Chem.RemoveHs(molecular_graph.to_rdkit(some, i))
        assert Chem.CanonSmiles(Chem.MolToSmiles(mol)) == Chem.CanonSmiles(some.smiles[i])


def test_conformers_are_minima_of_mmff94(everything):
    for i in range(0, len(everything), 2000):
        field = ForceField(molecular_graph.to_rdkit(everything, i))
        drop = field.energy(field.positions) - field.energy(field.minimise())
        assert 0 <= drop < 0.05  # kcal/mol; what thousandths of an angstrom and RDKit's tolerance leave


def test_the_share_that_edms_table_finds_stable_is_low(everything):
    """The table reads no charges and no aromatic bonds: what it finds here is the yardstick of samples."""
    test = everything[druglike.SPLITS["test"]]
    scores = metrics.summary(test.positions, test.numbers, rules=GEOM)
    assert scores["atom_stability"] == pytest.approx(0.83, abs=0.02)
    assert scores["molecule_stability"] == pytest.approx(0.05, abs=0.02)


SMILES = ["CCO", "CC(O)CN", "[CH3]", "C[N+](=O)[O-]", "nonsense"]


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    path = tmp_path / "molsets.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(make_druglike.INSIDE, gzip.compress("\n".join(["SMILES", *SMILES, ""]).encode()))
    monkeypatch.setattr(make_druglike, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_tool_makes_the_same_file_killed_or_not(wheel, tmp_path, monkeypatch):
    smiles = make_druglike.smiles_of(wheel)
    assert smiles == SMILES
    monkeypatch.setattr(make_druglike, "PART", 4)
    whole, lost = make_druglike.make(smiles, 3, tmp_path / "whole")
    assert lost == {"radical": 1}  # the first four of the permutation hold no nonsense

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(make_druglike.np, "savez_compressed", killed)
        with pytest.raises(KeyboardInterrupt):
            make_druglike.make(smiles, 3, tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(make_druglike.read, "from_smiles", killed)  # what is done is not done again
        assert make_druglike.make(smiles, 3, tmp_path / "killed") == (whole, lost)
    (tmp_path / "made.npz").write_bytes(whole)
    monkeypatch.setattr(druglike, "FILE", tmp_path / "made.npz")
    monkeypatch.setattr(druglike, "SHA256", hashlib.sha256(whole).hexdigest())
    made = druglike.load()
    flat = [Chem.MolToSmiles(Chem.MolFromSmiles(text), isomericSmiles=False) for text in made.smiles]
    assert sorted(flat) == ["CC(O)CN", "CCO", "C[N+](=O)[O-]"]
    assert [Chem.CanonSmiles(SMILES[row - 1]) for row in made.index.tolist()] == flat
    monkeypatch.setattr(make_druglike, "PART", 5)
    with pytest.raises(ValueError, match="smiles gives 3 molecules; it should give size=5"):
        make_druglike.make(smiles, 5, tmp_path / "whole")


def test_another_wheel_is_refused(wheel):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"molsets.whl has SHA-256"):
        make_druglike.smiles_of(wheel)
