"""How little of a training step the loss on positions takes (Table 10: under 1 %), and how large the models are.

"paper_models": the paper's networks. Parameters; floating-point operations of one molecule of 29 atoms; two steps of
training at full size on a few small molecules; and the share of a step that the loss takes, forward and backward, on
one CPU thread. "molecule_step": that share for the notebooks' network, with the optimizer in the step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from elf.data import qm9
from elf.energy import Energy
from elf.generative.molecules import NoisePredictor, denoising_loss
from elf.scales import nearest
from experiments.cost.points import median_seconds, one_thread, significant
from experiments.framework.experiment import Callbacks, Cell, Experiment, grid, losses_and_seeds
from experiments.framework.tables import format_mean, mean_table, summarise_by, text_table
from experiments.molecules import losses, paper, paper_settings, small
from experiments.molecules.paper_tables import SETTINGS as TABLES

TABLE_2 = TABLES["table2"]


@dataclass(frozen=True)
class ModelSettings:
    """Networks and sizes looked at; molecules in the timed batch, how often it is timed, atoms of the counted one."""

    models: tuple[str, ...] = ("gdm", "edm")
    sizes: tuple[str, ...] = ("laptop", "paper")
    losses: tuple[str, ...] = ("mse", "kabsch", "energy")
    batch_size: int = 32
    paper_batch_size: int = 8
    repeats: int = 10
    atoms: int = 29


MODEL_SETTINGS = {
    "smoke": ModelSettings(sizes=("smoke",), losses=("energy",), batch_size=2, repeats=1),
    "live": ModelSettings(repeats=2, losses=("energy",)),
    "laptop": ModelSettings(),
    "paper": ModelSettings(batch_size=64, paper_batch_size=64),
}


def objective(
    predictor: NoisePredictor, energy: Energy, positions: Tensor, numbers: Tensor, generator: torch.Generator
) -> Tensor:
    """The loss of a training step, without its weight."""
    parts = denoising_loss(predictor, energy, positions, numbers, generator)
    return parts.positions + parts.features


def count_flops(predictor: NoisePredictor, energy: Energy, atoms: int) -> dict[str, float]:
    """10^9 operations (two a multiply-add of a matrix product) for one molecule: forward, and forward and backward."""
    x = torch.randn(1, atoms, 3, generator=torch.Generator().manual_seed(0))
    z = torch.ones(1, atoms, dtype=torch.long)
    counts = {}
    for name, backward in (("forward", False), ("step", True)):
        with FlopCounterMode(display=False) as counter:
            loss = objective(predictor, energy, x, z, torch.Generator().manual_seed(0))
            if backward:
                loss.backward()
        counts[name] = counter.get_total_flops() / 1e9
    return {f"{name}_gflop": significant(value) for name, value in counts.items()}


def loss_share(predictor: NoisePredictor, energy: Energy, batch: int, repeats: int) -> dict[str, float]:
    """Milliseconds of CPU time of a step (forward and backward) and of the loss on positions alone, and their ratio."""
    data = qm9.load(limit=batch, split="train")
    x, z = data.positions, data.numbers

    def step() -> None:
        predictor.zero_grad()
        objective(predictor, energy, x, z, torch.Generator().manual_seed(0)).backward()

    prediction = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()

    def loss() -> None:
        torch.autograd.grad(energy(prediction, x, z > 0).sum(), prediction)

    with one_thread():
        times = {name: median_seconds(run, repeats) for name, run in (("step", step), ("loss", loss))}
    share = times["loss"] / times["step"]
    return {**{f"{name}_ms": significant(1e3 * t) for name, t in times.items()}, "loss_share": significant(share, 3)}


def two_steps(model: str, size: str, loss: str) -> float:
    """The loss after two steps of training at this size on molecules of up to 7 atoms."""
    tiny = replace(TABLE_2[size], epochs=0, steps=2, batch_size=2, atoms=(3, 7), warmup_steps=0)
    record = paper.train(tiny, model, loss, seed=0, data=paper.TrainingSet(tiny))
    return record.history[-1]["loss"]


def model_cell(settings: ModelSettings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Build, count, time, and train two steps."""
    model, size, loss = cell["model"], cell["size"], cell["loss"]
    energy = paper_settings.LOSSES[loss].energy()
    predictor = paper.make_predictor(TABLE_2[size], model, 0)
    batch = settings.paper_batch_size if size == "paper" else settings.batch_size
    timed = loss_share(predictor, energy, batch, settings.repeats)
    return {
        "parameters": sum(parameter.numel() for parameter in predictor.parameters()),
        **timed,
        **count_flops(predictor, energy, settings.atoms),
        "batch_size": batch,
        "loss_after_two_steps": significant(two_steps(model, size, loss)),
    }


def model_cells(settings: ModelSettings, seeds: int) -> list[Cell]:
    """One for each network, size and loss; nothing here depends on a seed."""
    return grid(model=settings.models, size=settings.sizes, loss=settings.losses)


def model_table(result: dict[str, Any]) -> str:
    """Sizes, operations a molecule, and the loss's share of a step."""
    lines = [
        {
            **{key: row[key] for key in ("model", "size", "loss")},
            "parameters": f"{row['parameters']['mean']:,.0f}",
            "GFLOP forward": f"{row['forward_gflop']['mean']:.3g}",
            "GFLOP step": f"{row['step_gflop']['mean']:.3g}",
            "step ms": f"{row['step_ms']['mean']:.3g}",
            "loss ms": f"{row['loss_ms']['mean']:.3g}",
            "loss share %": format_mean(row, "loss_share", 2, 100).removesuffix(" (1)"),
        }
        for row in result["summary"]
    ]
    atoms, device = result["settings"]["atoms"], result["device"]
    return (
        f"{text_table(lines)}\nGFLOP: one molecule of {atoms} atoms. Times: one thread of {device}.\n"
        "paper (Table 10, L40S): step 168 ms, loss 0.18 (MSE), 1.14 (Kabsch), 0.51 (energy) ms: under 1 %"
    )


@dataclass(frozen=True)
class StepSettings:
    """Timed repetitions a cell; the network, batch and molecules are those of `experiments.molecules.small`."""

    repetitions: int
    scale: str = "laptop"
    losses: tuple[str, ...] = ("mse", "kabsch", "energy", "sparse")


STEP_SETTINGS = {
    "smoke": StepSettings(repetitions=2, scale="smoke"),
    "live": StepSettings(repetitions=10),
    "laptop": StepSettings(repetitions=40),
    "paper": StepSettings(repetitions=10, scale="paper"),
}


def step_cell(settings: StepSettings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Milliseconds of a step (forward, backward, clipping, AdamW) and of the loss alone, forward and backward."""
    where = small.SETTINGS[settings.scale]
    data = small.training_molecules(where)
    middle = data.counts.argsort(stable=True)[len(data) // 2 :][: where.batch_size]
    data = data[middle].trimmed()
    denoiser, energy = small.make_denoiser(where, cell["seed"]), losses.LOSSES[cell["loss"]]()
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

    whole, part = (median_seconds(run, settings.repetitions, time.perf_counter) for run in (step, loss))
    return {
        "step_ms": round(1000 * whole, 3),
        "loss_ms": round(1000 * part, 4),
        "share": round(part / whole, 5),
        "parameters": sum(p.numel() for p in denoiser.parameters()),
    }


def step_table(result: dict[str, Any]) -> str:
    """Milliseconds, and the share in per cent."""
    columns = {"step_ms": ("step (ms)", 1, 1), "loss_ms": ("loss (ms)", 2, 1), "share": ("share (%)", 2, 100)}
    return mean_table(result["summary"], ["loss"], columns)


EXPERIMENTS = {
    "paper_models": Experiment(
        name="paper_models",
        title="Sizes of the paper's models, and what the loss costs beside them (Table 10)",
        settings=partial(nearest, MODEL_SETTINGS),
        cells=model_cells,
        run_cell=model_cell,
        summarise=lambda rows: summarise_by(rows, "model", "size", "loss", digits=10),
        table=model_table,
    ),
    "molecule_step": Experiment(
        name="molecule_step",
        title="The loss's share of a training step",
        settings=partial(nearest, STEP_SETTINGS),
        cells=losses_and_seeds,
        run_cell=step_cell,
        summarise=lambda rows: summarise_by(rows, "loss"),
        table=step_table,
    ),
}
