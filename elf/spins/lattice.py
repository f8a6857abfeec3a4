"""Square lattices: a graph whose bonds go to the right and down; frustration, and the symmetries of the square."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from elf.checks import require_bool
from elf.spins.graph import Graph, require_couplings


# Plain `Tensor` annotations where a user hands something in: the checks below are the ones that speak to the user.
class Couplings(Graph):
    """A batch of square lattices: J_ij on the bonds between nearest neighbours.

    Args:
        right: J between (row, column) and (row, column + 1): (B, H, W - 1) with free boundaries; (B, H, W) with
            periodic ones, where the last column couples back to the first.
        down: J between (row, column) and (row + 1, column): (B, H - 1, W), or (B, H, W) with periodic boundaries.
        periodic: whether the lattice closes onto itself, in both directions.

    Attributes:
        edges: the two spins of each bond, numbered row by row, (2, bonds): first the bonds to the right, then down.
        values: all couplings of each lattice in this order, (B, bonds).
        shape: (B, H, W).

    Raises:
        TypeError: not floating-point tensors.
        ValueError: shapes that are not those of one lattice, different dtypes or devices, couplings that are NaN,
            infinite or so large that energies overflow, a periodic lattice with a side below 2 (its spins would couple
            to themselves).
    """

    sites: tuple[int, int]

    def __init__(self, right: Tensor, down: Tensor, periodic: bool = False) -> None:
        require_bool("periodic", periodic)
        for name, value in (("right", right), ("down", down)):
            if require_couplings(name, value).ndim != 3:
                raise ValueError(f"{name} has shape {tuple(value.shape)}; it should be (batch, rows, columns)")
        (batch, height, columns), (others, rows, width) = right.shape, down.shape
        loss = 0 if periodic else 1
        if batch != others or columns != width - loss or rows != height - loss or min(height, width) < 1:
            raise ValueError(
                f"right and down have shapes {tuple(right.shape)} and {tuple(down.shape)}; with "
                f"{'periodic' if periodic else 'free'} boundaries they should be "
                + ("(B, H, W) and (B, H, W)" if periodic else "(B, H, W - 1) and (B, H - 1, W)")
            )
        if periodic and min(height, width) < 2:
            raise ValueError(
                f"a periodic lattice of {height} x {width} couples spins to themselves; sides should be >= 2"
            )
        if right.dtype != down.dtype or right.device != down.device:
            raise ValueError(
                f"right is {right.dtype} on {right.device}, down is {down.dtype} on {down.device}; they should be alike"
            )
        site = torch.arange(height * width, device=right.device).view(height, width)
        beside, below = site.roll(-1, 1)[:, :columns], site.roll(-1, 0)[:rows]
        pairs = [torch.stack(pair).flatten(1) for pair in ((site[:, :columns], beside), (site[:rows], below))]
        self.edges, self.values = torch.cat(pairs, 1), torch.cat([right.flatten(1), down.flatten(1)], 1)
        self.sites, self.layout, self.periodic = (height, width), (right.shape[1:], down.shape[1:]), periodic

    @property
    def right(self) -> Float[Tensor, "batch height columns"]:
        """The couplings to the right."""
        return self.laid_out(self.values)[0]

    @property
    def down(self) -> Float[Tensor, "batch rows width"]:
        """The couplings down."""
        return self.laid_out(self.values)[1]


def require_lattice(value: object) -> Couplings:
    """Raises TypeError unless `value` is `Couplings`."""
    if not isinstance(value, Couplings):
        raise TypeError(f"couplings is a {type(value).__name__}; it should be elf.spins.Couplings, of a square lattice")
    return value


def plaquettes(height: int, width: int, periodic: bool) -> Int[Tensor, "plaquettes 4"]:
    """The four bonds around each square, as indices into `Couplings.values`: above, below, left, right."""
    loss = 0 if periodic else 1
    rows, columns = height - loss, width - loss
    right = torch.arange(height * columns, device="cpu").view(height, columns)
    down = right.numel() + torch.arange(rows * width, device="cpu").view(rows, width)
    around = (right[:rows], right.roll(-1, 0)[:rows], down[:, :columns], down.roll(-1, 1)[:, :columns])
    return torch.stack(around, -1).view(-1, 4)


def frustrated_plaquettes(couplings: Couplings) -> Bool[Tensor, "batch rows columns"]:
    """Whether an odd number of the four bonds around each square is negative.

    No configuration satisfies all bonds of such a square (G. Toulouse, Commun. Phys. 2, 115, 1977). (B, H - 1, W - 1)
    with free boundaries, (B, H, W) with periodic ones. A coupling of zero counts as positive.
    """
    (height, width), loss = require_lattice(couplings).sites, 0 if couplings.periodic else 1
    squares = plaquettes(height, width, couplings.periodic).to(couplings.values.device)
    odd = (couplings.values < 0)[:, squares].sum(-1) % 2 == 1
    return odd.view(len(couplings), height - loss, width - loss)


@dataclass(frozen=True)
class Symmetry:
    """A symmetry of the square: mirror images, then a transposition. Energies are the same before and after.

    Attributes:
        rows: whether the order of the rows is reversed.
        columns: whether the order of the columns is reversed.
        transpose: whether rows then become columns.
    """

    rows: bool = False
    columns: bool = False
    transpose: bool = False

    def of_couplings(self, couplings: Couplings) -> Couplings:
        """The couplings of the image; those of an H x W lattice become W x H where it is transposed."""
        right, down = require_lattice(couplings).right, couplings.down
        # On a torus, the bond that closes a row or column comes last before and after.
        shift = -1 if couplings.periodic else 0
        if self.rows:
            right, down = right.flip(1), down.flip(1).roll(shift, 1)
        if self.columns:
            right, down = right.flip(2).roll(shift, 2), down.flip(2)
        if self.transpose:
            right, down = down.mT, right.mT
        return Couplings(right, down, couplings.periodic)

    def of_spins(self, spins: Shaped[Tensor, "batch rows columns"]) -> Shaped[Tensor, "batch sites others"]:
        """The image of spins, or of anything else that each site has one of."""
        axes = [axis for axis, reverse in ((1, self.rows), (2, self.columns)) if reverse]
        image = spins.flip(axes) if axes else spins
        return image.mT if self.transpose else image

    def undo(self, image: Shaped[Tensor, "batch sites others"]) -> Shaped[Tensor, "batch rows columns"]:
        """The spins whose image this is."""
        return Symmetry(self.rows, self.columns).of_spins(image.mT if self.transpose else image)


SYMMETRIES = tuple(Symmetry(*turns) for turns in product((False, True), repeat=3))
"""All eight; the first is the identity."""
