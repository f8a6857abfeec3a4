"""How large the paper's models are, and how little of a training step the loss takes (Table 10's claim).

Parameters; floating-point operations of one molecule of 29 atoms; two steps of training at full size on a few small
molecules; and the share of a step that the loss on positions takes, forward and backward, on one CPU thread. The
paper's Table 10 has under 1 % on an L40S; `experiments.cost.step` asks the same of the notebooks' network.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from elf.data import qm9
from elf.energy import Energy
from elf.generative.molecules import NoisePredictor, denoising_loss
from experiments.framework.experiment import Experiment
from experiments.framework.tables import format_mean, summarise_by, text_table
from experiments.molecules import paper as paper_molecules
from experiments.molecules.paper_settings import LOSSES
from experiments.molecules.paper_tables import SETTINGS as TABLES


@dataclass(frozen=True)
class Settings:
    """Networks and sizes looked at; molecules in the timed batch, how often it is timed, atoms of the counted one."""

    models: tuple[str, ...] = ("gdm", "edm")
    sizes: tuple[str, ...] = ("laptop", "paper")
    losses: tuple[str, ...] = ("mse", "kabsch", "energy")
    batch_size: int = 32
    paper_batch_size: int = 8
    repeats: int = 10
    atoms: int = 29


SETTINGS = {
    "smoke": Settings(sizes=("smoke",), losses=("energy",), batch_size=2, repeats=1),
    "live": Settings(repeats=2, losses=("energy",)),
    "laptop": Settings(),
    "paper": Settings(batch_size=64, paper_batch_size=64),
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
    return {f"{name}_gflop": float(f"{value:.4g}") for name, value in counts.items()}


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

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {name: _median_time(run, repeats) for name, run in (("step", step), ("loss", loss))}
    finally:
        torch.set_num_threads(threads)
    share = times["loss"] / times["step"]
    return {**{f"{name}_ms": float(f"{1e3 * t:.4g}") for name, t in times.items()}, "loss_share": float(f"{share:.3g}")}


def _median_time(run: Callable[[], None], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def two_steps(model: str, size: str, loss: str) -> float:
    """The loss after two steps of training at this size on molecules of up to 7 atoms."""
    tiny = replace(TABLES["table2"][size], epochs=0, steps=2, batch_size=2, atoms=(3, 7), warmup_steps=0)
    record = paper_molecules.train(tiny, model, loss, seed=0, data=paper_molecules.TrainingSet(tiny))
    return record.history[-1]["loss"]


def run_cell(
    settings: Settings, cell: dict[str, Any], workdir: Path, callbacks: Sequence[Callable[[Any], object]]
) -> dict[str, Any]:
    """Build, count, time, and train two steps."""
    model, size, loss = cell["model"], cell["size"], cell["loss"]
    energy = LOSSES[loss].energy()
    predictor = paper_molecules.make_predictor(TABLES["table2"][size], model, 0)
    batch = settings.paper_batch_size if size == "paper" else settings.batch_size
    timed = loss_share(predictor, energy, batch, settings.repeats)
    return {
        "parameters": sum(parameter.numel() for parameter in predictor.parameters()),
        **timed,
        **count_flops(predictor, energy, settings.atoms),
        "batch_size": batch,
        "loss_after_two_steps": float(f"{two_steps(model, size, loss):.4g}"),
    }


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One for each network, size and loss; nothing here depends on a seed."""
    return [
        {"model": model, "size": size, "loss": loss}
        for model in settings.models
        for size in settings.sizes
        for loss in settings.losses
    ]


def table(result: dict[str, Any]) -> str:
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


EXPERIMENT = Experiment(
    name="paper_models",
    title="Sizes of the paper's models, and what the loss costs beside them (Table 10)",
    settings=SETTINGS.__getitem__,
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "model", "size", "loss", digits=10),
    table=table,
)
