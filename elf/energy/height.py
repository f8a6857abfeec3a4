"""The height energy: how far each atom stands above the planes of its neighbours, and on which side."""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import combinations
from math import comb
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from elf.checks import require_count, require_positive, values_are_known
from elf.energy.base import Coordinates, Energy, Found, Mask, Values
from elf.energy.known_gradient import with_known_gradient
from elf.geometry.alignment import center

FEW, MANY = 256, 8
"""Atoms whose number fits into the last bits of a distance; further neighbours looked at where values are not known."""
REACH = 1.025
"""Times the distance of the last neighbour asked for: there a further one has no weight left."""
FAR = 1e6
"""Squared distance of what is not there, in units of the sample's size."""
TILE = 16384
"""Bases worked out at a time, so that the arrays stay in the cache."""
FLOOR = 0.1
"""Share of the target's base below which a predicted base counts as no smaller."""


@final
class HeightEnergy(Energy):
    """E(y_hat, y) = k sum_i sum_{jml} w (h_{i;jml}(y_hat) - h_{i;jml}(y))^2 over bases jml of near atoms of the target.

    h is the signed height of atom i over the plane of j, m, l, in angstrom: the signed volume det(y_i - y_j, y_m - y_j,
    y_l - y_j) over twice the base's area |(y_m - y_j) x (y_l - y_j)|; the improper dihedral of force fields as a
    length. In two dimensions it is the height over the line of two atoms. Not in the paper: it mends what the pair
    energy (Eq. 7) cannot feel. A flat group that bends out of its plane changes its distances in second order only, so
    every pair energy has n - 3 soft directions too many at a flat molecule; heights change in first order there. And
    mirror images have the same distances and opposite heights: invariant to SE(d), not to reflections.

    O(N) terms. The bases of an atom are all triples (2D: pairs) of its `neighbours` nearest atoms in the target. What
    stands as far as the last of them (within a fortieth) counts with a weight that falls smoothly to zero, so that
    equivalent atoms stay equivalent. A base that is nearly a line has no plane: its weight goes to zero with the square
    of its area over that of an equilateral triangle with the same sum of squared sides. Where a predicted base shrinks
    below a tenth of the target's, its area counts as no smaller: the energy is smooth there.

    Why not torsions (1 - cos of the difference of dihedrals, along bonds)? Of 60 flat molecules of QM9 they leave 12
    with more than six zero modes, heights none; and in 24 % of QM9 some chain is within 5 degrees of a line, where a
    dihedral jumps. They would be fewer terms: 2.9 an atom instead of 5.5.

    Alone it holds no distances (pulling a bond straight out of all its planes costs nothing): add it to a pair energy.
    Samples of fewer than D + 1 atoms have energy zero. The bases are chosen from the target, without gradient to it;
    choosing takes N^2 target distances.

    Args:
        k: in 1 / angstrom^2, as for `PairEnergy`.
        neighbours: nearest atoms whose planes count, at least D.
        normalize, nonfinite: see `Energy`.

    Raises:
        ValueError: coordinates of other than 2 or 3 dimensions, or fewer `neighbours` than dimensions.
    """

    def __init__(self, k: float = 1.0, neighbours: int = 4, normalize: str = "sum", nonfinite: str = "error") -> None:
        super().__init__(normalize, nonfinite)
        self.k = require_positive("k", k)
        self.neighbours = require_count("neighbours", neighbours)

    def _energy(self, prediction: Coordinates, target: Coordinates, mask: Mask) -> Values:
        dim = prediction.shape[2]
        if dim not in (2, 3):
            raise ValueError(f"prediction has {dim} coordinates an atom; HeightEnergy should have 2 or 3")
        if self.neighbours < dim:
            raise ValueError(f"neighbours is {self.neighbours}; it should be at least {dim} in {dim} dimensions")
        if prediction.shape[1] <= dim:
            return 0 * prediction.sum((-2, -1))

        one_pass = partial(_energies, self.neighbours)

        def formula(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
            return one_pass(prediction, target, mask, False)[0]

        return self.k * with_known_gradient(formula, one_pass, prediction, target, mask)

    @override
    def extra_repr(self) -> str:
        return f"k={self.k}, neighbours={self.neighbours}, {super().extra_repr()}"


def _energies(neighbours: int, prediction: Coordinates, target: Coordinates, mask: Mask, gradient: bool) -> Found:
    """The sum of w (h(y_hat) - h(y))^2 in each sample; and its gradient, written out, tile by tile."""
    samples, atoms, dim = prediction.shape
    both = torch.stack((prediction, target))
    with torch.no_grad():
        units = _units(both, mask)
        unit, own = units
        alike = values_are_known(units) and torch.equal(unit, own)
    # Coordinates as rows, (prediction or target, dim, nodes); samples innermost.
    planes = (both / units[..., None, None]).permute(0, 3, 2, 1).contiguous()
    with torch.no_grad():
        corners, weight = near_bases(planes[1].detach(), mask, neighbours)
    planes = planes.view(2 * dim, -1)
    # Where the target's base is a point, its weight is zero; this keeps the derivatives of 1 / area finite there.
    least = torch.finfo(prediction.dtype).tiny ** 0.3
    value = prediction.new_zeros(samples * atoms)
    forces = prediction.new_zeros(dim, samples * atoms) if gradient else None
    for here, share in zip(corners.split(TILE, 1), weight.split(TILE), strict=True):
        nodes = here.flatten()
        points = planes.index_select(1, nodes).view(2, dim, dim + 1, -1)
        up, *sides = (points[:, :, i] - points[:, :, 1] for i in (0, *range(2, dim + 1)))
        if dim == 2:  # the line stands for the plane through it, across the plane of the atoms
            up, *sides = (torch.nn.functional.pad(side, (0, 0, 0, 1)) for side in (up, *sides))
            sides.append(torch.eye(3, dtype=up.dtype, device=up.device)[2, :, None].expand_as(up))
        normal = _cross(sides[0], sides[1])
        squared = normal.square().sum(1)
        area = squared[1].detach()
        if dim == 3:
            first, second = sides[0][1].detach(), sides[1][1].detach()
            # Half of the sum of squared sides; |b|^2 + |c|^2 - b.c does not cancel.
            edges = torch.addcmul(torch.addcmul(first * first, second, second), first, second, value=-1).sum(0)
            share = share * (3 * area / (edges * edges).clamp_min_(least))  # square_ warns under vmap
        floor, scale = FLOOR**2 * area, None if alike else (own / unit).repeat(atoms)[here[0]]
        if scale is not None:
            floor = torch.stack((floor * scale.pow(2 * (dim - 1)), floor))
        inverse = (squared + floor.clamp_min(least)).rsqrt()
        volume = (up * normal).sum(1)
        found, wanted = volume * inverse
        difference = found - (wanted if scale is None else scale * wanted)
        push = share * difference
        value = value.index_add(0, here[0], push * difference)
        if forces is None:
            continue
        # dh/d(up) = n/a and dh/dn = up/a - V n/a^3 (n: normal, a: area, V: volume); n is the product of the sides.
        pull = push.mul_(2) * inverse[0]
        on_up = normal[0] * pull
        on_normal = torch.addcmul(up[0] * pull, normal[0], pull * found * inverse[0], value=-1)
        on_sides = [_cross(sides[1][0], on_normal), _cross(on_normal, sides[0][0])][: dim - 1]
        on_corners = torch.stack((on_up, -sum(on_sides, on_up), *on_sides), 1)
        forces.index_add_(1, nodes, on_corners[:dim].flatten(1))
    value = value.view(atoms, samples).sum(0) * unit.square()
    if forces is None:
        return value, None
    return value, forces.view(dim, atoms, samples).permute(2, 1, 0) * unit[:, None, None]


def _units(both: Float[Tensor, "2 batch atoms dim"], mask: Mask) -> Tensor:
    """A unit of length for each sample, and for its target: powers of two, which round nothing; (2, batch).

    Areas squared leave the range of numbers soon. The two differ where the prediction is far larger than its target.
    """
    spread = center(both, None if mask is None else mask.expand(2, -1, -1)).abs().amax((2, 3))
    unit, own = torch.where(spread > 0, spread.log2().floor().exp2(), 1)  # a point has no size
    return torch.stack((torch.where(unit > 1024 * own, unit, own), own))


def _cross(a: Float[Tensor, "*both 3 bases"], b: Float[Tensor, "*both 3 bases"]) -> Float[Tensor, "*both 3 bases"]:
    """The product of vectors; `torch.linalg.cross` takes four times as long for rows of coordinates."""
    (x, y, z), (u, v, w) = a.unbind(-2), b.unbind(-2)
    terms = ((y * w, z, v), (z * u, x, w), (x * v, y, u))
    return torch.stack([torch.addcmul(*term, value=-1) for term in terms], -2)


def near_bases(
    target: Float[Tensor, "dim atoms batch"], mask: Mask, neighbours: int
) -> tuple[Int[Tensor, "corners bases"], Float[Tensor, " bases"]]:
    """The bases of every atom among its nearest, and how much they count for being near; see `HeightEnergy`.

    Args:
        target: coordinates, in a unit that makes a sample about one in size.

    Returns:
        The corners of each base as nodes of the whole batch (atom i of sample b is i * samples + b), the atom that
        stands over it first; and weights between 0 and 1.
    """
    dim, atoms, samples = target.shape
    asked, every = min(atoms - 1, neighbours), partial(torch.arange, dtype=torch.long, device=target.device)
    oneself = torch.full((atoms,), FAR, dtype=target.dtype, device=target.device).diag().unsqueeze(-1)
    squared = sum(((row[:, None] - row).square() for row in target), oneself)
    if mask is not None:
        absent = FAR * (~mask.mT).to(target.dtype)
        squared = squared + absent + absent.unsqueeze(1)
    squared = squared.flatten(1)
    known = values_are_known(squared)
    if known:
        near, index = _nearest(squared, asked)
    else:
        near, index = squared.topk(min(atoms - 1, asked + MANY), 0, largest=False)
    last = near[:asked].masked_fill(near[:asked] >= FAR, 0).amax(0).clamp_min(torch.finfo(near.dtype).tiny)
    share = ((REACH - (near / last).sqrt()) / (REACH - 1)).clamp(0, 1)
    share = share.square() * (3 - 2 * share)

    nodes = index * samples + every(samples).repeat(atoms)
    ranks, numbers = (x.to(target.device) for x in (_ranks if known else _ranks.__wrapped__)(len(near), dim))
    # Bases that all atoms have, by their ranks; then those that some have, one by one.
    shared = comb(asked, dim) if known and mask is None else 0 if known else ranks.shape[1]
    first = ranks[:, :shared].flatten()
    over, below = every(samples * atoms).repeat(shared), nodes.index_select(0, first).view(dim, -1)
    weight = share.index_select(0, first).view(dim, -1).prod(0)
    if not known:
        return torch.cat((over.unsqueeze(0), below)), weight
    more = numbers[(share > 0).sum(0)] - shared
    rows = (more > 0).nonzero().squeeze(1)
    more = more[rows]
    row = rows.repeat_interleave(more)
    which = every(len(row)) + (shared + more - more.cumsum(0)).repeat_interleave(more)
    places = ranks.index_select(1, which).mul_(samples * atoms).add_(row)
    corners = [over, row, *(x for pair in zip(below, nodes.take(places), strict=True) for x in pair)]
    return torch.cat(corners).view(dim + 1, -1), torch.cat((weight, share.take(places).prod(0)))


@lru_cache(maxsize=64)
def _ranks(looked: int, dim: int) -> tuple[Int[Tensor, "dim bases"], Int[Tensor, " counts"]]:
    """All bases of the nearest atoms, (0, 1, 2) for the first three, and how many there are of the first 0, 1, ...

    Ordered by their last rank, so that those of fewer atoms come first.
    """
    bases = sorted(combinations(range(looked), dim), key=lambda ranks: ranks[::-1])
    numbers = [comb(atoms, dim) for atoms in range(looked + 1)]
    ranks, counts = (torch.tensor(x, dtype=torch.long, device="cpu") for x in ([*zip(*bases, strict=True)], numbers))
    return ranks, counts


def _nearest(
    squared: Float[Tensor, "atoms nodes"], asked: int
) -> tuple[Float[Tensor, "ranks nodes"], Int[Tensor, "ranks nodes"]]:
    """The nearest atoms of each, squared distance and which, as long as one of them counts.

    Among few atoms, the last bits of a distance say whose it is, which is three times as fast as `topk`.
    """
    atoms, integer = len(squared), torch.int32 if squared.dtype == torch.float32 else torch.int64
    numbers = torch.arange(atoms, dtype=integer, device=squared.device)[:, None]
    bits = (1 << (atoms - 1).bit_length()) - 1 if atoms <= FEW else 0
    keys = ((squared.view(integer) & ~bits) | (numbers & bits)).view(squared.dtype)
    index: list[Tensor] = []
    found: list[Tensor] = []
    bound = squared.new_zeros(1)
    while len(index) < atoms - 1:
        if bits:
            key = keys.amin(0, keepdim=True)
            which = (key.view(integer) & bits).long()
        else:
            key, which = keys.min(0, keepdim=True)
        if len(index) >= asked and not bool((key < bound).any()):
            break
        found, index = [*found, key], [*index, which]
        keys.scatter_(0, which, torch.inf)
        if len(index) == asked:
            far = torch.cat(found)
            bound = 1.001 * REACH**2 * far.masked_fill(far >= FAR, 0).amax(0)
    ranked = torch.cat(index)
    return squared.gather(0, ranked), ranked
