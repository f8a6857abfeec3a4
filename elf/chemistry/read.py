"""Your own molecules: from RDKit, SMILES, SDF and XYZ files to `elf.data.molecules.Molecules`.

    found = elf.chemistry.read.from_sdf("mine.sdf")
    print(found)         # 38 molecules from mine.sdf; 3 skipped: 2 radical (17: azo, 31: nitroxide); 1 truncated (40)
    found.molecules      # any element, formal charges kept, every conformer a molecule
    found.batches(1000)  # the same, a thousand at a time: files of any length within the same memory

What cannot be used is never dropped in silence: each record is either a molecule or stands, by number and name, under
a reason in `Read.skipped`. A file of which nothing can be used is a ValueError, one that is missing FileNotFoundError.
Salts and other molecules in several pieces are used as they are, and named in `Read.pieces`; with `largest_piece`, of
each the piece with most heavy atoms is used alone.

Atoms come in the order of the molecule's SMILES, hydrogens last, so that `elf.chemistry.molecular_graph` finds bonds
and charges again. Isotopes stay in the SMILES alone. `elf.chemistry.write` is the way back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from elf.checks import require_count, require_seed, require_strings
from elf.chemistry.record import Read, Record, Row, Skip, require_cloud, tried
from elf.elements import NUMBERS, PERIODIC_TABLE

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MOST_ITERATIONS = 2000
"""Of a force field relaxing a conformer; one that has no minimum by then is not used."""


def from_file(path: str | os.PathLike[str], *, bonds: bool = True, largest_piece: bool = False) -> Read:
    """Molecules of an SDF, MOL, XYZ or SMILES file (.smi: a SMILES a line, then what you like), by its ending."""
    path = Path(path)
    ending = path.suffix.lower()
    if ending in (".sdf", ".sd", ".mol"):
        return from_sdf(path, bonds=bonds, largest_piece=largest_piece)
    if ending == ".xyz":
        return from_xyz(path, bonds=bonds)
    if ending == ".smi":
        with open(path, encoding="utf-8", errors="replace") as file:
            return Read(_smiles((line.split()[0] for line in file if line.strip()), 1, 0, largest_piece), path.name)
    raise ValueError(
        f"{path.name} ends in {repr(ending) if ending else 'nothing'}; it should end in .sdf, .sd, .mol, .xyz or .smi"
    )


def from_rdkit(
    mols: Iterable[Mol | None],
    *,
    conformers: SupportsIndex = 1,
    seed: SupportsIndex = 0,
    largest_piece: bool = False,
) -> Read:
    """RDKit's molecules: every 3D conformer of each or, where there is none, `conformers` new ones.

    New conformers are ETKDG's (version 3), with hydrogens added, relaxed by MMFF94, or UFF for what MMFF94 does not
    know; the same seed gives the same ones. A molecule with a 3D conformer should have its hydrogens.

    Raises:
        TypeError: something that is neither a Mol nor None (which is what RDKit makes of what it cannot read: skipped).
        ValueError: nothing that can be used.
    """
    from rdkit import Chem

    conformers, seed = require_count("conformers", conformers), require_seed("seed", seed)

    def records() -> Iterator[Record]:
        for mol in mols:
            if not isinstance(mol, Chem.Mol | None):
                raise TypeError(f"mols holds a {type(mol).__name__}; it should hold RDKit Mols")
            title = mol.GetProp("_Name") if mol and mol.HasProp("_Name") else ""
            yield title, _rows(mol, conformers, seed, largest_piece)

    return Read(records(), "RDKit")


def from_smiles(
    smiles: Sequence[str], *, conformers: SupportsIndex = 1, seed: SupportsIndex = 0, largest_piece: bool = False
) -> Read:
    """Molecules of these SMILES, with conformers as `from_rdkit` makes them; the SMILES are their names."""
    conformers, seed = require_count("conformers", conformers), require_seed("seed", seed)
    return Read(_smiles(require_strings("smiles", smiles), conformers, seed, largest_piece), "SMILES")


def _smiles(texts: Iterable[str], conformers: int, seed: int, largest_piece: bool) -> Iterator[Record]:
    from rdkit import Chem

    for text in texts:
        yield text, _rows(Chem.MolFromSmiles(text) if text.strip() else None, conformers, seed, largest_piece)


def from_sdf(path: str | os.PathLike[str], *, bonds: bool = True, largest_piece: bool = False) -> Read:
    """The records of an SDF or MOL file (V2000 or V3000, any line ends), one after the other.

    Args:
        path: the file.
        bonds: False takes elements, coordinates and formal charges alone, whatever the bonds and hydrogens, and has no
            SMILES: for generated molecules, which are not all molecules.
        largest_piece: see the module's docstring.
    """
    blocks = _blocks(path)
    records = ((text.partition("\n")[0].strip(), [tried(_sdf_row, text, bonds, largest_piece)]) for text in blocks)
    return Read(records, Path(path).name)


def from_xyz(path: str | os.PathLike[str], *, bonds: bool = True) -> Read:
    """The frames of an XYZ file; symbols or atomic numbers, columns after x, y, z are ignored.

    XYZ knows no bonds: SMILES are "" and charges None; pass what RDKit's `rdDetermineBonds` finds to `from_rdkit`.

    Args:
        path: the file.
        bonds: True skips, as a radical, a frame whose electrons are odd in number ("charge=Q" in its comment counts).
            False takes it, as `from_sdf` takes radicals then: for generated molecules.

    Raises:
        ValueError: a line that should be a number of atoms and is not: the frames after it cannot be found.
    """
    frames = ((comment, [tried(_xyz_row, count, comment, lines, bonds)]) for count, comment, lines in _frames(path))
    return Read(frames, Path(path).name, charged=False)


def _rows(mol: Mol | None, conformers: int, seed: int, largest_piece: bool) -> Iterator[Row | str]:
    """A row, or a reason, for every 3D conformer of a molecule, or of new ones."""
    try:
        mol = _sound(mol, largest_piece)
        if not any(conformer.Is3D() for conformer in mol.GetConformers()):
            mol = _embedded(mol, conformers, seed)
    except Skip as skip:
        yield str(skip)
        return
    yield from (tried(_row, mol, conformer.GetId()) for conformer in mol.GetConformers() if conformer.Is3D())


def _known(mol: Mol | None) -> Mol:
    """The molecule; Skip for none, and for one with atoms that are no elements."""
    if mol is None or not mol.GetNumAtoms():
        raise Skip("unreadable")
    if any(atom.GetAtomicNum() not in PERIODIC_TABLE for atom in mol.GetAtoms()):
        raise Skip("with unknown atoms")
    return mol


def _sound(mol: Mol | None, largest_piece: bool) -> Mol:
    """A sanitised copy; Skip for what is no molecule of known atoms without unpaired electrons."""
    from rdkit import Chem

    mol = Chem.Mol(_known(mol))
    if Chem.SanitizeMol(mol, catchErrors=True):
        raise Skip("with impossible valences")
    if largest_piece:
        mol = max(Chem.GetMolFrags(mol, asMols=True), key=lambda piece: piece.GetNumHeavyAtoms())
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        raise Skip("radical")
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return mol


def _embedded(mol: Mol, conformers: int, seed: int) -> Mol:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    mol = Chem.AddHs(mol)
    if mol.GetNumAtoms() == 1:
        raise Skip("of one atom")
    settings = rdDistGeom.ETKDGv3()
    # RDKit multiplies it by the conformer's number: 0 would give one conformer, small ones would share some.
    settings.randomSeed = int(np.random.default_rng(seed).integers(2**10, 2**20))  # type: ignore[assignment]
    if not len(rdDistGeom.EmbedMultipleConfs(mol, conformers, settings)):
        raise Skip("without a conformer")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        relax: Callable[..., Any] = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
        relax = rdForceFieldHelpers.UFFOptimizeMoleculeConfs
    else:
        raise Skip("without a force field")
    relaxed = relax(mol, maxIters=MOST_ITERATIONS, ignoreInterfragInteractions=False)
    for number, (unfinished, _) in enumerate(relaxed):
        if unfinished:
            mol.RemoveConformer(number)
    if not mol.GetNumConformers():
        raise Skip("without a minimum")
    return mol


def _row(mol: Mol, conformer: int = -1) -> Row:
    """One conformer of a sound molecule, its atoms in the order of its SMILES, hydrogens last; hands are its own."""
    from rdkit import Chem

    if any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        raise Skip("without its hydrogens")
    cloud = _cloud(mol, conformer)
    marked = Chem.Mol(mol)
    Chem.AssignStereochemistryFrom3D(marked, conformer)
    for atom in marked.GetAtoms():
        atom.SetIntProp("_elf", atom.GetIdx())
    bare = Chem.RemoveHs(marked)
    smiles = Chem.MolToSmiles(bare)
    written = bare.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    heavy = [i for i in (bare.GetAtomWithIdx(k).GetIntProp("_elf") for k in written) if cloud.numbers[i] != 1]
    order = heavy + sorted({*range(len(cloud.numbers))} - {*heavy})
    return Row(cloud.numbers[order], cloud.positions[order], cloud.charges[order], smiles)


def _cloud(mol: Mol, conformer: int = -1) -> Row:
    """The atoms of one conformer, without a SMILES; Skip where no molecule has such coordinates."""
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], dtype=np.int64)
    positions = mol.GetConformer(conformer).GetPositions()
    require_cloud(numbers, positions)
    return Row(numbers, positions, charges, "")


def _blocks(path: str | os.PathLike[str]) -> Iterator[str]:
    """The records of an SDF file, read one at a time."""
    lines: list[str] = []
    with open(path, encoding="utf-8", errors="replace") as file:  # titles in other encodings are no reason to stop
        for line in file:
            if line.startswith("$$$$"):
                yield "".join(lines)
                lines = []
            else:
                lines.append(line)
    if any(line.strip() for line in lines):
        yield "".join(lines)


def _sdf_row(block: str, bonds: bool, largest_piece: bool) -> Row:
    from rdkit import Chem

    lines = block.splitlines()
    if not any(line.startswith("M  END") for line in lines):
        raise Skip("truncated" if any("V2000" in line or "V3000" in line for line in lines[:4]) else "unreadable")
    mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
    if mol is None and _odd_symbols(lines):
        raise Skip("with unknown atoms")
    # Lines 1 to 3 are the header; a program that writes 3D says so there, a flat molecule of its may have z = 0.
    flat = not _known(mol).GetConformer().GetPositions()[:, 2].any()
    if flat and mol.GetNumAtoms() > 1 and lines[1][20:22] != "3D":
        raise Skip("flat (2D only)")
    return _row(_sound(mol, largest_piece)) if bonds else _cloud(mol)


def _odd_symbols(lines: Sequence[str]) -> bool:
    """Whether a V2000 block that RDKit refuses has symbols that are no elements."""
    count = int(lines[3][:3]) if len(lines) > 3 and lines[3][:3].strip().isdigit() else 0
    return any(line[31:34].strip() not in NUMBERS for line in lines[4 : 4 + count])


def _frames(path: str | os.PathLike[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Number of atoms, comment and lines of each frame of an XYZ file, read one at a time."""
    with open(path, encoding="utf-8", errors="replace") as file:
        numbered = enumerate(file, start=1)
        for place, line in numbered:
            if not line.strip():
                continue
            if not line.strip().isdecimal() or int(line) < 1:
                where = f"{Path(path).name}, line {place}"
                raise ValueError(f"{where}: {line.strip()[:40]!r} should be a number of atoms, which begins a frame")
            comment = next(numbered, (0, ""))[1].strip()
            yield int(line), comment, [text for _, text in islice(numbered, int(line))]


def _xyz_row(count: int, comment: str, lines: Sequence[str], closed_shells: bool) -> Row:
    if len(lines) < count:
        raise Skip("truncated")
    words = [line.split() for line in lines]
    if any(len(row) < 4 for row in words):
        raise Skip("unreadable")
    kinds = [int(row[0]) if row[0].isdecimal() else NUMBERS.get(row[0].capitalize(), 0) for row in words]
    if not set(kinds) <= set(PERIODIC_TABLE):
        raise Skip("with unknown atoms")
    try:
        positions = np.array([[float(word) for word in row[1:4]] for row in words])
    except ValueError:
        raise Skip("unreadable") from None
    numbers = np.array(kinds, dtype=np.int64)
    require_cloud(numbers, positions)
    charge = re.search(r"\bcharge\s*=\s*([+-]?[0-9]+)", comment, re.IGNORECASE)
    if closed_shells and (sum(kinds) - int(charge[1] if charge else 0)) % 2:
        raise Skip("radical")
    return Row(numbers, positions, np.zeros_like(numbers), "")
