"""Exact linear algebra over the integers modulo a prime, for many matrices at once.

Ranks decided by a threshold on singular values are guesses; ranks modulo a prime are exact. A matrix whose entries are
polynomials in random integers has, modulo a large prime, at most its generic rank, and less only with a probability
of about one in the prime (Schwartz and Zippel): an error can only go one way.

Integers are kept in float64, balanced around zero, so that matrix products run at the speed of floating point: with
|a| <= 2^24 + 1, sixteen products add up to less than 2^53, below which float64 is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

PRIME = 33_554_393  # the largest prime below 2^25
_WIDTH = 16


class Reduced(NamedTuple):
    """Reduced row echelon form, without moving or scaling rows."""

    matrix: Float[Tensor, "batch rows columns"]
    pivots: Int[Tensor, "batch columns"]
    """For each column the row of its pivot, the only non-zero entry of that column; -1 for a free column."""

    @property
    def rank(self) -> Int[Tensor, " batch"]:
        """Number of pivots."""
        return (self.pivots >= 0).sum(-1)


def residue(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x modulo PRIME, between about -PRIME / 2 and PRIME / 2; zero exactly where PRIME divides x. |x| < 2^53."""
    return x - PRIME * (x / PRIME).round()


def random_residues(*shape: int, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Independent uniform residues, as float64 on the CPU."""
    return torch.randint(PRIME, shape, generator=generator, device="cpu").double() - PRIME // 2


def eliminate(matrix: Float[Tensor, "batch rows columns"]) -> Reduced:
    """Gauss-Jordan elimination modulo PRIME of float64 integers with |a| <= PRIME / 2.

    Works through panels of a few columns; inside a panel it remembers by which multiples of which rows each row was
    changed, so that the columns to the right follow in one matrix product.
    """
    matrix = matrix.clone()
    samples, rows, columns = matrix.shape
    every = torch.arange(samples, device="cpu")
    used = torch.zeros(samples, rows, dtype=torch.bool, device="cpu")
    pivots = torch.full((samples, columns), -1, dtype=torch.long, device="cpu")
    for start in range(0, columns, _WIDTH):
        stop = min(start + _WIDTH, columns)
        width = stop - start
        panel = torch.cat([matrix[:, :, start:stop], matrix.new_zeros(samples, rows, width)], -1)
        chosen = torch.zeros(samples, width, dtype=torch.long, device="cpu")
        for c in range(width):
            column = panel[:, :, c]
            candidates = (column != 0) & ~used
            found, row = candidates.any(1), candidates.byte().argmax(1)
            factors = residue(column * inverse(column[every, row].where(found, 0))[:, None])
            factors[every, row] = 0
            source = panel[every, row]
            source[:, width + c] += 1
            panel = residue(panel - factors[:, :, None] * source[:, None])
            used[every, row] |= found
            pivots[:, start + c] = row.where(found, -1)
            chosen[:, c] = row
        matrix[:, :, start:stop] = panel[:, :, :width]
        right = matrix[:, :, stop:]
        matrix[:, :, stop:] = residue(right + panel[:, :, width:] @ right[every[:, None], chosen])
    return Reduced(matrix, pivots)


def inverse(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 / a modulo PRIME; zero where a is zero."""
    inverses = [pow(int(a), -1, PRIME) if a else 0 for a in values.flatten().tolist()]
    return residue(values.new_tensor(inverses).reshape(values.shape))


def random_null_vector(reduced: Reduced, generator: torch.Generator) -> Float[Tensor, "batch columns"]:
    """A uniformly random solution of A w = 0 (zero if A has full column rank), from A's reduced form."""
    free = reduced.pivots < 0
    w = random_residues(*free.shape, generator=generator).where(free, 0)
    sums = residue(residue(reduced.matrix * w[:, None]).sum(-1))
    rows = reduced.pivots.clamp(min=0)
    diagonal = reduced.matrix.gather(1, rows[:, None])[:, 0]
    return w.where(free, residue(-sums.gather(1, rows) * inverse(diagonal.where(~free, 0))))
