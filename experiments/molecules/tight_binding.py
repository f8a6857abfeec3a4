"""GFN2-xTB in the place of MMFF94: what quantum chemistry, which knows atoms but no bonds, says of a molecule's shape.

It needs tblite, the extra `xtb`, which no lock has.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elf.chemistry.force_field import ForceField
from elf.chemistry.xtb import gfn2_energy, gfn2_energy_and_gradient

if TYPE_CHECKING:
    from rdkit.Chem import Mol

SOFTEST = 1.0
"""Stiffness (kcal/mol/angstrom^2) that a descent expects of every mode at least: softer ones would take long steps."""
FLAT_ENOUGH = 0.01
"""Largest component of the gradient at a minimum, kcal/mol/angstrom: the charges are converged to no less."""
STRETCHED = 1.25
"""Length of a bond over MMFF94's from which on it is none."""


def tblite_version() -> str:
    """Raises ModuleNotFoundError, which names the extra, where tblite is not installed."""
    import tblite.interface  # noqa: F401

    return version("tblite")


class TightBinding(ForceField):
    """GFN2-xTB of one molecule: energy, gradient, Hessian and minimum in a `ForceField`'s units, with its errors.

    Raises:
        ValueError, RuntimeError: as `ForceField`; charges do not converge.
    """

    def __init__(self, mol: Mol) -> None:
        super().__init__(mol)
        self._numbers = torch.tensor([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=torch.int64, device="cpu")
        self._charge = sum(atom.GetFormalCharge() for atom in mol.GetAtoms())
        self._known: tuple[Tensor, Tensor] | None = None

    def energy(self, positions: Tensor) -> Tensor:
        """In kcal/mol."""
        x = self._checked(positions)
        return gfn2_energy(self._numbers, x.reshape(-1, *x.shape[-2:]), self._charge).view(x.shape[:-2])

    def gradient(self, positions: Tensor) -> Tensor:
        """In kcal/mol/angstrom."""
        x = self._checked(positions)
        return gfn2_energy_and_gradient(self._numbers, x.reshape(-1, *x.shape[-2:]), self._charge)[1].view(x.shape)

    def hessian(self, positions: Tensor, *, step: float = 1e-3) -> Tensor:
        """In kcal/mol/angstrom^2, with a step that noise of the charges allows; kept until other positions come."""
        if self._known is None or not torch.equal(self._known[0], positions):
            self._known = positions, super().hessian(positions, step=step)
        return self._known[1]

    def _descend(self, positions: Tensor) -> Tensor:
        # BFGS whose first guess is MMFF94's Hessian: twenty to thirty gradients.
        from scipy.optimize import minimize

        def energy_and_slope(flat: Any) -> tuple[float, Any]:
            energy, slope = gfn2_energy_and_gradient(self._numbers, torch.from_numpy(flat).view(1, -1, 3), self._charge)
            return float(energy), slope.flatten().numpy()

        stiffness, modes = torch.linalg.eigh(ForceField(self._mol).hessian(positions))
        inverse = modes / stiffness.clamp(min=SOFTEST) @ modes.T
        options = {"hess_inv0": ((inverse + inverse.T) / 2).numpy(), "gtol": FLAT_ENOUGH / 10, "maxiter": 300}
        found = minimize(energy_and_slope, positions.flatten().numpy(), jac=True, method="BFGS", options=options)
        return torch.from_numpy(found.x).view(-1, 3)


def quantum_minimum(mol: Mol, start: Tensor, bonds: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor] | None:
    """GFN2-xTB's minimum next to MMFF94's and the Hessian there; None where there is none, or a bond has gone."""
    field = TightBinding(mol)
    try:
        minimum = field.minimise(start, tolerance=FLAT_ENOUGH)
    except (ValueError, RuntimeError):
        return None
    i, j = torch.tensor(bonds, dtype=torch.int64, device="cpu").T
    lengths = [(x[i] - x[j]).norm(dim=-1) for x in (minimum, start)]
    return (minimum, field.hessian(minimum)) if bool((lengths[0] < STRETCHED * lengths[1]).all()) else None
