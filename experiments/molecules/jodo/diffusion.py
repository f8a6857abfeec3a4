"""JODO's joint diffusion: one noise level for atoms, bonds and positions, and a loss of each stream (Table 3).

A molecule is a `GraphState`, encoded as in JODO's program: one-hots of elements from -1 to 1, divided by 4, beside the
formal charge / 4; of every pair whether it is bonded and its order / 3, both mapped from 0 ... 1 to -1 ... 1; positions
in angstrom, centred. For the samplers of `elf.generative.samplers` the three streams lie side by side in one tensor
(batch, atoms, 3 + atom channels + atoms x bond channels), see `packed`: noising and both samplers treat every number
alike, so that symmetric bonds stay symmetric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elf import springs
from elf.checks import require_integer, require_one_of
from elf.data.molecules import one_hot
from elf.elements import ELEMENTS
from elf.energy import Energy, Harmonic, PairEnergy
from elf.generative.schedules import Schedule, add_noise
from elf.geometry.alignment import align, center
from experiments.molecules.jodo.data import AROMATIC, Graphs
from experiments.molecules.jodo.network import GraphState, GraphTransformer, Mask, pairs_of

Packed = Float[Tensor, "batch atoms numbers"]
Times = Float[Tensor, " batch"]
Wide = Float[Tensor, "batch 1 1"]


@dataclass(frozen=True)
class Cosine(Schedule):
    """Variance-preserving: alpha_t = cos(pi/2 (t + s) / (1 + s)) / cos(pi/2 s / (1 + s)), sigma^2 = 1 - alpha^2.

    Args:
        shift: s.
        t_min, t_max: where the sampler's grid ends and begins, and, with `within`, training too: what lies outside
            serves no step of the sampler.
        within: False trains on U(1e-5, 1), as JODO does.
    """

    shift: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946
    within: bool = True

    def _angle(self, t: Tensor) -> Tensor:
        return math.pi / 2 * (t + self.shift) / (1 + self.shift)

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the clean molecule; 1 at t = 0."""
        return self._angle(t).cos() / math.cos(math.pi / 2 * self.shift / (1 + self.shift))

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise; 0 at t = 0."""
        # 1 - alpha^2 = sin(a - a0) sin(a + a0) / cos^2(a0): no digits are lost where alpha is near 1.
        first = math.pi / 2 * self.shift / (1 + self.shift)
        moved = math.pi / 2 * t / (1 + self.shift)
        return (moved.sin() * (moved + 2 * first).sin()).clamp(min=0).sqrt() / math.cos(first)

    def weight(self, t: Tensor) -> Tensor:
        """sqrt(alpha / sigma), JODO's for all three streams: far flatter than the paper's alpha^2 / sigma^2."""
        return (self.alpha(t) / self.sigma(t)).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), which the network is told."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def draw(self, n: int, generator: torch.Generator) -> Times:
        """Uniform times."""
        n = require_integer("n", n, least=0)
        uniform = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float32)
        low, high = (self.t_min, self.t_max) if self.within else (1e-5, 1 - 1e-5)
        return low + (high - low) * uniform

    def grid(self, steps: int) -> Float[Tensor, " levels"]:
        """From t_max to t_min in steps - 1 equal steps, and then 0."""
        steps = require_integer("steps", steps, least=2)
        times = torch.linspace(self.t_max, self.t_min, steps, device="cpu", dtype=torch.float32)
        return torch.cat([times, times.new_zeros(1)])


@dataclass(frozen=True)
class Encoding:
    """Graphs <-> states. aromatic: a third channel of bonds, as JODO has it for GEOM-Drugs; none is needed for QM9."""

    elements: tuple[int, ...] = ELEMENTS
    aromatic: bool = False

    @property
    def atom_channels(self) -> int:
        """Elements and the formal charge."""
        return len(self.elements) + 1

    @property
    def bond_channels(self) -> int:
        """Whether there is a bond, its order, and whether it is aromatic."""
        return 2 + self.aromatic

    def encode(self, graphs: Graphs, dtype: torch.dtype = torch.float32) -> GraphState:
        """The clean state.

        Raises:
            ValueError: an unknown element; an aromatic bond without a channel for it.
        """
        mask, orders = graphs.mask, graphs.orders.long()
        if not self.aromatic and bool((orders == AROMATIC).any()):
            raise ValueError("orders holds aromatic bonds (4); they should be 0 to 3 where aromatic is False")
        hot = 2 * one_hot(graphs.numbers.long(), self.elements, dtype=dtype) - 1
        atoms = torch.cat([hot, graphs.charges[..., None].to(dtype)], dim=-1) / 4 * mask[..., None]
        channels = [orders > 0, orders % AROMATIC / 3, *[orders == AROMATIC] * self.aromatic]
        bonds = 2 * torch.stack([channel.to(dtype) for channel in channels], dim=-1) - 1
        return GraphState(center(graphs.positions.to(dtype), mask), atoms, bonds * pairs_of(mask)[..., None])

    def decode(self, state: GraphState, mask: Mask, charges: dict[int, frozenset[int]] | None = None) -> Graphs:
        """Graphs: the largest element, the nearest charge; a bond where it exists and has an order of 1/2 or more.

        charges: the charges that each element may have, others become 0; None lets all be.
        """
        kinds = torch.tensor(self.elements, dtype=torch.long, device=mask.device)
        numbers = kinds[state.atoms[..., :-1].argmax(dim=-1)] * mask
        charge = (4 * state.atoms[..., -1]).round().long() * mask
        if charges is not None:
            known = [(number, value) for number, values in charges.items() for value in values]
            charge = charge * sum((numbers == number) & (charge == value) for number, value in known)
        exists, order, *aromatic = ((state.bonds + 1) / 2).unbind(dim=-1)
        orders = (3 * order).round().clamp(0, 3).long()
        if aromatic:
            orders = orders.masked_fill(aromatic[0] >= 0.5, AROMATIC)
        orders = orders * (exists >= 0.5) * pairs_of(mask)
        return Graphs(state.positions * mask[..., None], numbers, orders, charge)


def packed(state: GraphState) -> Packed:
    """The three streams side by side."""
    return torch.cat([state.positions, state.atoms, state.bonds.flatten(2)], dim=-1)


def unpacked(x: Packed, atom_channels: int) -> GraphState:
    """What `packed` packed."""
    positions, atoms, bonds = x.split([3, atom_channels, x.shape[-1] - 3 - atom_channels], dim=-1)
    return GraphState(positions, atoms, bonds.unflatten(-1, (x.shape[1], -1)))


class JointDiffusion(nn.Module):
    """The network with its schedule and encoding; it answers packed noisy states with packed clean ones."""

    def __init__(self, network: GraphTransformer, schedule: Cosine, encoding: Encoding) -> None:
        super().__init__()
        self.network, self.schedule, self.encoding = network, schedule, encoding

    def forward(self, x_t: Packed, t: Times, mask: Mask, previous: Packed | None = None) -> Packed:
        """x_hat; previous: an earlier one of the same molecules, or None."""
        width = self.encoding.atom_channels
        before = None if previous is None else unpacked(previous, width)
        return packed(self.network(unpacked(x_t, width), self.schedule.log_snr(t), mask, before))

    def noise(self, mask: Mask, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Packed:
        """Standard normal numbers; centred positions, symmetric bonds of variance one, zeros where there is nothing."""
        size, width, kinds = tuple(mask.shape), self.encoding.atom_channels, self.encoding.bond_channels

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=mask.device, dtype=dtype)

        positions, atoms = center(draw(*size, 3), mask), draw(*size, width) * mask[..., None]
        lower = draw(*size, size[1], kinds).movedim(-1, 0).tril(-1)
        bonds = (lower + lower.mT).movedim(0, -1) * pairs_of(mask)[..., None]
        return packed(GraphState(positions, atoms, bonds))


@dataclass(frozen=True)
class PositionLoss:
    """weight x energy(x_hat, x) of positions in angstrom, with x turned onto the noisy x_t before, if `turned`."""

    energy: Energy
    weight: float = 1.0
    turned: bool = False

    def __call__(self, x_hat: Tensor, x: Tensor, x_t: Tensor, mask: Mask) -> Float[Tensor, " batch"]:
        """A number a molecule."""
        return self.weight * self.energy(x_hat, align(x_t, x, mask) if self.turned else x, mask)


INVERSE = PairEnergy(springs.Inverse(k=3.7), normalize="atoms")
EXPONENTIAL = PairEnergy(springs.Exponential(k=24.0), normalize="atoms")
MEAN_SPRINGS = {"inverse": 1.51, "exponential": 2.21}
"""Mean k over the pairs of QM9's molecules of up to seven heavy atoms, in 1 / angstrom^2."""

POSITION_LOSSES: dict[str, PositionLoss] = {
    "mse": PositionLoss(Harmonic(), 1 / 3),
    "kabsch": PositionLoss(Harmonic(), 1 / 3, turned=True),
    "inverse": PositionLoss(INVERSE),
    "exponential": PositionLoss(EXPONENTIAL),
    "inverse_turned": PositionLoss(INVERSE, turned=True),
    "exponential_turned": PositionLoss(EXPONENTIAL, turned=True),
    "inverse_even": PositionLoss(INVERSE, 1 / MEAN_SPRINGS["inverse"]),
    "exponential_even": PositionLoss(EXPONENTIAL, 1 / MEAN_SPRINGS["exponential"]),
}
"""Name -> the loss. "kabsch" is JODO's own: the target turned onto the noisy molecule. The energies are the energy
program's; there the target is turned as well ("..._turned"), which costs a singular value decomposition and changes
nothing, as an energy of distances does not see it. "..._even" ones are as loud as MSE for small errors."""


def position_loss(name: str) -> PositionLoss:
    """One of `POSITION_LOSSES`.

    Raises:
        ValueError: there is none of this name.
    """
    require_one_of("loss", name, tuple(POSITION_LOSSES))
    return POSITION_LOSSES[name]


class LossParts(NamedTuple):
    """Means over the batch, weighted with sqrt(alpha / sigma) and each stream's own weight."""

    positions: Float[Tensor, ""]
    atoms: Float[Tensor, ""]
    bonds: Float[Tensor, ""]


ATOM_WEIGHT, BOND_WEIGHT = 0.25, 0.1


def joint_loss(
    model: nn.Module,
    loss: PositionLoss,
    clean: GraphState,
    mask: Mask,
    generator: torch.Generator,
    *,
    conditioned: float = 0.5,
    bond_weight: float = BOND_WEIGHT,
) -> LossParts:
    """sqrt(alpha/sigma) [E(x_hat, x) + 0.25 sum_i mean_c |h - h_hat|^2 + 0.1 sum_{i != j} mean_c |e - e_hat|^2].

    Args:
        model: a `JointDiffusion`, or what wraps one and has it as `module`.
        loss: of the positions.
        clean: the molecules, see `Encoding.encode`.
        generator: of times, noise, and the coin of self-conditioning, one for the batch.
        conditioned: how often the network is told a first answer of its own, taken without gradient.
        bond_weight: of the bonds, whose sum is over ordered pairs.
    """
    own = model if isinstance(model, JointDiffusion) else getattr(model, "module", None)
    if not isinstance(own, JointDiffusion):
        raise TypeError(f"model is a {type(model).__name__}; it should be a JointDiffusion, or wrap one as `module`")
    x, dtype, device = packed(clean), clean.positions.dtype, mask.device
    t = own.schedule.draw(len(x), generator).to(device, dtype)
    x_t = add_noise(x, own.noise(mask, generator, dtype), t, own.schedule)
    coin = float(torch.rand(1, generator=generator, device=generator.device, dtype=torch.float32))
    previous = None
    if coin < conditioned:
        with torch.no_grad():
            previous = model(x_t, t, mask)
    answer = unpacked(model(x_t, t, mask, previous), clean.atoms.shape[-1])
    weight = own.schedule.weight(t)
    placed = loss(answer.positions, clean.positions, x_t[..., :3], mask)
    atoms = (answer.atoms - clean.atoms).square().mean(-1).sum(-1)
    bonds = (answer.bonds - clean.bonds).square().mean(-1).sum((-2, -1))
    return LossParts(
        (weight * placed).mean(), ATOM_WEIGHT * (weight * atoms).mean(), bond_weight * (weight * bonds).mean()
    )
