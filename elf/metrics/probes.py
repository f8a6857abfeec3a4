"""How the figures of a report card are measured: a function for each of its questions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elf.geometry import symmetry
from elf.geometry.alignment import align, random_rotations
from elf.geometry.distances import cross_distances, nearest_image
from elf.geometry.rigidity import rigid_motions

EnergyCall = Callable[..., Tensor]
Reference = Callable[..., Tensor]
Pairs = list[tuple[Tensor, Tensor]]
ZERO_MODE = 1e-4
SOFT_MODE = 1e-2
"""Shares of a target's median stiffness below which a mode counts as free, and as soft."""


class Space(NamedTuple):
    """Where targets are: free space; or a periodic cell, (D,) lengths of a box or (D, D) vectors of a lattice."""

    cell: Tensor | None = None

    def lattice(self) -> Float[Tensor, "dim dim"] | None:
        """The vectors of the lattice, as rows."""
        return torch.diag(self.cell) if self.cell is not None and self.cell.ndim == 1 else self.cell

    def folded(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The images of all atoms that lie in the cell."""
        lattice = self.lattice()
        return x if lattice is None else (x @ torch.linalg.inv(lattice)).remainder(1) @ lattice

    def distances(self, x: Float[Tensor, "*batch atoms dim"]) -> Float[Tensor, "*batch atoms atoms"]:
        """Those to the nearest images."""
        return cross_distances(x, x, self.cell)

    def start(self, y: Tensor, real: Tensor, generator: torch.Generator) -> Tensor:
        """Random atoms: as widely spread as those of the targets, or anywhere in the cell."""
        lattice, x = self.lattice(), torch.empty_like(y)
        if lattice is None:
            return y[real].std() * x.normal_(generator=generator)
        return x.uniform_(generator=generator) @ lattice

    def rigid_motions(self, x: Float[Tensor, "atoms dim"]) -> Float[Tensor, "motions coordinates"]:
        """An orthonormal basis of translations and, in free space, rotations."""
        if self.cell is None:
            return rigid_motions(x)
        return torch.eye(x.shape[1], dtype=x.dtype, device=x.device).repeat(1, len(x)) / len(x) ** 0.5

    def is_moved(self, x: Tensor, y: Tensor) -> bool:
        """Whether a proper motion, in a cell a translation, takes x to y, both (1, atoms, dim)."""
        if self.cell is None:
            return bool((align(y, x) - y).abs().max() < ALIKE)
        step = nearest_image(x - y, self.cell)
        return bool(nearest_image(step - step[:, :1], self.cell).abs().max() < ALIKE)

    def motions(self, count: int, dim: int, generator: torch.Generator) -> dict[str, Callable[[Tensor, int], Tensor]]:
        """What an energy might ignore: of x and the number of a target, x moved."""
        if (lattice := self.lattice()) is not None:

            def by_lattice_vectors(x: Tensor, _: int) -> Tensor:
                steps = torch.randint(-2, 3, x.shape, generator=generator, device="cpu")
                return x + steps.to(x.dtype) @ lattice

            return {
                "translation": lambda x, _: self.folded(x + 1.5),
                "lattice vector": by_lattice_vectors,
                "point reflection": lambda x, _: -x,
            }
        turns = random_rotations(count, dim, generator, dtype=torch.float64)
        mirror = torch.tensor([-1.0] + [1.0] * (dim - 1), dtype=torch.float64, device="cpu")
        return {
            "translation": lambda x, _: x + 1.5,
            "rotation": lambda x, i: x @ turns[i].mT,
            "reflection": lambda x, i: (x @ turns[i].mT) * mirror,
        }


FREE = Space()
ALIKE = 0.02
"""Angstrom that a motion may leave between equivalent atoms, equivalent to a thousandth of one; and the share of its
scale that the energy may see of it."""


def worst(values: list[float]) -> float:
    """The largest; NaN where one is, which Python's own `max` may hide."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def typical(values: list[float]) -> float:
    """The median of those that are finite, and no less than the smallest number."""
    return max(median([x for x in values if math.isfinite(x)] or [0.0]), torch.finfo(torch.float64).tiny)


def gradient(energy: EnergyCall, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Of the sum over samples, to the prediction x."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x, y, mask).sum(), x)[0]


def changes(
    energy: EnergyCall, pairs: Pairs, scale: float, generator: torch.Generator, space: Space = FREE
) -> dict[str, float]:
    """The largest change of the energy under each kind of motion of the prediction, over the scale."""
    motions = space.motions(len(pairs), pairs[0][0].shape[-1], generator)
    found: dict[str, list[float]] = {name: [] for name in motions}
    for i, (x, y) in enumerate(pairs):
        before = energy(x, y)
        for name, move in motions.items():
            found[name].append(float((energy(move(x, i), y) - before).abs()) / scale)
    return {name: worst(values) for name, values in found.items()}


def relabellings(
    energy: EnergyCall, pairs: Pairs, scale: float, kinds: list[Tensor] | None, space: Space = FREE
) -> tuple[int, int, int]:
    """Of the relabellings that leave distances alone: those ignored, all, and those that a proper motion undoes."""
    kept = found = proper = 0
    for i, (x, y) in enumerate(pairs):
        labels = None if kinds is None else kinds[i]
        group = symmetry.automorphisms(space.distances(y[0]), labels=labels, tolerance=1e-3)[1:]
        before = energy(x, y)
        kept += sum(float((energy(x[:, p], y) - before).abs()) / scale < ALIKE for p in group)
        found += len(group)
        proper += sum(space.is_moved(y[:, p], y) for p in group)
    return kept, found, proper


@dataclass(frozen=True)
class Modes:
    """Stiffnesses at a target: all, and those of internal displacements, with the shape of the softest of these."""

    all: Tensor
    internal: Tensor
    typical: float
    free: int
    condition: float
    shape: Tensor


def modes(energy: EnergyCall, target: Tensor, space: Space = FREE) -> Modes:
    """The Hessian at a target, by central differences of the gradient: right also where a gradient is an envelope's."""
    _, atoms, dim = target.shape
    size = atoms * dim
    step = 1e-4 * torch.eye(size, dtype=target.dtype, device=target.device).view(size, atoms, dim)
    both = torch.cat((target + step, target - step))
    forces = gradient(energy, both, target.expand_as(both)).flatten(1)
    hessian = (forces[:size] - forces[size:]) / 2e-4
    hessian = (hessian + hessian.mT) / 2
    if not hessian.isfinite().all():
        raise ValueError("energy has a gradient that is not finite at a target; it should be finite there")
    rigid = space.rigid_motions(target[0])
    # Internal displacements only: what the rigid motions cost is another question.
    _, _, basis = torch.linalg.svd(rigid, full_matrices=True)
    inside = basis[len(rigid) :]
    values, vectors = torch.linalg.eigh(inside @ hessian @ inside.mT)
    typical = max(float(values.median()) if len(values) else 0.0, torch.finfo(values.dtype).tiny)
    free = int((values < ZERO_MODE * typical).sum())
    stiff = values[values >= ZERO_MODE * typical]
    softest = (vectors[:, 0] @ inside if len(values) else target.new_zeros(size)).view(atoms, dim)
    condition = float(stiff[-1] / stiff[0]) if len(stiff) else 1.0
    return Modes(torch.linalg.eigvalsh(hessian), values, typical, free, condition, softest)


def meeting(energy: EnergyCall, target: Tensor, space: Space = FREE) -> tuple[float, bool]:
    """The largest gradient while the nearest two atoms pass through each other, and whether it jumps there."""
    distance = space.distances(target[0]).fill_diagonal_(torch.inf)
    first, second = divmod(int(distance.argmin()), target.shape[1])
    along = nearest_image(target[0, second] - target[0, first], space.cell)

    def forces(offsets: Tensor) -> Tensor:
        x = target.repeat(len(offsets), 1, 1)
        x[:, first] = target[0, first] + along + offsets[:, None] * along / along.norm().clamp_min(1e-6)
        return gradient(energy, x, target.expand_as(x)).flatten(1)

    way = forces(torch.linspace(-0.3, 0.3, 62, dtype=target.dtype, device=target.device))
    steepest = float(way.norm(dim=1).nan_to_num(torch.inf).max())
    # A smooth gradient changes in proportion to the step; across a kink it changes as much however small the step.
    far, near = (forces(target.new_tensor([-step, step])).diff(dim=0).norm() for step in (1e-4, 1e-6))
    return steepest, not bool(near <= 0.5 * far + 1e-9 * way.norm(dim=1).mean())


def growth(energy: EnergyCall, targets: list[Tensor], generator: torch.Generator) -> float:
    """The exponent of |gradient| between displacements of 1 and 100 angstrom."""
    sizes = []
    for distance in (1.0, 100.0):
        generator.manual_seed(1)
        moved = [y + distance * torch.randn(y.shape, dtype=y.dtype, device="cpu", generator=generator) for y in targets]
        norms = [float(gradient(energy, x, y).norm()) for x, y in zip(moved, targets, strict=True)]
        sizes.append(math.nan if any(map(math.isnan, norms)) else median(norms))
    return math.log10(sizes[1] / max(sizes[0], 1e-300)) / 2


def dead_starts(energy: EnergyCall, targets: list[Tensor], push: float) -> dict[str, float]:
    """|gradient| where all atoms are in one place, and out of the plane where they lie flat, over a usual one."""
    collapsed, flat = [], []
    for y in targets:
        middle = y.mean(1, keepdim=True)
        collapsed.append(float(gradient(energy, middle.expand_as(y).clone(), y).norm()) / push)
        _, _, axes = torch.linalg.svd(y - middle)
        normal = axes[0, -1]
        pressed = y - ((y - middle) @ normal)[..., None] * normal
        flat.append(float((gradient(energy, pressed, y) @ normal).norm()) / push)
    # A flat target has nowhere to go from flat: the best of the targets tells.
    return {"collapsed": max(collapsed), "flat": max(flat)}


def arrivals(
    energy: EnergyCall, y: Tensor, real: Tensor, push: float, generator: torch.Generator, space: Space = FREE
) -> float:
    """The share of random starts from which Adam, given gradients over a usual one, finds the targets' distances."""
    x = space.start(y, real, generator).requires_grad_()
    steps = 500
    optimizer = torch.optim.Adam([x], lr=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        x.grad = (gradient(energy, x, y, real) / push).nan_to_num(0, 0, 0)
        optimizer.step()
    pair = real[:, :, None] & real[:, None]
    error = (space.distances(x.detach()) - space.distances(y)).square() * pair
    return float(((error.sum((1, 2)) / pair.sum((1, 2))).sqrt() < 0.1).double().mean())


def ranks(
    energy: EnergyCall, targets: list[Tensor], reference: Reference, generator: torch.Generator, space: Space = FREE
) -> float:
    """Spearman's rank correlation over 64 distortions of each target, the median. All of 0.1 angstrom: what is ranked
    is the kind of a distortion, not its size, which any energy tells."""
    correlations = []
    for i, y in enumerate(targets):
        x = y + 0.1 * torch.randn(64, *y.shape[1:], dtype=y.dtype, device="cpu", generator=generator)
        x = space.folded(x)
        true = reference(i, x) if space.cell is None else reference(i, x, space.cell)
        both = torch.stack((energy(x, y.expand_as(x)).detach(), true.to(y.dtype)))
        correlations.append(float(torch.corrcoef(both.argsort(1).argsort(1).to(y.dtype))[0, 1]))
    return median(correlations)


def agreement(energy: EnergyCall, pairs: Pairs, scale: float) -> dict[str, float | str]:
    """By how much ways to call the energy differ, over the scale; or what was raised."""
    x, y = pairs[0]
    value = energy(x, y)
    wide = [torch.cat((t, torch.full_like(t[:, :2], torch.nan)), 1) for t in (x, y)]
    mask = torch.arange(x.shape[1] + 2, device=x.device)[None] < x.shape[1]

    def alone(prediction: Tensor, target: Tensor) -> Tensor:
        return energy(prediction, target)

    # Compilations are counted by code object: with one for all cards of a process, the ninth energy would be refused.
    alone.__code__ = alone.__code__.replace()
    ways: dict[str, Callable[[], Tensor]] = {
        "padded": lambda: energy(*wide, mask),
        "flat": lambda: energy(x[0], y[0], batch=x.new_zeros(x.shape[1], dtype=torch.long)),
        "float32": lambda: energy(x.float(), y.float()),
        "bfloat16": lambda: energy(x.bfloat16(), y.bfloat16()),
        "compiled": lambda: torch.compile(alone, backend="eager", fullgraph=True)(x, y),
        "vmapped": lambda: torch.func.vmap(lambda a, b: energy(a[None], b[None])[0])(x, y),
    }
    found: dict[str, float | str] = {}
    for name, call in ways.items():
        try:
            found[name] = float((call().double() - value).abs().max()) / scale
        except Exception as error:  # whatever a user's energy raises is the answer to the question
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]
    return found


def cost(energy: EnergyCall, pair: tuple[Tensor, Tensor]) -> float:
    """Time of value and gradient over that of mean squared error."""
    x, y = (t.float().expand(64, -1, -1).contiguous() for t in pair)

    def seconds(function: EnergyCall) -> float:
        begin = time.perf_counter()
        gradient(function, x, y)
        return time.perf_counter() - begin

    times = [(seconds(energy), seconds(lambda a, b, _: (a - b).square().sum((1, 2)))) for _ in range(25)]
    return median(own for own, _ in times) / median(other for _, other in times)
