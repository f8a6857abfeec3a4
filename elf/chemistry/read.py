"""Your own molecules: from RDKit, SMILES, SDF and XYZ files to `elf.data.molecules.Molecules`.

    found = elf.chemistry.read.from_sdf("mine.sdf")
    print(found)         # 38 molecules from mine.sdf; 3 skipped: 2 radical (17: azo, 31: nitroxide); 1 truncated (40)
    found.molecules      # any element, formal charges kept, every conformer a molecule

What cannot be used is never dropped in silence: each record is either a molecule or stands, by number and name, under
a reason in `Read.skipped`. A file of which nothing can be used is a ValueError, one that is missing FileNotFoundError.

Atoms come in the order of the molecule's SMILES, hydrogens last, so that `elf.chemistry.molecular_graph` finds bonds
and charges again. Isotopes stay in the SMILES alone. `elf.chemistry.write` is the way back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from elf.checks import require_count, require_seed, require_strings
from elf.chemistry.record import Read, Record, Row, Skip, collect, require_cloud, tried
from elf.elements import NUMBERS, PERIODIC_TABLE

if TYPE_CHECKING:
    from rdkit.Chem import Mol


def from_rdkit(mols: Iterable[Mol | None], *, conformers: SupportsIndex = 1, seed: SupportsIndex = 0) -> Read:
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
            yield (mol.GetProp("_Name") if mol and mol.HasProp("_Name") else ""), _rows(mol, conformers, seed)

    return collect(records(), "RDKit")


def from_smiles(smiles: Sequence[str], *, conformers: SupportsIndex = 1, seed: SupportsIndex = 0) -> Read:
    """Molecules of these SMILES, with conformers as `from_rdkit` makes them; the SMILES are their names."""
    from rdkit import Chem

    texts = require_strings("smiles", smiles)
    conformers, seed = require_count("conformers", conformers), require_seed("seed", seed)
    rows = ((text, _rows(Chem.MolFromSmiles(text) if text.strip() else None, conformers, seed)) for text in texts)
    return collect(rows, "SMILES")


def from_sdf(path: str | os.PathLike[str], *, bonds: bool = True) -> Read:
    """The records of an SDF or MOL file (V2000 or V3000, any line ends), one after the other.

    Args:
        path: the file.
        bonds: False takes elements, coordinates and formal charges alone, whatever the bonds and hydrogens, and has no
            SMILES: for generated molecules, which are not all molecules.
    """
    records = ((block.partition("\n")[0].strip(), [tried(_sdf_row, block, bonds)]) for block in _blocks(path))
    return collect(records, Path(path).name)


def from_xyz(path: str | os.PathLike[str]) -> Read:
    """The frames of an XYZ file; symbols or atomic numbers, columns after x, y, z are ignored.

    XYZ knows no bonds: SMILES are "" and charges None. A frame whose electrons are odd in number ("charge=Q" in its
    comment counts) is skipped as a radical; for bonds, pass what RDKit's `rdDetermineBonds` finds to `from_rdkit`.

    Raises:
        ValueError: a line that should be a number of atoms and is not: the frames after it cannot be found.
    """
    frames = ((comment, [tried(_xyz_row, count, comment, lines)]) for count, comment, lines in _frames(path))
    read = collect(frames, Path(path).name)
    return replace(read, molecules=replace(read.molecules, charges=None))


def _rows(mol: Mol | None, conformers: int, seed: int) -> Iterator[Row | str]:
    """A row, or a reason, for every 3D conformer of a molecule, or of new ones."""
    try:
        mol = _sound(mol)
        if not any(conformer.Is3D() for conformer in mol.GetConformers()):
            mol = _embedded(mol, conformers, seed)
    except Skip as skip:
        yield str(skip)
        return
    yield from (tried(_row, mol, c.GetPositions()) for c in mol.GetConformers() if c.Is3D())


def _sound(mol: Mol | None) -> Mol:
    """A sanitised copy; Skip for what is not one whole molecule of known atoms without unpaired electrons."""
    from rdkit import Chem

    if mol is None or not mol.GetNumAtoms():
        raise Skip("unreadable")
    mol = Chem.Mol(mol)
    if any(atom.GetAtomicNum() not in PERIODIC_TABLE for atom in mol.GetAtoms()):
        raise Skip("unknown atoms")
    if Chem.SanitizeMol(mol, catchErrors=True):
        raise Skip("impossible valences")
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
        raise Skip("one atom")
    settings = rdDistGeom.ETKDGv3()
    # RDKit multiplies it by the conformer's number: 0 would give one conformer, small ones would share some.
    settings.randomSeed = int(np.random.default_rng(seed).integers(2**10, 2**20))  # type: ignore[assignment]
    if not len(rdDistGeom.EmbedMultipleConfs(mol, conformers, settings)):
        raise Skip("no conformer found")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=2000, ignoreInterfragInteractions=False)
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.UFFOptimizeMoleculeConfs(mol, maxIters=2000, ignoreInterfragInteractions=False)
    else:
        raise Skip("without a force field")
    return mol


def _row(mol: Mol, positions: np.ndarray) -> Row:
    """One conformer of a sound molecule, its atoms in the order of its SMILES, hydrogens last."""
    from rdkit import Chem

    if any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        raise Skip("without its hydrogens")
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], dtype=np.int64)
    require_cloud(numbers, positions)
    marked = Chem.Mol(mol)
    for atom in marked.GetAtoms():
        atom.SetIntProp("_elf", atom.GetIdx())
    bare = Chem.RemoveHs(marked)
    smiles = Chem.MolToSmiles(bare)
    written = bare.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    heavy = [i for i in (bare.GetAtomWithIdx(k).GetIntProp("_elf") for k in written) if numbers[i] != 1]
    order = heavy + sorted({*range(len(numbers))} - {*heavy})
    return Row(numbers[order], positions[order].astype(np.float32), charges[order], smiles)


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


def _sdf_row(block: str, bonds: bool) -> Row:
    from rdkit import Chem

    lines = block.splitlines()
    if not any(line.startswith("M  END") for line in lines):
        raise Skip("truncated")
    mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
    if mol is None:
        raise Skip("unknown atoms" if _odd_symbols(lines) else "unreadable")
    positions = mol.GetConformer().GetPositions() if mol.GetNumConformers() else np.zeros((0, 3))
    # Lines 1 to 3 are the header; a program that writes 3D says so there, a flat molecule of its may have z = 0.
    if len(positions) > 1 and not positions[:, 2].any() and lines[1][20:22] != "3D":
        raise Skip("2D only")
    if bonds:
        mol = _sound(mol)
        Chem.AssignStereochemistryFrom3D(mol)
        return _row(mol, positions)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    if not (len(numbers) and all(int(number) in PERIODIC_TABLE for number in numbers)):
        raise Skip("unknown atoms" if len(numbers) else "unreadable")
    require_cloud(numbers, positions)
    charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], dtype=np.int64)
    return Row(numbers, positions.astype(np.float32), charges, "")


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


def _xyz_row(count: int, comment: str, lines: Sequence[str]) -> Row:
    if len(lines) < count:
        raise Skip("truncated")
    words = [line.split() for line in lines]
    if any(len(row) < 4 for row in words):
        raise Skip("unreadable")
    kinds = [int(row[0]) if row[0].isdecimal() else NUMBERS.get(row[0].capitalize(), 0) for row in words]
    if not set(kinds) <= set(PERIODIC_TABLE):
        raise Skip("unknown atoms")
    try:
        positions = np.array([[float(word) for word in row[1:4]] for row in words])
    except ValueError:
        raise Skip("unreadable") from None
    numbers = np.array(kinds, dtype=np.int64)
    require_cloud(numbers, positions)
    charge = re.search(r"\bcharge\s*=\s*([+-]?[0-9]+)", comment, re.IGNORECASE)
    if (sum(kinds) - int(charge[1] if charge else 0)) % 2:
        raise Skip("radical")
    return Row(numbers, positions.astype(np.float32), np.zeros_like(numbers), "")
