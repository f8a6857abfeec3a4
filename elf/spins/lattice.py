"""Ising spins on square lattices: couplings, energies, local fields, frustration; all batched, on any device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import require_bool, require_tensor, values_are_known, widen


# Plain `Tensor` annotations where a user hands something in: the checks below are the ones that speak to the user.
@dataclass(frozen=True, eq=False)
class Couplings:
    """A batch of square lattices: J_ij on the bonds between nearest neighbours.

    Attributes:
        right: J between (row, column) and (row, column + 1): (B, H, W - 1) with free boundaries; (B, H, W) with
            periodic ones, where the last column couples back to the first.
        down: J between (row, column) and (row + 1, column): (B, H - 1, W), or (B, H, W) with periodic boundaries.
        periodic: whether the lattice closes onto itself, in both directions.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: shapes that are not those of one lattice, different dtypes or devices, couplings that are NaN,
            infinite or so large that energies overflow, a periodic lattice with a side below 2 (its spins would couple
            to themselves).
    """

    right: Tensor
    down: Tensor
    periodic: bool = False

    def __post_init__(self) -> None:
        require_bool("periodic", self.periodic)
        for name, value in (("right", self.right), ("down", self.down)):
            if not require_tensor(name, value).is_floating_point():
                raise TypeError(f"{name} has dtype {value.dtype}; it should be a floating-point type")
            if value.ndim != 3:
                raise ValueError(f"{name} has shape {tuple(value.shape)}; it should be (batch, rows, columns)")
        (batch, height, columns), (others, rows, width) = self.right.shape, self.down.shape
        loss = 0 if self.periodic else 1
        if batch != others or columns != width - loss or rows != height - loss or min(height, width) < 1:
            layout = "(B, H, W) and (B, H, W)" if self.periodic else "(B, H, W - 1) and (B, H - 1, W)"
            raise ValueError(
                f"right and down have shapes {tuple(self.right.shape)} and {tuple(self.down.shape)}; with "
                f"{'periodic' if self.periodic else 'free'} boundaries they should be {layout}"
            )
        if self.periodic and min(height, width) < 2:
            raise ValueError(
                f"a periodic lattice of {height} x {width} couples spins to themselves; sides should be >= 2"
            )
        if self.right.dtype != self.down.dtype or self.right.device != self.down.device:
            raise ValueError(
                f"right is {self.right.dtype} on {self.right.device}, down is {self.down.dtype} on {self.down.device}; "
                "they should be alike"
            )
        require_summable("right", self.right)
        require_summable("down", self.down)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(batch, height, width): the shape of its spins."""
        return self.right.shape[0], self.right.shape[1], self.down.shape[2]

    def __len__(self) -> int:
        return self.right.shape[0]

    def __getitem__(self, rows: slice | list[int] | Tensor) -> Couplings:
        """Some of the lattices, still as a batch."""
        return replace(self, right=self.right[rows], down=self.down[rows])

    def to(self, *args: object, **kwargs: object) -> Couplings:
        """The same on another device or with another dtype, as `Tensor.to`."""
        return replace(self, right=self.right.to(*args, **kwargs), down=self.down.to(*args, **kwargs))  # type: ignore[call-overload]

    @property
    def values(self) -> Float[Tensor, "batch bonds"]:
        """All couplings of each lattice: first `right`, then `down`, row by row; the order of `edges`."""
        return torch.cat([self.right.flatten(1), self.down.flatten(1)], 1)

    @property
    def edges(self) -> Int[Tensor, "2 bonds"]:
        """The two spins of each bond, numbered row by row."""
        _, height, width = self.shape
        site = torch.arange(height * width, device=self.right.device).view(height, width)
        rows, columns = self.down.shape[1], self.right.shape[2]
        right = torch.stack([site[:, :columns], site.roll(-1, 1)[:, :columns]])
        down = torch.stack([site[:rows], site.roll(-1, 0)[:rows]])
        return torch.cat([right.flatten(1), down.flatten(1)], 1)


def require_summable(name: str, value: Tensor) -> None:
    """Raises ValueError unless the values of each sample are finite, and their sum, eight times over, is too."""
    # Eight: of the couplings there are two kinds, a flip costs twice the field, energies are taken from one another.
    if not values_are_known(value) or bool((8 * widen(value.detach()).abs().flatten(1).sum(1)).isfinite().all()):
        return
    wrong = (~value.isfinite()).nonzero().tolist()
    if wrong:
        raise ValueError(f"{name} is {value[tuple(wrong[0])].item()} at {tuple(wrong[0])}; it should be finite")
    raise ValueError(f"{name} overflows {value.dtype} when a sample of it is summed; it should be smaller")


def require_real(name: str, value: object) -> Tensor:
    """Raises TypeError unless `value` is a tensor of real numbers."""
    tensor = require_tensor(name, value)
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name} has dtype {tensor.dtype}; it should hold real numbers")
    return tensor


def require_couplings(value: object) -> Couplings:
    """Raises TypeError unless `value` is `Couplings`."""
    if not isinstance(value, Couplings):
        raise TypeError(f"couplings is a {type(value).__name__}; it should be elf.spins.Couplings")
    return value


def require_spins(name: str, value: object, couplings: Couplings) -> Tensor:
    """`value` as +-1 in the couplings' dtype.

    Raises:
        TypeError: not a tensor of real numbers.
        ValueError: another shape or device than the lattice's, or values other than +1 and -1.
    """
    spins, couplings = require_real(name, value), require_couplings(couplings)
    if tuple(spins.shape) != couplings.shape:
        raise ValueError(f"{name} has shape {tuple(spins.shape)}; the couplings are of {couplings.shape}")
    if spins.device != couplings.right.device:
        raise ValueError(f"{name} is on {spins.device}, the couplings on {couplings.right.device}")
    if values_are_known(spins) and not bool((wrong := spins.abs() != 1).logical_not().all()):
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(f"{name} is {spins[where].item()} at {where}; spins should be +1 or -1")
    return spins.to(couplings.right.dtype)


def bond_products(
    values: Float[Tensor, "batch height width"], periodic: bool
) -> tuple[Float[Tensor, "batch height columns"], Float[Tensor, "batch rows width"]]:
    """v_i v_j on the bonds to the right and down, laid out as `Couplings` are."""
    if periodic:
        return values * values.roll(-1, 2), values * values.roll(-1, 1)
    return values[:, :, 1:] * values[:, :, :-1], values[:, 1:] * values[:, :-1]


def bond_energy(couplings: Couplings, values: Float[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """- sum_<ij> J_ij v_i v_j for any real v: for magnetisations, the mean energy of independent spins."""
    right, down = bond_products(values, couplings.periodic)
    return -(couplings.right * right).sum((1, 2)) - (couplings.down * down).sum((1, 2))


def neighbour_sum(
    couplings: Couplings, values: Float[Tensor, "batch height width"]
) -> Float[Tensor, "batch height width"]:
    """sum_j J_ij v_j at each site i."""
    right, down = couplings.right, couplings.down
    if couplings.periodic:
        from_left, from_above = (right * values).roll(1, 2), (down * values).roll(1, 1)
        return right * values.roll(-1, 2) + from_left + down * values.roll(-1, 1) + from_above
    along = F.pad(right * values[:, :, 1:], (0, 1)) + F.pad(right * values[:, :, :-1], (1, 0))
    across = F.pad(down * values[:, 1:], (0, 0, 0, 1)) + F.pad(down * values[:, :-1], (0, 0, 1, 0))
    return along + across


def ising_energy(spins: Tensor, couplings: Couplings) -> Float[Tensor, " batch"]:
    """E(y) = -1/2 sum_ij J_ij y_i y_j = - sum_<ij> J_ij y_i y_j (Sec. 5 of arXiv:2511.02087); y = +-1, (B, H, W)."""
    return bond_energy(couplings, require_spins("spins", spins, couplings))


def local_fields(spins: Tensor, couplings: Couplings) -> Float[Tensor, "batch height width"]:
    """h_i = sum_j J_ij y_j, the field that its neighbours exert on spin i."""
    return neighbour_sum(couplings, require_spins("spins", spins, couplings))


def flip_energies(spins: Tensor, couplings: Couplings) -> Float[Tensor, "batch height width"]:
    """2 y_i h_i: by how much the energy changes if spin i alone is flipped."""
    return 2 * require_spins("spins", spins, couplings) * local_fields(spins, couplings)


def unsatisfied_bonds(
    spins: Tensor, couplings: Couplings
) -> tuple[Bool[Tensor, "batch height columns"], Bool[Tensor, "batch rows width"]]:
    """Where J_ij y_i y_j < 0, on the bonds to the right and down."""
    right, down = bond_products(require_spins("spins", spins, couplings), couplings.periodic)
    return couplings.right * right < 0, couplings.down * down < 0


def frustrated_plaquettes(couplings: Couplings) -> Bool[Tensor, "batch rows columns"]:
    """Whether an odd number of the four bonds around each square is negative.

    No configuration satisfies all bonds of such a square (G. Toulouse, Commun. Phys. 2, 115, 1977). (B, H - 1, W - 1)
    with free boundaries, (B, H, W) with periodic ones. A coupling of zero counts as positive.
    """
    require_couplings(couplings)
    right, down = couplings.right < 0, couplings.down < 0
    if couplings.periodic:
        return right ^ right.roll(-1, 1) ^ down ^ down.roll(-1, 2)
    return right[:, :-1] ^ right[:, 1:] ^ down[:, :, :-1] ^ down[:, :, 1:]


def gauge_transform(couplings: Couplings, signs: Tensor) -> Couplings:
    """J_ij -> g_i g_j J_ij: the same lattice seen with some spins renamed (y_i -> g_i y_i); energies stay as they are.

    Args:
        couplings: J.
        signs: g, +-1, (B, H, W).
    """
    right, down = bond_products(require_spins("signs", signs, couplings), couplings.periodic)
    return replace(couplings, right=couplings.right * right, down=couplings.down * down)


def plaquettes(height: int, width: int, periodic: bool) -> Int[Tensor, "plaquettes 4"]:
    """The four bonds around each square, as indices into `Couplings.values`: above, below, left, right."""
    loss = 0 if periodic else 1
    rows, columns = height - loss, width - loss
    right = torch.arange(height * columns, device="cpu").view(height, columns)
    down = right.numel() + torch.arange(rows * width, device="cpu").view(rows, width)
    around = (right[:rows], right.roll(-1, 0)[:rows], down[:, :columns], down.roll(-1, 1)[:, :columns])
    return torch.stack(around, -1).view(-1, 4)


def colours(couplings: Couplings) -> list[Bool[Tensor, "height width"]]:
    """Sets of sites without neighbours in the same set: two, or three where a periodic side is odd."""
    _, height, width = couplings.shape

    def cycle(length: int) -> Tensor:
        index = torch.arange(length, device=couplings.right.device) % 2
        index[-1] += 2 * (couplings.periodic and length % 2)
        return index

    odd = couplings.periodic and (height % 2 or width % 2)
    colour = (cycle(height)[:, None] + cycle(width)) % (3 if odd else 2)
    return [colour == c for c in range(3 if odd else 2)]


def descend(spins: Tensor, couplings: Couplings) -> Float[Tensor, "batch height width"]:
    """Flip single spins that gain energy, one sublattice after the other, until none is left: a local minimum of E.

    Raises:
        RuntimeError: not there after ten sweeps a spin. On a chain of growing couplings, the slowest lattice known, one
            sweep a spin is enough, so the fields would have to be wrong.
    """
    spins = require_spins("spins", spins, couplings)
    sets = colours(couplings)
    # Rounding must not make a spin without a preference flip for ever.
    largest = F.pad(couplings.values.abs(), (0, 1)).amax(1)[:, None, None]
    tolerance = 8 * torch.finfo(spins.dtype).eps * largest
    sweeps = 10 * (1 + spins[:1].numel())
    for _ in range(sweeps):
        before = spins
        for here in sets:
            gains = here & (spins * neighbour_sum(couplings, spins) < -tolerance)
            spins = torch.where(gains, -spins, spins)
        if torch.equal(spins, before):
            return spins
    raise RuntimeError(f"descent did not end within {sweeps} sweeps; a flip should lower the energy each time")
