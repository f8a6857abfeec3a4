"""Molecules back to files: SDF, with bonds, and XYZ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, SupportsIndex

from torch import Tensor

from elf.checks import require_finite, require_integer, require_strings
from elf.chemistry import molecular_graph
from elf.chemistry.bonds import GEOM, orders_of
from elf.data.molecules import Molecules
from elf.elements import PERIODIC_TABLE
from elf.files import write_atomically

if TYPE_CHECKING:
    from rdkit.Chem import Mol


def to_rdkit(molecules: Molecules, i: SupportsIndex) -> Mol:
    """Molecule i as an RDKit Mol with its conformer and bonds.

    Bonds and charges are those of its SMILES (`elf.chemistry.molecular_graph.to_rdkit`: sanitised). Where that is "",
    as of generated molecules, bonds are read off the distances by EDM's table (`elf.chemistry.bonds.GEOM`; RDKit's
    covalent radii where it does not know an element), charges are the record's, and nothing is sanitised or filled up:
    open valences stay open.

    Raises:
        IndexError: there is no molecule i.
        ValueError: the SMILES does not fit the coordinates; an unknown element, or coordinates that are not finite.
    """
    i = require_integer("i", i)
    one = molecules[i]
    if one.smiles[0]:
        return molecular_graph.to_rdkit(molecules, i)
    real = one.mask[0]
    positions, numbers = one.positions[0, real].detach().cpu().double(), one.numbers[0, real].cpu().long()
    require_finite("positions", positions, None)
    unknown = sorted(set(numbers.tolist()) - set(PERIODIC_TABLE))
    if unknown:
        raise ValueError(f"molecule {i} holds the unknown elements {unknown}; it should hold atomic numbers")
    mol = _bonded(positions, numbers)
    charges = one.charges[0, real].tolist() if one.charges is not None else [0] * len(numbers)
    for atom, charge in zip(mol.GetAtoms(), charges, strict=True):
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
    mol.UpdatePropertyCache(strict=False)
    return mol


def _bonded(positions: Tensor, numbers: Tensor) -> Mol:
    from rdkit.Chem import rdDetermineBonds

    known = set(numbers.tolist()) <= set(GEOM.symbols)
    none = numbers.new_zeros(len(numbers), len(numbers))
    orders = orders_of(positions[None], numbers[None], GEOM)[0] if known else none
    mol = molecular_graph.mol_of(numbers.tolist(), orders)
    molecular_graph.add_conformer(mol, positions)
    if not known:
        rdDetermineBonds.DetermineConnectivity(mol)
    return mol


def to_sdf(path: str | os.PathLike[str], molecules: Molecules, names: Sequence[str] | None = None) -> None:
    """Write molecules as an SDF file, whole or not at all, with bonds and charges as `to_rdkit` has them.

    Args:
        path: the file; an old one is replaced.
        molecules: what to write; coordinates have four decimals there.
        names: one title a molecule; default: its SMILES, or else its sum formula.

    Raises:
        ValueError: as `to_rdkit`; names of another number.
        OSError: the file cannot be written.
    """
    from rdkit import Chem

    titles = [molecules.smiles[i] or molecules.formula(i) for i in range(len(molecules))]
    titles = titles if names is None else require_strings("names", names)
    if len(titles) != len(molecules):
        raise ValueError(f"names has {len(titles)} entries; it should have {len(molecules)}, one a molecule")
    blocks = []
    for i, title in enumerate(titles):
        mol = to_rdkit(molecules, i)
        mol.SetProp("_Name", " ".join(title.split()))
        blocks.append(Chem.MolToMolBlock(mol, kekulize=bool(molecules.smiles[i])) + "$$$$\n")
    write_atomically(path, "".join(blocks).encode())


def to_xyz(path: str | os.PathLike[str], molecules: Molecules) -> None:
    """Write molecules as frames of an XYZ file, whole or not at all; the comment line has what titles have in SDF.

    Raises:
        ValueError: as `to_rdkit`.
        OSError: the file cannot be written.
    """
    from rdkit import Chem

    frames = []
    for i in range(len(molecules)):
        mol = to_rdkit(molecules, i)
        mol.SetProp("_Name", molecules.smiles[i] or molecules.formula(i))
        frames.append(Chem.MolToXYZBlock(mol))
    write_atomically(path, "".join(frames).encode())
