"""Spring constants handed in pair by pair (`k=` in the call of `PairEnergy`): built from what is known of the pairs.

    k = elf.springs.by_bonds(orders, target, bonded=9.0, other=9.0)
    value = energy(prediction, target, mask, k=k)

What stands on the diagonal of k does not count. Anything else that answers with a symmetric (B, N, N) will do: a
network, too, as gradients reach k.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from elf.checks import require_number, require_positive, require_tensor, values_are_known, widen, working_dtype
from elf.geometry.distances import pairwise_distances
from elf.springs.laws import InverseSquare


def by_bonds(
    orders: Shaped[Tensor, "*#batch atoms atoms"],
    target: Float[Tensor, "*#batch atoms dim"],
    *,
    bonded: float = 1.0,
    other: float = 1.0,
    r_min: float = 1e-2,
) -> Float[Tensor, "*batch atoms atoms"]:
    """k = `bonded` where a bond is, other / max(r, r_min)^2 elsewhere, in 1 / angstrom^2.

    The bond-aware mode of arXiv:2511.02087 as it is meant: bonds are those of the molecular graph, not what a cutoff
    takes for them (`springs.BondAware`). The authors' code, which calls it "lj", has the prefactor 9.

    Args:
        orders: bond orders, or an adjacency matrix; what is not zero is a bond.
        target: coordinates, angstrom.
    """
    bonded, far = require_positive("bonded", bonded), InverseSquare(other, r_min)(pairwise_distances(widen(target)))
    return far.masked_fill(orders != 0, bonded)


def by_elements(
    numbers: Int[Tensor, "*batch atoms"], table: Float[Tensor, "kinds kinds"]
) -> Float[Tensor, "*batch atoms atoms"]:
    """k = table[z_i, z_j], of atomic numbers, or whatever numbers kinds of particles; the table is symmetric.

    Raises:
        ValueError: a number has no row in the table.
    """
    if values_are_known(numbers) and numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(table):
        worst = int(numbers.min()) if int(numbers.min()) < 0 else int(numbers.max())
        raise ValueError(f"numbers holds {worst}; it should be between 0 and {len(table) - 1}, the last row of table")
    return table[numbers.unsqueeze(-1), numbers.unsqueeze(-2)]


def by_hops(
    orders: Shaped[Tensor, "*batch atoms atoms"], constants: Sequence[float], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*batch atoms atoms"]:
    """k by topological distance: constants[0] one bond apart, constants[1] two, ...; the last of them also farther.

    Args:
        orders: bond orders, or an adjacency matrix; what is not zero is a bond.
        constants: at least one number, in 1 / angstrom^2.
    """
    if not len(constants):
        raise ValueError("constants is empty; it should hold at least one number")
    *each, far = [require_number("constants", constant) for constant in constants]
    k = torch.full_like(orders, far, dtype=dtype)
    bonds = (orders != 0).to(torch.float32)
    walks, met = bonds, torch.zeros_like(bonds, dtype=torch.bool)
    for constant in each:
        k = k.masked_fill((walks > 0) & ~met, constant)
        met = met | (walks > 0)
        walks = (walks @ bonds).clamp(max=1)
    return k


def checked_constants(
    k: object,
    like: Float[Tensor, "*nodes dim"],
    shapes: Sequence[tuple[int, ...]],
    real: Bool[Tensor, "*rows"] | None,
) -> Float[Tensor, "*pairs"]:
    """k in the precision of the coordinates; with no NaN, as far as it can be looked at, and none where nothing counts.

    Args:
        shapes: what k may have; the first for all samples.
        real: real atoms, where k is a matrix of pairs; else real edges.
    """
    k = require_tensor("k", k)
    if k.shape not in shapes:
        raise ValueError(f"k has shape {tuple(k.shape)}; it should be {' or '.join(map(str, shapes))}")
    if k.device != like.device or working_dtype(k.dtype) != like.dtype:
        raise ValueError(
            f"k is {k.dtype} on {k.device}; it should be {like.dtype} on {like.device}, as coordinates are"
        )
    k, matrix = widen(k), len(shapes[0]) == 2
    known = values_are_known(k, real)
    if known and _complaint(k.detach(), matrix) is None:  # as it mostly is: most of the time goes into hiding
        return k
    if matrix:
        k = k.masked_fill(torch.eye(k.shape[-1], dtype=torch.bool, device=k.device), 0)
        real = None if k.ndim == 2 or real is None else real[:, :, None] & real[:, None, :]
    k = k if real is None else k.masked_fill(~real, 0)
    if known and (complaint := _complaint(k.detach(), matrix)) is not None:
        raise ValueError(complaint)
    return k


def _complaint(k: Tensor, matrix: bool) -> str | None:
    if not k.numel():
        return None
    smallest, largest = map(float, k.aminmax())
    if not 0 <= smallest <= largest < inf:
        worst = tuple((~((k >= 0) & k.isfinite())).nonzero()[0].tolist())
        return f"k is {k[worst].item()} at {worst}; spring constants should be finite and not negative"
    if not matrix or torch.equal(k, k.mT) or float((gap := (k - k.mT).abs()).max()) <= 1e-5 * largest:
        return None
    *sample, i, j = (gap == gap.max()).nonzero()[0].tolist()
    there, back = (*sample, i, j), (*sample, j, i)
    return f"k is {k[there].item()} at {there} and {k[back].item()} at {back}; it should be symmetric"
