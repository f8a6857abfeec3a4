"""GFN2-xTB energies, the report card's reference "gfn2" where the extra `xtb` (tblite) is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_coordinates, require_integers

BOHR, HARTREE = 0.529177210903, 627.5094740631
"""In angstrom and in kcal/mol (CODATA 2018)."""


# Plain `Tensor` annotations: the checks below speak to the user.
def gfn2_energy(numbers: Tensor, positions: Tensor, charge: int = 0) -> Float[Tensor, " shapes"]:
    """Energies of a molecule's shapes in kcal/mol, float64 (C. Bannwarth et al., JCTC 15, 1652, 2019).

    Args:
        numbers: atomic numbers, (atoms,).
        positions: in angstrom, (shapes, atoms, 3).
        charge: of the molecule.

    Raises:
        TypeError, ValueError: arguments of other shapes or kinds.
        ModuleNotFoundError, RuntimeError: tblite is not installed; or its charges do not converge.
    """
    z, x = require_integers("numbers", numbers).cpu().numpy(), require_coordinates("positions", positions, 3)
    if x.shape[1:] != (*z.shape, 3):
        raise ValueError(f"numbers has shape {z.shape}; it should be ({x.shape[1]},), positions (shapes, atoms, 3)")
    from tblite.interface import Calculator

    bohr, energies = x.detach().cpu().double().numpy() / BOHR, []
    molecule = Calculator("GFN2-xTB", z, bohr[0], charge=charge)
    molecule.set("verbosity", 0)
    for shape in bohr:
        molecule.update(shape)
        energies.append(float(molecule.singlepoint().get("energy")))
    return HARTREE * torch.tensor(energies, dtype=torch.float64, device="cpu")


def reference_named(name: str, numbers: Sequence[Tensor] | None) -> Callable[[int, Tensor], Tensor]:
    """The reference energy of this name, of targets with these atomic numbers."""
    if name != "gfn2" or numbers is None:
        raise ValueError(f"reference is {name!r}; it should be a function, or 'gfn2' with atomic numbers as labels")
    return lambda i, x: gfn2_energy(numbers[i], x)
