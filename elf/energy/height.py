"""The height energy: how far each atom stands above the planes of its neighbours, and on which side."""

from __future__ import annotations

from itertools import combinations
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import override

from elf.checks import require_count, require_positive, values_are_known
from elf.energy.base import Energy
from elf.energy.known_gradient import with_known_gradient
from elf.geometry.alignment import center

FEW, MANY = 2, 8
"""Further neighbours looked at first (more, while the last of them counts); and where values are not known."""
REACH = 1.05
"""Times the distance of the last neighbour asked for: there a further one has no weight left."""
TILE = 4096
"""Bases worked out at a time, so that the arrays stay in the cache."""
FLOOR = 0.1
"""Share of the target's base below which a predicted base counts as no smaller."""

_Found = tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms dim"] | None]
"""Value and gradient."""


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
    stands as far as the last of them (within a twentieth) counts with a weight that falls smoothly to zero, so that
    equivalent atoms stay equivalent. A base that is nearly a line has no plane: its weight goes to zero with the square
    of its area over that of an equilateral triangle with the same sum of squared sides. Where a predicted base shrinks
    below a tenth of the target's, its area counts as no smaller: the energy is smooth there.

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

    def _energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        dim = prediction.shape[2]
        if dim not in (2, 3):
            raise ValueError(f"prediction has {dim} coordinates an atom; HeightEnergy should have 2 or 3")
        if self.neighbours < dim:
            raise ValueError(f"neighbours is {self.neighbours}; it should be at least {dim} in {dim} dimensions")
        if prediction.shape[1] <= dim:
            return 0 * prediction.sum((-2, -1))
        with torch.no_grad():
            spread = torch.stack([center(x, mask).abs().amax((1, 2)) for x in (prediction, target)])
            # Areas squared leave the range of numbers soon: each side has a unit of its own, a power of two, which
            # rounds nothing. A sample that is a point has none.
            unit, own = (torch.where(s > 0, s.log2().floor().exp2(), 1) for s in (spread.amax(0), spread[1]))
            target = target / own[:, None, None]
            corners, weight = near_bases(target, mask, self.neighbours)
            weight = weight * self.k

        def one_pass(prediction: Tensor, target: Tensor, mask: Tensor | None, gradient: bool) -> _Found:
            return _energies(prediction, target, corners, weight, own / unit, gradient)

        def formula(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
            return _energies(prediction, target, corners, weight, own / unit, False)[0]

        prediction = prediction / unit[:, None, None]
        return with_known_gradient(formula, one_pass, prediction, target, mask) * unit.square()

    @override
    def extra_repr(self) -> str:
        return f"k={self.k}, neighbours={self.neighbours}, {super().extra_repr()}"


def _energies(
    prediction: Float[Tensor, "batch atoms dim"],
    target: Float[Tensor, "batch atoms dim"],
    corners: Int[Tensor, "corners bases"],
    weight: Float[Tensor, " bases"],
    ratio: Float[Tensor, " batch"],
    gradient: bool,
) -> _Found:
    """The sum of w (h(y_hat) - ratio h(y))^2 in each sample; and its gradient, written out, tile by tile."""
    samples, atoms, dim = prediction.shape
    # Coordinates as rows, those of the prediction first: (2 dim, nodes).
    both = torch.cat((prediction, target), 2).flatten(0, 1).mT.contiguous()
    # Where the target's base is a point, its weight is zero; this keeps the derivatives of 1 / area finite there.
    least = torch.finfo(prediction.dtype).tiny ** 0.3
    value = prediction.new_zeros(samples)
    forces = prediction.new_zeros(dim, samples * atoms) if gradient else None
    for here, share in zip(corners.split(TILE, 1), weight.split(TILE), strict=True):
        points = both.index_select(1, here.flatten()).view(2, dim, *here.shape)
        up, *sides = (points[:, :, i] - points[:, :, 1] for i in (0, *range(2, dim + 1)))
        normal = _normal(sides)
        squared = normal.square().sum(1)
        area = squared[1].detach()
        if dim == 3:
            edges = torch.cat((*sides, sides[0] - sides[1]), 1)[1].detach().square().sum(0)
            share = share * (12 * area / edges.square().clamp_min(least))
        sample = here[0].div(atoms, rounding_mode="floor")
        scale = ratio[sample]
        floor = FLOOR**2 * torch.stack((area * scale.pow(2 * (dim - 1)), area))
        inverse = (squared + floor.clamp_min(least)).rsqrt()
        volume = (up * normal).sum(1)
        heights = volume * inverse
        difference = heights[0] - scale * heights[1]
        push = share * difference
        value = value.index_add(0, sample, push * difference)
        if forces is None:
            continue
        # dh/d(up) = n/a and dh/dn = up/a - V n/a^3 (n: normal, a: area, V: volume); n is the product of the sides.
        pull = 2 * push * inverse[0]
        on_up = normal[0] * pull
        on_normal = up[0] * pull - normal[0] * (pull * volume[0] * inverse[0].square())
        on_sides = _normal_backward([side[0] for side in sides], on_normal)
        for corner, force in zip(here, (on_up, -on_up - sum(on_sides), *on_sides), strict=True):
            forces.index_add_(1, corner, force)
    return value, None if forces is None else forces.mT.reshape(samples, atoms, dim)


def _normal(sides: list[Tensor]) -> Tensor:
    """Across the base, as long as twice its area: the product of two sides; in the plane, the side turned left."""
    if len(sides) == 2:
        return _cross(sides[0], sides[1], dim=1)
    return torch.stack((-sides[0][:, 1], sides[0][:, 0]), 1)


def _cross(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """The product of vectors along this axis; `torch.linalg.cross` takes four times as long for rows of coordinates."""
    (x, y, z), (u, v, w) = a.unbind(dim), b.unbind(dim)
    return torch.stack((y * w - z * v, z * u - x * w, x * v - y * u), dim)


def _normal_backward(sides: list[Tensor], on_normal: Tensor) -> list[Tensor]:
    """What a gradient with respect to the normal is with respect to the sides."""
    if len(sides) == 2:
        return [_cross(sides[1], on_normal, dim=0), _cross(on_normal, sides[0], dim=0)]
    return [torch.stack((on_normal[1], -on_normal[0]))]


def near_bases(
    target: Float[Tensor, "batch atoms dim"], mask: Bool[Tensor, "batch atoms"] | None, neighbours: int
) -> tuple[Int[Tensor, "corners bases"], Float[Tensor, " bases"]]:
    """The bases of every atom among its nearest, and how much they count for being near; see `HeightEnergy`.

    Returns:
        The corners of each base as nodes of the whole batch (atom i of sample b is b * atoms + i), the atom that stands
        over it first; and weights between 0 and 1.
    """
    samples, atoms, dim = target.shape
    first = min(atoms - 1, neighbours)
    distance = torch.cdist(target, target, compute_mode="donot_use_mm_for_euclid_dist")
    absent = torch.eye(atoms, dtype=torch.bool, device=target.device)
    if mask is not None:
        absent = absent | ~(mask.unsqueeze(1) & mask.unsqueeze(2))
    distance = distance.masked_fill_(absent, torch.inf).flatten(0, 1)
    known = values_are_known(distance)
    looked = min(atoms - 1, first + (FEW if known else MANY))
    share, index = _shares(distance, first, looked)
    while known and looked < atoms - 1 and bool(share[-1].any()):
        looked = min(atoms - 1, 2 * looked)
        share, index = _shares(distance, first, looked)
    count = int(share.any(1).sum()) if known else looked
    rows = torch.arange(samples * atoms, dtype=torch.long, device=target.device)
    nodes = index + (rows - rows % atoms)
    parts = []
    for rank in range(dim - 1, count):
        # The bases whose farthest atom has this rank, of the atoms for which that neighbour still counts.
        row = share[rank].nonzero().squeeze(-1) if known and rank >= first else rows
        near_nodes, near_share = (x[: rank + 1].index_select(1, row) for x in (nodes, share))
        ranks = list(combinations(range(rank), dim - 1))
        chosen = [torch.tensor(column, dtype=torch.long, device=target.device) for column in zip(*ranks, strict=True)]
        corners = [row.expand(len(ranks), -1), *(near_nodes[c] for c in chosen), near_nodes[-1].expand(len(ranks), -1)]
        weight = near_share[-1] * near_share[chosen[0]] * (near_share[chosen[1]] if dim == 3 else 1)
        parts.append((torch.stack(corners).flatten(1), weight.flatten()))
    return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts])


def _shares(distance: Tensor, first: int, looked: int) -> tuple[Tensor, Tensor]:
    """How much each of the nearest atoms counts, (looked, nodes), and which they are."""
    near, index = (found.mT for found in distance.topk(looked, largest=False))
    last = near[:first].masked_fill(near[:first].isinf(), 0).amax(0)
    fading = ((REACH - near / last.clamp_min(torch.finfo(near.dtype).tiny)) / (REACH - 1)).clamp(0, 1)
    return fading.square() * (3 - 2 * fading), index
