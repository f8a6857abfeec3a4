"""Will this energy make a good loss? A report card of any energy, on targets of your own."""

from __future__ import annotations

from statistics import median
from typing import overload

import torch
from torch import Tensor

from elf.checks import require_coordinates, require_finite, require_mask, require_occupied, require_seed
from elf.chemistry.xtb import reference_named
from elf.energy.base import Energy
from elf.geometry.distances import checked_cell
from elf.metrics import probes
from elf.metrics.card import ReportCard
from elf.metrics.probes import SOFT_MODE, EnergyCall, Reference
from elf.metrics.spin_card import SpinCard, spin_card
from elf.spins.graph import Graph

NOISE = 0.2
"""Standard deviation of the displacements at which symmetries and agreements are looked at, in angstrom."""


@overload
def report_card(
    energy: EnergyCall, targets: Tensor, mask: Graph, *, states: int | None = None, seed: int = 0
) -> SpinCard: ...
@overload
def report_card(
    energy: EnergyCall,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    reference: Reference | str | None = None,
    labels: Tensor | None = None,
    cell: Tensor | None = None,
    seed: int = 0,
) -> ReportCard: ...
def report_card(
    energy: EnergyCall,
    targets: Tensor,
    mask: Tensor | Graph | None = None,
    *,
    reference: Reference | str | None = None,
    labels: Tensor | None = None,
    cell: Tensor | None = None,
    states: int | None = None,
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
            uncharged molecules whose labels are atomic numbers (`elf.chemistry.xtb`, extra `xtb`). With a cell, the
            function is given it as a third argument.
        labels: atomic numbers (targets, atoms): only atoms of the same one count as equivalent.
        cell: periods of space, as `PairEnergy` takes them: (D,) lengths of a box, or (D, D) vectors of a lattice as
            rows. An `Energy` that takes a cell is called with it; whatever else is called has to know it by itself.
            Displaced and random predictions are folded into the cell, distances are those to the nearest images. Asked
            is for translations, vectors of the lattice (another for each atom) and point reflections, in place of
            motions of free space; and translations are the only rigid motions.
        states: with couplings, q of Potts spins; the targets are then integers from 0 to q - 1.
        seed: of distortions, turns and starts.

    Raises:
        TypeError, ValueError: targets or mask are not as described; or what the energy itself raises.
    """
    if isinstance(mask, Graph):
        for name, given in (("reference", reference), ("labels", labels), ("cell", cell)):
            if given is not None:
                raise ValueError(f"{name} is given; an energy of spins has no use for it")
        return spin_card(energy, targets, mask, seed, states)
    if states is not None:
        raise ValueError(f"states is {states}; it should be given together with couplings, for spins")
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
    y = targets.detach().cpu().double()
    real = torch.ones(y.shape[:2], dtype=torch.bool, device="cpu") if mask is None else mask.cpu()
    y = y.masked_fill(~real[..., None], 0)
    if cell is not None:
        checked_cell(cell, targets)
        if isinstance(reference, str):
            raise ValueError(f"reference is {reference!r}; with a cell, it should be a function")
    space = probes.Space(None if cell is None else cell.detach().cpu().double())
    energy = _with_cell(energy, space.cell)
    _require_energy(energy, y, None if mask is None else real)
    single = [sample[kept][None] for sample, kept in zip(y, real, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    noise = [NOISE * torch.randn(x.shape, dtype=x.dtype, device="cpu", generator=generator) for x in single]
    pairs = [(space.folded(x + away), x) for x, away in zip(single, noise, strict=True)]
    scale = probes.typical([abs(float(energy(x, target))) for x, target in pairs])
    push = probes.typical([float(probes.gradient(energy, x, target).norm()) for x, target in pairs])

    kinds = None if labels is None else [label[kept] for label, kept in zip(labels.cpu(), real, strict=True)]
    reference = reference_named(reference, kinds) if isinstance(reference, str) else reference
    modes = [probes.modes(energy, target, space) for target in single]
    softest = min(range(len(modes)), key=lambda i: float(modes[i].internal[:1].sum() / modes[i].typical))
    meeting = [probes.meeting(energy, target, space) for target in single if target.shape[1] > 1]
    return ReportCard(
        at_target=probes.worst([abs(float(energy(target, target))) for target in single]) / scale,
        ignores=probes.changes(energy, pairs, scale, generator, space),
        relabellings=probes.relabellings(energy, pairs, scale, kinds, space),
        free_modes=max(mode.free for mode in modes),
        soft_share=sum(bool((mode.internal < SOFT_MODE * mode.typical).any()) for mode in modes) / len(modes),
        condition=median(mode.condition for mode in modes),
        softest=modes[softest].shape,
        softest_target=softest,
        growth=probes.growth(energy, single, generator),
        steepest=max((steep for steep, _ in meeting), default=0.0) / push,
        kink=any(kink for _, kink in meeting),
        dead_starts=probes.dead_starts(energy, single, push),
        arrivals=probes.arrivals(energy, y, real, push, generator, space),
        rank_correlation=None if reference is None else probes.ranks(energy, single, reference, generator, space),
        agreement=probes.agreement(energy, pairs, scale),
        cost=probes.cost(energy, pairs[0]),
        stiffness=[mode.all for mode in modes],
    )


def _with_cell(energy: EnergyCall, cell: Tensor | None) -> EnergyCall:
    if cell is None or not isinstance(energy, Energy) or energy.lacks("cell"):
        return energy
    return lambda *configuration, **flat: energy(*configuration, cell=cell, **flat)


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
