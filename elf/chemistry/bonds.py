"""Bond lengths that say which atoms of a point cloud are bonded, and how often: EDM's tables for QM9 and GEOM-Drugs.

Lengths, margins and valences are those of `qm9/bond_analyze.py` in
https://github.com/ehoogeboom/e3_diffusion_for_molecules (Hoogeboom et al., arXiv:2203.17003), entry for entry, so that
stability figures compare with the literature's. The lengths are textbook averages in picometres; the margins were tuned
there to make QM9 itself stable. Some entries are generous or odd to a chemist (sulphur must have four bonds, so that a
thioether is not stable; pairs without an entry, such as boron and carbon, are never bonded); figures for GEOM-Drugs
inherit that. The rules see neither charges (an ammonium's nitrogen has one bond too many, a carboxylate's oxygens one
too few) nor aromatic bonds, whose lengths lie between single and double: chlorobenzene is read as a cyclohexyl chloride
that lacks hydrogens, and RDKit, filling them in, finds it valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.elements import GEOM_SYMBOLS, GEOM_VALENCES, SYMBOLS, VALENCE

# {(Z, Z'): length in picometres}; Z <= Z', the table is symmetric.
SINGLE = {
    (1, 1): 74, (1, 6): 109, (1, 7): 101, (1, 8): 96, (1, 9): 92,
    (6, 6): 154, (6, 7): 147, (6, 8): 143, (6, 9): 135,
    (7, 7): 145, (7, 8): 140, (7, 9): 136,
    (8, 8): 148, (8, 9): 142, (9, 9): 142,
}  # fmt: skip
DOUBLE = {(6, 6): 134, (6, 7): 129, (6, 8): 120, (7, 7): 125, (7, 8): 121, (8, 8): 121}
TRIPLE = {(6, 6): 120, (6, 7): 116, (6, 8): 113, (7, 7): 110}
GEOM_SINGLE = {
    **SINGLE,
    (1, 5): 119, (1, 14): 148, (1, 15): 144, (1, 16): 134, (1, 17): 127, (1, 33): 152, (1, 35): 141, (1, 53): 161,
    (5, 17): 175,
    (6, 14): 185, (6, 15): 184, (6, 16): 182, (6, 17): 177, (6, 35): 194, (6, 53): 214,
    (7, 15): 177, (7, 16): 168, (7, 17): 175, (7, 35): 214, (7, 53): 222,
    (8, 14): 163, (8, 15): 163, (8, 16): 151, (8, 17): 164, (8, 35): 172, (8, 53): 194,
    (9, 14): 160, (9, 15): 156, (9, 16): 158, (9, 17): 166, (9, 35): 178, (9, 53): 187,
    (14, 14): 233, (14, 16): 200, (14, 17): 202, (14, 35): 215, (14, 53): 243,
    (15, 15): 221, (15, 16): 210, (15, 17): 203, (15, 35): 222,
    (16, 16): 204, (16, 17): 207, (16, 35): 225, (16, 53): 234,
    (17, 17): 199, (17, 35): 214, (35, 35): 228, (53, 53): 266,
}  # fmt: skip
GEOM_DOUBLE = {**DOUBLE, (6, 16): 160, (8, 15): 150, (15, 16): 186}
MARGINS = (10, 5, 3)


@dataclass(frozen=True)
class BondRules:
    """What counts as a bond and as a stable atom.

    symbols: the elements known, {Z: symbol}. lengths: single, double, triple; {(Z, Z'): picometres}, Z <= Z'.
    valences: {Z: sums of bond orders at which an atom is stable}.
    """

    symbols: Mapping[int, str]
    lengths: tuple[Mapping[tuple[int, int], int], ...]
    valences: Mapping[int, tuple[int, ...]]

    def thresholds(
        self, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "3 Z Z"]:
        """Largest distance, in picometres, of a single, double and triple bond between atomic numbers Z, Z'.

        A pair closer than `thresholds()[k]` has a bond of order k + 1 or more; 0 where that bond does not exist. Row
        and column 0 (padding) are 0, so padded atoms never bond.
        """
        size = max(self.symbols) + 1
        table = torch.zeros(3, size, size, dtype=dtype, device="cpu")
        for order, (lengths, margin) in enumerate(zip(self.lengths, MARGINS, strict=True)):
            for (first, second), length in lengths.items():
                table[order, first, second] = table[order, second, first] = length + margin
        return table.to(device)

    def allowed(self, *, device: torch.device | None = None) -> Bool[Tensor, "Z sums"]:
        """[Z, s]: whether an atom of element Z whose bond orders sum to s is stable."""
        sums_known = 1 + max(map(max, self.valences.values()))
        table = torch.zeros(max(self.symbols) + 1, sums_known, dtype=torch.bool, device="cpu")
        for number, sums in self.valences.items():
            table[number, list(sums)] = True
        return table.to(device)


QM9 = BondRules(SYMBOLS, (SINGLE, DOUBLE, TRIPLE), {number: (valence,) for number, valence in VALENCE.items()})
GEOM = BondRules(GEOM_SYMBOLS, (GEOM_SINGLE, GEOM_DOUBLE, TRIPLE), GEOM_VALENCES)


def orders_of(positions: Tensor, numbers: Tensor, rules: BondRules) -> Int[Tensor, "B N N"]:
    """Bond order 0 to 3 of every pair of atoms, from its distance alone; padding, numbers 0, has none.

    Nothing is checked here; `elf.metrics.molecules.bond_orders` does that first.
    """
    # cdist's shortcut by a matrix product cancels digits: up to 0.01 angstrom wrong far from the origin.
    distance = 100 * torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    limit = rules.thresholds(device=positions.device, dtype=positions.dtype)[
        :, numbers[:, :, None], numbers[:, None, :]
    ]
    orders = (distance < limit).sum(dim=0)
    orders.diagonal(dim1=1, dim2=2).zero_()
    return orders
