"""An experiment of a few milliseconds a cell; run as a script it reproduces itself, and can be killed."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from elf.training import FitSettings, fit, shuffled_batches
from experiments import EXPERIMENTS, Experiment, format_mean, reproduce, summarise_by, text_table


@dataclasses.dataclass(frozen=True)
class Settings:
    losses: tuple[str, ...] = ("mse", "mae")
    steps: int = 20


def settings(scale: str) -> Settings:
    return Settings(steps=int(os.environ.get("TOY_STEPS", {"smoke": 10, "live": 20, "gpu": 40}.get(scale, 30))))


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    return [{"loss": loss, "seed": seed} for loss in settings.losses for seed in range(seeds)]


def run_cell(settings: Settings, cell, workdir: Path, callbacks) -> dict[str, Any]:
    with open(workdir.parent / "calls.txt", "a") as file:
        file.write(f"{cell['loss']} {cell['seed']} {torch.get_num_threads()} {os.getpid()}\n")
    if os.environ.get("TOY_FAIL") == cell["loss"]:
        raise ArithmeticError("asked to fail")
    if os.environ.get("TOY_DIE") == cell["loss"]:
        os._exit(9)
    inputs = torch.linspace(-1, 1, 32)[:, None]
    pick = shuffled_batches(32, 8, seed=cell["seed"])

    def loss_fn(model, batch, generator):
        difference = model(batch) - 3 * batch
        return difference.square().mean() if cell["loss"] == "mse" else difference.abs().mean()

    def hang(state):
        if cell == {"loss": "mae", "seed": 0} and state.step == 6 and os.environ.get("TOY_HANG"):
            print("hanging", flush=True)
            time.sleep(60)

    with torch.random.fork_rng():
        torch.manual_seed(cell["seed"])
        model = nn.Linear(1, 1)
    fit_settings = FitSettings(
        settings.steps, 0.3, schedule="constant", seed=cell["seed"], checkpoint_every=5, accelerator="cpu"
    )
    seen: list[int] = []
    record = fit(
        model,
        loss_fn,
        lambda step: inputs[pick(step)],
        fit_settings,
        checkpoint=workdir / "run.safetensors",
        callbacks=[hang, lambda state: seen.append(state.step), *callbacks],
    )
    return {"error": round(abs(record.model.weight.item() - 3), 4), "first_step": min(seen, default=0)}


def table(result: dict[str, Any]) -> str:
    return text_table([{"loss": row["loss"], "error": format_mean(row, "error", 2)} for row in result["summary"]])


EXPERIMENT = Experiment(
    name="toy",
    title="A line is fitted",
    settings=settings,
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "loss"),
    table=table,
)

if __name__ == "__main__":
    EXPERIMENTS["toy"] = "toy_experiment"
    reproduce("toy", scale="smoke", seeds=2, workdir=sys.argv[1], output=sys.argv[2], threads=1)
