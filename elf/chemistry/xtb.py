"""GFN2-xTB energies and gradients; the report card's reference "gfn2" where the extra `xtb` (tblite) is installed."""

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
    """Energies of a molecule's shapes in kcal/mol, float64: the first of `gfn2_energy_and_gradient`."""
    return gfn2_energy_and_gradient(numbers, positions, charge)[0]


def gfn2_energy_and_gradient(
    numbers: Tensor, positions: Tensor, charge: int = 0
) -> tuple[Float[Tensor, " shapes"], Float[Tensor, "shapes atoms 3"]]:
    """Energies in kcal/mol and gradients in kcal/mol/angstrom, float64 (C. Bannwarth et al., JCTC 15, 1652, 2019).

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

    bohr, energies, gradients = x.detach().cpu().double().numpy() / BOHR, [], []
    molecule = Calculator("GFN2-xTB", z, bohr[0], charge=charge)
    molecule.set("verbosity", 0)
    for shape in bohr:
        molecule.update(shape)
        result = molecule.singlepoint()
        energies.append(float(result.get("energy")))
        gradients.append(result.get("gradient").tolist())
    energy, gradient = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (energies, gradients))
    return HARTREE * energy, HARTREE / BOHR * gradient


def reference_named(name: str, numbers: Sequence[Tensor] | None) -> Callable[[int, Tensor], Tensor]:
    """The reference energy of this name, of targets with these atomic numbers."""
    if name != "gfn2" or numbers is None:
        raise ValueError(f"reference is {name!r}; it should be a function, or 'gfn2' with atomic numbers as labels")
    return lambda i, x: gfn2_energy(numbers[i], x)
