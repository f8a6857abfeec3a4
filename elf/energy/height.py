"""The height energy: how far each atom stands above the planes of its neighbours, and on which side."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
from torch.nn.functional import pad
from typing_extensions import override

from elf.checks import require_count, require_positive
from elf.energy.base import Coordinates, Energy, Found, Mask, Values
from elf.energy.known_gradient import with_known_gradient
from elf.geometry.planes import circle, cross, length_units, near_bases

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
    stands as far as the last of them (within a hundredth) counts with a weight that falls smoothly to zero, so that
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

    def _energy(self, prediction: Coordinates, target: Coordinates, mask: Mask) -> Values:
        dim = prediction.shape[2]
        if dim not in (2, 3):
            raise ValueError(f"prediction has {dim} coordinates an atom; HeightEnergy should have 2 or 3")
        if self.neighbours < dim:
            raise ValueError(f"neighbours is {self.neighbours}; it should be at least {dim} in {dim} dimensions")
        if prediction.shape[1] <= dim:
            return 0 * prediction.sum((-2, -1))
        both = partial(_energies, self.neighbours)
        value = with_known_gradient(lambda x, y, m: both(x, y, m, False)[0], both, prediction, target, mask)
        return value if self.k == 1 else self.k * value

    @override
    def extra_repr(self) -> str:
        return f"k={self.k}, neighbours={self.neighbours}, {super().extra_repr()}"


def _energies(neighbours: int, prediction: Coordinates, target: Coordinates, mask: Mask, gradient: bool) -> Found:
    """The sum of w (h(y_hat) - h(y))^2 in each sample; and its gradient, written out, tile by tile."""
    samples, atoms, dim = prediction.shape
    # Coordinates as rows, (prediction or target, 3, atoms, samples); what is flat lies in space.
    planes = torch.stack([(x if dim == 3 else pad(x, (0, 1))).permute(2, 1, 0) for x in (prediction, target)])
    unit, own = length_units(planes.detach(), mask)
    planes = planes / (own if unit is own else torch.stack((unit, own))[:, None, None])
    bases = near_bases(planes[1, :dim].detach(), mask, neighbours)
    planes = planes.view(6, -1)
    # Where the target's base is a point, its weight is zero; this keeps the derivatives of 1 / area finite there.
    least = torch.finfo(prediction.dtype).tiny ** 0.3
    value = prediction.new_zeros(samples * atoms)
    forces = prediction.new_zeros(3, samples * atoms) if gradient else None
    tiles = [bases] if len(bases[0]) <= TILE else zip(*(x.split(TILE, -1) for x in bases), strict=True)
    for here, chain, share in tiles:
        points = planes.index_select(1, chain.flatten()).view(2, 3, len(chain), -1)
        up = points[:, :, : dim + 1] - planes.index_select(1, here).view(2, 3, 1, -1)
        sides = circle(points[:, :, 1:] - points[:, :, :-1])
        first, second = sides[:, :, : dim + 1], sides[:, :, -dim - 1 :]
        if dim == 2:  # the line stands for the plane through it, across the plane of the atoms
            second = circle(torch.eye(3, dtype=up.dtype, device=up.device)[None, 2, :, None, None]).expand_as(first)
        normal = cross(first, second)
        squared = normal.square().sum(1)
        area = squared[1].detach()
        if dim == 3:
            own_sides = sides[1, :3].detach()
            lengths, along = own_sides.square().sum(0), (own_sides[:, :-1] * own_sides[:, 1:]).sum(0)
            # Half of the sum of squared sides; |b|^2 + |c|^2 + b.c does not cancel.
            edges = lengths[:-1] + lengths[1:] + along
            share = share * (3 * area / (edges * edges).clamp_min_(least))  # square_ warns under vmap
        floor, scale = FLOOR**2 * area, None if unit is own else (own / unit).repeat(atoms)[here]
        if scale is not None:
            floor = torch.stack((floor * scale.pow(2 * (dim - 1)), floor))
        inverse = (squared + floor.clamp_min(least)).rsqrt()
        found, wanted = (up * normal).sum(1) * inverse
        difference = found - (wanted if scale is None else scale * wanted)
        push = share * difference
        value = value.index_add(0, here, (push * difference).sum(0))
        if forces is None:
            continue
        # dh/d(up) = n/a and dh/dn = up/a - V n/a^3 (n: normal, a: area, V: volume); n is the product of the sides.
        pull = push * inverse[0]
        on_up = normal[0] * pull
        on_normal = circle(torch.addcmul(up[0], normal[0], found * inverse[0], value=-1).mul_(pull), 0)
        on_side = cross(second[0], on_normal, 0)
        if dim == 3:  # the second side of a base is the first of the next one in the circle
            on_side += cross(on_normal, first[0], 0).roll(1, 1)
        # A side pulls at its end, and the other way at its start, which is one place back in the circle.
        on_chain = (on_up - on_side).add_(on_side.roll(1, 1))
        forces.index_add_(1, chain[: dim + 1].flatten(), on_chain.flatten(1)).index_add_(1, here, -on_up.sum(1))
    value = value.view(atoms, samples).sum(0) * unit.square()
    if forces is None:
        return value, None
    return value, forces[:dim].view(dim, atoms, samples).permute(2, 1, 0) * (2 * unit)[:, None, None]
