"""A few molecules typed by hand, good and broken, as (symbol, x, y, z) in angstrom."""

from __future__ import annotations

import torch
from torch import Tensor

from elf.elements import GEOM_SYMBOLS

NUMBER = {symbol: number for number, symbol in GEOM_SYMBOLS.items()}
WATER = (("O", 0, 0, 0), ("H", 0.96, 0, 0), ("H", -0.24, 0.93, 0))
METHANE = (
    ("C", 0, 0, 0),
    ("H", 0.63, 0.63, 0.63),
    ("H", 0.63, -0.63, -0.63),
    ("H", -0.63, 0.63, -0.63),
    ("H", -0.63, -0.63, 0.63),
)
ETHYLENE = (
    ("C", 0, 0, 0),
    ("C", 1.33, 0, 0),
    ("H", -0.54, 0.93, 0),
    ("H", -0.54, -0.93, 0),
    ("H", 1.87, 0.93, 0),
    ("H", 1.87, -0.93, 0),
)
ACETYLENE = (("C", 0, 0, 0), ("C", 1.203, 0, 0), ("H", -1.06, 0, 0), ("H", 2.263, 0, 0))
PEROXIDE = (("O", 0, 0, 0), ("O", 1.45, 0, 0), ("H", -0.17, 0.945, 0), ("H", 1.62, 0, 0.945))
TWO_WATERS = (*WATER, *((symbol, x + 9, y, z) for symbol, x, y, z in WATER))
FIVE_BONDS = (*METHANE, ("H", 0, 0, 1.09))
RADICAL = METHANE[:4]


def molecule(*atoms: tuple[str, float, float, float]) -> tuple[Tensor, Tensor]:
    """positions (1, N, 3) and numbers (1, N)."""
    return torch.tensor([[atom[1:] for atom in atoms]]).float(), torch.tensor([[NUMBER[atom[0]] for atom in atoms]])


def batch(*molecules: tuple) -> tuple[Tensor, Tensor]:
    """Several molecules, padded."""
    width = max(map(len, molecules))
    pairs = [molecule(*atoms) for atoms in molecules]
    positions = torch.cat([torch.nn.functional.pad(x, (0, 0, 0, width - x.shape[1])) for x, _ in pairs])
    return positions, torch.cat([torch.nn.functional.pad(z, (0, width - z.shape[1])) for _, z in pairs])
