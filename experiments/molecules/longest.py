"""The best network that comes with the repository: what it draws, and in what time.

Its rule was set before it was trained: the mended energy, the equivariant network, 60,000 steps, seed 0, averaged
weights after the last step ("longest_equivariant"). No training here; a seed is another draw from the same network, so
that spreads are those of draws, not of networks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from elf.generative.molecules import KarrasDenoiser
from elf.metrics import molecules as metrics
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.published import Published
from experiments.framework.tables import mean_table, rounded, summarise_by
from experiments.molecules import gifts, small
from experiments.molecules.samplers import evaluations


def training_settings() -> small.Settings:
    """What the network was trained with."""
    return gifts.recipe_of(gifts.settings_of("longest_equivariant", "laptop"), "equivariant")


PUBLISHED: Published[KarrasDenoiser] = Published(
    "molecules_longest",
    {gifts.MENDED_BEST: f"longest_equivariant.laptop/*,loss={gifts.MENDED_BEST},*,seed=0"},
    "elf reproduce longest_equivariant --scale laptop --seeds 1",
    lambda: small.make_denoiser(training_settings(), 0),
)

publish = PUBLISHED.publish


def trained() -> KarrasDenoiser:
    """The network; see `Published.trained`."""
    return PUBLISHED.trained(gifts.MENDED_BEST)


@dataclass(frozen=True)
class Settings:
    """Molecules of a draw; steps of the sampler; the first seed: 0 is the draw of "longest_equivariant" itself."""

    samples: int
    sampler_steps: int = 50
    first_seed: int = 1


SETTINGS = {
    "smoke": Settings(samples=4, sampler_steps=3),
    "live": Settings(samples=100),
    "laptop": Settings(samples=1000),
    "paper": Settings(samples=10_000),
}


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One for each seed."""
    return [{"loss": gifts.MENDED_BEST, "seed": settings.first_seed + seed} for seed in range(seeds)]


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Draw, and measure: the figures of `metrics.evaluate`, and what the drawing took."""
    recipe = training_settings()
    denoiser, begin = trained(), time.process_time()
    own = replace(recipe, samples=settings.samples, sampler_steps=settings.sampler_steps)
    drawn = small.sample(denoiser, own, seed=cell["seed"])
    seconds = time.process_time() - begin
    figures = metrics.evaluate(drawn.positions, drawn.numbers, training_smiles=small.training_smiles(recipe))
    used = {"network_evaluations": evaluations("heun", settings.sampler_steps), "cpu_seconds": round(seconds, 1)}
    return {**rounded(figures), **used}


COLUMNS = {
    "atom_stability": ("stable atoms (%)", 1, 100),
    "molecule_stability": ("molecules (%)", 1, 100),
    "stable_connected": ("stable in one piece (%)", 1, 100),
    "novelty": ("novel (%)", 1, 100),
    "network_evaluations": ("evaluations", 0, 1),
    "cpu_seconds": ("seconds of one core", 1, 1),
}
"""Figure -> its heading, digits, factor."""

EXPERIMENT = Experiment(
    name="longest_drawn",
    title="QM9, up to 7 heavy atoms: what the network of the longest training draws, and in what time",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "loss"),
    table=lambda result: mean_table(result["summary"], ["loss"], COLUMNS),
)
