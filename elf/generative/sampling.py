"""Samplers: from noise to molecules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from elf.elements import ELEMENTS, VALENCE
from elf.generative.diffusion import TYPE_SCALE, Denoised, Noisy, centered_noise
from elf.generative.schedules import Karras

CHURN_ABOVE = 0.05
"""Angstrom (S_tmin of Alg. 2): below, fresh noise would only blur finished bonds."""

SETTLE_BELOW = 2.0
"""Angstrom. Types, one-hots of length `TYPE_SCALE`, are nearly decided here, and bonds are not."""


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
    closed_shell: bool = False,
    batch_size: int = 128,
    trajectory: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Heun's method for the probability flow dx/dsigma = (x - x_hat)/sigma, with fresh noise on the way if wanted.

    Karras et al. 2022, arXiv:2206.00364: Alg. 1 without churn, Alg. 2 with it. 2 steps - 1 evaluations of the network
    a molecule. The paper's own sampler, for any schedule, is `elf.generative.ancestral`.

    Molecules of similar size share a batch; the answer is in the order of `counts`. The same generator state gives the
    same molecules.

    Args:
        denoiser: an `elf.generative.diffusion.Denoiser`, or any module with its call.
        counts: number of atoms of each molecule wanted, for instance drawn from a data set's.
        schedule: gives the noise levels.
        generator: of the starting noise; its device is where sampling runs.
        steps: noise levels visited.
        churn: before each step the noise level is raised by this share with fresh noise (gamma of Alg. 2, at most
            sqrt(2) - 1), where it is above `CHURN_ABOVE`. Fresh noise lets later steps mend errors of earlier ones.
        closed_shell: settle the types when the noise falls below `SETTLE_BELOW`, and so that the valences of each
            molecule have an even sum (`closed_shell_types`). An odd sum leaves an unpaired electron wherever the atoms
            go. One more evaluation.
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
            batch = _Batch(denoiser, counts[rows].to(device), generator, closed_shell)
            x, z, frames = batch.heun(levels, churn)
            positions[rows, :size], numbers[rows, :size] = x, z
            if path is not None:
                path[:, rows, :size] = frames
            if progress is not None:
                progress(min(len(counts), int((numbers[:, 0] > 0).sum())), len(counts))
    finally:
        denoiser.train(was_training)
    return Samples(positions, numbers, path)


def closed_shell_types(
    logits: Float[Tensor, "batch atoms elements"], mask: Bool[Tensor, "batch atoms"]
) -> Float[Tensor, "batch atoms elements"]:
    """The likeliest types whose valences have an even sum in every molecule, as one-hots; zero where masked.

    Where the likeliest type of each atom gives an odd sum, the one change that costs least in probability and turns it
    even is made: H, N or F to C or O, or the other way round. A molecule without unpaired electrons has an even sum:
    each bond takes one valence from either side.
    """
    odd = torch.tensor([VALENCE[z] % 2 == 1 for z in ELEMENTS], device=logits.device)
    best = logits.argmax(dim=-1)
    top = logits.gather(-1, best[..., None])
    # The likeliest type of the other parity, and what it costs.
    other = logits.masked_fill(odd == odd[best][..., None], -torch.inf)
    cost = (top[..., 0] - other.amax(dim=-1)).masked_fill(~mask, torch.inf)
    wrong = (odd[best] & mask).sum(dim=1) % 2 == 1
    changed = (cost.argmin(dim=1)[:, None] == torch.arange(mask.shape[1], device=mask.device)) & wrong[:, None]
    chosen = torch.where(changed, other.argmax(dim=-1), best)
    return torch.nn.functional.one_hot(chosen, len(ELEMENTS)).to(logits.dtype) * mask[..., None]


class _Batch:
    """Molecules that are sampled together; their state is a pair (positions, types)."""

    def __init__(self, denoiser: nn.Module, counts: Tensor, generator: torch.Generator, closed_shell: bool) -> None:
        self.denoiser, self.generator, self.closed_shell = denoiser, generator, closed_shell
        self.settled: Tensor | None = None
        self.mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        self.elements = torch.tensor(ELEMENTS, device=counts.device)

    def fresh(self) -> tuple[Tensor, Tensor]:
        """Unit noise."""
        types = torch.randn(*self.mask.shape, len(ELEMENTS), generator=self.generator, device=self.mask.device)
        return centered_noise(self.mask, 3, self.generator), types * self.mask[..., None]

    def clean(self, x: Tensor, a: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Denoised]:
        """x_hat and the expected types."""
        answer = self.denoiser(Noisy(x, a, sigma.expand(len(x))), self.mask)
        if self.settled is not None:
            answer = answer._replace(logits=self.settled)
        return answer.positions, TYPE_SCALE * answer.logits.softmax(dim=-1) * self.mask[..., None], answer

    def settle(self, x: Tensor, a: Tensor, sigma: Tensor) -> Tensor:
        """Below `SETTLE_BELOW`, and once: the types become those of a closed shell. Returns the noisy types."""
        if self.settled is not None or not self.closed_shell or sigma > SETTLE_BELOW:
            return a
        one_hots = closed_shell_types(self.clean(x, a, sigma)[2].logits, self.mask)
        self.settled = 1e3 * one_hots  # logits that leave no doubt
        # As if noise had been added to these types all along.
        return TYPE_SCALE * one_hots + sigma * self.fresh()[1]

    def done(self, x: Tensor, answer: Denoised, frames: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return x, self.elements[answer.logits.argmax(dim=-1)] * self.mask, torch.stack(frames)

    @torch.no_grad()
    def heun(self, levels: Tensor, churn: float) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, atomic numbers, and x_hat at every level."""

        def slope(x: Tensor, a: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Denoised]:
            x_hat, a_hat, answer = self.clean(x, a, sigma)
            return (x - x_hat) / sigma, (a - a_hat) / sigma, answer

        positions, types = (levels[0] * noise for noise in self.fresh())
        frames = []
        for now, after in pairwise(levels):
            if churn and now > CHURN_ABOVE:
                more = now * math.sqrt((1 + churn) ** 2 - 1)
                noises = self.fresh()
                positions, types = (part + more * noise for part, noise in zip((positions, types), noises, strict=True))
                now = now * (1 + churn)
            types = self.settle(positions, types, now)
            dx, da, answer = slope(positions, types, now)
            frames.append(answer.positions)
            step = after - now
            x, a = positions + step * dx, types + step * da
            if after > 0:
                dx2, da2, answer = slope(x, a, after)
                x, a = positions + step * (dx + dx2) / 2, types + step * (da + da2) / 2
            positions, types = x, a
        return self.done(positions, answer, frames)
