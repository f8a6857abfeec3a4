"""The eight symmetries of the square, acting on lattices and their spins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from jaxtyping import Shaped
from torch import Tensor

from elf.spins.lattice import Couplings, require_couplings


@dataclass(frozen=True)
class Symmetry:
    """Mirror images, then a transposition. Energies are the same before and after.

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
        right, down = require_couplings(couplings).right, couplings.down
        # On a torus, the bond that closes a row or column comes last before and after.
        shift = -1 if couplings.periodic else 0
        if self.rows:
            right, down = right.flip(1), down.flip(1).roll(shift, 1)
        if self.columns:
            right, down = right.flip(2).roll(shift, 2), down.flip(2)
        if self.transpose:
            right, down = down.mT, right.mT
        return replace(couplings, right=right, down=down)

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
