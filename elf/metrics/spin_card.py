"""The report card of an energy of spins, Ising or Potts: what `elf.report_card` answers where it is given couplings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from math import prod
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from elf.checks import require_integer, require_integers, require_seed
from elf.metrics.card import Card
from elf.spins.energy import CrossEntropy
from elf.spins.graph import Graph, gauge_transform, require_graph, require_sites, require_spins
from elf.spins.lattice import SYMMETRIES, Couplings

SURE = 20.0
"""A logit that makes a spin certain: its tanh is 1 in float64. Of q states, the right one has it, others minus it."""
ENUMERATED = 2**16
"""Most configurations that are all looked at: those of 16 Ising spins, or 10 with three states."""
STARTS, STEPS = 8, 300


@dataclass(frozen=True)
class SpinCard(Card):
    """What an energy of spins does, in numbers; `print` it for a table with a remark a line.

    A scale-free figure is over the mean |E| of random logits. There is no stiffness at the target: where spins are
    certain, tanh is flat, and so is the softmax of q logits that makes the probabilities of Potts states.

    Attributes:
        at_target: largest |E| of certain, right spins; 0 is right.
        ignores: largest change of energy under a "global flip" of the prediction, a "gauge" of spins and couplings, and
            on a lattice the "symmetry of the square"; below 1e-6 the energy does not see it. Of Potts spins, under a
            "relabelling" of the prediction's states (swaps of two, and cycles of all), and a "renaming" of those of
            prediction and target alike.
        dead_start: |gradient| where all probabilities are equal, over that of random logits: 0 is a start that never
            leaves, as for every energy that a global flip, or a relabelling, leaves alone.
        curvature: least and largest eigenvalue of the Hessian there, the extremes over targets; least < 0: a saddle,
            which the smallest noise leaves. Of Potts spins, in directions that change probabilities.
        arrivals: share of random starts from which 300 steps of Adam find y or -y; of Potts spins, y relabelled.
        stable_states: configurations that no change of a single spin improves, y and its equals among them, the mean
            over targets; None where there are more than 65,536 configurations.
        below_target: how far the lowest configuration lies below the target, the most; None as for these.
        cost: time of value and gradient over that of cross-entropy.
        states: q of Potts spins; None for Ising spins.
    """

    at_target: float
    ignores: dict[str, float]
    dead_start: float
    curvature: tuple[float, float]
    arrivals: float
    stable_states: float | None
    below_target: float | None
    cost: float
    states: int | None = None

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
        goal, change = ("+-y", "flip") if self.states is None else ("y, relabelled", "change")
        rows += [(f"all probabilities 1/{self.states or 2}", f"{self.dead_start:.2g}", dead)]
        rows += [("curvature there", f"{least:.2g} to {largest:.2g}", leaves)]
        rows += [(f"random starts that arrive at {goal}", f"{self.arrivals:.0%}", "")]
        if self.stable_states is not None and self.below_target is not None:
            rows += [(f"states that no {change} improves", f"{self.stable_states:.1f}", "the mean over targets")]
            wrong = "NO: another state is lower" if self.below_target > 1e-6 else "yes"
            rows += [("the target is a minimum", f"{self.below_target:.1e}", wrong)]
        return [*rows, ("cost against cross-entropy", f"{self.cost:.1f}x", "value and gradient")]


def spin_card(
    energy: Callable[..., Tensor], targets: Tensor, couplings: Graph, seed: int = 0, states: int | None = None
) -> SpinCard:
    """Try an energy of spins on targets (B, *sites): see `SpinCard`. On the CPU, in float64.

    Args:
        energy: called energy(prediction, target, couplings), as `elf.spins.SpinEnergy` is.
        targets: +-1; with `states`, integers from 0.
        couplings: of these spins, on a lattice or any other graph.
        seed: of predictions and starts.
        states: q of Potts spins, whose energies are told probabilities (B, *sites, q); None for Ising spins.

    Raises:
        TypeError, ValueError: targets that are not spins of these couplings; or what the energy raises.
    """
    J = require_graph(couplings).to("cpu").to(torch.float64)
    y = targets.detach().cpu()
    y = require_spins("targets", y, J) if states is None else _require_states(y, J, states)
    generator = torch.Generator().manual_seed(require_seed("seed", seed))
    J = J if len(J) == len(y) else J[[0] * len(y)]
    certain = _certain(y, states)
    z = torch.randn(certain.shape, generator=generator, dtype=certain.dtype, device="cpu")

    def called(logits: Tensor, target: Tensor, couplings: Graph) -> Tensor:
        return energy(logits if states is None else logits.softmax(-1), target, couplings)

    before = called(z, y, J).detach()
    scale = max(float(before.abs().mean()), torch.finfo(z.dtype).tiny)
    moved = _flips(z, y, J, generator) if states is None else _relabellings(z, y, J, states)
    if isinstance(J, Couplings):
        parts = [z] if states is None else z.unbind(-1)
        turned = [(s, torch.stack([s.of_spins(part) for part in parts], -1)) for s in SYMMETRIES]
        moved["symmetry of the square"] = [
            (image[..., 0] if states is None else image, s.of_spins(y), s.of_couplings(J)) for s, image in turned
        ]
    waves = [torch.linalg.eigvalsh(_hessian(called, y[[k]], J[[k]], states)) for k in range(len(y))]
    few = (states or 2) ** prod(J.sites) <= ENUMERATED
    found = [_states(called, y[[k]], J[[k]], scale, states) for k in range(len(y))] if few else []
    return SpinCard(
        at_target=float(called(certain, y, J).abs().max()) / scale,
        ignores={
            k: float(torch.stack([(called(*a) - before).abs().max() for a in way]).max()) / scale
            for k, way in moved.items()
        },
        dead_start=float(_gradient(called, torch.zeros_like(z), y, J).norm() / _gradient(called, z, y, J).norm()),
        curvature=(min(float(w[0]) for w in waves), max(float(w[-1]) for w in waves)),
        arrivals=_arrivals(lambda *c: called(*c) / scale, y, J, generator, states),
        stable_states=sum(stable for stable, _ in found) / len(found) if found else None,
        below_target=max(below for _, below in found) if found else None,
        cost=_cost(energy, z if states is None else z.softmax(-1), y, J),
        states=states,
    )


def _require_states(y: Tensor, J: Graph, states: int) -> Tensor:
    require_integer("states", states, least=2)
    require_sites("targets", require_integers("targets", y), J)
    if bool(((y < 0) | (y >= states)).any()):
        raise ValueError(f"targets holds states {int(y.min())} ... {int(y.max())}; they should be 0 ... {states - 1}")
    return y.long()


def _certain(y: Tensor, states: int | None) -> Tensor:
    """Logits of which every spin is certainly that of y."""
    return SURE * (y if states is None else 2.0 * F.one_hot(y, states).to(torch.float64) - 1)


def _likeliest(z: Tensor, states: int | None) -> Tensor:
    """The number of each spin's likeliest state."""
    return (z > 0).long() if states is None else z.argmax(-1)


Moved = dict[str, list[tuple[Tensor, Tensor, Graph]]]


def _flips(z: Tensor, y: Tensor, J: Graph, generator: torch.Generator) -> Moved:
    g = torch.randint(2, y.shape, generator=generator, device="cpu").to(y.dtype) * 2 - 1
    return {"global flip": [(-z, y, J)], "gauge": [(z * g, y * g, gauge_transform(J, g))]}


def _relabellings(z: Tensor, y: Tensor, J: Graph, states: int) -> Moved:
    """With the swaps of two states and the cycles of all; what leaves the energy alone under these does under all."""
    same = torch.arange(states, dtype=torch.long, device="cpu")
    ways = [same.roll(step) for step in range(1, states)]
    for a, b in combinations(range(states), 2):
        swapped = same.clone()
        swapped[[a, b]] = same[[b, a]]
        ways.append(swapped)
    both = [(z[..., way], way.argsort()[y], J) for way in ways]
    return {"relabelling": [(z[..., way], y, J) for way in ways], "renaming": both}


def _gradient(energy: Callable[..., Tensor], z: Tensor, y: Tensor, J: Graph) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(energy(z, y, J).sum(), z)[0]


def _hessian(energy: Callable[..., Tensor], y: Tensor, J: Graph, states: int | None) -> Tensor:
    """Where all probabilities are equal, by central differences of the gradient."""
    each = torch.eye(y.numel(), dtype=torch.float64, device="cpu")
    if states is not None:  # adding a number to all logits of a spin changes no probability
        _, _, basis = torch.linalg.svd(torch.ones(1, states, dtype=torch.float64, device="cpu"))
        each = torch.kron(each, basis[1:].contiguous())
    step = 1e-4 * each.view(-1, *_certain(y, states).shape[1:])
    many = (y.expand(len(step), *y.shape[1:]), J[[0] * len(step)])
    change = (_gradient(energy, step, *many) - _gradient(energy, -step, *many)) / 2e-4
    return change.flatten(1) @ each.mT


def _arrivals(
    energy: Callable[..., Tensor], y: Tensor, J: Graph, generator: torch.Generator, states: int | None
) -> float:
    rows = torch.arange(len(y), device="cpu").repeat(STARTS)
    y, J = y[rows], J[rows]
    certain = _certain(y, states)
    z = torch.randn(certain.shape, generator=generator, dtype=certain.dtype, device="cpu").requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(STEPS):
        z.grad = _gradient(energy, z, y, J)
        optimizer.step()
    reached, wanted = (F.one_hot(_likeliest(x.detach(), states).flatten(1), states or 2) for x in (z, certain))
    # Which states stand for which: one each, if they are relabelled.
    together = (reached.mT @ wanted) > 0
    return float(((together.sum(1) <= 1) & (together.sum(2) <= 1)).all(1).double().mean())


def _states(energy: Callable[..., Tensor], y: Tensor, J: Graph, scale: float, states: int | None) -> tuple[int, float]:
    """Of all configurations: how many no change of one spin improves, and how far the lowest lies below the target."""
    q, spins = states or 2, y.numel()
    number, weight = torch.arange(q**spins, device="cpu")[:, None], q ** torch.arange(spins, device="cpu")
    digits = (number // weight) % q
    every = (1.0 - 2.0 * digits).to(y.dtype) if states is None else digits
    every = every.view(-1, *y.shape[1:])
    value = energy(_certain(every, states), y.expand_as(every), J[[0] * len(every)]).detach() / scale
    best = torch.stack([value[number + (state - digits) * weight].amin(1) for state in range(q)]).amin(0)
    below = float(energy(_certain(y, states), y, J)) / scale - float(value.min())
    return int((best >= value - 1e-9).sum()), max(0.0, below)


def _cost(energy: Callable[..., Tensor], z: Tensor, y: Tensor, J: Graph) -> float:
    def seconds(function: Callable[..., Tensor]) -> float:
        begin = time.perf_counter()
        _gradient(function, z, y, J)
        return time.perf_counter() - begin

    times = [(seconds(energy), seconds(CrossEntropy())) for _ in range(25)]
    return median(own for own, _ in times) / median(other for _, other in times)
