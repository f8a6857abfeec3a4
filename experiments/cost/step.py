"""What share of a training step is the loss on positions? In the paper below 1 % (Table 10), for a large model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elf.generative.molecules import denoising_loss
from experiments.framework.experiment import Experiment
from experiments.framework.tables import format_mean, summarise_by, text_table
from experiments.molecules import small as molecules
from experiments.molecules.losses import LOSSES


@dataclass(frozen=True)
class Settings:
    """Timed repetitions a cell; the network, batch and molecules are those of `experiments.molecules.small`."""

    repetitions: int
    scale: str = "laptop"
    losses: tuple[str, ...] = ("mse", "kabsch", "energy", "sparse")


SETTINGS = {
    "smoke": Settings(repetitions=2, scale="smoke"),
    "live": Settings(repetitions=10),
    "laptop": Settings(repetitions=40),
    "paper": Settings(repetitions=10, scale="paper"),
}


def seconds(what: Callable[[], object], repetitions: int) -> float:
    """Median over repetitions, after one to warm up."""
    times = []
    for _ in range(repetitions + 1):
        begin = time.perf_counter()
        what()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def run_cell(
    settings: Settings, cell: dict[str, Any], workdir: Path, callbacks: Sequence[Callable[[Any], object]]
) -> dict[str, Any]:
    """Milliseconds of a step (forward, backward, clipping, AdamW) and of the loss alone, forward and backward."""
    where = molecules.SETTINGS[settings.scale]
    data = molecules.training_molecules(where)
    middle = data.counts.argsort(stable=True)[len(data) // 2 :][: where.batch_size]
    data = data[middle].trimmed()
    denoiser, energy = molecules.make_denoiser(where, cell["seed"]), LOSSES[cell["loss"]]()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(cell["seed"])

    def step() -> None:
        parts = denoising_loss(denoiser, energy, data.positions, data.numbers, generator)
        optimizer.zero_grad()
        (parts.positions + parts.features).backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), where.gradient_clip)
        optimizer.step()

    prediction = (data.positions + 0.3 * torch.randn(data.positions.shape, generator=generator)).requires_grad_()

    def loss() -> None:
        torch.autograd.grad(energy(prediction, data.positions, data.mask).mean(), prediction)

    whole, part = seconds(step, settings.repetitions), seconds(loss, settings.repetitions)
    return {
        "step_ms": round(1000 * whole, 3),
        "loss_ms": round(1000 * part, 4),
        "share": round(part / whole, 5),
        "parameters": sum(p.numel() for p in denoiser.parameters()),
    }


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One for every loss and seed."""
    return [{"loss": loss, "seed": seed} for seed in range(seeds) for loss in settings.losses]


def table(result: dict[str, Any]) -> str:
    """Milliseconds, and the share in per cent."""
    return text_table(
        [
            {
                "loss": row["loss"],
                "step (ms)": format_mean(row, "step_ms", 1),
                "loss (ms)": format_mean(row, "loss_ms", 2),
                "share (%)": format_mean(row, "share", 2, 100),
            }
            for row in result["summary"]
        ]
    )


EXPERIMENT = Experiment(
    name="molecule_step",
    title="The loss's share of a training step",
    settings=SETTINGS.__getitem__,
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "loss"),
    table=table,
)
