"""Small QM9 molecules from one network trained with different losses at equal compute (Sec. 6.2, Tables 2 and 8).

A scaled-down version for one CPU core of the paper's comparison: the same question (same network, same steps, another
loss on positions), another network and another diffusion (see `elf.models.equivariant` and
`elf.generative.diffusion`), and molecules of 5 to 15 atoms. Compute is counted in optimizer steps, so that other work
on the machine changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from elf.data import qm9
from elf.data.molecules import Molecules
from elf.energy import AlignedHarmonic, Energy, Harmonic, PairEnergy, springs
from elf.experiments.base import Experiment
from elf.experiments.tables import format_mean, summarise_by, text_table
from elf.generative.diffusion import Denoiser, denoising_loss
from elf.generative.sampling import Samples, sample_molecules
from elf.generative.schedules import Karras
from elf.metrics import molecules as metrics
from elf.models.equivariant import EquivariantTransformer
from elf.training import FitSettings, TrainRecord, fit, save_weights, shuffled_batches

LOSSES: dict[str, Callable[[], Energy]] = {
    "mse": lambda: Harmonic(normalize="atoms"),
    "kabsch": lambda: AlignedHarmonic(normalize="atoms"),
    "energy": lambda: PairEnergy(springs.Exponential(k=5.0), normalize="atoms"),
}
"""The losses on positions. The springs' prefactor 5 brings the three to the same size at the start of training."""


@dataclass(frozen=True)
class Settings:
    """One scale of the comparison; `elf.experiments.molecule_rates` sweeps the learning rate."""

    steps: tuple[int, ...]
    samples: int
    losses: tuple[str, ...] = ("mse", "kabsch", "energy")
    learning_rates: tuple[float, ...] = (2e-3,)
    atoms: tuple[int, int] = (5, 15)
    batch_size: int = 32
    channels: int = 64
    heads: int = 4
    layers: int = 4
    warmup_steps: int = 100
    ema_decay: float = 0.998
    gradient_clip: float = 1.0
    sampler_steps: int = 60
    sampler_churn: float = 0.4


SETTINGS = {
    "smoke": Settings(
        steps=(3,), samples=4, batch_size=4, channels=16, heads=2, layers=1, warmup_steps=1, sampler_steps=3
    ),
    "live": Settings(steps=(500,), samples=100, sampler_steps=30),
    "laptop": Settings(steps=(5000,), samples=500),
    "paper": Settings(
        steps=(2_000_000,), samples=10_000, atoms=(3, 29), batch_size=512, channels=256, heads=8, layers=9
    ),
}


@cache
def training_molecules(atoms: tuple[int, int]) -> Molecules:
    """QM9's training molecules with this many atoms."""
    return qm9.load(atoms=atoms, split="train")


@cache
def training_smiles(atoms: tuple[int, int]) -> frozenset[str]:
    """Their canonical SMILES, for novelty."""
    return metrics.canonical_smiles(training_molecules(atoms).smiles)


def make_denoiser(settings: Settings, seed: int) -> Denoiser:
    """An untrained network; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(
            EquivariantTransformer(channels=settings.channels, heads=settings.heads, layers=settings.layers)
        )


def train(
    settings: Settings,
    energy: Energy,
    *,
    steps: int,
    seed: int,
    learning_rate: float | None = None,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callable[[Any], object]] = (),
) -> TrainRecord:
    """Train a denoiser with this energy as the loss on positions; everything else is the same for every energy."""
    molecules, schedule = training_molecules(settings.atoms), Karras()
    rows = shuffled_batches(len(molecules), settings.batch_size, seed)
    sizes = molecules.counts

    def batch(step: int) -> dict[str, torch.Tensor]:
        chosen = rows(step)
        widest = int(sizes[chosen].max())
        return {"positions": molecules.positions[chosen, :widest], "numbers": molecules.numbers[chosen, :widest]}

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        parts = denoising_loss(model, energy, batch["positions"], batch["numbers"].long(), generator, schedule)
        return parts.positions + parts.types

    fit_settings = FitSettings(
        steps=steps,
        learning_rate=learning_rate or settings.learning_rates[0],
        warmup_steps=min(settings.warmup_steps, steps),
        gradient_clip=settings.gradient_clip,
        ema_decay=settings.ema_decay,
        seed=seed,
        checkpoint_every=500,
    )
    return fit(make_denoiser(settings, seed), loss, batch, fit_settings, checkpoint=checkpoint, callbacks=callbacks)


def sample(
    denoiser: Denoiser, settings: Settings, *, n: int | None = None, seed: int = 0, trajectory: bool = False
) -> Samples:
    """Molecules from a trained denoiser, with sizes drawn from the training set."""
    device = next(denoiser.parameters()).device
    counts = training_molecules(settings.atoms).counts
    pick = torch.randint(len(counts), (n or settings.samples,), generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator(device).manual_seed(seed)
    return sample_molecules(
        denoiser,
        counts[pick],
        Karras(),
        generator,
        steps=settings.sampler_steps,
        churn=settings.sampler_churn,
        trajectory=trajectory,
    )


def run_cell(
    settings: Settings, cell: dict[str, Any], workdir: Path, callbacks: Sequence[Callable[[Any], object]]
) -> dict[str, Any]:
    """Train with one loss and seed, sample, and measure."""
    record = train(
        settings,
        LOSSES[cell["loss"]](),
        steps=cell["steps"],
        seed=cell["seed"],
        learning_rate=cell["learning_rate"],
        checkpoint=workdir / "training.safetensors",
        callbacks=callbacks,
    )
    assert isinstance(record.ema_model, Denoiser)
    save_weights(workdir / "weights.safetensors", record.ema_model, {"cell": str(cell)})
    samples = sample(record.ema_model, settings, seed=cell["seed"])
    measured = metrics.evaluate(samples.positions, samples.numbers, training_smiles=training_smiles(settings.atoms))
    losses = torch.tensor([row["loss"] for row in record.history])
    blocks = losses[: len(losses) // 50 * 50].view(-1, 50).mean(dim=1) if len(losses) >= 50 else losses
    return {
        **{name: None if value is None else round(value, 5) for name, value in measured.items()},
        "seconds": round(record.seconds, 1),
        "loss_curve": [round(float(value), 4) for value in blocks],
    }


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One run for every number of steps, loss, learning rate and seed."""
    return [
        {"loss": loss, "steps": steps, "learning_rate": rate, "seed": seed}
        for steps in settings.steps
        for seed in range(seeds)
        for loss in settings.losses
        for rate in settings.learning_rates
    ]


def table(result: dict[str, Any]) -> str:
    """Figures in per cent, mean ± standard deviation over seeds (number of seeds)."""
    columns = ("atom_stability", "molecule_stability", "validity", "uniqueness", "novelty")
    keys = ("loss", "steps", "learning_rate")
    return text_table(
        [
            {
                **{key: row[key] for key in keys},
                **{c: format_mean(row, c, 1, 100) if c in row else "-" for c in columns},
            }
            for row in result["summary"]
        ]
    )


EXPERIMENT = Experiment(
    name="molecules",
    title="QM9, 5 to 15 atoms: MSE, Kabsch and energy at equal compute",
    settings=SETTINGS.__getitem__,
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "loss", "steps", "learning_rate"),
    table=table,
)
