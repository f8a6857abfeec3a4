"""The kernel of the pair energy: Eq. 7 and its gradient in one pass over the pairs, in tiles that fit the cache.

The gradient is sum_j 2 k_ij (r_hat_ij - r_ij) (y_hat_i - y_hat_j) / r_hat_ij, from differences of coordinates: sums
that could cancel, as in |a|^2 + |b|^2 - 2 a.b, do not occur. No autograd here; no array of N x N or E x D elements.

All pairs, each met once, as circular shifts: atom i with atoms i + 1, ..., i + N // 2 (modulo N). For odd N that is
every pair exactly once; for even N the last shift meets each of its pairs twice, and counts half. Shifts are rows of a
matrix over the atoms, in which all operands are plain or sliding windows on coordinates written twice in a row, so no
index, no mask of the upper triangle and no diagonal is needed. The samples of a batch lie innermost, which keeps the
loops long for small samples.

Along edges: coordinates are gathered one component at a time, and an edge's two ends get opposite forces, added in the
order of the edges: the same bits in every run on a CPU, and on CUDA after `torch.use_deterministic_algorithms(True)`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import repeat

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from elf.energy.base import Coordinates, Edges, Found, Mask, NodeMask, Nodes
from elf.springs.laws import Springs, is_trusted, spring_constants

CACHE_ELEMENTS = 2**17
"""Pairs a tile on a CPU, a thread: a dozen arrays of 512 KiB, which live in the second and third level of cache."""
DEVICE_ELEMENTS = 2**22
"""Pairs a tile on an accelerator: enough to fill it; about 200 MB."""


def tile_elements(device: torch.device) -> int:
    """How many pairs to work on at a time."""
    return CACHE_ELEMENTS * torch.get_num_threads() if device.type == "cpu" else DEVICE_ELEMENTS


def all_pairs(
    prediction: Coordinates, target: Coordinates, mask: Mask, springs: Springs, gradient: bool, *, tile: int = 0
) -> Found:
    """sum_{i<j} k(r_ij) (r_ij - r_hat_ij)^2, and its gradient with respect to the prediction.

    Args:
        prediction, target: float32 or float64, finite.
        mask: True for a real atom.
        springs: k(r). What is not trusted is shown r = 1 where there is no pair of real atoms, and exactly 0 where
            target atoms coincide. Or symmetric constants themselves, (atoms, atoms) or (batch, atoms, atoms).
        gradient: whether to compute the gradient; None stands for it otherwise.
        tile: pairs at a time; 0 chooses.
    """
    tile = tile or tile_elements(prediction.device)
    samples, atoms, _ = prediction.shape
    block = max(1, tile // atoms)
    if samples <= block:
        return _all_pairs_of_block(prediction, target, mask, springs, gradient, tile)
    masks = [None] * samples if mask is None else mask.split(block)
    own = springs.split(block) if isinstance(springs, Tensor) and springs.ndim == 3 else repeat(springs)
    blocks = zip(prediction.split(block), target.split(block), masks, own, strict=False)
    parts = [_all_pairs_of_block(*part, gradient, tile) for part in blocks]
    forces = [force for _, force in parts if force is not None]
    return torch.cat([value for value, _ in parts]), torch.cat(forces) if gradient else None


def _all_pairs_of_block(
    prediction: Tensor, target: Tensor, mask: Tensor | None, springs: Springs, gradient: bool, tile: int
) -> Found:
    samples, atoms, dim = prediction.shape
    shifts, places = atoms // 2, atoms * samples
    if not shifts:
        return prediction.new_zeros(samples), torch.zeros_like(prediction) if gradient else None
    tiles = -(-shifts // max(1, tile // places))
    space = _borrow(prediction, samples, atoms, dim, at_once=-(-shifts // tiles))
    space.prediction.copy_(prediction)
    space.target.copy_(target)
    space.second_copy.copy_(space.first_copy)
    if mask is not None:
        torch.cat((mask.mT, mask.mT[:shifts]), out=space.real)
    constants = _by_shifts(springs, shifts) if isinstance(springs, Tensor) else None
    if tiles > 1:  # else the first sums fill it
        space.push.zero_()

    for start in range(1, shifts + 1, space.at_once):
        count = min(space.at_once, shifts + 1 - start)
        part = space.tile(start, count)
        torch.sub(space.here, part.there, out=part.difference)
        _lengths(part.components, part.lengths, part.reciprocals)
        if constants is not None:
            springs = constants[start - 1 :][:count].expand(-1, -1, samples).reshape(part.real.shape)
        both = () if mask is None else (space.real_here, part.real)
        stretch, force = _stretch_and_force(part.predicted, part.rest, springs, both)
        if 2 * (start + count - 1) == atoms:
            force[-1] *= 0.5
        if gradient:
            torch.mul(part.moved, torch.mul(part.reciprocal, force, out=part.reciprocal), out=part.moved)
        terms = torch.mul(stretch, force, out=stretch)
        sums = (terms, 0, space.energies), (part.moved, 1, space.pull), (part.moved_on, 1, part.push)
        for terms, axis, total in sums if gradient else sums[:1]:
            torch.sum(terms, axis, out=total) if start == 1 else total.add_(terms.sum(axis))

    value, forces = space.by_atom.sum(0), None
    if gradient:
        for pull, push in space.both_ends:
            torch.sub(pull, push, out=pull)
        forces = torch.mul(space.forces.permute(2, 1, 0), 2, out=prediction.new_empty(prediction.shape))
    _give_back(space)
    return value, forces


def _by_shifts(k: Float[Tensor, "*batch atoms atoms"], shifts: int) -> Float[Tensor, "shifts atoms #batch"]:
    """k of atom i and atom i + s (modulo N) at [s - 1, i], samples innermost; a view of the matrix written twice."""
    twice = torch.cat((k, k[..., :shifts]), -1).view(-1, k.shape[-1], k.shape[-1] + shifts)
    samples, atoms, width = twice.shape
    return twice.as_strided((shifts, atoms, samples), (1, width + 1, atoms * width), 1)


def along_edges(
    prediction: Nodes, target: Nodes, mask: NodeMask, edges: Edges, springs: Springs, gradient: bool, *, tile: int = 0
) -> Found:
    """k(r) (r - r_hat)^2 of every edge, and the gradient of their sum; arguments as in `all_pairs`, constants (edges,).

    An edge that touches a masked node contributes nothing, nor does one from a node to itself.
    """
    tile = tile or tile_elements(prediction.device)
    dim = prediction.shape[-1]
    coordinates = torch.cat((prediction, target), -1).flatten(0, -2).mT.contiguous()
    terms = prediction.new_empty(edges.shape[1])
    total = prediction.new_zeros(dim, coordinates.shape[1]) if gradient else None
    for start in range(0, edges.shape[1], tile):
        here, there = part = edges[:, start : start + tile]
        difference = coordinates.index_select(1, here)
        difference -= coordinates.index_select(1, there)
        difference = difference.view(2, dim, -1)
        lengths, reciprocals = difference.new_empty(2, 2, len(here))
        _lengths(difference.unbind(1), lengths, reciprocals)
        # A loop has no length in either configuration: only a filler would stretch it.
        own = springs[start : start + tile] if isinstance(springs, Tensor) else springs
        real = None if is_trusted(own) and mask is None else real_edges(part, mask)
        stretch, force = _stretch_and_force(
            lengths[0], lengths[1], own, [] if real is None else [real.to(lengths.dtype)]
        )
        torch.mul(stretch, force, out=terms[start : start + tile])
        if total is not None:
            pulled = difference[0].mul_(reciprocals[0].mul_(force).mul_(2))
            for axis in range(dim):
                total[axis].index_add_(0, here, pulled[axis]).index_add_(0, there, pulled[axis], alpha=-1)
    return terms, None if total is None else total.mT.reshape(prediction.shape)


def real_edges(edges: Edges, mask: NodeMask) -> Bool[Tensor, " edges"]:
    """Which edges count: an edge from a node to itself is padding."""
    real = edges[0] != edges[1]
    return real if mask is None else real & mask.flatten()[edges].all(0)


def _lengths(components: Sequence[Tensor], lengths: Tensor, reciprocals: Tensor) -> None:
    """Lengths of differences and one over them, of prediction and target, (2, pairs), into these arrays."""
    torch.mul(components[0], components[0], out=lengths)
    for component in components[1:]:
        lengths.addcmul_(component, component)
    # Zero would be divided by; what coincides counts as 1e-19 (float32) apart, and pulls 1e-19 times nothing.
    torch.rsqrt(lengths.clamp_min_(torch.finfo(lengths.dtype).tiny), out=reciprocals)
    torch.mul(lengths, reciprocals, out=lengths)


def _stretch_and_force(
    predicted: Tensor, rest: Tensor, springs: Springs, real: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """r_hat - r and k(r) (r_hat - r), in the place of the lengths; zero where one of the factors `real` (0, 1) is."""
    if not isinstance(springs, Tensor) and not is_trusted(springs):
        torch.threshold_(rest, 2 * torch.finfo(rest.dtype).tiny ** 0.5, 0.0)
        for factor in real:
            rest.masked_fill_(factor == 0, 1)
    constants = springs if isinstance(springs, Tensor) else spring_constants(springs, rest)
    stretch = torch.sub(predicted, rest, out=predicted)
    for factor in real:
        torch.mul(stretch, factor, out=stretch)
    return stretch, torch.mul(constants, stretch, out=rest)


class _Workspace:
    """The arrays of a call, (2, ...) for prediction and target; and views of them, which take time to make as well."""

    def __init__(self, like: Tensor, samples: int, atoms: int, dim: int, at_once: int) -> None:
        self.key, self.at_once = (like.dtype, samples, atoms, dim, at_once), at_once
        shifts, places = atoms // 2, atoms * samples
        planes = like.new_empty(2, dim, atoms + shifts, samples)
        self.prediction, self.target = planes[:, :, :atoms].permute(0, 3, 2, 1)
        self.first_copy, self.second_copy = planes[:, :, :shifts], planes[:, :, atoms:]
        self.twice, self.real = planes.flatten(2), like.new_empty(atoms + shifts, samples)
        self.here, self.real_here = self.twice[:, :, None, :places], self.real.view(-1)[:places]
        # Each row ends with `at_once - 1` atoms of zeros, which nobody overwrites: the next row, read later, starts
        # there. Nor does a shift lead to the first atom, which nobody pushes.
        wide = like.new_zeros(2, max(dim, 2), at_once, places + (at_once - 1) * samples)
        self.push = like.new_zeros(dim, places + shifts * samples)
        self.energies, self.pull = like.new_empty(places), like.new_empty(dim, places)
        self.by_atom, self.forces = (x.unflatten(-1, (atoms, samples)) for x in (self.energies, self.pull))
        here, beyond = self.push.split((places, shifts * samples), 1)
        self.both_ends = (self.pull, here), (self.pull[:, : shifts * samples], beyond)
        arrays = wide, like.new_empty(2, at_once, places), self.twice, self.real, self.push
        self.tile = lru_cache(SHELF_SIZE)(partial(_Tile, *arrays))


class _Tile:
    """What a workspace has for `count` shifts from `start` on, (count, places)."""

    def __init__(
        self, wide: Tensor, lengths: Tensor, twice: Tensor, real: Tensor, push: Tensor, start: int, count: int
    ) -> None:
        (rows, width), (dim, length), samples = wide.shape[2:], push.shape, real.shape[1]
        size, stride, offset = (count, lengths.shape[2]), (samples, 1), start * samples
        self.difference = wide[:, :dim, :count, : size[1]]
        self.components, self.moved = self.difference.unbind(1), self.difference[0]
        self.lengths = lengths[:, :count]
        self.predicted, self.rest = self.lengths
        # In the place of the target's differences, which nobody needs once there are lengths: cache is scarce.
        self.reciprocals = wide[1, :2, :count, : size[1]]
        self.reciprocal = self.reciprocals[0]
        # The second atoms: where they are, whether they are real, and their forces. For these, the differences of the
        # prediction: those of shift s moved on by s atoms.
        self.there = twice.as_strided((2, dim, *size), (dim * length, length, *stride), offset)
        self.real = real.as_strided(size, stride, offset)
        self.push = push.narrow(1, offset, size[1] + (count - 1) * samples)
        self.moved_on = wide[0].as_strided((dim, count, self.push.shape[1]), (rows * width, width - samples, 1))


class _Shelf(threading.local):
    """Each thread's last workspaces, by shape, as training asks for the same few again and again.

    Without them, a call takes 1.5 times as long at 64 x 29. Accelerators have an allocator that does this by itself.
    """

    def __init__(self) -> None:
        self.spaces: dict[object, _Workspace] = {}


_shelf, SHELF_SIZE = _Shelf(), 8


def _borrow(like: Tensor, samples: int, atoms: int, dim: int, at_once: int) -> _Workspace:
    """A workspace that nobody else holds."""
    shape = samples, atoms, dim, at_once
    if like.is_cpu and (space := _shelf.spaces.pop((like.dtype, *shape), None)) is not None:
        return space
    with torch.inference_mode(False):
        return _Workspace(like.detach(), *shape)


def _give_back(space: _Workspace) -> None:
    # Where a mode made a subclass of the arrays, they are of no use outside it.
    if space.push.is_cpu and type(space.push) is Tensor:
        while len(_shelf.spaces) >= SHELF_SIZE:
            del _shelf.spaces[next(iter(_shelf.spaces))]
        _shelf.spaces[space.key] = space
