"""Bond lengths, bond angles and dihedral angles of many molecules, sorted by the atoms and bonds they are made of.

A type is written along the chain of atoms, with bond orders between them: "C1H" (a carbon-hydrogen single bond),
"C2C1H" (an angle at the middle atom), "H1C1C1O" (a dihedral about the middle bond). A chain read backwards is the same
type; of the two spellings the alphabetically first is used.

Bond orders are EDM's, from distances (`elf.metrics.molecules.bond_orders`), unless others are given. A stretched bond
is then no bond, so that the lengths of each type are cut off at the table's threshold: what these figures say of a
model adds to its stability, and does not replace it. The table sees no charges and no aromatic bonds: types are what it
reads, for the data too, whose own values come first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from elf.checks import require_tensor
from elf.chemistry.bonds import QM9, BondRules
from elf.metrics.molecules import check_molecules, order_chunks

BONDS = ("C1H", "C1C", "C1O", "C1N", "H1N", "C2O", "H1O", "C2C")
ANGLES = ("C1C1H", "C1C1C", "C1C1O", "C1C1N", "C1N1C", "C1O1C", "H1C1O", "C1C2C")
DIHEDRALS = ("C1C1C1H", "C1C1C1C", "H1C1C1H", "H1C1C1O", "C1C1C1O", "C1C1N1C", "C1N1C1H", "H1C1C1N")
"""The most frequent types in QM9, as JODO (Huang et al., arXiv:2305.12347) compares them."""


def bond_lengths(
    positions: Tensor, numbers: Tensor, orders: Int[Tensor, "B N N"] | None = None, *, rules: BondRules = QM9
) -> dict[str, Tensor]:
    """Lengths in angstrom of all bonds, by type. positions (B, N, 3) in angstrom, numbers (B, N), 0 for padding.

    Raises:
        ValueError: as `elf.metrics.molecules.stability`; orders is not (B, N, N).
    """
    found = _Collector(rules)
    for x, z, order in _chunks(positions, numbers, orders, rules, 1024):
        molecule, i, j = order.triu().nonzero(as_tuple=True)
        found.add(
            (z[molecule, i], z[molecule, j]), (order[molecule, i, j],), (x[molecule, i] - x[molecule, j]).norm(2, -1)
        )
    return found.sorted()


def bond_angles(
    positions: Tensor, numbers: Tensor, orders: Int[Tensor, "B N N"] | None = None, *, rules: BondRules = QM9
) -> dict[str, Tensor]:
    """Angles in degrees, 0 to 180, between every two bonds of an atom, by type. Arguments as `bond_lengths`."""
    found = _Collector(rules)
    for x, z, order in _chunks(positions, numbers, orders, rules, 256):
        bonded = order > 0
        first = bonded[:, :, :, None] & bonded[:, :, None, :]  # (molecule, middle, i, k)
        molecule, j, i, k = first.triu(1).nonzero(as_tuple=True)
        u, v = x[molecule, i] - x[molecule, j], x[molecule, k] - x[molecule, j]
        # Not the arc cosine, which loses half the digits near 0 and 180 degrees.
        angle = torch.atan2(torch.linalg.cross(u, v).norm(2, -1), (u * v).sum(-1))
        atoms = z[molecule, i], z[molecule, j], z[molecule, k]
        found.add(atoms, (order[molecule, i, j], order[molecule, j, k]), angle.rad2deg())
    return found.sorted()


def dihedral_angles(
    positions: Tensor, numbers: Tensor, orders: Int[Tensor, "B N N"] | None = None, *, rules: BondRules = QM9
) -> dict[str, Tensor]:
    """Signed dihedral angles in degrees, -180 to 180, of every chain of three bonds, by type (IUPAC's sign).

    Chains that end where they began (three-rings) are none. A chain with two bonds in line (sine below 1e-3, as at a
    triple bond) has no dihedral angle. Arguments as `bond_lengths`.
    """
    found = _Collector(rules)
    for x, z, order in _chunks(positions, numbers, orders, rules, 64):
        bonded = order > 0
        molecule, j, k = bonded.triu().nonzero(as_tuple=True)
        ends = bonded[molecule, j][:, :, None] & bonded[molecule, k][:, None, :]  # (bond, i, l)
        bond, i, l = ends.nonzero(as_tuple=True)
        molecule, j, k = molecule[bond], j[bond], k[bond]
        real = (i != k) & (l != j) & (i != l)
        molecule, i, j, k, l = (index[real] for index in (molecule, i, j, k, l))
        a, b, c = x[molecule, j] - x[molecule, i], x[molecule, k] - x[molecule, j], x[molecule, l] - x[molecule, k]
        left, right = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
        sides = a.norm(2, -1) * b.norm(2, -1), b.norm(2, -1) * c.norm(2, -1)
        bent = (left.norm(2, -1) > 1e-3 * sides[0]) & (right.norm(2, -1) > 1e-3 * sides[1])
        sine = b.norm(2, -1) * (a * right).sum(-1)
        angle = torch.atan2(sine, (left * right).sum(-1)).rad2deg()
        atoms = (z[molecule, i], z[molecule, j], z[molecule, k], z[molecule, l])
        links = (order[molecule, i, j], order[molecule, j, k], order[molecule, k, l])
        found.add(tuple(t[bent] for t in atoms), tuple(t[bent] for t in links), angle[bent])
    return found.sorted()


def _chunks(
    positions: Tensor, numbers: Tensor, orders: Tensor | None, rules: BondRules, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    positions, numbers, _ = check_molecules(positions, numbers, None, rules)
    if orders is None:
        return order_chunks(positions, numbers, rules, size)
    wanted = (*numbers.shape, numbers.shape[1])
    if require_tensor("orders", orders).shape != wanted or orders.is_floating_point():
        raise ValueError(f"orders has {orders.dtype} {tuple(orders.shape)}; it should be integers {wanted}")
    return zip(positions.split(size), numbers.split(size), orders.split(size), strict=True)


class _Collector:
    """Values by type; a type is kept as one integer until the end, since strings for millions of angles are slow."""

    def __init__(self, rules: BondRules) -> None:
        self.rules, self.codes, self.values = rules, list[Tensor](), list[Tensor]()

    def add(self, atoms: tuple[Tensor, ...], orders: tuple[Tensor, ...], values: Tensor) -> None:
        """Note values of chains of `atoms` (atomic numbers) joined by bonds of `orders`."""
        links = [part for pair in zip(atoms, (*orders, None), strict=True) for part in pair if part is not None]
        code = torch.zeros_like(links[0])
        for part in links:
            code = code * 128 + part
        self.codes.append(code)
        self.values.append(values)

    def sorted(self) -> dict[str, Tensor]:
        codes, values = torch.cat(self.codes), torch.cat(self.values)
        parts: dict[str, list[Tensor]] = {}
        for code in codes.unique().tolist():
            parts.setdefault(self._name(code), []).append(values[codes == code])
        return {name: torch.cat(parts[name]) for name in sorted(parts)}

    def _name(self, code: int) -> str:
        numbers = []
        while code:
            numbers.append(code % 128)
            code //= 128
        # Atoms and bonds take turns, from both ends.
        words = [self.rules.symbols[n] if place % 2 == 0 else str(n) for place, n in enumerate(numbers)]
        return min("".join(words), "".join(reversed(words)))
