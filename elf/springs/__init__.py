"""Spring constants of the pair energy (Eq. 7): laws k(r) of the target's distance, and constants pair by pair."""

from elf.springs.constants import by_bonds, by_elements, by_hops
from elf.springs.laws import (
    BondAware,
    Constant,
    Exponential,
    Inverse,
    InverseSquare,
    LennardJones,
    Morse,
    Spring,
    SpringFunction,
    Springs,
)

__all__ = [
    "BondAware",
    "Constant",
    "Exponential",
    "Inverse",
    "InverseSquare",
    "LennardJones",
    "Morse",
    "Spring",
    "SpringFunction",
    "Springs",
    "by_bonds",
    "by_elements",
    "by_hops",
]
