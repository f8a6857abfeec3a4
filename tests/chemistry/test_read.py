"""Your own molecules: what is read, what is skipped and under which name, and that the way back loses nothing."""

from __future__ import annotations

import re
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from elf.chemistry import molecular_graph, read, record, write
from elf.data.molecules import Molecules, SmilesList

SMILES = [
    "CC(=O)Oc1ccccc1C(=O)O",  # aspirin
    "C[NH2+]CC(=O)[O-]",  # a zwitterion
    "CS(=O)(=O)c1ccc(Br)cc1",
    "[Na+].[O-]C=O",  # a salt
    "C[C@H](N)C(=O)O",
    "C[Si](C)(C)C#N",
    "c1ccc2[nH]ccc2c1",
    "OB(O)c1ccccc1",
    "[H][H]",
]


def embedded(smiles: str, seed: int = 1, conformers: int = 1) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(mol, conformers, randomSeed=seed)
    return mol


def block(smiles: str, name: str = "", seed: int = 1) -> str:
    mol = embedded(smiles, seed)
    mol.SetProp("_Name", name)
    return Chem.MolToMolBlock(mol) + "$$$$\n"


@pytest.fixture
def write_file(tmp_path):
    def write_it(text, name="mine.sdf"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_it


@pytest.fixture(scope="module")
def drugs() -> read.Read:
    return read.from_smiles(SMILES, seed=3)


def test_smiles_become_molecules_whose_bonds_and_charges_are_found_again(drugs):
    molecules = drugs.molecules
    assert len(molecules) == len(SMILES)
    assert not drugs.skipped
    assert str(drugs) == f"{len(SMILES)} molecules from SMILES, 1 of them in several pieces (4: {SMILES[3]})"
    assert drugs.names[1] == f"2: {SMILES[1]}"
    assert molecules.index.tolist() == list(range(1, len(SMILES) + 1))
    assert molecular_graph.bond_orders(molecules)[1].all()
    for i, smiles in enumerate(SMILES):
        mol = write.to_rdkit(molecules, i)
        assert Chem.CanonSmiles(Chem.MolToSmiles(Chem.RemoveHs(mol))) == Chem.CanonSmiles(smiles)
        charges = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
        assert molecules.charges[i][molecules.mask[i]].tolist() == charges
    assert sorted(molecules.charges[1].unique().tolist()) == [-1, 0, 1]


def test_the_seed_and_nothing_else_makes_the_conformers():
    torch.manual_seed(0)
    first, again, other = (read.from_smiles(["CCO", "CCN"], seed=seed).molecules.positions for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(read.from_smiles(["CCN"], seed=0).molecules.positions[0], first[1][:10])


def test_conformers_of_a_molecule_are_molecules_and_those_that_are_there_are_kept():
    mol = embedded("CCCCO", conformers=3)
    found = read.from_rdkit([mol], conformers=7).molecules
    assert len(found) == mol.GetNumConformers() == 3
    # Bond by bond the same distances as RDKit's, whatever the order of the atoms.
    for conformer, one in zip(mol.GetConformers(), found.positions, strict=True):
        mine = torch.pdist(one).sort().values
        theirs = torch.pdist(torch.from_numpy(conformer.GetPositions()).float()).sort().values
        torch.testing.assert_close(mine, theirs)
    assert len(read.from_rdkit([Chem.MolFromSmiles("CCCCO")], conformers=4).molecules) == 4


def test_new_conformers_are_minima_of_mmff94():
    from elf.chemistry.force_field import ForceField

    field = ForceField(write.to_rdkit(read.from_smiles(["CCO"]).molecules, 0))
    assert field.gradient(field.positions).abs().max() < 0.1


def test_the_way_to_sdf_and_back_loses_nothing(drugs, tmp_path):
    write.to_sdf(tmp_path / "out.sdf", drugs.molecules, names=[f"mine {i}" for i in range(len(SMILES))])
    back = read.from_sdf(tmp_path / "out.sdf")
    assert not back.skipped
    assert back.names[2] == "3: mine 2"
    assert back.molecules.smiles == drugs.molecules.smiles
    assert torch.equal(back.molecules.numbers, drugs.molecules.numbers)
    assert torch.equal(back.molecules.charges, drugs.molecules.charges)
    torch.testing.assert_close(back.molecules.positions, drugs.molecules.positions, atol=6e-5, rtol=0)


def test_elements_that_no_table_of_bonds_knows_are_read_and_written(tmp_path):
    found = read.from_smiles(["C[Se]C", "CC[Ge](C)(C)C"]).molecules
    assert {34, 32} <= set(found.numbers.unique().tolist())
    bare = Molecules(found.positions, found.numbers, SmilesList.from_strings(["", ""]), found.index)
    write.to_sdf(tmp_path / "bare.sdf", bare)
    back = read.from_sdf(tmp_path / "bare.sdf").molecules
    assert back.smiles == found.smiles


def test_generated_molecules_are_written_as_they_are_and_open_valences_stay_open(tmp_path):
    ethane = read.from_smiles(["CC"]).molecules
    broken = Molecules(ethane.positions[:, :7], ethane.numbers[:, :7], SmilesList.from_strings([""]), ethane.index)
    write.to_sdf(tmp_path / "radical.sdf", broken)
    with pytest.raises(ValueError, match=r"1 radical \(1: C2H5\)"):
        read.from_sdf(tmp_path / "radical.sdf")
    again = read.from_sdf(tmp_path / "radical.sdf", bonds=False).molecules
    assert torch.equal(again.numbers, broken.numbers)
    assert list(again.smiles) == [""]
    with pytest.raises(ValueError, match="names has 2 entries; it should have 1"):
        write.to_sdf(tmp_path / "x.sdf", broken, names=["a", "b"])


def test_double_bonds_of_molecules_without_smiles_are_written():
    ethylene = read.from_smiles(["C=C"]).molecules
    bare = Molecules(ethylene.positions, ethylene.numbers, SmilesList.from_strings([""]), ethylene.index)
    assert write.to_rdkit(bare, 0).GetBondBetweenAtoms(0, 1).GetBondType() == Chem.BondType.DOUBLE


def test_charges_of_molecules_without_smiles_are_written(drugs, tmp_path):
    one = drugs.molecules[1]
    bare = Molecules(one.positions, one.numbers, SmilesList.from_strings([""]), one.index, one.charges)
    write.to_sdf(tmp_path / "bare.sdf", bare)
    assert torch.equal(read.from_sdf(tmp_path / "bare.sdf", bonds=False).molecules.charges, one.trimmed().charges)


FLAT = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")) + "$$$$\n"
METHANE = block("C", "methane")
BAD = {
    "flat (2D only)": FLAT,
    "truncated": METHANE[: METHANE.index("M  END") - 8],
    "unreadable": "not a molecule\n\n\nabc\nM  END\n",
    "with unknown atoms": METHANE.replace(" C   0", " Xx  0"),
    "radical": Chem.MolToMolBlock(embedded("C[CH2]")),
    "of one atom": Chem.MolToMolBlock(embedded("[Na+]")),
    "without its hydrogens": Chem.MolToMolBlock(Chem.RemoveHs(embedded("CCO"))),
    "with impossible valences": METHANE.replace("  1  2  1  0", "  1  2  3  0"),
    "with atoms in one place": None,
    "repeated exactly": block("CO", "good"),
}
lines = METHANE.splitlines(keepends=True)
BAD["with atoms in one place"] = "".join([*lines[:5], lines[4][:31] + "H" + lines[4][32:], *lines[6:]])


@pytest.mark.parametrize("reason", BAD)
def test_what_cannot_be_used_is_skipped_by_name_and_the_rest_is_read(reason, write_file):
    bad = BAD[reason].rstrip("\n")
    bad = "odd one" + bad[bad.index("\n") :] if reason != "repeated exactly" else bad
    end = "\n" if bad.endswith("$$$$") else "\n$$$$\n"
    found = read.from_sdf(write_file(block("CO", "good") + bad + end + block("CN", "last")))
    title = "good" if reason == "repeated exactly" else "odd one"
    assert found.skipped == {reason: [f"2: {title}"]}
    assert found.names == ("1: good", "3: last")
    assert found.molecules.index.tolist() == [1, 3]
    assert str(found) == f"2 molecules from mine.sdf; 1 skipped: 1 {reason} (2: {title})"


@pytest.mark.parametrize("reason", [reason for reason in BAD if reason != "repeated exactly"])
def test_a_file_of_which_nothing_can_be_used_is_an_error_that_says_why(reason, write_file):
    with pytest.raises(
        ValueError, match=rf"mine.sdf holds no molecule; none of its 1 records can be used: 1 {re.escape(reason)}"
    ):
        read.from_sdf(write_file(BAD[reason]))


@pytest.mark.parametrize("text", ["", "\n\n", b"\r\n"])
@pytest.mark.parametrize("load", [read.from_sdf, read.from_xyz])
def test_an_empty_file_is_an_error(text, load, write_file):
    with pytest.raises(ValueError, match="holds no molecule; it is empty"):
        load(write_file(text))


@pytest.mark.parametrize("load", [read.from_sdf, read.from_xyz])
def test_a_missing_file_is_an_error_of_the_system(load, tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere.sdf")


def test_a_binary_file_is_no_molecule(write_file):
    with pytest.raises(ValueError, match=r"can be used: 1 unreadable \(1\)"):
        read.from_sdf(write_file(bytes(range(10)) * 100))
    with pytest.raises(ValueError, match=r"can be used: 1 unreadable \(1: <!DOCTYPE html>\)"):
        read.from_sdf(write_file("<!DOCTYPE html>\n<html><body>Not Found</body></html>\n"))


def test_salts_are_used_and_named_and_their_largest_piece_alone_where_asked(write_file, tmp_path):
    text = block("CC(=O)[O-].[Na+]", "acetate") + block("CCO", "ethanol") + block("CC[NH3+].[Cl-]", "hydrochloride")
    path = write_file(text)
    found = read.from_sdf(path)
    assert found.pieces == ["1: acetate", "3: hydrochloride"]
    assert str(found) == "3 molecules from mine.sdf, 2 of them in several pieces (1: acetate, 3: hydrochloride)"
    largest = read.from_sdf(path, largest_piece=True)
    assert str(largest) == "3 molecules from mine.sdf"
    assert list(largest.molecules.smiles) == ["CC(=O)[O-]", "CCO", "CC[NH3+]"]
    assert largest.molecules.charges.sum(1).tolist() == [-1, 0, 1]
    # The coordinates are those that the file has.
    assert torch.equal(largest.molecules.positions[0, :4], found.molecules.positions[0, :4])
    salt = ["[Na+].CCC(=O)[O-]"]
    assert list(read.from_smiles(salt, largest_piece=True).molecules.smiles) == ["CCC(=O)[O-]"]
    assert list(read.from_rdkit([Chem.MolFromSmiles(salt[0])], largest_piece=True).molecules.smiles) == ["CCC(=O)[O-]"]
    (tmp_path / "mine.smi").write_text("[Na+].CCC(=O)[O-] salt\n")
    assert read.from_file(tmp_path / "mine.smi").pieces == ["1: [Na+].CCC(=O)[O-]"]


def test_the_hands_are_the_conformers(drugs):
    hands = read.from_smiles(["CC(N)C(=O)O"], conformers=8).molecules.smiles
    assert set(hands) == {"C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"}


def test_no_seed_of_ours_is_a_small_one_of_rdkits(monkeypatch):
    """It is multiplied by a conformer's number. Of these two, the same draw from 0 on gives 36 and 190."""
    given = []
    monkeypatch.setattr(
        rdDistGeom, "EmbedMultipleConfs", lambda mol, n, settings: given.append(settings.randomSeed) or ()
    )
    for seed in (9168, 5945):
        with pytest.raises(record.Skip, match="without a conformer"):
            read._embedded(Chem.MolFromSmiles("C"), 1, seed)
    assert min(given) >= 2**10


def test_a_bond_to_an_atom_that_is_not_there_is_no_unknown_element(write_file):
    path = write_file(block("CO", "good") + METHANE.replace("  1  2  1  0", "  1 99  1  0"))
    assert read.from_sdf(path).skipped == {"unreadable": ["2: methane"]}


def test_a_conformer_without_a_minimum_is_not_used(monkeypatch):
    monkeypatch.setattr(read, "MOST_ITERATIONS", 1)
    with pytest.raises(ValueError, match=r"1 without a minimum \(1: CCCCO\)"):
        read.from_smiles(["CCCCO"])


def test_batches_are_the_molecules_and_some_can_be_taken_out(drugs):
    whole = drugs.molecules
    parts = list(drugs.batches(4))
    assert [len(part) for part in parts] == [4, 4, 1]
    assert torch.equal(torch.cat([part.numbers.flatten() for part in parts]).unique(), whole.numbers.unique())
    for i, part in zip((0, 4, 8), parts, strict=True):
        same = whole[i : i + 4].trimmed()
        assert torch.equal(part.positions, same.positions)
        assert torch.equal(part.charges, same.charges)
        assert part.smiles == same.smiles
        assert torch.equal(part.index, same.index)
    picked = drugs.batch(torch.tensor([8, 0]))
    assert list(picked.smiles) == [whole.smiles[8], whole.smiles[0]]
    assert torch.equal(drugs.counts, whole.counts)
    few = read.from_smiles(["CCO", "CCN", "CCC"])
    few.skip([1], "a bad smell")
    assert (len(few), few.skipped, few.names) == (2, {"a bad smell": ["2: CCN"]}, ("1: CCO", "3: CCC"))
    assert list(few.molecules.smiles) == ["CCO", "CCC"]


def test_molecules_are_read_one_at_a_time_and_held_on_disk(monkeypatch):
    """RDKit's objects are out of tracemalloc's sight, so those alive are counted; bytes a molecule are bounded."""
    monkeypatch.setattr(record, "_IN_MEMORY", 2**16)
    template, alive = embedded("CCO"), weakref.WeakSet()
    most = 0

    def mols(n):
        nonlocal most
        for i in range(n):
            mol = Chem.Mol(template)
            mol.GetConformer().SetAtomPosition(0, (0.0, 0.0, 0.001 * i))
            alive.add(mol)
            most = max(most, len(alive))
            yield mol
            del mol

    def peak(n):
        tracemalloc.start()
        found = read.from_rdkit(mols(n))
        assert sum(len(part) for part in found.batches(50)) == len(found) == n
        answer = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return answer

    peak(10)
    small, large = peak(100), peak(1100)
    assert most <= 3
    assert (large - small) / 1000 < 250  # bytes; the molecules themselves have 130 each, a Row of them 800


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_line_ends_of_other_systems_change_nothing(ends, write_file, tmp_path):
    text = block("CC(=O)[O-].[NH4+]", "salt") + block("c1ccsc1", "ring")
    plain = read.from_sdf(write_file(text)).molecules
    odd = read.from_sdf(write_file(text.replace("\n", ends), "odd.sdf"))
    assert odd.names == ("1: salt", "2: ring")
    assert torch.equal(odd.molecules.positions, plain.positions)
    assert odd.molecules.smiles == plain.smiles
    xyz = write_file("2\nhydrogen\nH 0 0 0\nH 0 0 0.74\n".replace("\n", ends), "odd.xyz")
    assert read.from_xyz(xyz).names == ("1: hydrogen",)


def test_molecules_of_one_name_are_told_apart_by_their_record(write_file):
    found = read.from_sdf(write_file(block("CCCO", "same", 1) + block("CCCO", "same", 2) + block("CCN", "same")))
    assert found.names == ("1: same", "2: same", "3: same")
    assert not found.skipped


def test_v3000_and_a_mol_file_without_an_end_are_read(write_file):
    mol = embedded("CC[NH3+].[Cl-]")
    v3000 = read.from_sdf(write_file(Chem.MolToV3KMolBlock(mol), "mine.mol")).molecules
    v2000 = read.from_sdf(write_file(Chem.MolToMolBlock(mol))).molecules
    assert torch.equal(v3000.charges, v2000.charges)
    assert v3000.charges.abs().sum() == 2


def test_a_flat_molecule_that_says_it_is_3d_is_read(write_file):
    water = "water\n     mine           3D\n\n  3  2  0  0  0  0  0  0  0  0999 V2000\n"
    for x, y, symbol in ((0, 0, "O"), (0.96, 0, "H"), (-0.24, 0.93, "H")):
        water += f"{x:10.4f}{y:10.4f}{0:10.4f} {symbol:<3} 0  0  0  0  0  0\n"
    water += "  1  2  1  0\n  1  3  1  0\nM  END\n"
    assert read.from_sdf(write_file(water)).molecules.formula(0) == "H2O"
    with pytest.raises(ValueError, match=r"1 flat \(2D only\)"):
        read.from_sdf(write_file(water.replace("3D", "2D")))


def test_many_names_under_one_reason_are_counted_and_the_first_shown(write_file):
    found = read.from_sdf(write_file(block("CO") + FLAT * 5))
    assert str(found) == "1 molecule from mine.sdf; 5 skipped: 5 flat (2D only) (2, 3, 4, and 2 more)"
    assert found.skipped == {"flat (2D only)": ["2", "3", "4", "5", "6"]}


def test_smiles_and_mols_that_give_nothing_are_named():
    found = read.from_smiles(["CCO", "nonsense", "", "[CH3]", "*C", "[He]", "CCO"])
    assert found.skipped == {
        "unreadable": ["2: nonsense", "3"],
        "radical": ["4: [CH3]"],
        "with unknown atoms": ["5: *C"],
        "of one atom": ["6: [He]"],
        "repeated exactly": ["7: CCO"],
    }
    assert read.from_rdkit([None, embedded("CC")]).skipped == {"unreadable": ["1"]}
    with pytest.raises(TypeError, match="mols holds a str; it should hold RDKit Mols"):
        read.from_rdkit(["CC"])
    with pytest.raises(TypeError, match="smiles is 'CC'"):
        read.from_smiles("CC")
    with pytest.raises(ValueError, match="conformers is 0"):
        read.from_smiles(["CC"], conformers=0)


def test_one_bad_conformer_does_not_take_the_others_along():
    mol = embedded("CCCO", conformers=3)
    mol.GetConformer(1).SetPositions(np.zeros((mol.GetNumAtoms(), 3)))
    found = read.from_rdkit([mol])
    assert len(found.molecules) == 2
    assert found.skipped == {"with atoms in one place": ["1"]}


WATER = "3\nwater\nO 0 0 0.1\nH 0.76 0 -0.5 0.33\n1 -0.76 0 -0.5\n"


def test_xyz_takes_symbols_numbers_and_further_columns(write_file):
    found = read.from_xyz(write_file(WATER + "\n" + "2\ncharge=-1\no 0 0 0\nh 0 0 0.97\n"))
    assert found.names == ("1: water", "2: charge=-1")
    assert found.molecules.numbers.tolist() == [[8, 1, 1], [8, 1, 0]]
    torch.testing.assert_close(found.molecules.positions[0, 1], torch.tensor([0.76, 0.0, -0.5]))
    assert found.molecules.charges is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("3\nbad\nO 0 0 0\nH 0 0 1\n", "truncated"),
        ("2\nbad\nO 0 0 0\nH 0 0 0.97\n", "radical"),
        ("2\nbad\nQ 0 0 0\nH 0 0 1\n", "with unknown atoms"),
        ("2\nbad\n0 0 0 0\nH 0 0 1\n", "with unknown atoms"),
        ("2\nbad\nH 0 0\nH 0 0 1\n", "unreadable"),
        ("2\nbad\nH 0 0 x\nH 0 0 1\n", "unreadable"),
        ("2\nbad\nH 0 0 nan\nH 0 0 1\n", "with impossible coordinates"),
        ("2\nbad\nH 0 0 0\nH 0 0 0\n", "with atoms in one place"),
        ("3\nbad\nH 0 0 0\nH 0 0 0\nO 0 0 1\n", "with atoms in one place"),
        ("3\nbad\nH 0 0 0\nH 0 0 2e6\nO 0 0 1\n", "with impossible coordinates"),
        ("1\nbad\nHe 0 0 0\n", "of one atom"),
    ],
)
def test_frames_that_cannot_be_used_are_skipped_by_name(frame, reason, write_file):
    assert read.from_xyz(write_file(WATER + frame)).skipped == {reason: ["2: bad"]}


def test_a_radical_counts_alike_in_both_formats(write_file, tmp_path):
    """Generated molecules (bonds=False) are taken with their odd electrons, real ones are skipped by name."""
    path = write_file(block("C[CH2]") + block("CC"), "two.sdf")
    write.to_xyz(tmp_path / "two.xyz", read.from_file(path, bonds=False).molecules)
    for name in ("two.sdf", "two.xyz"):
        assert len(read.from_file(tmp_path / name, bonds=False).molecules) == 2
    assert [*read.from_xyz(tmp_path / "two.xyz").skipped] == ["radical"]


@pytest.mark.parametrize("line", ["three", "-1", "0", "2.5"])
def test_a_line_that_is_no_number_of_atoms_names_its_place(line, write_file):
    with pytest.raises(ValueError, match=rf"mine.xyz, line 6: '{line}' should be a number of atoms"):
        read.from_xyz(write_file(WATER + f"{line}\n", "mine.xyz"))


def test_charges_stay_with_their_molecules(drugs):
    molecules = drugs.molecules
    keep = torch.tensor([i in (1, 3) for i in range(len(molecules))])
    for part in (molecules[[1, 3]], molecules[keep], molecules.subset(atoms=(5, 13))):
        rows = [int(i) - 1 for i in part.index]
        assert torch.equal(part.charges, molecules.charges[rows])
    small = molecules[[1, 3]].trimmed().to("cpu")
    assert small.charges.shape == small.numbers.shape
    assert small.charges.abs().sum() == 4
    without = Molecules(molecules.positions, molecules.numbers, molecules.smiles, molecules.index)
    assert without[1:3].trimmed().to("cpu").charges is None
    object.__setattr__(without, "charges", small.charges)  # past the checks of shapes that only tests have
    with pytest.raises(ValueError, match="charges has shape"):
        without.__post_init__()
