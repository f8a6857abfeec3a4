"""Near atoms of each atom, and the planes through them: what the heights of `elf.energy.HeightEnergy` stand on."""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import values_are_known

FEW, MANY = 256, 8
"""Atoms whose number fits into the last bits of a distance; further neighbours looked at where values are not known."""
REACH = 1.01
"""Times the distance of the last neighbour asked for: there a further one has no weight left."""
FAR = 1e6
"""Squared distance of what is not there, in units of the sample's size."""


def length_units(
    planes: Float[Tensor, "2 3 atoms batch"], mask: Bool[Tensor, "batch atoms"] | None
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """A unit of length for each sample, and for its target: powers of two, which round nothing.

    Areas squared leave the range of numbers soon. The two differ where the prediction is far larger than its target.
    """
    low, high = (planes if mask is None else planes.masked_fill(~mask.mT, end) for end in (torch.inf, -torch.inf))
    spread = (high.amax(2) - low.amin(2)).amax(1)
    large = spread[0] > 1024 * spread[1]
    unit, own = spread.log2().floor().exp2().masked_fill(spread <= 0, 1)  # a point has no size
    return own if values_are_known(large) and not bool(large.any()) else torch.where(large, unit, own), own


def near_bases(
    target: Float[Tensor, "dim atoms batch"], mask: Bool[Tensor, "batch atoms"] | None, neighbours: int
) -> tuple[Int[Tensor, " chains"], Int[Tensor, "corners chains"], Float[Tensor, "bases chains"]]:
    """The bases of every atom among its nearest, and how much they count for being near.

    Args:
        target: coordinates, in a unit that makes a sample about one in size.

    Returns:
        An atom, as a node of the whole batch (atom i of sample b is i * samples + b); dim + 1 of its neighbours in a
        circle, of which any dim in a row are a base; and weights of these between 0 and 1. Each base counts once.
    """
    dim, atoms, samples = target.shape
    asked, every = min(atoms - 1, neighbours), partial(torch.arange, dtype=torch.long, device=target.device)
    first, *rest = target
    squared = first[:, None] - first
    squared = squared.mul_(squared)  # square_ warns under vmap
    for row in rest:  # one array of differences at a time, which the next one finds in the cache
        difference = row[:, None] - row
        squared = torch.addcmul(squared, difference, difference)
    squared.diagonal().fill_(FAR)
    if mask is not None:
        absent = FAR * (~mask.mT).to(target.dtype)
        squared = squared + absent + absent.unsqueeze(1)
    squared = squared.flatten(1)
    known = values_are_known(squared)
    if known:
        near, index = _nearest(squared, asked)
    else:
        near, index = squared.topk(min(atoms - 1, asked + MANY), 0, largest=False)
    present = near[:asked] if mask is None else near[:asked].masked_fill(near[:asked] >= FAR, 0)
    last = present.amax(0).clamp_min_(torch.finfo(near.dtype).tiny)
    share = near.div_(last).sqrt_().sub_(REACH).div_(1 - REACH).clamp(0, 1)
    share = share.mul(-2).add_(3).mul_(share).mul_(share)

    nodes = (index.view(-1, atoms, samples) * samples).add_(every(samples))
    tables = (_chains if known else _chains.__wrapped__)(len(near), dim)
    ranks, new, needed = (x.to(target.device) for x in tables)
    if known:
        which, over = (share.index_select(0, needed) > 0).nonzero(as_tuple=True)
    else:
        over, which = (x.flatten() for x in torch.meshgrid(every(atoms * samples), every(len(needed)), indexing="xy"))
    places = (ranks * (atoms * samples)).gather(1, which.expand(2 * dim, -1)).add_(over).flatten()
    chains, near = (x.flatten().index_select(0, places).view(2 * dim, -1) for x in (nodes, share))
    weight = new.to(target.dtype).index_select(1, which)
    for i in range(dim):
        weight = weight * near[i : i + dim + 1]
    return over, chains, weight


@lru_cache(maxsize=64)
def _chains(looked: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Circles of dim + 1 ranks (the nearest is 0) that have every base among those looked at.

    Returns:
        The ranks, some twice, so that every base is dim in a row, (2 dim, chains); one for a base that no chain before
        has, else zero, (dim + 1, chains); and the rank without which a chain has none of these.
    """
    seen: set[tuple[int, ...]] = set()
    circles: list[list[int]] = []
    new: list[list[bool]] = []
    needed: list[int] = []
    for circle in sorted(combinations(range(max(looked, dim + 1)), dim + 1), key=lambda ranks: ranks[::-1]):
        bases = [(*sorted((circle * 2)[i : i + dim]),) for i in range(dim + 1)]
        fresh = [base[-1] < looked and base not in seen for base in bases]
        seen.update(bases)
        if any(fresh):
            circles.append([min(rank, looked - 1) for rank in circle + circle[: dim - 1]])
            new.append(fresh)
            needed.append(min(base[-1] for base, is_new in zip(bases, fresh, strict=True) if is_new))
    ranks, flags, least = (torch.tensor(x, dtype=torch.long, device="cpu") for x in (circles, new, needed))
    return ranks.mT.contiguous(), flags.mT.contiguous(), least


def _nearest(squared: Float[Tensor, "atoms nodes"], asked: int) -> tuple[Tensor, Int[Tensor, "ranks nodes"]]:
    """The nearest atoms of each, squared distance and which, as long as one of them counts.

    Among few atoms, the last bits of a distance say whose it is, which is three times as fast as `topk`.
    """
    atoms, integer = len(squared), torch.int32 if squared.dtype == torch.float32 else torch.int64
    index, bound, device = list[Tensor](), squared, squared.device
    if few := atoms <= FEW:
        last = (1 << (atoms - 1).bit_length()) - 1
        numbers = torch.arange(last, last - atoms, -1, dtype=integer, device=device)
        keys = (squared.view(integer) | last).sub_(numbers[:, None])  # integers in the order of the distances
        bits = torch.full((1,), last, dtype=torch.long, device=device)
    else:
        keys = squared.clone()
    while len(index) < atoms - 1:
        if few:
            key = keys.amin(0, keepdim=True)
            which = key & bits
        else:
            key, which = keys.min(0, keepdim=True)
        if len(index) >= asked and not bool((key < bound).any()):
            break
        index.append(which)
        keys.scatter_(0, which, torch.iinfo(integer).max if few else torch.inf)
        if len(index) == asked:
            bound = (1.001 * REACH**2 * key.view(squared.dtype)).clamp_(max=FAR / 2).view(keys.dtype)
    ranked = torch.cat(index)
    return squared.gather(0, ranked), ranked


def circle(vectors: Tensor, dim: int = 1) -> Tensor:
    """x, y, z, x, y of each vector: what products of vectors want."""
    return torch.cat((vectors, vectors.narrow(dim, 0, 2)), dim)


def cross(a: Tensor, b: Tensor, dim: int = 1) -> Tensor:
    """The product of vectors, whose components stand in a circle; four times as fast as `torch.linalg.cross`."""
    (y, z), (v, w) = ((vectors.narrow(dim, 1, 3), vectors.narrow(dim, 2, 3)) for vectors in (a, b))
    return torch.addcmul(y * w, z, v, value=-1)
