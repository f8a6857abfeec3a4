"""Exact ground states of planar lattices by minimum-weight perfect matching.

Around a frustrated plaquette an odd number of bonds is unsatisfied, around any other an even number: in the dual
lattice the unsatisfied bonds are paths that pair frustrated plaquettes with each other or with the outside, and the
energy is that of all bonds satisfied plus twice the length of the paths, a bond being |J| long. The shortest pairing is
the ground state (I. Bieche, R. Maynard, R. Rammal, J. P. Uhry, J. Phys. A 13, 2553, 1980).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

BLOCK = 8
"""Lattices matched in one graph: spreads the cost of a call, and stays in the cache of the processor."""


@lru_cache(maxsize=32)
def _plaquette_bonds(height: int, width: int, copies: int) -> Any:
    """Sparse (plaquettes, bonds) incidence of `copies` lattices; a bond at the rim is in one plaquette only."""
    from scipy import sparse

    plaquette = np.arange((height - 1) * (width - 1)).reshape(height - 1, width - 1)
    right = np.arange(height * (width - 1)).reshape(height, width - 1)
    down = right.size + np.arange((height - 1) * width).reshape(height - 1, width)
    bonds = np.concatenate([b.ravel() for b in (right[:-1], right[1:], down[:, :-1], down[:, 1:])])
    ones = np.ones(len(bonds), dtype=np.uint8)
    one = sparse.csc_matrix(
        (ones, (np.tile(plaquette.ravel(), 4), bonds)), shape=(plaquette.size, right.size + down.size)
    )
    return sparse.kron(sparse.eye(copies, dtype=np.uint8), one, format="csc")


def match(right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Ground states, (B, H, W) int8, of couplings right (B, H, W - 1) and down (B, H - 1, W) with free boundaries.

    The first spin of each is +1. PyMatching rounds weights to about 1e-7 of the largest |J|: between configurations
    closer than that it may pick either.
    """
    batch, height, width = len(right), right.shape[1], down.shape[2]
    broken_right, broken_down = np.zeros(right.shape, dtype=bool), np.zeros(down.shape, dtype=bool)
    if min(height, width) > 1:
        for start in range(0, batch, BLOCK):
            rows = slice(start, min(start + BLOCK, batch))
            _match_block(right[rows], down[rows], broken_right[rows], broken_down[rows])
    # Signs along the first column, then along the rows: the product of satisfied and broken bonds from the first spin.
    step_right = np.where((right < 0) ^ broken_right, -1, 1).astype(np.int8)
    step_down = np.where((down < 0) ^ broken_down, -1, 1).astype(np.int8)
    first = np.concatenate([np.ones((batch, 1), np.int8), step_down[:, :, 0]], 1).cumprod(1, dtype=np.int8)
    return np.concatenate([first[:, :, None], step_right], 2).cumprod(2, dtype=np.int8)


def _match_block(right: np.ndarray, down: np.ndarray, broken_right: np.ndarray, broken_down: np.ndarray) -> None:
    import pymatching

    batch, height, width = len(right), right.shape[1], down.shape[2]
    negative_right, negative_down = right < 0, down < 0
    frustrated = negative_right[:, :-1] ^ negative_right[:, 1:] ^ negative_down[:, :, :-1] ^ negative_down[:, :, 1:]
    weights = np.abs(np.concatenate([right.reshape(batch, -1), down.reshape(batch, -1)], 1))
    # A corner plaquette meets the outside twice: only the weaker of its two bonds can be in a shortest pairing.
    graph = pymatching.Matching.from_check_matrix(
        _plaquette_bonds(height, width, batch), weights=weights.ravel(), merge_strategy="smallest-weight"
    )
    broken = graph.decode(frustrated.ravel().astype(np.uint8)).astype(bool).reshape(batch, -1)
    split = right[0].size
    broken_right[:] = broken[:, :split].reshape(right.shape)
    broken_down[:] = broken[:, split:].reshape(down.shape)
