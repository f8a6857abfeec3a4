"""The pair energy along edges, and its gradient, in one pass: gather, a closed form, scatter, tile by tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.energy.dense import tile_elements


def terms_and_gradient(
    prediction: Float[Tensor, "nodes dim"],
    target: Float[Tensor, "nodes dim"],
    mask: Bool[Tensor, " nodes"] | None,
    first: Int[Tensor, " edges"],
    second: Int[Tensor, " edges"],
    gradient: bool,
    *,
    constants: Callable[[Tensor], Tensor],
    filler: bool,
    tile: int | None = None,
) -> tuple[Float[Tensor, " edges"], Float[Tensor, "nodes dim"] | None]:
    """k(r) (r - r_hat)^2 of every edge, and the gradient of their sum with respect to the prediction.

    Coordinates are gathered one component at a time into buffers of one tile, so that no (edges, dim) array exists. An
    edge's two ends get opposite forces, added in the order of the edges: the same bits in every run on a CPU, and on
    CUDA after `torch.use_deterministic_algorithms(True)`.

    Args:
        prediction, target: float32 or float64, finite.
        mask: True for a real node; an edge that touches another one contributes nothing.
        first, second: the edges' ends; an edge from a node to itself contributes nothing.
        gradient, constants, filler, tile: as in `elf.energy.dense.value_and_gradient`.
    """
    dim, edges = prediction.shape[1], first.shape[0]
    tile = tile_elements(prediction.device) if tile is None else tile
    components = torch.cat((prediction, target), 1).mT.contiguous()
    smallest = torch.finfo(prediction.dtype).tiny
    terms = prediction.new_empty(edges)
    total = prediction.new_zeros(dim, prediction.shape[0]) if gradient else None
    for start in range(0, edges, tile):
        here, there = first[start : start + tile], second[start : start + tile]
        difference = components.index_select(1, here)
        difference -= components.index_select(1, there)
        difference = difference.view(2, dim, -1)
        distance = difference[:, 0].square()
        for axis in range(1, dim):
            component = difference[:, axis]
            distance.addcmul_(component, component)
        # As in the dense pass: what coincides counts as 1e-19 (float32) apart, and pulls 1e-19 times nothing.
        reciprocal = distance.clamp_min_(smallest).rsqrt()
        predicted, rest = distance.mul_(reciprocal)
        # A loop has no length in either configuration: only a filler would stretch it.
        absent = here == there if filler else None
        if mask is not None:
            masked = ~(mask[here] & mask[there])
            absent = masked if absent is None else absent | masked
        if filler:
            torch.threshold_(rest, 2 * smallest**0.5, 0.0)
            rest.masked_fill_(absent, 1)
        stiffness = constants(rest)
        stretch = predicted.sub_(rest)
        if absent is not None:
            stretch.masked_fill_(absent, 0)
        force = torch.mul(stiffness, stretch, out=rest)
        torch.mul(stretch, force, out=terms[start : start + tile])
        if total is not None:
            pulled = difference[0].mul_(reciprocal[0].mul_(force).mul_(2))
            for axis in range(dim):
                total[axis].index_add_(0, here, pulled[axis]).index_add_(0, there, pulled[axis], alpha=-1)
    return terms, None if total is None else total.mT.contiguous()
