"""The report card of an energy of Ising spins: what `elf.report_card` answers where couplings are handed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

import torch
from torch import Tensor

from elf.checks import require_seed
from elf.metrics.card import Card
from elf.spins.energy import CrossEntropy
from elf.spins.graph import Graph, gauge_transform, require_graph, require_spins
from elf.spins.lattice import SYMMETRIES, Couplings

SURE = 20.0
"""A logit that makes a spin certain: its tanh is 1 in float64."""
ENUMERATED = 16
"""Most spins of which all configurations are looked at."""
STARTS, STEPS = 8, 300


@dataclass(frozen=True)
class SpinCard(Card):
    """What an energy of spins does, in numbers; `print` it for a table with a remark a line.

    A scale-free figure is over the mean |E| of random logits. There is no stiffness at the target: where spins are
    certain, tanh is flat.

    Attributes:
        at_target: largest |E| of certain, right spins; 0 is right.
        ignores: largest change of energy under a "global flip" of the prediction, a "gauge" of spins and couplings, and
            on a lattice the "symmetry of the square"; below 1e-6 the energy does not see it.
        dead_start: |gradient| where all probabilities are 1/2, over that of random logits: 0 is a start that never
            leaves, as for every energy that a global flip leaves alone.
        curvature: least and largest eigenvalue of the Hessian there, the extremes over targets; least < 0: a saddle,
            which the smallest noise leaves.
        arrivals: share of random starts from which 300 steps of Adam find y or -y.
        stable_states: configurations that no single flip improves, y and its equals among them, the mean over targets;
            None for more than 16 spins.
        below_target: how far the lowest configuration lies below the target, the most; None for more than 16 spins.
        cost: time of value and gradient over that of cross-entropy.
    """

    at_target: float
    ignores: dict[str, float]
    dead_start: float
    curvature: tuple[float, float]
    arrivals: float
    stable_states: float | None
    below_target: float | None
    cost: float

    def as_dict(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str]]:
        """(question, figure, remark) of each line of the table."""
        rows = [("zero at the target", f"{self.at_target:.1e}", "yes" if self.at_target < 1e-6 else "NO")]
        rows += [(f"sees a {name}", f"{x:.1e}", "yes" if x > 1e-6 else "no") for name, x in self.ignores.items()]
        least, largest = self.curvature
        leaves = "a saddle: noise leads out" if least < 0 else "no way down"
        leaves = "a kink: noise leads out" if least < -100 * abs(largest) else leaves
        dead = "dead: no gradient leads out" if self.dead_start < 1e-6 else "alive"
        rows += [("all probabilities 1/2", f"{self.dead_start:.2g}", dead)]
        rows += [("curvature there", f"{least:.2g} to {largest:.2g}", leaves)]
        rows += [("random starts that arrive at +-y", f"{self.arrivals:.0%}", "")]
        if self.stable_states is not None and self.below_target is not None:
            rows += [("states that no flip improves", f"{self.stable_states:.1f}", "the mean over targets")]
            wrong = "NO: another state is lower" if self.below_target > 1e-6 else "yes"
            rows += [("the target is a minimum", f"{self.below_target:.1e}", wrong)]
        return [*rows, ("cost against cross-entropy", f"{self.cost:.1f}x", "value and gradient")]


def spin_card(energy: Callable[..., Tensor], targets: Tensor, couplings: Graph, seed: int = 0) -> SpinCard:
    """Try an energy of spins on targets (B, *sites) of +-1: see `SpinCard`. On the CPU, in float64.

    Raises:
        TypeError, ValueError: targets that are not spins of these couplings; or what the energy raises.
    """
    J = require_graph(couplings).to("cpu").to(torch.float64)
    y, generator = (
        require_spins("targets", targets.detach().cpu(), J),
        torch.Generator().manual_seed(require_seed("seed", seed)),
    )
    J = J if len(J) == len(y) else J[[0] * len(y)]
    z = torch.randn(y.shape, generator=generator, dtype=y.dtype, device="cpu")
    before = energy(z, y, J).detach()
    scale = max(float(before.abs().mean()), torch.finfo(y.dtype).tiny)
    g = torch.randint(2, y.shape, generator=generator, device="cpu").to(y.dtype) * 2 - 1
    moved: dict[str, list[tuple[Tensor, Tensor, Graph]]] = {
        "global flip": [(-z, y, J)],
        "gauge": [(z * g, y * g, gauge_transform(J, g))],
    }
    if isinstance(J, Couplings):
        square = [(s.of_spins(z), s.of_spins(y), s.of_couplings(J)) for s in SYMMETRIES]
        moved["symmetry of the square"] = [*square]
    middle = torch.zeros_like(z)
    waves = [torch.linalg.eigvalsh(_hessian(energy, y[[k]], J[[k]])) for k in range(len(y))]
    states = [_states(energy, y[[k]], J[[k]], scale) for k in range(len(y))] if prod(J.sites) <= ENUMERATED else []
    return SpinCard(
        at_target=float(energy(SURE * y, y, J).abs().max()) / scale,
        ignores={
            k: float(torch.stack([(energy(*a) - before).abs().max() for a in way]).max()) / scale
            for k, way in moved.items()
        },
        dead_start=float(_gradient(energy, middle, y, J).norm() / _gradient(energy, z, y, J).norm()),
        curvature=(min(float(w[0]) for w in waves), max(float(w[-1]) for w in waves)),
        arrivals=_arrivals(energy, y, J, generator),
        stable_states=sum(stable for stable, _ in states) / len(states) if states else None,
        below_target=max(below for _, below in states) if states else None,
        cost=_cost(energy, z, y, J),
    )


def _gradient(energy: Callable[..., Tensor], z: Tensor, y: Tensor, J: Graph) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(energy(z, y, J).sum(), z)[0]


def _hessian(energy: Callable[..., Tensor], y: Tensor, J: Graph) -> Tensor:
    """At probabilities of 1/2, by central differences of the gradient."""
    step = 1e-4 * torch.eye(y.numel(), dtype=y.dtype, device="cpu").view(-1, *y.shape[1:])
    many = (y.expand_as(step), J[[0] * len(step)])
    return ((_gradient(energy, step, *many) - _gradient(energy, -step, *many)) / 2e-4).flatten(1)


def _arrivals(energy: Callable[..., Tensor], y: Tensor, J: Graph, generator: torch.Generator) -> float:
    rows = torch.arange(len(y), device="cpu").repeat(STARTS)
    y, J = y[rows], J[rows]
    z = torch.randn(y.shape, generator=generator, dtype=y.dtype, device="cpu").requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(STEPS):
        z.grad = _gradient(energy, z, y, J)
        optimizer.step()
    alike = (z.detach() * y > 0).flatten(1)
    return float((alike.all(1) | ~alike.any(1)).double().mean())


def _states(energy: Callable[..., Tensor], y: Tensor, J: Graph, scale: float) -> tuple[int, float]:
    """Of all configurations: how many no single flip improves, and how far the lowest lies below the target."""
    number, bits = (torch.arange(n, device="cpu") for n in (1 << y.numel(), y.numel()))
    spins = (1.0 - 2.0 * ((number[:, None] >> bits) & 1).to(y.dtype)).view(-1, *y.shape[1:])
    value = energy(SURE * spins, y.expand_as(spins), J[[0] * len(spins)]).detach() / scale
    neighbours = value[number[:, None] ^ (1 << bits)]
    below = float(energy(SURE * y, y, J)) / scale - float(value.min())
    return int((neighbours >= value[:, None] - 1e-9).all(1).sum()), max(0.0, below)


def _cost(energy: Callable[..., Tensor], z: Tensor, y: Tensor, J: Graph) -> float:
    def seconds(function: Callable[..., Tensor]) -> float:
        begin = time.perf_counter()
        _gradient(function, z, y, J)
        return time.perf_counter() - begin

    times = [(seconds(energy), seconds(CrossEntropy())) for _ in range(25)]
    return median(own for own, _ in times) / median(other for _, other in times)
