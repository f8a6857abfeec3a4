"""Bond lengths that say which atoms of a point cloud are bonded, and how often: EDM's table for H, C, N, O, F.

Lengths and margins are those of `qm9/bond_analyze.py` in https://github.com/ehoogeboom/e3_diffusion_for_molecules
(Hoogeboom et al., arXiv:2203.17003), entry for entry, so that stability figures compare with the literature's. The
lengths are textbook averages in picometres; the margins were tuned there to make QM9 itself stable.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# {(Z, Z'): length in picometres}; Z <= Z', the table is symmetric.
SINGLE = {
    (1, 1): 74, (1, 6): 109, (1, 7): 101, (1, 8): 96, (1, 9): 92,
    (6, 6): 154, (6, 7): 147, (6, 8): 143, (6, 9): 135,
    (7, 7): 145, (7, 8): 140, (7, 9): 136,
    (8, 8): 148, (8, 9): 142, (9, 9): 142,
}  # fmt: skip
DOUBLE = {(6, 6): 134, (6, 7): 129, (6, 8): 120, (7, 7): 125, (7, 8): 121, (8, 8): 121}
TRIPLE = {(6, 6): 120, (6, 7): 116, (6, 8): 113, (7, 7): 110}
MARGINS = (10, 5, 3)


def thresholds(*, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Float[Tensor, "3 10 10"]:
    """Largest distance, in picometres, of a single, double and triple bond between atomic numbers Z, Z' <= 9.

    A pair closer than `thresholds()[k]` has a bond of order k + 1 or more; 0 where that bond does not exist. Row and
    column 0 (padding) are 0, so padded atoms never bond.
    """
    table = torch.zeros(3, 10, 10, dtype=dtype)
    for order, (lengths, margin) in enumerate(zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True)):
        for (first, second), length in lengths.items():
            table[order, first, second] = table[order, second, first] = length + margin
    return table.to(device)
