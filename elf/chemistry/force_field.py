"""The MMFF94 force field of RDKit as a reference: what a distortion of a molecule really costs (to a chemist).

Units are RDKit's: angstrom, kcal/mol. Everything is float64 on the CPU, where RDKit computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_count, require_finite, require_positive, require_tensor
from elf.chemistry.vibrations import normal_modes

if TYPE_CHECKING:
    from rdkit.Chem import Mol

BOLTZMANN = 0.00198720425864
"""k_B in kcal/mol/K."""


class ForceField:
    """MMFF94 (Halgren 1996) of one molecule: energy, gradient, Hessian, minimum.

    It knows the bonds that `mol` has: bonds read off distances (`elf.metrics.molecules.to_rdkit`) see no charges.

    Args:
        mol: a sanitised RDKit Mol with explicit hydrogens and one 3D conformer, such as
            `elf.chemistry.molecular_graph.to_rdkit` gives.

    Attributes:
        positions: the conformer's coordinates, (atoms, 3) in angstrom.
        masses: atomic masses in dalton, (atoms,).

    Raises:
        ValueError: the molecule has no conformer, or MMFF94 has no type or no parameters for one of its atoms.
    """

    def __init__(self, mol: Mol) -> None:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdForceFieldHelpers

        if not isinstance(mol, Chem.Mol):
            raise TypeError(f"mol is a {type(mol).__name__}; it should be an RDKit Mol")
        if mol.GetNumConformers() != 1:
            raise ValueError(f"mol has {mol.GetNumConformers()} conformers; it should have one, in 3D")
        with rdBase.BlockLogs():
            properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant="MMFF94")
            field = properties and rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties)
        if not field:
            raise ValueError(f"mol is {Chem.MolToSmiles(mol)!r}; MMFF94 has no atom types or parameters for all of it")
        field.Initialize()
        # RDKit's force field points into the molecule, which therefore has to stay alive.
        self._mol, self._field = mol, field
        self.positions = torch.from_numpy(mol.GetConformer().GetPositions()).double()
        self.masses = _float64([atom.GetMass() for atom in mol.GetAtoms()])

    def energy(self, positions: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch"]:
        """MMFF94 energy in kcal/mol of each configuration, float64.

        Raises:
            ValueError: another number of atoms; a coordinate is not finite; atoms coincide, where MMFF94 diverges.
        """
        energies = _float64([self._field.CalcEnergy(x) for x in self._flat(positions)])
        if not bool(energies.isfinite().all()):
            raise ValueError(f"positions has the energies {energies.tolist()}; no two atoms should coincide")
        return energies.view(positions.shape[:-2])

    def gradient(self, positions: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch atoms 3"]:
        """Analytic gradient of the energy in kcal/mol/angstrom, float64. Raises as `energy` does."""
        rows = []
        for x in self._flat(positions):
            # RDKit's CalcGrad(x) takes distances from a cache that only CalcEnergy renews: without it, wrong forces.
            self._field.CalcEnergy(x)
            rows.append(self._field.CalcGrad(x))
        if not bool((gradients := _float64(rows)).isfinite().all()):
            raise ValueError("positions has a gradient that is not finite; no two atoms should coincide")
        return gradients.view(positions.shape)

    def hessian(
        self, positions: Float[Tensor, "atoms 3"], *, step: float = 1e-4
    ) -> Float[Tensor, "coordinates coordinates"]:
        """Second derivatives in kcal/mol/angstrom^2, (3 atoms, 3 atoms): central differences of the gradient,
        symmetrised.

        Raises:
            ValueError: as `energy`; step is not positive.
        """
        step = require_positive("step", step)
        x = self._checked(positions, batched=False)
        shifts = step * torch.eye(x.numel(), dtype=torch.float64, device="cpu").view(-1, *x.shape)
        rows = (self.gradient(x + shifts) - self.gradient(x - shifts)).flatten(1) / (2 * step)
        return (rows + rows.T) / 2

    def minimise(
        self, positions: Float[Tensor, "atoms 3"] | None = None, *, tolerance: float = 1e-3, attempts: int = 4
    ) -> Float[Tensor, "atoms 3"]:
        """The local minimum that one descends to from `positions` (default: the conformer).

        A descent that ends at a saddle point (a mirror-symmetric start can do that) is kicked along the mode that
        falls, and goes on.

        Raises:
            ValueError: after `attempts` descents, a gradient component still exceeds `tolerance` (kcal/mol/angstrom) or
                the curvature along some mode is not positive.
        """
        require_positive("tolerance", tolerance)
        attempts = require_count("attempts", attempts)
        x = self.positions if positions is None else self._checked(positions, batched=False)
        for _ in range(attempts):
            x = self._descend(x)
            modes = normal_modes(self.hessian(x), x, self.masses)
            if len(modes.stiffness) and not modes.stiffness[0] > 0:
                x = x + 0.1 * modes.directions[0]
            elif float(self.gradient(x).abs().max()) <= tolerance:
                return x
        raise ValueError(
            f"positions lead to no minimum within {attempts} descents; the largest gradient component there is "
            f"{float(self.gradient(x).abs().max()):.2g} kcal/mol/angstrom; it should be at most {tolerance}"
        )

    def _descend(self, positions: Tensor) -> Tensor:
        self._mol.GetConformer().SetPositions(positions.contiguous().numpy())
        self._field.Minimize(maxIts=5000, forceTol=1e-8, energyTol=1e-12)
        return _float64(self._field.Positions()).view(-1, 3)

    def _checked(self, positions: Tensor, *, batched: bool = True) -> Tensor:
        shape, wanted = require_tensor("positions", positions).shape, self.positions.shape
        if shape[-2:] != wanted or (len(shape) > 2 and not batched):
            should = "end in" if batched else "be"
            raise ValueError(f"positions has shape {tuple(shape)}; it should {should} {tuple(wanted)}")
        x = positions.detach().cpu().double()  # in this order: MPS has no float64
        require_finite("positions", x, None)
        return x

    def _flat(self, positions: Tensor) -> list[list[float]]:
        return self._checked(positions).reshape(-1, self.positions.numel()).tolist()


def _float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def force_fields(
    molecules: Any, build: Callable[[Any, int], Mol]
) -> tuple[list[tuple[int, ForceField, Tensor]], dict[str, list[int]]]:
    """The force field and the MMFF94 minimum of each molecule, and which molecules have none, and why.

    Args:
        molecules: anything with a length.
        build: (molecules, i) -> RDKit Mol, ValueError where there is none: `elf.chemistry.molecular_graph.to_rdkit`.

    Returns:
        (i, force field, minimum (atoms, 3)) of the good ones; and the indices of the others under "unreadable" (build
        failed), "untyped" (MMFF94 does not know them), "no_minimum". Together they are all of `molecules`.
    """
    good: list[tuple[int, ForceField, Tensor]] = []
    lost: dict[str, list[int]] = {"unreadable": [], "untyped": [], "no_minimum": []}
    for i in range(len(molecules)):
        reason = "unreadable"
        try:
            mol = build(molecules, i)
            reason = "untyped"
            field = ForceField(mol)
            reason = "no_minimum"
            good.append((i, field, field.minimise()))
        except ValueError:
            lost[reason].append(i)
    return good, lost
