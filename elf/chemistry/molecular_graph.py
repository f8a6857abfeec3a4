"""The molecular graph of a molecule, from its SMILES, laid over its atoms in 3D: any element, charges kept.

A SMILES lists the heavy atoms in the order in which the coordinates hold them, and each hydrogen sits on the heavy atom
nearest to it. Nobody promises this, so it is checked for every molecule: the elements agree in order, each bond of the
SMILES is as short as a bond (at most 1.3 times the sum of RDKit's covalent radii), and each heavy atom has as many
hydrogens near it as the SMILES says. In QM9 it holds for 130,823 of the 130,831 molecules; the other eight are told
apart, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import require_finite, require_integer
from elf.data.molecules import Molecules
from elf.elements import PERIODIC_TABLE

if TYPE_CHECKING:
    from rdkit.Chem import Mol, RWMol

_SHORT = 1.3


def bond_orders(molecules: Molecules) -> tuple[Int[Tensor, "n atoms atoms"], Bool[Tensor, " n"]]:
    """Kekule bond orders (0 to 3) of each molecule's SMILES in the order of its atoms, and whether they were verified.

    Molecules whose graph does not fit their coordinates have zeros and False. About 2,000 molecules a second.
    """
    from rdkit import Chem

    orders = torch.zeros(*molecules.numbers.shape, molecules.numbers.shape[1], dtype=torch.long, device="cpu")
    verified = torch.zeros(len(molecules), dtype=torch.bool, device="cpu")
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


def to_rdkit(molecules: Molecules, i: SupportsIndex) -> Mol:
    """Molecule i as a sanitised RDKit Mol: all atoms in their order, bonds and charges of the SMILES, the 3D conformer,
    stereo centres read off the conformer.

    Raises:
        IndexError: there is no molecule i.
        ValueError: the SMILES does not fit the coordinates (see the module's docstring); an unknown element.
    """
    from rdkit import Chem

    i = require_integer("i", i)
    one = molecules[i]
    real = one.numbers[0] != 0
    numbers: list[int] = one.numbers[0][real].tolist()
    positions = one.positions[0][real].cpu().double()
    require_finite("positions", positions, None)
    unknown = sorted(set(numbers) - set(PERIODIC_TABLE))
    if unknown:
        raise ValueError(f"molecule {i} holds the unknown elements {unknown}; it should hold atomic numbers")
    mol = Chem.RWMol()
    for number in numbers:
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    try:
        _connect(mol, one.smiles[0], numbers, (positions[:, None] - positions).norm(dim=-1))
    except ValueError as error:
        raise ValueError(f"molecule {i}: SMILES {one.smiles[0]!r} does not fit its coordinates: {error}") from None
    add_conformer(mol, positions)
    Chem.SanitizeMol(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return mol.GetMol()


def mol_of(numbers: list[int], orders: Int[Tensor, "atoms atoms"]) -> Mol:
    """An RDKit Mol with these bonds, without a conformer, not sanitised."""
    from rdkit import Chem

    mol = Chem.RWMol()
    for number in numbers:
        mol.AddAtom(Chem.Atom(number))
    for first, second in orders.triu().nonzero().tolist():
        mol.AddBond(first, second, Chem.BondType.values[int(orders[first, second])])
    return mol.GetMol()


def add_conformer(mol: Mol, positions: Float[Tensor, "atoms 3"]) -> None:
    """Gives `mol` these coordinates, in angstrom."""
    from rdkit.Chem import Conformer

    conformer = Conformer(mol.GetNumAtoms())
    conformer.SetPositions(positions.detach().cpu().double().contiguous().numpy())
    conformer.Set3D(True)
    mol.AddConformer(conformer)


def _connect(mol: RWMol, smiles: str, numbers: list[int], distance: Tensor) -> None:
    """Gives `mol` the bonds and charges of `smiles`; ValueError with the reason where the two do not fit."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        graph = Chem.MolFromSmiles(smiles)
    if graph is None:
        raise ValueError("RDKit cannot read it")
    Chem.Kekulize(graph, clearAromaticFlags=True)
    radius = Chem.GetPeriodicTable().GetRcovalent
    # Hydrogen alone, H2 say, is its own heavy atom.
    nodes = [node for node in graph.GetAtoms() if node.GetAtomicNum() != 1] or list(graph.GetAtoms())
    heavy = [atom for atom, number in enumerate(numbers) if number != 1] or list(range(len(numbers)))
    if [node.GetAtomicNum() for node in nodes] != [numbers[atom] for atom in heavy]:
        raise ValueError("the heavy atoms come in another order")
    place = {node.GetIdx(): atom for node, atom in zip(nodes, heavy, strict=True)}
    for bond in graph.GetBonds():
        if not {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()} <= set(place):
            continue  # to a hydrogen that the SMILES writes out: counted below
        a, b = place[bond.GetBeginAtomIdx()], place[bond.GetEndAtomIdx()]
        if distance[a, b] > _SHORT * (radius(numbers[a]) + radius(numbers[b])):
            first, second = PERIODIC_TABLE[numbers[a]], PERIODIC_TABLE[numbers[b]]
            raise ValueError(f"the bond {first}{a}-{second}{b} is too long in 3D")
        mol.AddBond(a, b, bond.GetBondType())
    hydrogens = [atom for atom in range(len(numbers)) if atom not in heavy]
    owners = [heavy[int(nearest)] for nearest in distance[hydrogens][:, heavy].argmin(dim=1)] if hydrogens else []
    for hydrogen, owner in zip(hydrogens, owners, strict=True):
        mol.AddBond(hydrogen, owner, Chem.BondType.SINGLE)
    for node in nodes:
        atom = place[node.GetIdx()]
        mol.GetAtomWithIdx(atom).SetFormalCharge(node.GetFormalCharge())
        mol.GetAtomWithIdx(atom).SetNumRadicalElectrons(node.GetNumRadicalElectrons())
        wanted = node.GetTotalNumHs() + sum(other.GetIdx() not in place for other in node.GetNeighbors())
        if wanted != owners.count(atom):
            raise ValueError(f"atom {atom} has {owners.count(atom)} hydrogens near it, not {wanted}")
