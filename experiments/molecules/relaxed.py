"""What a geometry becomes when it is let go: its graph read generously, then MMFF94's minimum.

EDM's table of bond lengths (`elf.chemistry.bonds`) is made for minima: a bond that heat has stretched by 0.1 angstrom
is none to it. Here two atoms are bonded within `REACH` times the sum of their covalent radii, a hydrogen to its nearest
neighbour alone, and RDKit finds the orders of bonds, without charges.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.chemistry.force_field import BOLTZMANN, force_fields
from elf.chemistry.molecular_graph import add_conformer, mol_of
from elf.chemistry.vibrations import rigid_motions
from elf.metrics import molecules as metrics

if TYPE_CHECKING:
    from rdkit.Chem import Mol

    from elf.data.molecules import Molecules

REACH, REACH_OF_HYDROGEN = 1.25, 1.5
"""The first is, of 1.2, 1.25 and 1.3, the one with which most hot molecules of QM9 are read as themselves: of 250 all
at 300 K, 99.6 % at 1000 K, 94 % at 3000 K. Within 1.4 to 1.6 the second hardly matters."""


def bonded(positions: Float[Tensor, "atoms 3"], numbers: Int[Tensor, " atoms"]) -> Bool[Tensor, "atoms atoms"]:
    """Whether two atoms are within reach; a hydrogen has its nearest neighbour alone."""
    from rdkit import Chem

    radii = [Chem.GetPeriodicTable().GetRcovalent(z) for z in numbers.tolist()]
    radius = torch.tensor(radii, dtype=positions.dtype, device=positions.device)
    apart = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    light = numbers == 1
    reach = torch.where(light | light[:, None], REACH_OF_HYDROGEN, REACH)
    nearest = apart == apart.amin(dim=1, keepdim=True)
    chosen = nearest | ~light[:, None]
    return (apart < reach * (radius + radius[:, None])) & chosen & chosen.T


def perceived(positions: Float[Tensor, "atoms 3"], numbers: Int[Tensor, " atoms"]) -> Mol:
    """A molecule, padded or not, with the bonds of the distances, orders without charges, sanitised; open valences and
    pieces stay as they are.

    Raises:
        ValueError: no orders of bonds fit, or RDKit refuses the molecule.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDetermineBonds

    numbers, x = numbers[numbers != 0], positions[numbers != 0].double()
    mol = Chem.RWMol(mol_of(numbers.tolist(), bonded(x, numbers).long()))
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(True)  # a hydrogen that went astray is missing, and is not to be made up for
    add_conformer(mol, x)
    with rdBase.BlockLogs():
        rdDetermineBonds.DetermineBondOrders(mol, charge=0, allowChargedFragments=False, embedChiral=False)
        Chem.SanitizeMol(mol)
    return mol.GetMol()


def relaxed_figures(positions: Float[Tensor, "n atoms 3"], numbers: Int[Tensor, "n atoms"]) -> dict[str, Any]:
    """What is left of molecules when they are relaxed, and how far from their minima they were.

    Returns:
        "relaxed": the share that is `perceived`, is known to MMFF94 and has a minimum; "unreadable", "untyped",
        "no_minimum": shares of the others. "relaxed_atoms", "relaxed_molecules": stable by EDM's table in that minimum,
        of *all* atoms and molecules: what cannot be relaxed counts as not stable. "bond_error": root mean square change
        of a bond's length on the way, angstrom. "kelvin": the median over molecules of the temperature that their
        energy above the minimum means, k_B T / 2 a mode. Both None where nothing is relaxed.
    """
    good, lost = force_fields(positions, lambda _, i: perceived(positions[i], numbers[i]))
    changes, kelvin, after = [], [], positions.clone()
    for i, field, minimum in good:
        bonds = bonded(field.positions, numbers[i, : len(minimum)]).triu().nonzero()
        changes.append(_lengths(field.positions, bonds) - _lengths(minimum, bonds))
        modes = minimum.numel() - len(rigid_motions(minimum))
        kelvin.append(float(field.energy(field.positions) - field.energy(minimum)) / (modes * BOLTZMANN / 2))
        after[i, : len(minimum)] = minimum.to(after.dtype)
    found = metrics.stability(after, numbers)
    rows, n = [i for i, *_ in good], len(positions)
    return {
        "relaxed": len(good) / n,
        **{reason: len(at) / n for reason, at in lost.items()},
        "relaxed_atoms": int(found.atom_stable[rows].sum()) / int(found.mask.sum()),
        "relaxed_molecules": int(found.molecule_stable[rows].sum()) / n,
        "bond_error": float(torch.cat(changes).square().mean().sqrt()) if good else None,
        "kelvin": statistics.median(kelvin) if good else None,
    }


def _lengths(x: Tensor, bonds: Tensor) -> Tensor:
    return (x[bonds[:, 0]] - x[bonds[:, 1]]).norm(dim=-1)


def is_itself(molecules: Molecules, i: int) -> bool:
    """Whether molecule i is `perceived` as what its SMILES says, but for hands."""
    from rdkit import Chem

    itself = Chem.AddHs(Chem.MolFromSmiles(molecules.smiles[i]))
    try:
        return _written(perceived(molecules.positions[i], molecules.numbers[i])) == _written(itself)
    except ValueError:
        return False


def _written(mol: Mol) -> str:
    from rdkit import Chem

    return Chem.MolToSmiles(mol, isomericSmiles=False)
