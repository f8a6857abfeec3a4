"""Samplers: from noise to molecules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from elf.elements import ELEMENTS
from elf.generative.diffusion import TYPE_SCALE, Denoised, Noisy, centered_noise
from elf.generative.schedules import Karras

CHURN_ABOVE = 0.05
"""Angstrom (S_tmin of Alg. 2): below, fresh noise would only blur finished bonds."""


@dataclass(frozen=True)
class Samples:
    """Sampled molecules in the layout of `elf.data.qm9.Molecules`: angstrom, atomic numbers, zero-padded.

    trajectory: (levels, n, atoms, 3), the denoised positions x_hat at every noise level; None unless asked for.
    """

    positions: Float[Tensor, "n atoms 3"]
    numbers: Int[Tensor, "n atoms"]
    trajectory: Float[Tensor, "levels n atoms 3"] | None = None


def sample_molecules(
    denoiser: nn.Module,
    counts: Int[Tensor, "*n"],
    schedule: Karras,
    generator: torch.Generator,
    *,
    steps: int = 40,
    churn: float = 0.0,
    batch_size: int = 128,
    trajectory: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Heun's method for the probability flow dx/dsigma = (x - x_hat)/sigma, with fresh noise on the way if wanted.

    Karras et al. 2022, arXiv:2206.00364: Alg. 1 without churn, Alg. 2 with it. 2 steps - 1 evaluations of the network
    a molecule. Molecules of similar size share a batch; the answer is in the order of `counts`. The same generator
    state gives the same molecules.

    Args:
        denoiser: an `elf.generative.diffusion.Denoiser`, or any module with its call.
        counts: number of atoms of each molecule wanted, for instance drawn from a data set's.
        schedule: gives the noise levels.
        generator: of the starting noise; its device is where sampling runs.
        steps: noise levels visited.
        churn: before each step the noise level is raised by this share with fresh noise (gamma of Alg. 2, at most
            sqrt(2) - 1), where it is above `CHURN_ABOVE`. Fresh noise lets later steps mend errors of earlier ones.
        batch_size: molecules a batch.
        trajectory: keep the positions of every step.
        progress: called with (molecules done, molecules in all) after every batch.

    Raises:
        ValueError: no molecules asked for, or one of fewer than one atom; churn out of range.
    """
    if not 0 <= churn <= math.sqrt(2) - 1:
        raise ValueError(f"churn is {churn!r}; it should be between 0 and sqrt(2) - 1 = 0.414")
    if counts.ndim != 1 or not len(counts) or int(counts.min()) < 1:
        raise ValueError(f"counts has shape {tuple(counts.shape)}; it should be (n,) with n >= 1 and entries >= 1")
    device, atoms = generator.device, int(counts.max())
    levels = schedule.grid(steps, device)
    positions = torch.zeros(len(counts), atoms, 3, device=device)
    numbers = torch.zeros(len(counts), atoms, dtype=torch.int64, device=device)
    path = torch.zeros(steps, len(counts), atoms, 3, device=device) if trajectory else None
    order = counts.argsort(stable=True)
    was_training = denoiser.training
    denoiser.eval()
    try:
        for rows in order.split(batch_size):
            size = int(counts[rows].max())
            x, z, frames = _heun(denoiser, counts[rows].to(device), levels, generator, churn)
            positions[rows, :size], numbers[rows, :size] = x, z
            if path is not None:
                path[:, rows, :size] = frames
            if progress is not None:
                progress(min(len(counts), int((numbers[:, 0] > 0).sum())), len(counts))
    finally:
        denoiser.train(was_training)
    return Samples(positions, numbers, path)


@torch.no_grad()
def _heun(
    denoiser: nn.Module, counts: Tensor, levels: Tensor, generator: torch.Generator, churn: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch: positions, atomic numbers, and x_hat at every level."""
    mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
    elements = torch.tensor(ELEMENTS, device=counts.device)

    def fresh() -> tuple[Tensor, Tensor]:
        types = torch.randn(*mask.shape, len(ELEMENTS), generator=generator, device=counts.device)
        return centered_noise(mask, 3, generator), types * mask[..., None]

    def slope(x: Tensor, a: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Denoised]:
        clean = denoiser(Noisy(x, a, sigma.expand(len(x))), mask)
        clean_types = TYPE_SCALE * clean.logits.softmax(dim=-1) * mask[..., None]
        return (x - clean.positions) / sigma, (a - clean_types) / sigma, clean

    positions, types = (levels[0] * noise for noise in fresh())
    frames = []
    for now, after in pairwise(levels):
        if churn and now > CHURN_ABOVE:
            more = now * math.sqrt((1 + churn) ** 2 - 1)
            positions, types = (part + more * noise for part, noise in zip((positions, types), fresh(), strict=True))
            now = now * (1 + churn)
        dx, da, clean = slope(positions, types, now)
        frames.append(clean.positions)
        step = after - now
        x, a = positions + step * dx, types + step * da
        if after > 0:
            dx2, da2, clean = slope(x, a, after)
            x, a = positions + step * (dx + dx2) / 2, types + step * (da + da2) / 2
        positions, types = x, a
    return positions, elements[clean.logits.argmax(dim=-1)] * mask, torch.stack(frames)
