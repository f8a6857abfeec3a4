"""Strain: how far above its force field's minimum does a generated geometry sit?

The MMFF94 energy of the geometry as it is, minus that of the local minimum it relaxes to (same graph, nearest basin),
in kcal/mol. A DFT minimum has some too, since the two methods disagree about the ideal bond: QM9's own molecules have a
median of about 4.5 kcal/mol, the figure to compare with first. Only a molecule whose graph is whole has a force field,
so the strain of a model is that of its good molecules, and `Strain.lost` counts the others: among them the data's
charged and many aromatic molecules, whose bonds EDM's table cannot read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from elf.chemistry.bonds import QM9, BondRules
from elf.chemistry.force_field import ForceField
from elf.metrics.molecules import check_molecules, to_rdkit

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
    positions, numbers, mask = check_molecules(positions, numbers, mask, rules)
    energies, index, lost = [], [], dict.fromkeys(REASONS, 0)
    for i, (x, z, real) in enumerate(zip(positions, numbers, mask, strict=True)):
        reason, energy = _strain(x[real], z[real], rules)
        if reason is None:
            energies.append(energy)
            index.append(i)
        else:
            lost[reason] += 1
    return Strain(torch.tensor(energies, dtype=torch.float64, device="cpu"), tuple(index), lost)


def _strain(positions: Tensor, numbers: Tensor, rules: BondRules) -> tuple[str | None, float]:
    """(reason, 0) or (None, strain)."""
    from rdkit import Chem, rdBase

    mol = to_rdkit(positions, numbers, rules=rules)
    with rdBase.BlockLogs():
        if Chem.SanitizeMol(mol, catchErrors=True):
            return "invalid", 0.0
    if any(atom.GetNumImplicitHs() or atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        return "open_valences", 0.0
    if len(Chem.GetMolFrags(mol)) > 1:
        return "fragments", 0.0
    try:
        field = ForceField(mol)
    except ValueError:
        return "untyped", 0.0
    try:
        minimum = field.minimise()
    except ValueError:
        return "no_minimum", 0.0
    return None, float(field.energy(field.positions) - field.energy(minimum))
