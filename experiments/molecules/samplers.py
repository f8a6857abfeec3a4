"""Fast sampler against slow one, on the same trained network: stability against evaluations of the network.

The slow one is the paper's kind: a thousand ancestral steps, here on the noise levels of `Karras`, which the committed
denoiser knows. The fast one is Heun's method with fresh noise (Karras et al. 2022, arXiv:2206.00364). Same network (the
one trained with the energy loss), same sizes of molecules, no training.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from elf.data import qm9
from elf.generative.samplers import draw_counts, sample_molecules
from elf.metrics.molecules import Stability, stability
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import rounded, text_table
from experiments.molecules.committed import trained


@dataclass(frozen=True)
class Settings:
    """Molecules a seed; {sampler: numbers of steps}; the training set's size range; Heun's fresh noise."""

    samples: int
    heun: tuple[int, ...] = (10, 20, 40)
    ancestral: tuple[int, ...] = (80, 1000)
    loss: str = "energy"
    heavy_atoms: tuple[int, int] = (1, 7)
    atoms: tuple[int, int] = (5, 29)
    churn: float = 0.4


SETTINGS = {
    "smoke": Settings(samples=3, heun=(3,), ancestral=(5,)),
    "live": Settings(samples=50, heun=(10, 20), ancestral=(40, 80)),
    "laptop": Settings(samples=250),
    "paper": Settings(samples=10_000),
}


@cache
def _sizes(heavy_atoms: tuple[int, int], atoms: tuple[int, int]) -> Int[Tensor, " molecules"]:
    return qm9.load(heavy_atoms=heavy_atoms, atoms=atoms, split="train").counts


def evaluations(sampler: str, steps: int) -> int:
    """Evaluations of the network a molecule: two a Heun step but for the last, one an ancestral step."""
    return 2 * steps - 1 if sampler == "heun" else steps


def standard_errors(result: Stability) -> dict[str, float]:
    """Of both fractions, over the molecules drawn: the atoms of a molecule are not independent, molecules are."""
    n = len(result.molecule_stable)
    fraction = result.molecule_fraction
    sizes, stable = result.mask.sum(1).double(), result.atom_stable.sum(1).double()
    # The ratio of two sums: its error is that of the mean residual, over the mean size.
    residual = stable - result.atom_fraction * sizes
    return {
        "atom_error": float(residual.square().mean().sqrt() / (sizes.mean() * math.sqrt(n))),
        "molecule_error": math.sqrt(fraction * (1 - fraction) / n),
    }


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Sample with the trained network, and measure."""
    denoiser, seed = trained(settings.loss), cell["seed"]
    counts = draw_counts(_sizes(settings.heavy_atoms, settings.atoms), settings.samples, seed)
    generator = torch.Generator().manual_seed(seed)
    begin = time.process_time()
    churn = settings.churn if cell["sampler"] == "heun" else 0.0
    drawn = sample_molecules(denoiser, counts, generator, method=cell["sampler"], steps=cell["steps"], churn=churn)
    seconds = time.process_time() - begin
    result = stability(drawn.positions, drawn.numbers)
    figures = {
        "atom_stability": result.atom_fraction,
        "molecule_stability": result.molecule_fraction,
        **standard_errors(result),
    }
    return {
        **rounded(figures),
        "molecules": settings.samples,
        "network_evaluations": evaluations(cell["sampler"], cell["steps"]),
        "cpu_seconds": round(seconds, 2),
    }


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One for each sampler, number of steps and seed."""
    return [
        {"sampler": sampler, "steps": steps, "seed": seed}
        for sampler in ("heun", "ancestral")
        for steps in getattr(settings, sampler)
        for seed in range(seeds)
    ]


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seeds pooled: mean fractions, with the standard error over all molecules drawn."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["cell"]["sampler"], row["cell"]["steps"]), []).append(row["result"])
    summary = []
    for (sampler, steps), results in groups.items():
        k = len(results)
        line = {"sampler": sampler, "steps": steps, "molecules": sum(result["molecules"] for result in results)}
        for kind in ("atom", "molecule"):
            line[f"{kind}_stability"] = round(sum(result[f"{kind}_stability"] for result in results) / k, 5)
            line[f"{kind}_error"] = round(math.sqrt(sum(result[f"{kind}_error"] ** 2 for result in results)) / k, 5)
        line["network_evaluations"] = results[0]["network_evaluations"]
        line["cpu_ms_a_molecule"] = round(1e3 * sum(r["cpu_seconds"] for r in results) / line["molecules"], 1)
        summary.append(line)
    return summary


def table(result: dict[str, Any]) -> str:
    """Per cent ± standard error, and each sampler against the slowest: factor of evaluations, difference in errors."""
    slowest = max(result["summary"], key=lambda row: row["network_evaluations"])
    lines = []
    for row in result["summary"]:
        line = {key: row[key] for key in ("sampler", "steps", "network_evaluations", "molecules")}
        for kind in ("atom", "molecule"):
            line[f"{kind} stability"] = f"{100 * row[f'{kind}_stability']:.1f} ± {100 * row[f'{kind}_error']:.1f}"
        difference = row["molecule_stability"] - slowest["molecule_stability"]
        error = math.hypot(row["molecule_error"], slowest["molecule_error"])
        line["times fewer"] = f"{slowest['network_evaluations'] / row['network_evaluations']:.1f}"
        line["molecules: difference / its error"] = "-" if row is slowest or not error else f"{difference / error:+.1f}"
        lines.append(line)
    return text_table(lines)


EXPERIMENT = Experiment(
    name="samplers",
    title="Heun's method against a thousand ancestral steps, one trained network",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=summarise,
    table=table,
)
