"""The Boltzmann distribution of an energy on a grid, and what can go wrong with a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from course.boltzmann.quadrature import Grid, coarser
from elf.checks import require_coordinates, require_positive, require_tensor

EnergyFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Boltzmann:
    """p(y_hat) = exp(-E(y_hat)/T) / Z on a grid: Eq. 4 of arXiv:2511.02087.

    Fields: `grid`; `energy` and `log_density`, (points,), at the grid's nodes; `log_z`, a scalar; `temperature`.
    Everything is differentiable with respect to whatever the energy depends on.
    """

    grid: Grid
    energy: Float[Tensor, " points"]
    log_density: Float[Tensor, " points"]
    log_z: Float[Tensor, ""]
    temperature: float

    @property
    def density(self) -> Tensor:
        """p at the nodes, in the shape of the grid: (n,) or (n, n)."""
        return self.log_density.exp().reshape(self.grid.shape)

    def expectation(self, values: Tensor) -> Tensor:
        """The mean under p of a function given by its values at the nodes, (points,) or (points, ...)."""
        return torch.tensordot((self.log_density + self.grid.log_weights).exp(), values, dims=1)

    def entropy(self) -> Float[Tensor, ""]:
        """S = -E_p[log p]; the free energy is -T log Z = E_p[E] - T S."""
        return self.expectation(self.energy) / self.temperature + self.log_z


def around(
    energy: Callable[[Tensor, Tensor], Tensor], target: Tensor, free: Sequence[int] | None = None
) -> EnergyFunction:
    """E(., target) as a function of the coordinates of the free atoms; the others are pinned at the target.

    Pinning is what makes an invariant energy normalisable: a whole molecule under the pair energy drifts away.

    Args:
        energy: an `elf.Energy`, called on (points, atoms, dim) twice.
        target: y, (atoms, dim), in angstrom.
        free: atoms that move, all of them if None.

    Returns:
        A function of (points, len(free) * dim) coordinates, atom by atom, with values (points,).

    Raises:
        ValueError: `target` is not (atoms, dim), `free` is empty, repeats an atom or names one that does not exist.
    """
    if target.ndim != 2:
        raise ValueError(f"target has shape {tuple(target.shape)}; it should be (atoms, dim)")
    atoms, dim = target.shape
    moving = list(range(atoms)) if free is None else list(free)
    if not moving or len(set(moving)) != len(moving) or not all(0 <= atom < atoms for atom in moving):
        raise ValueError(f"free is {free}; it should be distinct atoms in 0..{atoms - 1}, at least one")
    index = torch.tensor(moving, dtype=torch.long, device=target.device)

    def function(points: Tensor) -> Tensor:
        require_coordinates("points", points[:, None], 3)
        if points.shape[1] != len(moving) * dim:
            raise ValueError(f"points has shape {tuple(points.shape)}; it should be (points, {len(moving) * dim})")
        everyone = target.to(points).expand(len(points), atoms, dim)
        moved = everyone.index_copy(1, index, points.reshape(len(points), len(moving), dim))
        return energy(moved, everyone)

    return function


def distribution(
    energy: EnergyFunction, grid: Grid, temperature: float, *, confined: bool = False, tolerance: float = 1e-4
) -> Boltzmann:
    """The Boltzmann distribution of an energy at temperature T, log Z by trapezoidal quadrature (Eq. 4).

    A window that cuts off mass is an error, not a smaller Z. What lies outside is estimated by continuing the energy
    linearly over each side; a well behind a barrier outside the window cannot be seen by any finite number of values.

    Args:
        energy: maps (points, dim) to (points,), dim being the grid's, in the units of `temperature`.
        grid: where to evaluate it; see `course.boltzmann.grid`.
        temperature: T > 0.
        confined: the window is a box with hard walls, so that mass at its sides is meant to be there. This is also what
            gives a distribution to energies that level off, such as Morse and Lennard-Jones.
        tolerance: largest accepted fraction of mass outside the window, and change of log Z when the grid is coarsened.

    Raises:
        TypeError: the energy does not answer with a tensor.
        ValueError: T is not positive; the energy has the wrong shape or is not finite; mass lies beyond a side of the
            window (named) or the energy does not rise there, as when it has no normalisable distribution; the grid is
            too coarse for the energy.
    """
    temperature, tolerance = require_positive("temperature", temperature), require_positive("tolerance", tolerance)
    values = require_tensor("energy(grid.points)", energy(grid.points))
    _require_energies(values, grid)
    exponent = -values / temperature
    log_z = torch.logsumexp(exponent + grid.log_weights, 0)
    found = Boltzmann(grid, values, exponent - log_z, log_z, temperature)
    if not confined:
        _require_mass_inside(found, tolerance)
    coarse, index = coarser(grid)
    change = float((torch.logsumexp(exponent[index] + coarse.log_weights, 0) - log_z).detach().abs())
    if not change <= tolerance:
        raise ValueError(
            f"grid: log Z changes by {change:.2g} when every other node is left out, more than {tolerance:.2g}; "
            f"the energy varies too fast at T = {temperature:.3g} for {len(grid.axes[0])} points, take more"
        )
    return found


def _require_energies(values: Tensor, grid: Grid) -> None:
    if values.shape != grid.log_weights.shape:
        raise ValueError(
            f"energy answers points {tuple(grid.points.shape)} with {tuple(values.shape)}; it should be (points,)"
        )
    if not bool((bad := ~values.isfinite()).any()):
        return
    where = grid.points[int(bad.nonzero()[0])].tolist()
    raise ValueError(
        f"energy is {values[bad][0]} at {where}, and not finite at {int(bad.sum())} nodes in all; it should be "
        "finite on the whole window, which should begin beyond any singularity"
    )


@torch.no_grad()
def _require_mass_inside(found: Boltzmann, tolerance: float) -> None:
    grid = found.grid
    energy, density = found.energy.reshape(grid.shape), found.density
    for dim, (axis, spacing) in enumerate(zip(grid.axes, grid.spacings, strict=True)):
        across = grid.spacings[1 - dim] if len(grid.axes) == 2 else 1.0
        for side, outermost, next_to_it in (("low", 0, 1), ("high", -1, -2)):
            where = f"the {side} side of axis {dim}, at {float(axis[outermost]):.4g}"
            slope = (energy.select(dim, outermost) - energy.select(dim, next_to_it)) / spacing
            if bool((slope <= 0).any()):
                raise ValueError(
                    f"grid: the energy does not rise towards {where}: the window cuts off mass there, or the energy "
                    "has no normalisable Boltzmann distribution; widen the window, or put walls around it (confined)"
                )
            outside = float((density.select(dim, outermost) * found.temperature / slope).sum() * across)
            if not outside <= tolerance:
                raise ValueError(
                    f"grid: about {outside:.2g} times the mass inside lies beyond {where}, more than "
                    f"{tolerance:.2g}; widen the window; if that does not help, "
                    "the energy levels off and has no normalisable distribution"
                )
