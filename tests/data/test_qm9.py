import ast
import csv
import errno
import hashlib
import importlib.util
import os
import stat
import sys
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from elf import files
from elf.chemistry import molecular_graph as graphs
from elf.data import qm9
from elf.data.molecules import Molecules, SmilesList
from elf.elements import NUMBERS, SYMBOLS


def rows_of(name, count):
    """An independent reading: the csv module and Python literals, row by row."""
    with (qm9._data_folder() / name).open(newline="") as file:
        yield from islice(csv.DictReader(file), count)


class TestContent:
    def test_all_molecules_are_there(self, all_of_qm9):
        assert len(all_of_qm9) == qm9.SIZE == 130_831
        assert all_of_qm9.positions.shape == (130_831, 29, 3)
        assert all_of_qm9.positions.dtype == torch.float32
        assert all_of_qm9.numbers.dtype == torch.long
        assert set(all_of_qm9.numbers.unique().tolist()) == {0, 1, 6, 7, 8, 9}
        assert len(all_of_qm9.smiles) == len(set(all_of_qm9.smiles)) == 130_831
        # Published: 133,885 molecules, 3,054 of them excluded; 6,095 isomers of C7H10O2, one of them excluded.
        assert all_of_qm9.index[0] == 1
        assert all_of_qm9.index[-1] == 133_885
        assert (all_of_qm9.index.diff() > 0).all()
        assert len(all_of_qm9.subset(formula="C7H10O2")) == 6094

    @pytest.mark.parametrize("name", qm9.FILES)
    def test_rows_equal_an_independent_reading(self, all_of_qm9, name):
        at = {int(number): row for row, number in enumerate(all_of_qm9.index.tolist())}
        for row in rows_of(name, 150):
            i = at[int(row["Index"])]
            molecule = all_of_qm9[i].trimmed()
            xyz = torch.tensor(ast.literal_eval(row["XYZ_Ang"]), dtype=torch.float64)
            assert torch.equal(molecule.positions[0], xyz.float())
            assert [SYMBOLS[number] for number in molecule.numbers[0].tolist()] == ast.literal_eval(row["Elements"])
            assert molecule.smiles[0] == row["SMILES"]
            assert molecule.counts.item() == int(row["N_atoms"])
            stoichiometry = dict(zip("HCNOF", ast.literal_eval(row["Stoichiometry"]), strict=True))
            wanted = {NUMBERS[symbol]: count for symbol, count in stoichiometry.items() if count}
            assert qm9.parse_formula(molecule.formula(0)) == wanted

    def test_padding_is_zero_and_at_the_end(self, all_of_qm9):
        mask = all_of_qm9.mask
        assert (all_of_qm9.positions[~mask] == 0).all()
        assert torch.equal(mask, torch.arange(29) < all_of_qm9.counts[:, None])
        assert all_of_qm9.positions.isfinite().all()

    def test_geometries_are_in_angstrom(self, all_of_qm9):
        water = qm9.find("water", within=all_of_qm9)
        lengths = (water.positions[0, 1:] - water.positions[0, 0]).norm(dim=-1)
        # Gas-phase experiment: 0.958 angstrom, 104.5 degrees; B3LYP is within 0.01 and a degree.
        torch.testing.assert_close(lengths, torch.full((2,), 0.958), atol=0.01, rtol=0)
        cosine = (water.positions[0, 1] - water.positions[0, 0]) @ (water.positions[0, 2] - water.positions[0, 0])
        angle = (cosine / lengths.prod()).acos().rad2deg()
        torch.testing.assert_close(angle, torch.tensor(104.5), atol=1.0, rtol=0)


# SHA-256 of the rows as little-endian int64: a split that moves would mix test into training molecules.
FROZEN = {
    "train": (100_000, "368c4051b47e5aac499a7f853861f6df2c6ac5c0521e5203cc9fa825cf1184f2"),
    "validation": (17_748, "d9a5a5b68bbc9c28f0baf262e9747f278e4d545a35b3af5c40b0e1026e3934b1"),
    "test": (13_083, "a9cfff3884f7d75a4d3d3bf12680bb4f242b28c4dfac0417491dfb2b69496838"),
}


class TestSplits:
    @pytest.mark.parametrize("split", FROZEN)
    def test_rows_are_frozen(self, split):
        rows = qm9.split_index(split)
        found = hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()
        assert (len(rows), found) == FROZEN[split]

    def test_disjoint_and_complete(self):
        rows = torch.cat([qm9.split_index(split) for split in qm9.SPLITS])
        assert torch.equal(rows.sort().values, torch.arange(qm9.SIZE))

    def test_load_gives_the_split_and_filters_within_it(self, all_of_qm9, qm9_cache):
        small = qm9.load(cache_dir=qm9_cache, split="test", heavy_atoms=(1, 7))
        test = all_of_qm9[qm9.split_index("test")]
        assert torch.equal(small.index, test.index[test.heavy_counts <= 7])
        assert small.positions.shape[1] == small.counts.max()


class TestSubsets:
    def test_ranges_are_inclusive(self, all_of_qm9):
        counts = Counter(all_of_qm9.counts.tolist())
        chosen = all_of_qm9.subset(atoms=(5, 15))
        assert len(chosen) == sum(counts[n] for n in range(5, 16)) == 25_000
        assert (chosen.counts.min(), chosen.counts.max()) == (5, 15)
        assert len(all_of_qm9.subset(atoms=3)) == counts[3]
        heavy = all_of_qm9.subset(heavy_atoms=(2, 4))
        assert {sum(number > 1 for number in row) for row in heavy.numbers.tolist()} == {2, 3, 4}

    def test_formula(self, all_of_qm9):
        benzenes = all_of_qm9.subset(formula="C6H6")
        assert len(benzenes) == 7
        assert {benzenes.formula(i) for i in range(7)} == {"C6H6"}
        assert torch.equal(all_of_qm9.subset(formula="H6C6").index, benzenes.index)

    @pytest.mark.parametrize(
        "formula", ["", "c6h6", "C6H", "C0H6", "C06", "Xx2", "CXy4", "C\u0663", "C" + "9" * 10, "C6 H6", "6C", "C-1"]
    )
    def test_bad_formula_is_named(self, all_of_qm9, formula):
        if formula == "C6H":
            assert len(all_of_qm9.subset(formula=formula)) == 0
        else:
            with pytest.raises(ValueError, match="formula") as raised:
                all_of_qm9.subset(formula=formula)
            assert repr(formula) in str(raised.value)

    def test_a_formula_has_any_element(self):
        chloride = Molecules(
            torch.zeros(2, 3, 3),
            torch.tensor([[17, 1, 0], [17, 1, 1]]),
            SmilesList.from_strings(["Cl", "x"]),
            torch.arange(2),
        )
        assert len(chloride.subset(formula="HCl")) == 1
        assert (chloride.formula(0), chloride.formula(1)) == ("ClH", "ClH2")
        assert qm9.parse_formula("CCl4") == {6: 1, 17: 4}

    @pytest.mark.parametrize("bounds", [(9, 5), (0, 3), -1, (1, 2, 3), ()])
    def test_bad_range_is_named(self, all_of_qm9, bounds):
        with pytest.raises(ValueError, match="atoms is"):
            all_of_qm9[:5].subset(atoms=bounds)

    @pytest.mark.parametrize("bounds", [True, (1, True), torch.tensor(3)])
    def test_what_is_no_integer_bounds_nothing(self, all_of_qm9, bounds):
        with pytest.raises(TypeError, match="atoms is"):
            all_of_qm9[:5].subset(atoms=bounds)
        with pytest.raises(TypeError, match="heavy_atoms is"):
            all_of_qm9[:5].subset(heavy_atoms=bounds)

    def test_numpy_integers_and_integers_beyond_a_tensor_are_integers(self, all_of_qm9, qm9_cache):
        some = all_of_qm9[:10]
        assert some.subset(atoms=np.int64(5)).smiles == some.subset(atoms=5).smiles == ["C"]
        assert len(qm9.load(cache_dir=qm9_cache, atoms=np.int64(9), limit=np.uint8(3), seed=np.int64(1))) == 3
        assert len(some.subset(atoms=(1, 10**40))) == 10
        assert len(some.subset(atoms=10**40)) == 0

    def test_limit_is_seeded_and_not_the_smallest_molecules(self, qm9_cache):
        first, again, other = (qm9.load(cache_dir=qm9_cache, limit=200, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first.index, again.index)
        assert not torch.equal(first.index, other.index)
        assert (first.index.diff() > 0).all()
        assert 17 < first.counts.float().mean() < 19

    def test_bad_arguments_to_load(self, qm9_cache):
        for arguments, message in [
            ({"limit": 0}, "limit is 0"),
            ({"split": "valid"}, "split is 'valid'"),
            ({"atoms": (40, 50)}, "no QM9 molecule"),
        ]:
            with pytest.raises(ValueError, match=message):
                qm9.load(cache_dir=qm9_cache, **arguments)
        for name in ("limit", "seed", "atoms"):
            with pytest.raises(TypeError, match=f"{name} is True"):
                qm9.load(cache_dir=qm9_cache, **{name: True})


class TestRecord:
    def test_indexing(self, all_of_qm9):
        some = all_of_qm9[:10]
        assert some.smiles == ["C", "N", "O", "C#C", "C#N", "C=O", "CC", "CO", "CC#C", "CC#N"]
        assert list(some[torch.tensor([2, 0])].smiles) == ["O", "C"]
        assert list(some[some.counts == 3].smiles) == ["O", "C#N"]
        assert list(some[-1].smiles) == ["CC#N"]
        assert list(some[[1, 1]].smiles) == ["N", "N"]
        assert some.smiles[2:4] == ["O", "C#C"]
        assert "C#N" in some.smiles
        assert len(some[::3]) == 4
        for wrong in (10, -11):
            with pytest.raises(IndexError, match="of 10"):
                some[wrong]
        for index in (torch.zeros(3, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.long), torch.zeros(3)):
            with pytest.raises(ValueError, match="index"):
                some[index]
        for index in ([10], torch.tensor([-11]), np.array([300], dtype=np.uint16)):
            with pytest.raises(IndexError, match="rows of 10 molecules"):
                some[index]
        with pytest.raises(TypeError, match="index is True"):
            some[True]
        for index in ([10**40], np.array(1.5), np.zeros((1, 1), dtype=int)):
            with pytest.raises(ValueError, match="index has"):
                some[index]

    def test_indexing_by_numpy(self, all_of_qm9):
        some = all_of_qm9[:10]
        assert some[np.int64(1)].smiles == some[np.uint8(1)].smiles == ["N"]
        assert some.smiles[np.int64(1)] == "N"
        assert some[np.array([9, 0], dtype=np.uint8)].smiles == ["CC#N", "C"]
        assert some[np.arange(10) > 8].smiles == some[[False] * 9 + [True]].smiles == ["CC#N"]
        assert some[::-5].smiles == ["CC#N", "C#N"]
        assert len(some[[]]) == 0
        with pytest.raises(TypeError, match="item is True"):
            some.smiles[True]

    def test_fields_have_to_fit(self):
        x, z, texts, index = torch.zeros(2, 3, 3), torch.ones(2, 3).long(), ["C", "N"], torch.arange(2)
        with pytest.raises(ValueError, match=r"lengths .*'smiles': 1.* equal"):
            Molecules(x, z, SmilesList.from_strings(texts[:1]), index)

    def test_trimmed_keeps_everything(self, all_of_qm9):
        some = all_of_qm9[:10]
        assert some.trimmed().positions.shape == (10, 8, 3)
        assert torch.equal(some.trimmed().counts, some.counts)
        assert some.to("cpu").smiles == some.smiles
        assert len(all_of_qm9[:0].trimmed()) == 0

    def test_smiles_list_keeps_any_text(self):
        texts = ["C", "", "C#Cé", "[NH3+]"]
        packed = SmilesList.from_strings(texts)
        assert list(packed) == texts
        assert packed[-1] == "[NH3+]"
        assert [packed.find(text) for text in (*texts, "CC", "#")] == [0, 1, 2, 3, None, None]
        assert packed[1:].find("[NH3+]") == 2
        with pytest.raises(IndexError):
            packed[4]
        with pytest.raises(TypeError, match="strings is 'CCO'"):
            SmilesList.from_strings("CCO")

    def test_one_hot(self):
        hot = qm9.one_hot(torch.tensor([[8, 1, 1, 0]]))
        assert hot.tolist() == [[[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]]
        with pytest.raises(ValueError, match=r"\[17\]"):
            qm9.one_hot(torch.tensor([[6, 17]]))
        with pytest.raises(ValueError, match=r"\[1\].*elements=\(6,\)"):
            qm9.one_hot(torch.tensor([[6, 1]]), elements=(6,))
        assert qm9.one_hot(torch.tensor([[17]]), (6, 17), dtype=torch.float64).dtype == torch.float64
        assert qm9.one_hot(torch.tensor([9], dtype=torch.int8)).tolist() == [[0, 0, 0, 0, 1]]

    @pytest.mark.parametrize("number", [119, -6, 1000])
    def test_formula_of_unknown_element(self, number):
        with pytest.raises(ValueError, match=rf"unknown elements \[{number}\]"):
            qm9.formula(torch.tensor([6, number, 0]))


class TestFind:
    def test_by_name_and_by_any_spelling(self, all_of_qm9):
        assert qm9.find("O", within=all_of_qm9).index.item() == 3
        benzene = qm9.find("benzene", within=all_of_qm9)
        assert (benzene.smiles[0], benzene.formula(0), benzene.positions.shape) == ("C1=CC=CC=C1", "C6H6", (1, 12, 3))
        assert qm9.find("OCC", within=all_of_qm9).smiles == ["CCO"]
        for name in qm9.NAMES:
            assert len(qm9.find(name, within=all_of_qm9)) == 1

    @pytest.mark.parametrize(
        ("query", "message"),
        [("unobtainium", "neither"), ("C" * 12, "no molecule"), ("[NH4+]", "ion"), ("CBr", "Br")],
    )
    def test_not_there(self, all_of_qm9, query, message):
        with pytest.raises(ValueError, match=message):
            qm9.find(query, within=all_of_qm9)


class TestGraphs:
    def test_smiles_order_is_the_order_of_the_atoms(self, all_of_qm9):
        sample = all_of_qm9[100::1000]
        orders, verified = graphs.bond_orders(sample)
        assert verified.all()
        assert torch.equal(orders, orders.mT)
        # Bond orders sum to valence, whatever the geometry says; zwitterions and nitro groups (N+ O-) apart.
        neutral = torch.tensor(["+" not in text and "N(=O)=O" not in text for text in sample.smiles])
        assert neutral.sum() > 0.98 * len(sample)
        valence = torch.tensor([0, 1, 0, 0, 0, 0, 4, 3, 2, 1])[sample.numbers]
        assert torch.equal(orders.sum(-1)[neutral], valence[neutral])

    def test_water_and_ring(self, all_of_qm9):
        orders, _ = graphs.bond_orders(qm9.find("water", within=all_of_qm9))
        assert orders.tolist() == [[[0, 1, 1], [1, 0, 0], [1, 0, 0]]]
        orders, _ = graphs.bond_orders(qm9.find("benzene", within=all_of_qm9))
        assert sorted(orders[0, :6, :6].sum(-1).tolist()) == [3] * 6

    def test_the_ones_that_do_not_fit_are_told_apart(self, all_of_qm9):
        wrong = qm9.find("N#CC#CC#N", within=all_of_qm9)
        orders, verified = graphs.bond_orders(wrong)
        assert not verified.any()
        assert not orders.any()
        with pytest.raises(ValueError, match=r"N#CC#CC#N.*another order"):
            graphs.to_rdkit(wrong, 0)
        ethanol = qm9.find("ethanol", within=all_of_qm9)
        stretched = qm9.Molecules(ethanol.positions * 1.5, ethanol.numbers, ethanol.smiles, ethanol.index)
        with pytest.raises(ValueError, match="too long"):
            graphs.to_rdkit(stretched, 0)

    def test_chirality_is_read_from_3d(self, all_of_qm9):
        from rdkit import Chem

        oxirane = qm9.find("propylene oxide", within=all_of_qm9)
        mirror = qm9.Molecules(-oxirane.positions, oxirane.numbers, oxirane.smiles, oxirane.index)
        centres = [
            Chem.FindMolChiralCenters(graphs.to_rdkit(m, 0), useLegacyImplementation=False) for m in (oxirane, mirror)
        ]
        (atom, hand), (other_atom, other_hand) = centres[0][0], centres[1][0]
        assert atom == other_atom
        assert {hand, other_hand} == {"R", "S"}


@pytest.fixture
def small_files(tmp_path, monkeypatch):
    """A stand-in for the wheel's folder: three CSV files of two molecules each, pinned like the real ones."""
    folder = tmp_path / "qm9pack" / "data"
    folder.mkdir(parents=True)
    pins = {}
    for name in qm9.FILES:
        with (folder / name).open("w", newline="") as file:
            taken = list(rows_of(name, 2))
            writer = csv.DictWriter(file, fieldnames=list(taken[0]))
            writer.writeheader()
            writer.writerows(taken)
        pins[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(qm9, "FILES", pins)
    monkeypatch.setattr(qm9, "_data_folder", lambda: folder)
    return folder


class TestFiles:
    def test_first_parse_and_cached_load_are_quick(self, tmp_path):
        start = time.process_time()
        first = qm9.load(cache_dir=tmp_path)
        parsed = time.process_time() - start
        times = []
        for _ in range(2):
            start = time.process_time()
            again = qm9.load(cache_dir=tmp_path)
            times.append(time.process_time() - start)
        assert parsed < 15
        assert min(times) < 1
        assert torch.equal(first.positions, again.positions)
        assert torch.equal(first.numbers, again.numbers)
        assert torch.equal(first.index, again.index)
        assert first.smiles == again.smiles

    def test_the_cache_is_one_safetensors_file_in_elf_cache(self, small_files, tmp_path, monkeypatch):
        from safetensors.numpy import load_file

        monkeypatch.setenv("ELF_CACHE", str(tmp_path / "a cache" / "deep"))
        assert len(qm9.load()) == 6
        (cache,) = (tmp_path / "a cache" / "deep").iterdir()
        assert set(load_file(cache)) == {"positions", "numbers", "counts", "index", "smiles", "lengths"}

    @pytest.mark.parametrize("change", ["truncate", "edit"])
    @pytest.mark.parametrize("cached", [False, True])
    def test_changed_file_is_named(self, small_files, tmp_path, change, cached):
        if cached:
            qm9.load(cache_dir=tmp_path / "cache")
        name = "qm9_part2.csv"
        content = (small_files / name).read_bytes()
        (small_files / name).write_bytes(content[:-9] if change == "truncate" else content.replace(b"0.", b"1.", 1))
        os.utime(small_files / name, ns=(1, 1))
        with pytest.raises(ValueError, match=name) as raised:
            qm9.load(cache_dir=tmp_path / "cache")
        for part in (qm9.FILES[name], hashlib.sha256((small_files / name).read_bytes()).hexdigest(), "reinstall"):
            assert part in str(raised.value)
        assert not list((tmp_path / "cache").glob("**/*.partial"))

    def test_missing_file_is_named(self, small_files, tmp_path):
        (small_files / "qm9_part3.csv").unlink()
        with pytest.raises(ValueError, match=r"qm9_part3\.csv is missing"):
            qm9.load(cache_dir=tmp_path / "cache")

    def test_missing_package(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"pip install qm9pack==1\.0\.3"):
            qm9.load(cache_dir=tmp_path)

    @pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
    def test_damaged_cache_is_rebuilt_and_said(self, small_files, tmp_path, damage):
        from safetensors.numpy import save

        first = qm9.load(cache_dir=tmp_path / "cache")
        (cache,) = (tmp_path / "cache").iterdir()
        content = bytearray(cache.read_bytes())
        content[-1] ^= 1
        foreign = save({"positions": first.positions.numpy()})
        cache.write_bytes({"flip": content, "cut": content[:-5], "empty": b"", "foreign": foreign}[damage])
        with pytest.warns(UserWarning, match="is made again: ") as warned:
            again = qm9.load(cache_dir=tmp_path / "cache")
        assert str(cache) in str(warned[0].message)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [cache.name]
        assert torch.equal(first.positions, again.positions)
        assert torch.equal(qm9.load(cache_dir=tmp_path / "cache").positions, first.positions)

    @pytest.mark.parametrize("layout", ["older", "newer", "narrow", "short", "renamed", "none"])
    def test_another_layouts_whole_file_is_made_again(self, small_files, tmp_path, layout):
        first = qm9.load(cache_dir=tmp_path / "cache")
        (cache,) = (tmp_path / "cache").iterdir()
        arrays, metadata = files.load_tensors(cache, qm9.FORMAT)
        change = {
            "narrow": {"positions": arrays["positions"][:, :2]},
            "short": {"counts": arrays["counts"][:-1]},
            "renamed": {"charges": arrays["index"]},
            "none": {name: array[:0] for name, array in arrays.items()},
        }
        format = {"older": "elf-qm9/1", "newer": "elf-qm9/99"}.get(layout, qm9.FORMAT)
        files.write_cache(cache, {**arrays, **change.get(layout, {})}, format, metadata["stamp"])
        with pytest.warns(UserWarning, match="is made again: ") as warned:
            again = qm9.load(cache_dir=tmp_path / "cache")
        assert len(warned) == 1
        assert torch.equal(first.positions, again.positions)
        assert qm9.load(cache_dir=tmp_path / "cache").smiles == first.smiles

    def test_the_cache_obeys_the_umask(self, small_files, tmp_path):
        before = os.umask(0o027)
        try:
            qm9.load(cache_dir=tmp_path / "cache")
        finally:
            os.umask(before)
        (cache,) = (tmp_path / "cache").iterdir()
        assert stat.S_IMODE(cache.stat().st_mode) == 0o640

    def test_unreadable_is_not_damaged(self, small_files, tmp_path, monkeypatch):
        """Another user's cache, say: it is left as it is."""
        qm9.load(cache_dir=tmp_path / "cache")
        (cache,) = (tmp_path / "cache").iterdir()
        whole = cache.read_bytes()

        def refuse(path, *_, **__):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", refuse)
            with pytest.raises(PermissionError, match="cannot read the cache") as raised:
                qm9.load(cache_dir=tmp_path / "cache")
        assert str(cache) in str(raised.value)
        assert cache.read_bytes() == whole

    def test_the_home_folder_may_be_written_as_a_tilde(self, small_files, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ELF_CACHE", "~/x")
        qm9.load()
        qm9.load(cache_dir="~/y")
        assert [len(list((tmp_path / name).iterdir())) for name in ("x", "y")] == [1, 1]
        assert not (tmp_path / "~").exists()

    @pytest.mark.parametrize("cached", [False, True])
    def test_defaults_of_torch_change_nothing(self, small_files, tmp_path, cached):
        wanted = qm9.load(cache_dir=tmp_path / ("cache" if cached else "other"))
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        try:
            found = qm9.load(cache_dir=tmp_path / "cache", limit=4, seed=1)
            picked = found[[1, 0]].subset(atoms=(1, 99), formula=found.formula(1))
            hot = qm9.one_hot(found.numbers)
            split = qm9.split_index("test")
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        assert torch.equal(found.positions, qm9.load(cache_dir=tmp_path / "cache", limit=4, seed=1).positions)
        assert (found.positions.dtype, hot.dtype) == (torch.float32, torch.float32)
        assert found.numbers.device == picked.numbers.device == hot.device == split.device == torch.device("cpu")
        assert found.smiles[1] in picked.smiles
        assert len(wanted) == 6

    def test_touched_files_are_hashed_again_but_accepted(self, small_files, tmp_path):
        first = qm9.load(cache_dir=tmp_path / "cache")
        os.utime(small_files / "qm9_part1.csv", ns=(1, 1))
        assert torch.equal(qm9.load(cache_dir=tmp_path / "cache").index, first.index)

    def test_unwritable_cache(self, small_files, tmp_path, monkeypatch):
        def refuse(*_):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"cannot write .*ELF_CACHE") as raised:
            qm9.load(cache_dir=tmp_path / "file" / "cache")
        assert str(tmp_path / "file") in str(raised.value)
        monkeypatch.setattr(files, "_write_new", refuse)
        # Nothing may be parsed before the folder is known to be writable.
        monkeypatch.setattr(qm9, "_parse", lambda folder: pytest.fail("parsed in vain"))
        with pytest.raises(PermissionError, match="ELF_CACHE"):
            qm9.load(cache_dir=tmp_path / "cache")

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_full_disk_leaves_nothing_behind(self, small_files, tmp_path, monkeypatch, call):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(OSError, match=r"cannot write.*no space left.*ELF_CACHE") as raised:
                qm9.load(cache_dir=tmp_path / "cache")
            assert raised.value.errno == errno.ENOSPC
        assert list((tmp_path / "cache").iterdir()) == []
        assert len(qm9.load(cache_dir=tmp_path / "cache")) == 6

    def test_inconsistent_rows(self, small_files, tmp_path, monkeypatch):
        path = small_files / "qm9_part1.csv"
        path.write_text(path.read_text().replace(",5,", ",6,", 1))
        monkeypatch.setitem(qm9.FILES, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        with pytest.raises(ValueError, match=r"qm9_part1\.csv: .*disagree"):
            qm9.load(cache_dir=tmp_path / "cache")

    def test_qm9pack_itself_is_not_imported(self, all_of_qm9):
        assert "qm9pack" not in sys.modules
