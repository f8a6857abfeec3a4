"""Exact ground states of planar lattices by minimum-weight perfect matching.

Around a frustrated plaquette an odd number of bonds is unsatisfied, around any other an even number: in the dual
lattice the unsatisfied bonds are paths that pair frustrated plaquettes with each other or with the outside, and the
energy is that of all bonds satisfied plus twice the length of the paths, a bond being |J| long. The shortest pairing is
the ground state (I. Bieche, R. Maynard, R. Rammal, J. P. Uhry, J. Phys. A 13, 2553, 1980).
"""

from __future__ import annotations

from functools import lru_cache
from math import lcm
from typing import Any

import numpy as np

from elf.spins.lattice import plaquettes
from elf.spins.milp import GRAIN, whole_units

BITS = 24
FINEST = (1 << BITS) - 2
"""PyMatching's weights are whole numbers below 2^24; this leaves room to round up."""
SLACK = 1e-6
"""What lengths in such numbers are off themselves, at most: 2^24 times the grain of the couplings is 2e-7."""
LARGEST_DENOMINATOR = 4096
ROUNDS = 4


@lru_cache(maxsize=32)
def _plaquette_bonds(height: int, width: int) -> Any:
    """Sparse (plaquettes, bonds) incidence; a bond at the rim is in one plaquette only."""
    from scipy import sparse

    around = plaquettes(height, width, periodic=False).numpy()
    entries = (np.ones(around.size, dtype=np.uint8), (np.arange(around.size) // 4, around.ravel()))
    return sparse.csc_matrix(entries, shape=(len(around), height * (width - 1) + (height - 1) * width))


def match(values: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Ground states, (B, H, W) int8, of couplings with free boundaries, and which are proven to be, (B,) bool.

    The first spin of each is +1. Each lattice is solved alone, in units of its largest |J|. Couplings that are whole
    multiples of a common unit (small whole numbers in any unit, all that have 24 binary digits) are solved as they are.
    Others are rounded to 24 digits, and the answer is proven by a second matching in which rounding may only speak
    against it. Where that finds another (levels within 1e-7 of the largest |J| a bond, as where magnitudes are mixed),
    the better one in float64 is taken, a few times over; what is not proven in the end is not said to be.

    Args:
        values: float64 couplings, (B, bonds), in the order of `Couplings.values`.
    """
    batch, split = len(values), height * (width - 1)
    broken, proven = np.zeros(values.shape, dtype=bool), np.ones(batch, dtype=bool)
    if batch and min(height, width) > 1:
        bonds = _plaquette_bonds(height, width)
        odd = (bonds @ (values < 0).astype(np.uint8).T).T % 2
        lengths, proven = _lengths(values)
        broken = _shortest(bonds, odd, np.round(lengths))
        _prove(bonds, odd, lengths, broken, proven)
    # Signs along the first column, then along the rows: the product of satisfied and broken bonds from the first spin.
    step = np.where((values < 0) ^ broken, -1, 1).astype(np.int8)
    right, down = step[:, :split].reshape(batch, height, width - 1), step[:, split:].reshape(batch, height - 1, width)
    first = np.concatenate([np.ones((batch, 1), np.int8), down[:, :, 0]], 1).cumprod(1, dtype=np.int8)
    return np.concatenate([first[:, :, None], right], 2).cumprod(2, dtype=np.int8), proven


def _lengths(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|J| in units in which it may be rounded, below 2^24, and for which lattices that changes nothing."""
    whole, sizes = np.abs(whole_units(values)), np.abs(values)
    common = np.array([[_denominator(row)] for row in whole])
    _, exponent = np.frexp(sizes.max(1, keepdims=True))
    binary = np.ldexp(sizes, BITS - exponent)
    in_binary = (common == FINEST) & (binary == np.round(binary)).all(1, keepdims=True)
    return np.where(in_binary, binary, whole / GRAIN * common), (in_binary | (common < FINEST))[:, 0]


def _denominator(numerators: np.ndarray) -> int:
    """The common denominator of these numbers over GRAIN if it is small, else the finest there can be."""
    common, seen = 1, {0.0}
    for numerator in map(float, numerators):
        if numerator in seen:
            continue
        seen.add(numerator)
        # Continued fractions by Euclid's algorithm: |numerator / GRAIN - its convergent| is rest / (last * GRAIN).
        before, last, divisor, rest = 0.0, 1.0, GRAIN, numerator % GRAIN
        while rest > last and last <= LARGEST_DENOMINATOR:
            before, last, divisor, rest = last, before + last * (divisor // rest), rest, divisor % rest
        common = lcm(common, int(last))
        if common > LARGEST_DENOMINATOR:
            return FINEST
    return common


def _shortest(bonds: Any, odd: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The bonds of the shortest pairing, one lattice at a time: in a common graph neighbours would decide ties."""
    import pymatching

    def one(sites: np.ndarray, row: np.ndarray) -> np.ndarray:
        # A corner plaquette meets the outside twice: only the weaker of its two bonds can be in a shortest pairing.
        graph = pymatching.Matching.from_check_matrix(
            bonds, weights=row, merge_strategy="smallest-weight", use_virtual_boundary_node=True
        )
        return graph.decode(sites)

    return np.array([one(*pair) for pair in zip(odd, weights, strict=True)]).astype(bool)


def _prove(bonds: Any, odd: np.ndarray, lengths: np.ndarray, broken: np.ndarray, proven: np.ndarray) -> None:
    """Prove what is not, or improve it, in place.

    With the bonds of a pairing rounded up and all others rounded down, no other pairing is shorter than it looks here,
    and this one no longer: if it is the shortest still, it is the shortest.
    """
    doubtful = np.flatnonzero(~proven)
    for _ in range(ROUNDS):
        if not len(doubtful):
            return
        length, mine = lengths[doubtful], broken[doubtful]
        weights = np.where(mine, np.ceil(length + SLACK), np.floor(length - SLACK).clip(0))
        other = _shortest(bonds, odd[doubtful], weights)
        proven[doubtful] = (weights * mine).sum(1) <= (weights * other).sum(1)
        better = ~proven[doubtful] & ((length * other).sum(1) < (length * mine).sum(1))
        doubtful = doubtful[better]
        broken[doubtful] = other[better]
