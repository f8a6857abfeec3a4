"""The pair energy over all pairs, and its gradient, in one pass: every pair once, as circular shifts.

Atom i is paired with atoms i + 1, ..., i + N // 2 (modulo N): for odd N that is every pair exactly once; for even N the
last shift meets each of its pairs twice, and counts half. Shifts s are rows of a matrix over the atoms i, in which all
operands are plain or sliding windows on coordinates written twice in a row, so no index, no mask of the upper
triangle and no diagonal is needed. The samples of a batch lie innermost, which keeps the loops long for small samples.

Work goes through tiles of some shifts of some samples that fit the cache, one coordinate at a time: no array has N x N
elements, and none N x N x D.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from elf.energy.closed_form import ValueAndGradient

CACHE_ELEMENTS = 2**17
"""Pairs a tile on a CPU, a thread: a dozen arrays of 512 KiB, which live in the second and third level of cache."""
DEVICE_ELEMENTS = 2**22
"""Pairs a tile on an accelerator: enough to fill it; about 200 MB."""


def tile_elements(device: torch.device) -> int:
    """How many pairs to work on at a time."""
    return CACHE_ELEMENTS * torch.get_num_threads() if device.type == "cpu" else DEVICE_ELEMENTS


def value_and_gradient(
    prediction: Float[Tensor, "batch atoms dim"],
    target: Float[Tensor, "batch atoms dim"],
    mask: Bool[Tensor, "batch atoms"] | None,
    gradient: bool,
    *,
    constants: Callable[[Tensor], Tensor],
    filler: bool,
    tile: int | None = None,
) -> ValueAndGradient:
    """sum_{i<j} k(r_ij) (r_ij - r_hat_ij)^2 (Eq. 7 of arXiv:2511.02087), and its gradient with respect to y_hat.

    The gradient is sum_j 2 k_ij (r_hat_ij - r_ij) (y_hat_i - y_hat_j) / r_hat_ij, from differences of coordinates: sums
    that could cancel, as in |a|^2 + |b|^2 - 2 a.b, do not occur.

    Args:
        prediction, target: float32 or float64, finite.
        mask: True for a real atom.
        gradient: whether to compute the gradient.
        constants: k(r), elementwise.
        filler: show `constants` r = 1 where there is no pair of real atoms, and exactly 0 where target atoms coincide
            (a function of the user might not like what stands there; our springs do not mind).
        tile: pairs at a time; None chooses.
    """
    samples, atoms, _ = prediction.shape
    tile = tile_elements(prediction.device) if tile is None else tile
    block = max(1, tile // atoms)
    one = partial(_block, gradient=gradient, constants=constants, filler=filler, tile=tile)
    if samples <= block:
        return one(prediction, target, mask)
    masks = [None] * samples if mask is None else mask.split(block)
    parts = [one(*part) for part in zip(prediction.split(block), target.split(block), masks, strict=False)]
    value, forces = (torch.cat(part) if part[0] is not None else None for part in zip(*parts, strict=True))
    assert value is not None
    return ValueAndGradient(value, forces)


class _Workspace(NamedTuple):
    """The arrays of a tile of `count` shifts, and views of them."""

    prediction: Float[Tensor, "samples atoms dim"]
    target: Float[Tensor, "samples atoms dim"]
    again: tuple[Float[Tensor, "2 dim shifts samples"], Float[Tensor, "2 dim shifts samples"]]
    """The second appearance of the first atoms, and what it is a copy of."""
    twice: Float[Tensor, "2 dim length"]
    here: Float[Tensor, "2 dim 1 places"]
    difference: Float[Tensor, "2 dim count places"]
    components: tuple[Float[Tensor, "2 count places"], ...]
    squared: Float[Tensor, "2 count places"]
    reciprocal: Float[Tensor, "2 count places"]
    later: Float[Tensor, "dim count width"]
    """The differences of the prediction, those of shift s moved on by s atoms, where their second atoms are."""


def _workspace(like: Tensor, samples: int, atoms: int, dim: int, count: int) -> _Workspace:
    shifts, places = atoms // 2, atoms * samples
    width = places + (count - 1) * samples
    planes = like.new_empty(2, dim, atoms + shifts, samples)
    prediction, target = planes[:, :, :atoms].permute(0, 3, 2, 1)
    twice = planes.flatten(2)
    # Each row ends with `count - 1` atoms of zeros, which nobody overwrites: the next row, read later, starts there.
    wide = like.new_zeros(2, dim, count, width)
    difference = wide[..., :places]
    return _Workspace(
        prediction,
        target,
        (planes[:, :, atoms:], planes[:, :, :shifts]),
        twice,
        twice[:, :, None, :places],
        difference,
        difference.unbind(1),
        like.new_empty(2, count, places),
        like.new_empty(2, count, places),
        wide[0].as_strided((dim, count, width), (count * width, width - samples, 1)),
    )


class _Shelf(threading.local):
    """Each thread's last workspaces, as training asks for the same few shapes again and again."""

    def __init__(self) -> None:
        self.spaces: dict[tuple[object, ...], _Workspace] = {}


_shelf = _Shelf()
SHELF_SIZE = 8


def _borrow(like: Tensor, samples: int, atoms: int, dim: int, count: int) -> _Workspace:
    """A workspace that nobody else holds; give it back to `_return`.

    Accelerators have an allocator that does this by itself, and streams that would meet in one workspace. A dispatch
    mode wants to see (or to count) every tensor that is made.
    """
    if like.device.type != "cpu" or torch._C._len_torch_dispatch_stack():
        return _workspace(like, samples, atoms, dim, count)
    space = _shelf.spaces.pop((like.dtype, samples, atoms, dim, count), None)
    if space is None:
        with torch.inference_mode(False):
            space = _workspace(like.detach(), samples, atoms, dim, count)
    return space


def _return(space: _Workspace, samples: int, atoms: int) -> None:
    like = space.squared
    if like.device.type != "cpu" or torch._C._len_torch_dispatch_stack():
        return
    while len(_shelf.spaces) >= SHELF_SIZE:
        del _shelf.spaces[next(iter(_shelf.spaces))]
    _shelf.spaces[(like.dtype, samples, atoms, space.twice.shape[1], like.shape[1])] = space


def _block(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    gradient: bool,
    constants: Callable[[Tensor], Tensor],
    filler: bool,
    tile: int,
) -> ValueAndGradient:
    samples, atoms, dim = prediction.shape
    shifts, places = atoms // 2, atoms * samples
    if not shifts:
        return ValueAndGradient(prediction.new_zeros(samples), torch.zeros_like(prediction) if gradient else None)
    tiles = -(-shifts // max(1, tile // places))
    at_once = -(-shifts // tiles)
    space = first_space = _borrow(prediction, samples, atoms, dim, at_once)
    space.prediction.copy_(prediction)
    space.target.copy_(target)
    space.again[0].copy_(space.again[1])
    twice, here, length = space.twice, space.here, space.twice.shape[-1]
    real = None if mask is None else torch.cat((mask.mT, mask.mT[:shifts])).to(prediction.dtype).view(length)

    smallest = torch.finfo(prediction.dtype).tiny
    energies = pull = None
    push = prediction.new_zeros(dim, length) if gradient else None
    for start in range(1, shifts + 1, at_once):
        count = min(at_once, shifts + 1 - start)
        if count < at_once:
            space = _borrow(prediction, samples, atoms, dim, count)
        offset, window = start * samples, (count, places)
        there = twice.as_strided((2, dim, *window), (dim * length, length, samples, 1), offset)
        torch.sub(here, there, out=space.difference)
        torch.mul(space.components[0], space.components[0], out=space.squared)
        for component in space.components[1:]:
            space.squared.addcmul_(component, component)
        # Zero would be divided by; what coincides counts as 1e-19 (float32) apart, and pulls 1e-19 times nothing.
        torch.rsqrt(space.squared.clamp_min_(smallest), out=space.reciprocal)
        predicted, rest = space.squared.mul_(space.reciprocal)
        both = None
        if real is not None:
            both = real[:places], real.as_strided(window, (samples, 1), offset)
        if filler:
            torch.threshold_(rest, 2 * smallest**0.5, 0.0)
            if both is not None:
                rest.masked_fill_(both[0] * both[1] == 0, 1)
        stiffness = constants(rest)
        stretch = predicted.sub_(rest)
        if both is not None:
            stretch.mul_(both[0]).mul_(both[1])
        force = torch.mul(stiffness, stretch, out=rest)
        if 2 * (start + count - 1) == atoms:
            force[-1] *= 0.5
        if push is not None:
            pulled = space.difference[0].mul_(space.reciprocal[0].mul_(force))
            pull = _add(pull, pulled.sum(1))
            push.narrow(1, offset, space.later.shape[-1]).add_(space.later.sum(1))
        energies = _add(energies, stretch.mul_(force).sum(0))
    _return(first_space, samples, atoms)
    if space is not first_space:
        _return(space, samples, atoms)

    assert energies is not None
    value = energies.view(atoms, samples).sum(0)
    if pull is None or push is None:
        return ValueAndGradient(value, None)
    pull -= push.narrow(1, 0, places)
    pull.narrow(1, 0, length - places).sub_(push.narrow(1, places, length - places))
    forces = torch.empty_like(prediction, memory_format=torch.contiguous_format)
    return ValueAndGradient(value, forces.copy_(pull.mul_(2).view(dim, atoms, samples).permute(2, 1, 0)))


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)
