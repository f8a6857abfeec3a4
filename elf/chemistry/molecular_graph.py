"""The molecular graph of a QM9 molecule, from its SMILES, laid over its atoms in 3D.

A SMILES lists the heavy atoms in the order in which QM9's coordinates hold them, and each hydrogen sits on the heavy
atom nearest to it. Nobody promises this, so it is checked for every molecule: the elements agree in order, each bond of
the SMILES is as short as a bond, and each heavy atom has as many hydrogens near it as the SMILES says. It holds for
130,823 of the 130,831 molecules; the other eight are told apart, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from elf.data.molecules import Molecules
from elf.elements import SYMBOLS

if TYPE_CHECKING:
    from rdkit.Chem import Mol, RWMol

# Covalent radii in angstrom, Cordero et al., Dalton Trans. 2832 (2008).
_RADIUS = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57}
_SHORT = 1.3


def bond_orders(molecules: Molecules) -> tuple[Int[Tensor, "n atoms atoms"], Bool[Tensor, " n"]]:
    """Kekule bond orders (0 to 3) of each molecule's SMILES in the order of its atoms, and whether they were verified.

    Molecules whose graph does not fit their coordinates have zeros and False. About 2,000 molecules a second.
    """
    from rdkit import Chem

    orders = torch.zeros(*molecules.numbers.shape, molecules.numbers.shape[1], dtype=torch.long)
    verified = torch.zeros(len(molecules), dtype=torch.bool)
    for i in range(len(molecules)):
        try:
            mol = to_rdkit(molecules, i)
        except ValueError:
            continue
        Chem.Kekulize(mol, clearAromaticFlags=True)
        for bond in mol.GetBonds():
            a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            orders[i, a, b] = orders[i, b, a] = int(bond.GetBondTypeAsDouble())
        verified[i] = True
    device = molecules.numbers.device
    return orders.to(device), verified.to(device)


def to_rdkit(molecules: Molecules, i: int) -> Mol:
    """Molecule i as a sanitised RDKit Mol: all atoms in QM9's order, bonds and charges of the SMILES, the 3D conformer,
    stereo centres read off the conformer.

    Raises:
        ValueError: the SMILES does not fit the coordinates (see the module's docstring).
    """
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    real = molecules.numbers[i] > 0
    numbers: list[int] = molecules.numbers[i][real].tolist()
    positions = molecules.positions[i][real].cpu().double()
    mol = Chem.RWMol()
    for number in numbers:
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    try:
        _connect(mol, molecules.smiles[i], numbers, torch.cdist(positions, positions))
    except ValueError as error:
        raise ValueError(
            f"molecule {i}: SMILES {molecules.smiles[i]!r} does not fit its coordinates: {error}"
        ) from None
    conformer = Chem.Conformer(len(numbers))
    for place, point in enumerate(positions.tolist()):
        conformer.SetAtomPosition(place, Point3D(*point))
    conformer.Set3D(True)
    mol.AddConformer(conformer)
    Chem.SanitizeMol(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return mol.GetMol()


def _connect(mol: RWMol, smiles: str, numbers: list[int], distance: Tensor) -> None:
    """Gives `mol` the bonds and charges of `smiles`; ValueError with the reason where the two do not fit."""
    from rdkit import Chem

    graph = Chem.MolFromSmiles(smiles)
    if graph is None:
        raise ValueError("RDKit cannot read it")
    Chem.Kekulize(graph, clearAromaticFlags=True)
    nodes = [node for node in graph.GetAtoms() if node.GetAtomicNum() > 1]
    heavy = [atom for atom, number in enumerate(numbers) if number > 1]
    if [node.GetAtomicNum() for node in nodes] != [numbers[atom] for atom in heavy]:
        raise ValueError("the heavy atoms come in another order")
    place = {node.GetIdx(): atom for node, atom in zip(nodes, heavy, strict=True)}
    for bond in graph.GetBonds():
        a, b = place[bond.GetBeginAtomIdx()], place[bond.GetEndAtomIdx()]
        if distance[a, b] > _SHORT * (_RADIUS[numbers[a]] + _RADIUS[numbers[b]]):
            raise ValueError(f"the bond {SYMBOLS[numbers[a]]}{a}-{SYMBOLS[numbers[b]]}{b} is too long in 3D")
        mol.AddBond(a, b, bond.GetBondType())
    hydrogens = [atom for atom, number in enumerate(numbers) if number == 1]
    owners = [heavy[int(nearest)] for nearest in distance[hydrogens][:, heavy].argmin(dim=1)] if hydrogens else []
    for hydrogen, owner in zip(hydrogens, owners, strict=True):
        mol.AddBond(hydrogen, owner, Chem.BondType.SINGLE)
    for node in nodes:
        atom = place[node.GetIdx()]
        mol.GetAtomWithIdx(atom).SetFormalCharge(node.GetFormalCharge())
        if node.GetTotalNumHs() != owners.count(atom):
            raise ValueError(f"atom {atom} has {owners.count(atom)} hydrogens near it, not {node.GetTotalNumHs()}")
