"""GFN2-xTB, a quantum-chemical reference of the report card where the extra `xtb` (tblite) is installed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elf.checks import require_coordinates, require_integer, require_integers, require_one_of

Reference = Callable[[int, Tensor], Tensor]
"""(number of the target, positions (S, N, D) of its real atoms) -> S energies."""
BOHR, HARTREE = 0.529177210903, 627.5094740631
"""In angstrom and in kcal/mol (CODATA 2018)."""


def gfn2_energy(
    numbers: Int[Tensor, " atoms"], positions: Float[Tensor, "shapes atoms 3"], charge: int = 0
) -> Float[Tensor, " shapes"]:
    """GFN2-xTB energies of a molecule's shapes, in kcal/mol, float64 (C. Bannwarth et al., JCTC 15, 1652, 2019).

    As a reference: `elf.report_card(energy, targets, mask, labels=numbers, reference="gfn2")`.

    Args:
        numbers: atomic numbers.
        positions: in angstrom.
        charge: of the molecule.

    Raises:
        TypeError, ValueError: arguments of other shapes or kinds.
        ModuleNotFoundError: tblite is not installed; says which extra brings it.
        RuntimeError: tblite's own, where its charges do not converge.
    """
    x = require_coordinates("positions", positions, 3)
    z = require_integers("numbers", numbers)
    if x.shape[1:] != (*z.shape, 3):
        raise ValueError(
            f"numbers has shape {tuple(z.shape)}; it should be ({x.shape[1]},), positions (shapes, atoms, 3)"
        )
    from tblite.interface import Calculator

    bohr = x.detach().cpu().double().numpy() / BOHR
    molecule = Calculator("GFN2-xTB", z.cpu().numpy(), bohr[0], charge=require_integer("charge", charge))
    molecule.set("verbosity", 0)
    energies = []
    for shape in bohr:
        molecule.update(shape)
        energies.append(float(molecule.singlepoint().get("energy")))
    return HARTREE * torch.tensor(energies, dtype=torch.float64, device="cpu")


def reference_of(reference: Reference | str | None, labels: Tensor | None, mask: Tensor | None) -> Reference | None:
    """What a report card's argument of this name means; labels are atomic numbers (targets, atoms)."""
    if reference is None or callable(reference):
        return reference
    if not isinstance(reference, str):
        raise TypeError(f"reference is {reference!r}; it should be a function of a target's number and positions")
    require_one_of("reference", reference, ("gfn2",))
    if labels is None:
        raise ValueError("labels is None; it should hold atomic numbers, for the reference 'gfn2'")
    numbers = [row if mask is None else row[mask[i].to(row.device)] for i, row in enumerate(labels)]
    return lambda i, x: gfn2_energy(numbers[i], x)
