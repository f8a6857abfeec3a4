"""Ancestral sampling of molecules: a thousand small stochastic steps from noise to data, as EDM and the paper do it.

For two kinds of denoisers: the paper's `NoisePredictor`, and the `Denoiser` of the notebooks through `KarrasMolecules`,
so that both samplers can run on one trained network. Each step draws positions and features from their distribution
given the noisier ones and the denoised ones (`elf.generative.samplers.posterior`). The last level's x_hat is the
answer; EDM adds noise of sigma_0 / alpha_0 = 0.003 angstrom to it, which the paper's schedule has left there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from elf.checks import require_count
from elf.elements import ELEMENTS
from elf.generative.diffusion import TYPE_SCALE, Noisy
from elf.generative.noise_prediction import Clean, molecule_noise
from elf.generative.samplers import Level, levels_of, posterior
from elf.generative.sampling import Samples
from elf.generative.schedules import Schedule


@runtime_checkable
class MoleculeDenoiser(Protocol):
    """What the sampler asks for."""

    @property
    def schedule(self) -> Schedule:
        """The noise it was trained for."""
        ...

    @property
    def width(self) -> int:
        """Features an atom."""
        ...

    def denoise(self, positions: Tensor, features: Tensor, t: Tensor, mask: Tensor) -> Clean:
        """(batch, atoms, 3), (batch, atoms, width), (batch,), (batch, atoms) -> x_hat and the denoised features."""
        ...

    def decode(self, features: Tensor, mask: Tensor) -> Tensor:
        """Atomic numbers of denoised features, 0 for padding."""
        ...


class KarrasMolecules(nn.Module):
    """An `elf.generative.diffusion.Denoiser` as a `MoleculeDenoiser`; time is the noise level in angstrom."""

    def __init__(self, denoiser: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, schedule
        self.width = len(ELEMENTS)

    def denoise(self, positions: Tensor, features: Tensor, t: Tensor, mask: Tensor) -> Clean:
        """The features are the expected one-hots, times TYPE_SCALE."""
        clean = self.denoiser(Noisy(positions, features, t), mask)
        return Clean(clean.positions, TYPE_SCALE * clean.logits.softmax(dim=-1) * mask[..., None])

    def decode(self, features: Tensor, mask: Tensor) -> Tensor:
        """The likeliest element of each atom."""
        return torch.tensor(ELEMENTS, device=features.device)[features.argmax(dim=-1)] * mask


def ancestral_molecules(
    denoiser: MoleculeDenoiser,
    counts: Int[Tensor, " n"],
    generator: torch.Generator,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    frames: int = 0,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Samples:
    """Molecules by ancestral sampling (DDPM, Ho et al. 2020; EDM, arXiv:2203.17003, Alg. 2).

    Molecules of similar size share a batch; the answer is in the order of `counts`. One evaluation of the network a
    molecule and step, and one more where the schedule ends with noise left (the paper's does). The same generator state
    gives the same molecules, for the same `batch_size`.

    Args:
        denoiser: a trained network with its schedule.
        counts: number of atoms of each molecule wanted (`draw_counts`).
        generator: of all noise.
        steps: T; the paper's 1000.
        batch_size: molecules a batch.
        frames: keep x_hat at this many levels, evenly spread with the last among them, as `Samples.trajectory`.
        device: where to sample; default the generator's.
        progress: called with (steps done, steps in all) after each step; the steps of all batches count.

    Raises:
        ValueError: no molecules asked for, or one of fewer than one atom; steps, batch_size below 1; frames not in
            0..steps.
    """
    require_count("steps", steps)
    require_count("batch_size", batch_size)
    if counts.ndim != 1 or not len(counts) or int(counts.min()) < 1:
        raise ValueError(f"counts has shape {tuple(counts.shape)}; it should be (n,) with n >= 1 and entries >= 1")
    if not 0 <= frames <= steps:
        raise ValueError(f"frames is {frames}; it should be between 0 and steps={steps}")
    place = torch.device(device) if device is not None else generator.device
    counts = counts.cpu()
    atoms = int(counts.max())
    positions = torch.zeros(len(counts), atoms, 3, device=place)
    numbers = torch.zeros(len(counts), atoms, dtype=torch.int64, device=place)
    path = torch.zeros(frames, len(counts), atoms, 3, device=place) if frames else None
    parts = counts.argsort(stable=True).split(batch_size)
    with _evaluating(denoiser), torch.no_grad():
        for number, rows in enumerate(parts):
            size = int(counts[rows].max())
            mask = (torch.arange(size, device="cpu") < counts[rows, None]).to(place)

            def tell(done: int, before: int = number * steps) -> None:
                if progress is not None:
                    progress(before + done, len(parts) * steps)

            clean, kept = _descend(denoiser, mask, generator, steps, frames, tell)
            rows = rows.to(place)
            positions[rows, :size] = clean.positions
            numbers[rows, :size] = denoiser.decode(clean.features, mask)
            if path is not None:
                path[:, rows, :size] = torch.stack(kept)
    return Samples(positions, numbers, path)


def draw_counts(counts: Int[Tensor, " n"], samples: int, seed: int) -> Int[Tensor, " samples"]:
    """Sizes of `samples` molecules, drawn with replacement from those of a data set."""
    require_count("samples", samples)
    pick = torch.randint(len(counts), (samples,), generator=torch.Generator().manual_seed(seed))
    return counts.cpu()[pick]


def _descend(
    denoiser: MoleculeDenoiser,
    mask: Tensor,
    generator: torch.Generator,
    steps: int,
    frames: int,
    tell: Callable[[int], None],
) -> tuple[Clean, list[Tensor]]:
    """One batch from noise to data: the denoised molecule, and x_hat at some levels."""
    levels = levels_of(denoiser.schedule, steps, torch.device("cpu"), torch.float32)
    ends_clean = bool(levels[-1].sigma == 0)
    levels = [Level(*(part.to(mask.device) for part in level)) for level in levels]
    wanted = {(place + 1) * steps // frames - 1 for place in range(frames)}
    kept = []

    def ask(level: Level) -> Clean:
        return denoiser.denoise(*state, level.t.expand(len(mask)), mask)

    state = Clean(*(levels[0].sigma * noise for noise in molecule_noise(mask, denoiser.width, generator)))
    for done, (now, after) in enumerate(pairwise(levels)):
        clean = ask(now)
        if done in wanted:
            kept.append(clean.positions)
        noise = molecule_noise(mask, denoiser.width, generator)
        moved = []
        for old, hat, kick in zip(state, clean, noise, strict=True):
            mean, spread = posterior(old, hat, now, after)
            moved.append(mean + spread * kick)
        state = Clean(*moved)
        tell(done + 1)
    return (clean if ends_clean else ask(levels[-1])), kept


@contextmanager
def _evaluating(denoiser: Any) -> Any:
    """Dropout off, and the mode back to what it was; a denoiser that is no module has no modes."""
    module = denoiser if isinstance(denoiser, nn.Module) else None
    before = module.training if module is not None else False
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        if module is not None:
            module.train(before)
