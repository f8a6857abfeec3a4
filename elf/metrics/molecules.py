"""Is a cloud of atoms a molecule? Stability (EDM's), validity, uniqueness, novelty, completeness.

Stability follows Hoogeboom et al. (arXiv:2203.17003): distances give bond orders by a fixed table (`elf.metrics.bonds`);
an atom is stable when its bond orders sum to its valence, a molecule when all its atoms are. Everything up to
`fragments` is batched torch on any device; from `to_rdkit` on RDKit builds molecules one by one on the CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.metrics.bonds import SYMBOLS, VALENCE, thresholds

if TYPE_CHECKING:
    from rdkit.Chem import Mol


@dataclass(frozen=True)
class Stability:
    """Which atoms and molecules are stable. Padding counts as not stable and is left out of every fraction."""

    atom_stable: Bool[Tensor, "molecules atoms"]
    molecule_stable: Bool[Tensor, " molecules"]
    mask: Bool[Tensor, "molecules atoms"]

    @property
    def atom_fraction(self) -> float:
        """Share of stable atoms among all atoms of all molecules (EDM's "atom stability")."""
        return self.atom_stable.sum().item() / self.mask.sum().item()

    @property
    def molecule_fraction(self) -> float:
        """Share of molecules all of whose atoms are stable (EDM's "molecule stability")."""
        return self.molecule_stable.sum().item() / self.molecule_stable.numel()


def _checked(
    positions: Tensor, numbers: Tensor, mask: Tensor | None
) -> tuple[Float[Tensor, "B N 3"], Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    if positions.ndim != 3 or positions.shape[-1] != 3:
        raise ValueError(f"positions must have shape (molecules, atoms, 3), got {tuple(positions.shape)}")
    if numbers.shape != positions.shape[:2]:
        raise ValueError(
            f"numbers must have shape (molecules, atoms) = {tuple(positions.shape[:2])} like positions, "
            f"got {tuple(numbers.shape)}"
        )
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"numbers must be integers (atomic numbers), got {numbers.dtype}")
    if mask is None:
        mask = numbers != 0
    if mask.shape != numbers.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool of shape {tuple(numbers.shape)}, got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    for name, other in (("numbers", numbers), ("mask", mask)):
        if other.device != positions.device:
            raise ValueError(f"{name} is on {other.device}, positions on {positions.device}: move them to one device")
    if not mask.shape[0]:
        raise ValueError("positions holds no molecules: its first dimension is 0")
    if not mask.any(dim=1).all():
        raise ValueError(f"molecule {int((~mask.any(dim=1)).nonzero()[0])} is empty: its mask has no atom")
    known = torch.zeros_like(mask)
    for number in VALENCE:
        known |= numbers == number
    if not (known | ~mask).all():
        odd = sorted(set(numbers[mask & ~known].tolist()))
        raise ValueError(f"numbers holds unknown elements {odd}; the bond table knows {dict(SYMBOLS)}")
    finite = positions.isfinite().all(dim=-1) | ~mask
    if not finite.all():
        molecule, atom = (~finite).nonzero()[0].tolist()
        raise ValueError(f"positions is not finite at molecule {molecule}, atom {atom}")
    if not positions.is_floating_point():
        raise TypeError(f"positions must be floating point (angstrom), got {positions.dtype}")
    # Half precision resolves 0.001 angstrom at best near 1 angstrom: the thresholds deserve float32.
    positions = positions if positions.dtype in (torch.float32, torch.float64) else positions.float()
    # Padding may hold anything, NaN and unknown numbers among it; zeros keep it out of the arithmetic.
    return positions.masked_fill(~mask[..., None], 0), numbers.masked_fill(~mask, 0).long(), mask


def _orders(positions: Tensor, numbers: Tensor) -> Int[Tensor, "B N N"]:
    # The matrix-product shortcut of cdist cancels: up to 0.01 angstrom wrong for atoms far from the origin.
    distance = 100 * torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    table = thresholds(device=positions.device, dtype=positions.dtype)
    limit = table[:, numbers[:, :, None], numbers[:, None, :]]
    orders = (distance < limit).sum(dim=0)
    orders.diagonal(dim1=1, dim2=2).zero_()
    return orders


def bond_orders(
    positions: Float[Tensor, "B N 3"], numbers: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None = None
) -> Int[Tensor, "B N N"]:
    """Bond order 0, 1, 2 or 3 of every pair of atoms, from their distance alone (EDM's table).

    positions in angstrom, numbers the atomic numbers (H, C, N, O, F), mask True for real atoms (default: number > 0).
    Symmetric, zero on the diagonal and for padding. Raises ValueError for wrong shapes, an empty molecule, an unknown
    element, non-finite coordinates. Memory grows as B N^2; `stability` goes in chunks.
    """
    positions, numbers, _ = _checked(positions, numbers, mask)
    return _orders(positions, numbers)


def stability(
    positions: Float[Tensor, "B N 3"],
    numbers: Int[Tensor, "B N"],
    mask: Bool[Tensor, "B N"] | None = None,
    *,
    chunk_size: int = 1024,
) -> Stability:
    """Atom and molecule stability: do the bond orders of every atom sum to its valence (H 1, C 4, N 3, O 2, F 1)?

    Arguments and errors as in `bond_orders`; `chunk_size` molecules are held at a time.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    positions, numbers, mask = _checked(positions, numbers, mask)
    bonds = torch.cat(
        [
            _orders(x, z).sum(dim=-1)
            for x, z in zip(positions.split(chunk_size), numbers.split(chunk_size), strict=True)
        ]
    )
    valence = numbers.new_zeros(max(VALENCE) + 1)
    for number, bonds_wanted in VALENCE.items():
        valence[number] = bonds_wanted
    atom_stable = (bonds == valence[numbers]) & mask
    return Stability(atom_stable, (atom_stable | ~mask).all(dim=1), mask)


def summary(
    positions: Float[Tensor, "B N 3"], numbers: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None = None
) -> dict[str, float]:
    """`{"molecules", "atoms", "atom_stability", "molecule_stability"}`: counts and fractions between 0 and 1."""
    result = stability(positions, numbers, mask)
    return {
        "molecules": result.molecule_stable.numel(),
        "atoms": int(result.mask.sum()),
        "atom_stability": result.atom_fraction,
        "molecule_stability": result.molecule_fraction,
    }
