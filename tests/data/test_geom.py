"""GEOM-Drugs in EDM's layout, on small files made here."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
import torch

from elf.data import geom
from elf.elements import GEOM_ELEMENTS

SIZES = [3, 1, 7, 2, 5, 4, 6, 3, 3, 8]


@pytest.fixture
def molecules():
    random = np.random.default_rng(0)
    return [
        np.column_stack([random.choice(GEOM_ELEMENTS, n).astype(float), 3 * random.standard_normal((n, 3))])
        for n in SIZES
    ]


@pytest.fixture
def folder(tmp_path, molecules):
    """What build_geom_dataset.py writes."""
    rows = [np.hstack([np.full((len(m), 1), float(i)), m]) for i, m in enumerate(molecules)]
    np.save(tmp_path / "geom_drugs_30", np.vstack(rows))
    np.save(tmp_path / "geom_drugs_n_30", np.array(SIZES))
    (tmp_path / "geom_drugs_smiles.txt").write_text("CCO\nc1ccccc1\n")
    return tmp_path


def test_batches_are_the_files_rows(folder, molecules):
    data, rows = geom.load(folder)
    assert rows.tolist() == list(range(10))
    assert data.counts.tolist() == SIZES
    batch = data.batch(torch.tensor([4, 1, 9]))
    assert batch.positions.shape == (3, 8, 3)
    assert batch.positions.dtype == torch.float32
    for place, row in enumerate((4, 1, 9)):
        n = SIZES[row]
        assert batch.numbers[place, :n].tolist() == molecules[row][:, 0].astype(int).tolist()
        torch.testing.assert_close(batch.positions[place, :n], torch.from_numpy(molecules[row][:, 1:]).float())
        assert not batch.numbers[place, n:].any()
        assert not batch.positions[place, n:].any()
    assert data.read_smiles() == ["CCO", "c1ccccc1"]


@pytest.mark.parametrize("piece", [1, 4, 1000])
def test_sizes_are_counted_where_their_file_is_missing(folder, monkeypatch, piece):
    (folder / "geom_drugs_n_30.npy").unlink()
    (folder / "geom_drugs_smiles.txt").unlink()
    monkeypatch.setattr(geom, "_ROWS", piece)
    data, _ = geom.load(folder)
    assert data.counts.tolist() == SIZES
    with pytest.raises(FileNotFoundError, match="geom_drugs_smiles"):
        data.read_smiles()


def test_splits_cover_everything_once_and_are_edms(folder):
    parts = {split: geom.load(folder, split=split)[1].tolist() for split in geom.SPLITS}
    assert sorted(row for rows in parts.values() for row in rows) == list(range(10))
    assert [len(parts[split]) for split in ("train", "validation", "test")] == [8, 1, 1]
    assert parts == {split: geom.load(folder, split=split)[1].tolist() for split in geom.SPLITS}
    np.save(folder / "geom_permutation.npy", np.arange(10)[::-1].astype("int32"))
    assert geom.load(folder, split="validation")[1].tolist() == [9]
    assert geom.load(folder, split="test")[1].tolist() == [8]
    assert geom.load(folder, split="train")[1].tolist() == list(range(8))


def test_large_molecules_can_be_left_out(folder):
    data, rows = geom.load(folder, max_atoms=4)
    assert max(data.counts[rows].tolist()) == 4
    with pytest.raises(ValueError, match="no conformer with split='test', max_atoms=1"):
        geom.load(folder, split="test", max_atoms=1)


def test_folder_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("ELF_GEOM", str(folder))
    assert len(geom.load()[0]) == 10


def test_memory_is_bounded(tmp_path):
    n, atoms = 4000, 50
    table = np.zeros((n * atoms, 5))
    table[:, 0] = np.repeat(np.arange(n), atoms)
    table[:, 1] = 6
    np.save(tmp_path / "geom_drugs_30.npy", table)
    size = (tmp_path / "geom_drugs_30.npy").stat().st_size
    assert size > 7e6
    np.save(tmp_path / "geom_drugs_n_30.npy", np.full(n, atoms))
    del table
    tracemalloc.start()
    data, rows = geom.load(tmp_path, split="train")
    for start in range(0, 3000, 100):
        data.batch(rows[start : start + 100])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 10


def test_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        geom.load(tmp_path / "nowhere")
    for words in ("geom_drugs_30.npy is not in", "doi:10.7910/DVN/JNGTDF", "build_geom_dataset.py", "ELF_GEOM"):
        assert words in str(caught.value)


def test_no_pickle_is_read(folder):
    np.save(folder / "geom_drugs_30.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"geom_drugs_30.npy is truncated, or not a NumPy array of numbers"):
        geom.load(folder)


def test_truncated_file(folder):
    whole = (folder / "geom_drugs_30.npy").read_bytes()
    (folder / "geom_drugs_30.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is truncated"):
        geom.load(folder)
    (folder / "geom_drugs_30.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="is truncated"):
        geom.load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("geom_drugs_30", np.zeros((4, 4)), r"holds float64 \(4, 4\); it should be floats \(atoms, 5\)"),
        ("geom_drugs_30", np.zeros((4, 5), dtype=int), "holds int64"),
        ("geom_drugs_30", np.zeros((0, 5)), r"holds float64 \(0, 5\)"),
        ("geom_drugs_n_30", np.array([3, 4]), "counts 7 atoms, geom_drugs_30.npy has 42; they should agree"),
        ("geom_drugs_n_30", np.array([42.0]), r"holds float64 \(1,\); it should be \(conformers,\) counts"),
        ("geom_drugs_n_30", np.array([42, 0]), r"it should be \(conformers,\) counts"),
        ("geom_permutation", np.arange(9), "is no rearrangement of the 10 conformers"),
    ],
)
def test_other_layouts_are_named(folder, name, content, message):
    np.save(folder / name, content)
    with pytest.raises(ValueError, match=message):
        geom.load(folder, split="train")


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (5, 2, np.nan, "conformer 2 holds a NaN or infinity"),
        (5, 1, 2.0, r"conformer 2 holds the unknown elements \[2.0\]"),
        (5, 1, 6.5, r"unknown elements \[6.5\]"),
        (5, 0, 7.0, r"the atoms of conformer 2 have indices \[2.0, 7.0\]"),
    ],
)
def test_bad_molecules_are_named(folder, row, column, value, message):
    table = np.load(folder / "geom_drugs_30.npy")
    table[row, column] = value
    np.save(folder / "geom_drugs_30.npy", table)
    data, _ = geom.load(folder)
    data.batch(torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match=message):
        data.batch(torch.tensor([1, 2]))


def test_arguments(folder):
    with pytest.raises(ValueError, match=re.escape("split is 'dev'; it should be one of")):
        geom.load(folder, split="dev")
    with pytest.raises(ValueError, match="max_atoms is 0"):
        geom.load(folder, max_atoms=0)
    data, _ = geom.load(folder)
    with pytest.raises(ValueError, match="rows reaches from 0 to 10 among 10 conformers"):
        data.batch(torch.tensor([0, 10]))
    with pytest.raises(ValueError, match=r"rows has shape \(0,\)"):
        data.batch(torch.tensor([], dtype=torch.long))
