"""Strain: how far above its force field's minimum does a generated geometry sit?

The MMFF94 energy of the geometry as it is, minus that of the local minimum it relaxes to (same graph, nearest basin),
in kcal/mol. A DFT minimum has some too, since the two methods disagree about the ideal bond: QM9's own molecules have a
median of about 4.5 kcal/mol, the figure to compare with first. Only a molecule whose graph is whole has a force field,
so the strain of a model is that of its good molecules, and `Strain.lost` counts the others: among them the data's
charged and many aromatic molecules, whose bonds EDM's table cannot read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from elf.chemistry.bonds import QM9, BondRules
from elf.chemistry.force_field import ForceField
from elf.metrics.molecules import each_mol

if TYPE_CHECKING:
    from rdkit.Chem import Mol

REASONS = ("invalid", "open_valences", "fragments", "untyped", "no_minimum")


@dataclass(frozen=True)
class Strain:
    """energies: kcal/mol of the molecules that have one, in order. index: which these are. lost: how many were lost to
    each of `REASONS`: RDKit's sanitisation refuses it, a hydrogen is missing, it is in pieces, MMFF94 does not know its
    atoms, it reaches no minimum. Together they are all molecules.
    """

    energies: Float[Tensor, " good"]
    index: tuple[int, ...]
    lost: dict[str, int]

    @property
    def median(self) -> float | None:
        """Median strain in kcal/mol; None where no molecule has one. (The mean is a few broken molecules' affair.)"""
        return float(self.energies.median()) if len(self.energies) else None


def strain(positions: Tensor, numbers: Tensor, mask: Tensor | None = None, *, rules: BondRules = QM9) -> Strain:
    """Strain of each molecule; bonds by EDM's table. Some 20 molecules a second.

    Args:
        positions, numbers, mask: as everywhere in `elf.metrics.molecules`.

    Raises:
        ValueError: bad molecules, as `elf.metrics.molecules.stability`.
    """
    energies, index, lost = [], [], dict.fromkeys(REASONS, 0)
    for i, mol in enumerate(each_mol(positions, numbers, mask, rules)):
        energy = _strain(mol)
        if isinstance(energy, str):
            lost[energy] += 1
        else:
            energies.append(energy)
            index.append(i)
    return Strain(torch.tensor(energies, dtype=torch.float64, device="cpu"), tuple(index), lost)


def _strain(mol: Mol) -> float | str:
    """The strain, or the reason why there is none."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        if Chem.SanitizeMol(mol, catchErrors=True):
            return "invalid"
    if any(atom.GetNumImplicitHs() or atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        return "open_valences"
    if len(Chem.GetMolFrags(mol)) > 1:
        return "fragments"
    reason = "untyped"
    try:
        field = ForceField(mol)
        reason = "no_minimum"
        return float(field.energy(field.positions) - field.energy(field.minimise()))
    except ValueError:
        return reason
