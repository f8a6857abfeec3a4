"""Will this energy make a good loss? A report card of any energy, on targets of your own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from statistics import median
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_coordinates, require_finite, require_mask, require_occupied, require_seed
from elf.chemistry.xtb import reference_named
from elf.geometry import symmetry
from elf.geometry.alignment import align, random_rotations
from elf.geometry.distances import pairwise_distances
from elf.geometry.rigidity import rigid_motions
from elf.metrics.card import Card
from elf.metrics.spin_card import SpinCard, spin_card
from elf.spins.graph import Graph

EnergyCall = Callable[..., Tensor]
Reference = Callable[[int, Tensor], Tensor]
Pairs = list[tuple[Tensor, Tensor]]
NOISE = 0.2
"""Standard deviation of the displacements at which symmetries and agreements are looked at, in angstrom."""
ZERO_MODE = 1e-4
SOFT_MODE = 1e-2
"""Shares of a target's median stiffness below which a mode counts as free, and as soft."""


@dataclass(frozen=True)
class ReportCard(Card):
    """What an energy does, in numbers; `print` it for a table with a remark a line.

    Attributes:
        at_target: largest |E(y, y)|, over the median energy of targets displaced by 0.2 angstrom; 0 is right.
        ignores: the change of energy, relative to its median, when the prediction is moved: "translation", "rotation",
            "reflection"; below 1e-6 the energy does not see it.
        relabellings: of the relabellings that leave a target's distances as they are (equivalent atoms; the identity
            apart), how many the energy ignores, how many there are, and how many of these a rotation can undo: the
            others need a mirror.
        free_modes: the most zero modes of the Hessian at a target beyond its rigid motions.
        soft_share: share of the targets with a mode (rigid motions apart) softer than 1 % of the median mode.
        condition: stiffest over softest mode that is not free, the median over targets.
        softest: displacement (N, D) of the softest mode that is no rigid motion, of target `softest_target`.
        growth: exponent p of |gradient| ~ displacement^p between 1 and 100 angstrom: 0 is bounded, 1 a harmonic trap.
        steepest: largest |gradient| while one atom passes through another, over that at a displacement of 0.2 angstrom.
        kink: whether the gradient jumps on that way.
        dead_starts: |gradient| at "collapsed" (all atoms at a point) and out of the plane at "flat" (the target pressed
            flat) over that at a displacement of 0.2 angstrom: 0 is a start that never leaves.
        arrivals: share of random starts from which 500 steps of Adam find the target's distances within 0.1 angstrom.
        rank_correlation: Spearman's, with the reference energy over distortions of 0.1 angstrom, the median; or None.
        agreement: relative change of the value when computed "padded" (with a mask), "flat" (with a batch index), in
            "float32", in "bfloat16", "compiled", "vmapped"; or what was raised, in words.
        cost: time of value and gradient over that of mean squared error.
        stiffness: eigenvalues of the Hessian at each target, ascending, for a figure.
    """

    at_target: float
    ignores: dict[str, float]
    relabellings: tuple[int, int, int]
    free_modes: int
    soft_share: float
    condition: float
    softest: Float[Tensor, "atoms dim"]
    softest_target: int
    growth: float
    steepest: float
    kink: bool
    dead_starts: dict[str, float]
    arrivals: float
    rank_correlation: float | None
    agreement: dict[str, float | str]
    cost: float
    stiffness: list[Tensor]

    def as_dict(self) -> dict[str, Any]:
        """The numbers, JSON-able; without the tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in ("softest", "stiffness")}

    def rows(self) -> list[tuple[str, str, str]]:
        """(question, figure, remark) of each line of the table."""
        (kept, found, proper), free = self.relabellings, self.free_modes
        bounded = _said(self.growth, self.growth < 0.05, "bounded", "unbounded")
        rows = [("zero at the target", f"{self.at_target:.1e}", "yes" if self.at_target < 1e-6 else "NO")]
        rows += [(f"sees a {name}", f"{x:.1e}", _said(x, x > 1e-6, "yes", "no")) for name, x in self.ignores.items()]
        rows += [
            ("ignores relabelled equivalent atoms", f"{kept} of {found}", f"{proper} of them are rotations"),
            ("free modes beyond rigid motions", str(free), "some shapes cost nothing" if free else ""),
            ("targets with a soft mode", f"{self.soft_share:.0%}", "a mode below 1 % of the median"),
            ("condition number", f"{self.condition:.0f}", "stiffest over softest mode"),
            ("gradient grows as displacement to the", f"{self.growth:.2f}", bounded),
            ("steepest where atoms meet", f"{self.steepest:.3g}", "explodes" if self.steepest > 1e3 else ""),
            ("gradient jumps where atoms meet", str(self.kink), "a kink" if self.kink else "smooth"),
        ]
        rows += [
            (f"{name} start", f"{size:.2g}", "dead: no gradient leads out" if size < 1e-6 else "alive")
            for name, size in self.dead_starts.items()
        ]
        rows += [("random starts that arrive", f"{self.arrivals:.0%}", "")]
        if self.rank_correlation is not None:
            rows += [("rank correlation with the reference", f"{self.rank_correlation:.2f}", "")]
        for name, change in self.agreement.items():
            figure, remark = (change, "refused") if isinstance(change, str) else (f"{change:.1e}", "")
            rows += [(f"change when {name}", figure, remark)]
        return [*rows, ("cost against mean squared error", f"{self.cost:.1f}x", "value and gradient")]


@overload
def report_card(energy: EnergyCall, targets: Tensor, mask: Graph, *, seed: int = 0) -> SpinCard: ...
@overload
def report_card(
    energy: EnergyCall,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    reference: Reference | str | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
) -> ReportCard: ...
def report_card(
    energy: EnergyCall,
    targets: Tensor,
    mask: Tensor | Graph | None = None,
    *,
    reference: Reference | str | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
) -> ReportCard | SpinCard:
    """Try an energy on targets: symmetries, stiffness, gradients, starts, agreement of its calls, cost.

    Nothing is assumed of the energy but its call, `energy(prediction, target, mask)` -> one value a sample, and that
    autograd gives its gradient. Works on the CPU in float64, whatever the targets are in.

    Args:
        energy: an `Energy`, or any callable with its call.
        targets: coordinates y, (targets, atoms, dim), padded, in angstrom (or a unit of which 0.2 is the size of a
            distortion).
        mask: bool, (targets, atoms), True for real atoms; None if all are. Couplings of spins here (`Couplings` or
            `Graph` of `elf.spins`) ask for the card of an energy of spins (`elf.metrics.spin_card`), with targets +-1.
        reference: (number of the target, positions (S, N, D) of its real atoms) -> S energies that rank distortions,
            as a force field's (`lambda i, x: fields[i].energy(x)`, see `elf.chemistry.force_field`); or "gfn2", of
            uncharged molecules whose labels are atomic numbers (`elf.chemistry.xtb`, extra `xtb`).
        labels: atomic numbers (targets, atoms): only atoms of the same one count as equivalent.
        seed: of distortions, turns and starts.

    Raises:
        TypeError, ValueError: targets or mask are not as described; or what the energy itself raises.
    """
    if isinstance(mask, Graph):
        return spin_card(energy, targets, mask, seed)
    require_coordinates("targets", targets, 3)
    if mask is not None:
        require_mask(mask, targets)
        require_occupied(mask)
    require_finite("targets", targets, mask)
    seed = require_seed("seed", seed)
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape != targets.shape[:2]):
        raise ValueError(f"labels is {labels!r}; it should be a tensor {tuple(targets.shape[:2])}, one for each atom")
    if not (reference is None or isinstance(reference, str) or callable(reference)):
        raise TypeError(f"reference is {reference!r}; it should be a function of a target's number and positions")
    least = targets.shape[1] if mask is None else int(mask.sum(1).min())
    if least < 2:
        raise ValueError(f"targets has a sample of {least} atom; each should have at least 2")
    _require_energy(energy, targets, mask)
    y = targets.detach().cpu().double()
    real = torch.ones(y.shape[:2], dtype=torch.bool, device="cpu") if mask is None else mask.cpu()
    single = [sample[kept][None] for sample, kept in zip(y, real, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    noisy = [x + NOISE * torch.randn(x.shape, dtype=x.dtype, device="cpu", generator=generator) for x in single]
    pairs = list(zip(noisy, single, strict=True))
    scale = _typical([abs(float(energy(x, target))) for x, target in pairs])
    push = _typical([float(_gradient(energy, x, target).norm()) for x, target in pairs])

    kinds = None if labels is None else [label[kept] for label, kept in zip(labels.cpu(), real, strict=True)]
    reference = reference_named(reference, kinds) if isinstance(reference, str) else reference
    modes = [_modes(energy, target) for target in single]
    softest = min(range(len(modes)), key=lambda i: float(modes[i].internal[:1].sum() / modes[i].typical))
    meeting = [_meeting(energy, target) for target in single if target.shape[1] > 1]
    return ReportCard(
        at_target=_worst([abs(float(energy(target, target))) for target in single]) / scale,
        ignores=_changes(energy, pairs, scale, generator),
        relabellings=_relabellings(energy, pairs, scale, kinds),
        free_modes=max(mode.free for mode in modes),
        soft_share=sum(bool((mode.internal < SOFT_MODE * mode.typical).any()) for mode in modes) / len(modes),
        condition=median(mode.condition for mode in modes),
        softest=modes[softest].shape,
        softest_target=softest,
        growth=_growth(energy, single, generator),
        steepest=max((steep for steep, _ in meeting), default=0.0) / push,
        kink=any(kink for _, kink in meeting),
        dead_starts=_dead_starts(energy, single, push),
        arrivals=_arrivals(energy, y, real, generator),
        rank_correlation=None if reference is None else _ranks(energy, single, reference, generator),
        agreement=_agreement(energy, pairs, scale),
        cost=_cost(energy, pairs[0]),
        stiffness=[mode.all for mode in modes],
    )


def _worst(values: list[float]) -> float:
    """The largest; NaN where one is, which Python's own `max` may hide."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def _typical(values: list[float]) -> float:
    """The median of those that are finite, and no less than the smallest number."""
    return max(median([x for x in values if math.isfinite(x)] or [0.0]), torch.finfo(torch.float64).tiny)


def _said(figure: float, holds: bool, yes: str, no: str) -> str:
    return "not finite" if not math.isfinite(figure) else yes if holds else no


def _require_energy(energy: EnergyCall, targets: Tensor, mask: Tensor | None) -> None:
    """One value a sample, with a gradient: what a reduced loss, or a class not yet called, does not answer."""
    if not callable(energy) or isinstance(energy, type):
        raise TypeError(f"energy is {energy!r}; it should be called energy(prediction, target, mask)")
    x = targets.detach().clone().requires_grad_()
    value = energy(x, targets, mask)
    if not isinstance(value, Tensor) or value.shape != targets.shape[:1]:
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"energy answers with {found}; it should be one value a sample, {tuple(targets.shape[:1])}")
    if not value.requires_grad:
        raise ValueError("energy answers without a gradient; it should depend on the prediction differentiably")


def _gradient(energy: EnergyCall, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x, y, mask).sum(), x)[0]


def _changes(energy: EnergyCall, pairs: Pairs, scale: float, generator: torch.Generator) -> dict[str, float]:
    """The largest change of the energy under each kind of motion of the prediction, over the scale."""
    dim = pairs[0][0].shape[-1]
    turns = random_rotations(len(pairs), dim, generator, dtype=torch.float64)
    mirror = torch.tensor([-1.0] + [1.0] * (dim - 1), dtype=torch.float64, device="cpu")
    largest = dict.fromkeys(("translation", "rotation", "reflection"), 0.0)
    for (x, y), turn in zip(pairs, turns, strict=True):
        before = energy(x, y)
        moved = {"translation": x + 1.5, "rotation": x @ turn.mT, "reflection": (x @ turn.mT) * mirror}
        for name, after in moved.items():
            largest[name] = _worst([largest[name], float((energy(after, y) - before).abs()) / scale])
    return largest


def _relabellings(energy: EnergyCall, pairs: Pairs, scale: float, kinds: list[Tensor] | None) -> tuple[int, int, int]:
    kept = found = proper = 0
    for i, (x, y) in enumerate(pairs):
        distances = pairwise_distances(y[0])
        group = symmetry.automorphisms(distances, labels=None if kinds is None else kinds[i], tolerance=1e-3)[1:]
        before = energy(x, y)
        changes = [float((energy(x[:, p], y) - before).abs()) / scale for p in group]
        # Atoms are equivalent to a thousandth of an angstrom, and the energy cannot be more so than they are.
        kept, found = kept + sum(change < 0.02 for change in changes), found + len(group)
        errors = [(align(y, y[:, p]) - y).abs().max() for p in group]
        proper += sum(bool(error < 0.02) for error in errors)
    return kept, found, proper


@dataclass(frozen=True)
class _Modes:
    all: Tensor
    internal: Tensor
    typical: float
    free: int
    condition: float
    shape: Tensor


def _modes(energy: EnergyCall, target: Tensor) -> _Modes:
    """The Hessian at a target, by central differences of the gradient: right also where a gradient is an envelope's."""
    _, atoms, dim = target.shape
    size = atoms * dim
    step = 1e-4 * torch.eye(size, dtype=target.dtype, device=target.device).view(size, atoms, dim)
    both = torch.cat((target + step, target - step))
    forces = _gradient(energy, both, target.expand_as(both)).flatten(1)
    hessian = (forces[:size] - forces[size:]) / 2e-4
    hessian = (hessian + hessian.mT) / 2
    if not hessian.isfinite().all():
        raise ValueError("energy has a gradient that is not finite at a target; it should be finite there")
    rigid = rigid_motions(target[0])
    # Internal displacements only: what the rigid motions cost is another question.
    _, _, basis = torch.linalg.svd(rigid, full_matrices=True)
    inside = basis[len(rigid) :]
    values, vectors = torch.linalg.eigh(inside @ hessian @ inside.mT)
    typical = max(float(values.median()) if len(values) else 0.0, torch.finfo(values.dtype).tiny)
    free = int((values < ZERO_MODE * typical).sum())
    stiff = values[values >= ZERO_MODE * typical]
    softest = (vectors[:, 0] @ inside if len(values) else target.new_zeros(size)).view(atoms, dim)
    condition = float(stiff[-1] / stiff[0]) if len(stiff) else 1.0
    return _Modes(torch.linalg.eigvalsh(hessian), values, typical, free, condition, softest)


def _meeting(energy: EnergyCall, target: Tensor) -> tuple[float, bool]:
    """The largest gradient while the nearest two atoms pass through each other, and whether it jumps there."""
    distance = pairwise_distances(target[0]).fill_diagonal_(torch.inf)
    first, second = divmod(int(distance.argmin()), target.shape[1])
    along = target[0, second] - target[0, first]

    def forces(offsets: Tensor) -> Tensor:
        x = target.repeat(len(offsets), 1, 1)
        x[:, first] = target[0, second] + offsets[:, None] * along / along.norm().clamp_min(1e-6)
        return _gradient(energy, x, target.expand_as(x)).flatten(1)

    way = forces(torch.linspace(-0.3, 0.3, 62, dtype=target.dtype, device=target.device))
    steepest = float(way.norm(dim=1).nan_to_num(torch.inf).max())
    # A smooth gradient changes in proportion to the step; across a kink it changes as much however small the step.
    far, near = (forces(target.new_tensor([-step, step])).diff(dim=0).norm() for step in (1e-4, 1e-6))
    return steepest, not bool(near <= 0.5 * far + 1e-9 * way.norm(dim=1).mean())


def _growth(energy: EnergyCall, targets: list[Tensor], generator: torch.Generator) -> float:
    sizes = []
    for distance in (1.0, 100.0):
        generator.manual_seed(1)
        moved = [y + distance * torch.randn(y.shape, dtype=y.dtype, device="cpu", generator=generator) for y in targets]
        norms = [float(_gradient(energy, x, y).norm()) for x, y in zip(moved, targets, strict=True)]
        sizes.append(math.nan if any(map(math.isnan, norms)) else median(norms))
    return math.log10(sizes[1] / max(sizes[0], 1e-300)) / 2


def _dead_starts(energy: EnergyCall, targets: list[Tensor], push: float) -> dict[str, float]:
    collapsed, flat = [], []
    for y in targets:
        middle = y.mean(1, keepdim=True)
        collapsed.append(float(_gradient(energy, middle.expand_as(y).clone(), y).norm()) / push)
        _, _, axes = torch.linalg.svd(y - middle)
        normal = axes[0, -1]
        pressed = y - ((y - middle) @ normal)[..., None] * normal
        flat.append(float((_gradient(energy, pressed, y) @ normal).norm()) / push)
    # A flat target has nowhere to go from flat: the best of the targets tells.
    return {"collapsed": max(collapsed), "flat": max(flat)}


def _arrivals(energy: EnergyCall, y: Tensor, real: Tensor, generator: torch.Generator) -> float:
    spread = y[real].std()
    x = (spread * torch.randn(y.shape, dtype=y.dtype, device="cpu", generator=generator)).requires_grad_()
    steps = 500
    optimizer = torch.optim.Adam([x], lr=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        (x.grad,) = torch.autograd.grad(energy(x, y, real).sum(), x)
        x.grad.nan_to_num_(0, 0, 0)
        optimizer.step()
    pair = real[:, :, None] & real[:, None]
    error = (pairwise_distances(x.detach()) - pairwise_distances(y)).square() * pair
    return float(((error.sum((1, 2)) / pair.sum((1, 2))).sqrt() < 0.1).double().mean())


def _ranks(energy: EnergyCall, targets: list[Tensor], reference: Reference, generator: torch.Generator) -> float:
    """Spearman's rank correlation over 64 distortions of each target, the median. All of 0.1 angstrom: what is ranked
    is the kind of a distortion, not its size, which any energy tells."""
    correlations = []
    for i, y in enumerate(targets):
        x = y + 0.1 * torch.randn(64, *y.shape[1:], dtype=y.dtype, device="cpu", generator=generator)
        both = torch.stack((energy(x, y.expand_as(x)).detach(), reference(i, x).to(y.dtype)))
        ranks = both.argsort(1).argsort(1).to(y.dtype)
        correlations.append(float(torch.corrcoef(ranks)[0, 1]))
    return median(correlations)


def _agreement(energy: EnergyCall, pairs: Pairs, scale: float) -> dict[str, float | str]:
    x, y = pairs[0]
    value = energy(x, y)
    wide = [torch.cat((t, torch.full_like(t[:, :2], torch.nan)), 1) for t in (x, y)]
    mask = torch.arange(x.shape[1] + 2, device=x.device)[None] < x.shape[1]
    ways: dict[str, Callable[[], Tensor]] = {
        "padded": lambda: energy(*wide, mask),
        "flat": lambda: energy(x[0], y[0], batch=x.new_zeros(x.shape[1], dtype=torch.long)),
        "float32": lambda: energy(x.float(), y.float()),
        "bfloat16": lambda: energy(x.bfloat16(), y.bfloat16()),
        "compiled": lambda: torch.compile(lambda a, b: energy(a, b), backend="eager", fullgraph=True)(x, y),
        "vmapped": lambda: torch.func.vmap(lambda a, b: energy(a[None], b[None])[0])(x, y),
    }
    found: dict[str, float | str] = {}
    for name, call in ways.items():
        try:
            found[name] = float((call().double() - value).abs().max()) / scale
        except Exception as error:  # whatever a user's energy raises is the answer to the question
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]
    return found


def _cost(energy: EnergyCall, pair: tuple[Tensor, Tensor]) -> float:
    x, y = (t.float().expand(64, -1, -1).contiguous() for t in pair)

    def seconds(function: EnergyCall) -> float:
        begin = time.perf_counter()
        _gradient(function, x, y)
        return time.perf_counter() - begin

    times = [(seconds(energy), seconds(lambda a, b, _: (a - b).square().sum((1, 2)))) for _ in range(25)]
    return median(own for own, _ in times) / median(other for _, other in times)
