"""Normal modes of a molecule, and distortions drawn from them: rigid motions removed, thermal amplitudes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_coordinates, require_count, require_finite, require_positive, require_tensor, widen
from elf.geometry import rigidity

_WAVENUMBER = 108.591359
"""sqrt(kcal/mol/angstrom^2/dalton) / (2 pi c) in 1/cm."""


class NormalModes(NamedTuple):
    """Vibrations about a configuration, lowest wavenumber first.

    Attributes:
        wavenumbers: (modes,) in 1/cm; negative where the curvature is (an imaginary frequency).
        directions: (modes, atoms, 3), each a displacement of Euclidean length 1.
        stiffness: (modes,) in kcal/mol/angstrom^2, the curvature of the energy along each direction.
    """

    wavenumbers: Float[Tensor, " modes"]
    directions: Float[Tensor, "modes atoms 3"]
    stiffness: Float[Tensor, " modes"]


def rigid_motions(
    positions: Float[Tensor, "atoms 3"], weights: Float[Tensor, " atoms"] | None = None
) -> Float[Tensor, "motions coordinates"]:
    """See `elf.geometry.rigidity.rigid_motions`; `weights` are masses."""
    positions = widen(require_coordinates("positions", positions, 2))
    if positions.shape[1] != 3:
        raise ValueError(f"positions has shape {tuple(positions.shape)}; it should be (atoms, 3)")
    require_finite("positions", positions, None)
    return rigidity.rigid_motions(positions, weights)


def remove_rigid_motions(
    displacements: Float[Tensor, "*batch atoms 3"], positions: Float[Tensor, "atoms 3"]
) -> Float[Tensor, "*batch atoms 3"]:
    """The part of each displacement that is orthogonal to translating and turning `positions`.

    What is left is the smallest displacement that makes the same infinitesimal distortion; Kabsch alignment of the
    displaced molecule to `positions` then finds the identity.
    """
    basis = rigid_motions(positions)
    flat = displacements.flatten(-2)
    return (flat - flat @ basis.T @ basis).view(displacements.shape)


def normal_modes(
    hessian: Float[Tensor, "coordinates coordinates"],
    positions: Float[Tensor, "atoms 3"],
    masses: Float[Tensor, " atoms"],
) -> NormalModes:
    """Eigenvectors of the mass-weighted Hessian M^-1/2 H M^-1/2 with translations and rotations projected out.

    3 N - 6 modes (3 N - 5 if linear), as displacements. hessian in kcal/mol/angstrom^2, masses in dalton.

    Raises:
        ValueError: shapes do not fit; a mass is not positive; an entry is not finite.
    """
    coordinates = require_tensor("positions", positions).numel()
    if require_tensor("hessian", hessian).shape != (coordinates, coordinates):
        raise ValueError(
            f"hessian has shape {tuple(hessian.shape)}; it should be ({coordinates}, {coordinates}) for the positions"
        )
    if not bool(hessian.isfinite().all()):
        raise ValueError("hessian holds a NaN or infinite entry; it should be finite")
    if require_tensor("masses", masses).shape != positions.shape[:1] or not bool((masses > 0).all()):
        raise ValueError(f"masses is {masses.tolist()}; it should be one positive number an atom")
    root = masses.sqrt().repeat_interleave(3)
    rigid = rigid_motions(positions, masses)
    # The orthogonal complement of the rigid motions: working inside it keeps soft modes apart from them.
    _, _, rows = torch.linalg.svd(rigid, full_matrices=True)
    inside = rows[len(rigid) :]
    values, vectors = torch.linalg.eigh(inside @ (hessian / root / root[:, None]) @ inside.T)
    moves = vectors.T @ inside / root
    directions = moves / moves.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(moves.dtype).tiny)
    return NormalModes(
        values.sign() * values.abs().sqrt() * _WAVENUMBER,
        directions.view(-1, *positions.shape),
        torch.einsum("ki,ij,kj->k", directions, hessian, directions),
    )


def random_displacements(
    positions: Float[Tensor, "atoms 3"], size: float, n: int, generator: torch.Generator
) -> Float[Tensor, "n atoms 3"]:
    """Gaussian displacements of all coordinates, without rigid motions; `size` is their root mean square per atom in
    angstrom, over many draws.

    Raises:
        ValueError: size or n is not positive; one atom alone, which nothing distorts.
    """
    size, n = require_positive("size", size), require_count("n", n)
    free = require_tensor("positions", positions).numel() - len(rigid_motions(positions))
    if not free:
        raise ValueError(f"positions has shape {tuple(positions.shape)}; it should have two atoms or more")
    positions = widen(positions)
    noise = torch.randn(n, *positions.shape, generator=generator, dtype=positions.dtype, device=positions.device)
    return remove_rigid_motions(noise, positions) * size * math.sqrt(len(positions) / free)


def thermal_displacements(
    modes: NormalModes, positions: Float[Tensor, "atoms 3"], size: float, n: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n atoms 3"], float]:
    """Draws from the Boltzmann distribution of the harmonic molecule, and its k_B T in kcal/mol.

    Every mode has the energy k_B T / 2 on average (equipartition), so its amplitude is sqrt(k_B T / stiffness). The
    temperature is the one at which the displacement is `size` angstrom per atom, root mean square over many draws.
    Masses drop out: the classical Boltzmann distribution of positions does not know them.

    Raises:
        ValueError: size or n is not positive; there is no mode; one has no positive stiffness (not a minimum).
    """
    size, n = require_positive("size", size), require_count("n", n)
    if not len(modes.stiffness):
        raise ValueError(f"modes is empty; positions, {tuple(positions.shape)}, should have two atoms or more")
    if not bool((modes.stiffness > 0).all()):
        raise ValueError(f"modes has the stiffness {float(modes.stiffness.min()):.3g}; at a minimum all are positive")
    directions = remove_rigid_motions(modes.directions, positions)
    per_kt = float((directions.square().sum((-2, -1)) / modes.stiffness).sum()) / len(positions)
    kt = size**2 / per_kt
    noise = torch.randn(n, len(modes.stiffness), generator=generator, dtype=positions.dtype, device=positions.device)
    return torch.einsum("nk,kad->nad", noise * (kt / modes.stiffness).sqrt(), directions), kt


def mode_displacements(
    modes: NormalModes, positions: Float[Tensor, "atoms 3"], size: float
) -> Float[Tensor, "displacements atoms 3"]:
    """Each normal mode forwards and backwards, (2 modes, atoms, 3), every one of exactly `size` angstrom per atom,
    root mean square: all the same to MSE."""
    size = require_positive("size", size)
    directions = remove_rigid_motions(modes.directions, positions)
    unit = directions / directions.square().sum(-1).mean(-1).sqrt()[:, None, None]
    return size * torch.cat([unit, -unit])
