"""Spins on any graph: bonds and their couplings, energies, local fields; batched, on any device.

What a site has (a spin, a magnetisation, the probabilities of its states) is v_i: a number, or a vector along a last
axis. All that follows is made of v_i . v_j on the bonds.
"""

from __future__ import annotations

from copy import copy
from itertools import count
from math import prod
from typing import SupportsIndex, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from elf.checks import require_count, require_tensor, values_are_known, widen
from elf.geometry.graphs import undirected_pairs

AnyGraph = TypeVar("AnyGraph", bound="Graph")


class Graph:
    """Couplings J_ij on the edges of a graph, for a batch of samples.

    Args:
        edges: pairs of spins, (2, E), each once, in either direction.
        couplings: J, (B, E), or (E,) for any number of samples.
        spins: how many there are, N; None: as many as `edges` names.

    Attributes:
        edges: (2, E) int64.
        values: J, (B, E); B = 1 holds for any number of samples.
        shape: of the spins, (B, N); of a lattice's, (B, H, W).

    Raises:
        TypeError: edges are not integers, couplings not floating point.
        ValueError: a self-loop, a pair twice, a spin out of range, shapes or devices that do not fit, couplings that
            are NaN, infinite or so large that energies overflow.
    """

    layout: tuple[tuple[int, ...], ...]
    """Shapes of the groups in which bonds are kept: one of E; a lattice's to the right, and down."""

    def __init__(self, edges: Tensor, couplings: Tensor, spins: SupportsIndex | None = None) -> None:
        pairs = undirected_pairs(edges, None if spins is None else require_count("spins", spins))
        if pairs.ndim != 2:
            raise ValueError(f"edges has shape {tuple(pairs.shape)}; it should be (2, E)")
        if require_tensor("couplings", couplings).ndim not in (1, 2) or couplings.shape[-1] != pairs.shape[1]:
            wanted = f"(E,) or (B, E) with E = {pairs.shape[1]}, one for each of the edges"
            raise ValueError(f"couplings has shape {tuple(couplings.shape)}; it should be {wanted}")
        if couplings.device != pairs.device:
            raise ValueError(f"couplings is on {couplings.device}, edges on {pairs.device}; they should be alike")
        self.edges, self.values = pairs, require_couplings("couplings", torch.atleast_2d(couplings))
        self.sites: tuple[int, ...] = (int(pairs.max()) + 1 if spins is None else require_count("spins", spins),)
        self.layout = (pairs.shape[1:],)

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, *sites): the shape of its spins."""
        return (len(self.values), *self.sites)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self: AnyGraph, rows: slice | list[int] | Tensor) -> AnyGraph:
        """Some of the samples, still as a batch."""
        return self.with_values(self.values[rows])

    def to(self: AnyGraph, *args: object, **kwargs: object) -> AnyGraph:
        """The same on another device or with another dtype, as `Tensor.to`."""
        other = self.with_values(self.values.to(*args, **kwargs))  # type: ignore[call-overload]
        other.edges = self.edges.to(other.values.device)
        return other

    def with_values(self: AnyGraph, values: Float[Tensor, "batch bonds"]) -> AnyGraph:
        """The same bonds with other couplings."""
        other = copy(self)
        other.values = require_couplings("couplings", values)
        return other

    def groups(self, bonds: Shaped[Tensor, "batch bonds"]) -> tuple[Tensor, ...]:
        """What each bond has, group by group."""
        return bonds.split([prod(shape) for shape in self.layout], 1)

    def laid_out(self, bonds: Shaped[Tensor, "batch bonds"]) -> tuple[Tensor, ...]:
        """What each bond has, in the layout of the graph: (B, E); of a lattice, to the right and down."""
        return tuple(part.unflatten(1, shape) for part, shape in zip(self.groups(bonds), self.layout, strict=True))


def require_couplings(name: str, value: object) -> Tensor:
    """A floating-point tensor (B, ...) whose samples can be summed: see `require_summable`."""
    tensor = require_tensor(name, value)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has dtype {tensor.dtype}; it should be a floating-point type")
    require_summable(name, tensor)
    return tensor


def require_summable(name: str, value: Tensor) -> None:
    """Raises ValueError unless the values of each sample are finite, and their sum, eight times over, is too."""
    # Eight: of a lattice's couplings there are two kinds, a flip costs twice the field, energies are subtracted.
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


def require_graph(value: object) -> Graph:
    """Raises TypeError unless `value` is a `Graph`, as a lattice's `Couplings` are."""
    if not isinstance(value, Graph):
        raise TypeError(f"couplings is a {type(value).__name__}; it should be elf.spins.Couplings or elf.spins.Graph")
    return value


def require_sites(name: str, value: Tensor, couplings: Graph, *last: int) -> None:
    """Raises ValueError unless `value` is (B, *sites, *last), on the device of the couplings."""
    batch, *sites = couplings.shape
    if list(value.shape[1:]) != [*sites, *last] or (batch != 1 and len(value) != batch):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; the couplings are of {couplings.shape}")
    if value.device != couplings.values.device:
        raise ValueError(f"{name} is on {value.device}, the couplings on {couplings.values.device}")


def require_spins(name: str, value: object, couplings: Graph) -> Tensor:
    """`value` as +-1 in the couplings' dtype.

    Raises:
        TypeError: not a tensor of real numbers.
        ValueError: another shape or device than the couplings', or values other than +1 and -1.
    """
    spins = require_real(name, value)
    require_sites(name, spins, require_graph(couplings))
    if values_are_known(spins) and not bool((wrong := spins.abs() != 1).logical_not().all()):
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(f"{name} is {spins[where].item()} at {where}; spins should be +1 or -1")
    return spins.to(couplings.values.dtype)


def _in_a_row(couplings: Graph, values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch spins states"]:
    flat = values.flatten(1, len(couplings.sites))
    return flat if flat.ndim == 3 else flat[..., None]


def bond_products(couplings: Graph, values: Float[Tensor, "batch ..."]) -> list[Float[Tensor, "batch _"]]:
    """v_i . v_j on the bonds of each group."""
    v = _in_a_row(couplings, values)
    pairs = couplings.groups(couplings.edges)
    return [(v.index_select(1, second) * v.index_select(1, first)).sum(-1) for first, second in pairs]


def bond_energy(couplings: Graph, values: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """- sum_<ij> J_ij v_i . v_j for any v: of magnetisations or probabilities, the mean energy of independent spins."""
    products = zip(couplings.groups(couplings.values), bond_products(couplings, values), strict=True)
    return -torch.stack([(J * product).sum(1) for J, product in products]).sum(0)


def neighbour_sum(couplings: Graph, values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """sum_j J_ij v_j at each site i."""
    v = _in_a_row(couplings, values)
    total = torch.zeros_like(v)
    for (first, second), J in zip(*map(couplings.groups, (couplings.edges, couplings.values)), strict=True):
        group = torch.zeros_like(v).index_add(1, first, J[..., None] * v.index_select(1, second))
        total = total + group.index_add(1, second, J[..., None] * v.index_select(1, first))
    return total.view(values.shape)


def ising_energy(spins: Tensor, couplings: Graph) -> Float[Tensor, " batch"]:
    """E(y) = -1/2 sum_ij J_ij y_i y_j = - sum_<ij> J_ij y_i y_j (Sec. 5 of arXiv:2511.02087); y = +-1, (B, *sites)."""
    return bond_energy(couplings, require_spins("spins", spins, couplings))


def local_fields(spins: Tensor, couplings: Graph) -> Float[Tensor, "batch ..."]:
    """h_i = sum_j J_ij y_j, the field that its neighbours exert on spin i."""
    return neighbour_sum(couplings, require_spins("spins", spins, couplings))


def flip_energies(spins: Tensor, couplings: Graph) -> Float[Tensor, "batch ..."]:
    """2 y_i h_i: by how much the energy changes if spin i alone is flipped."""
    return 2 * require_spins("spins", spins, couplings) * local_fields(spins, couplings)


def gauge_transform(couplings: AnyGraph, signs: Tensor, name: str = "signs") -> AnyGraph:
    """J_ij -> g_i g_j J_ij: the same bonds seen with some spins renamed (y_i -> g_i y_i); energies stay as they are.

    Args:
        couplings: J.
        signs: g, +-1, (B, *sites).
        name: what an error is to call them.
    """
    products = bond_products(couplings, require_spins(name, signs, couplings))
    return couplings.with_values(couplings.values * torch.cat(products, 1))


def unsatisfied_bonds(spins: Tensor, couplings: Graph) -> tuple[Bool[Tensor, "batch ..."], ...]:
    """Where J_ij y_i y_j < 0, laid out as the couplings are: of a lattice, to the right and down."""
    return couplings.laid_out(gauge_transform(couplings, spins, "spins").values < 0)


def colours(couplings: Graph) -> list[Bool[Tensor, "*sites"]]:
    """Sets of sites without neighbours in the same set, greedily: a chessboard where the lattice allows one."""
    neighbours: list[list[int]] = [[] for _ in range(prod(couplings.sites))]
    for first, second in couplings.edges.T.tolist():
        neighbours[first].append(second)
        neighbours[second].append(first)
    colour: list[int] = []
    for around in neighbours:
        taken = {colour[site] for site in around if site < len(colour)}
        colour.append(next(c for c in count() if c not in taken))
    of_site = torch.tensor(colour, dtype=torch.int64, device=couplings.values.device).view(couplings.sites)
    return [of_site == c for c in range(max(colour) + 1)]


def descend(spins: Tensor, couplings: Graph) -> Float[Tensor, "batch ..."]:
    """Flip single spins that gain energy, one set of `colours` after the other, until none does: a local minimum of E.

    Raises:
        RuntimeError: not there after ten sweeps a spin. On a chain of growing couplings, the slowest lattice known, one
            sweep a spin is enough, so the fields would have to be wrong.
    """
    spins = require_spins("spins", spins, couplings)
    sets = colours(couplings)
    # Rounding must not make a spin without a preference flip for ever.
    largest = F.pad(couplings.values.abs(), (0, 1)).amax(1).view(-1, *[1] * len(couplings.sites))
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
