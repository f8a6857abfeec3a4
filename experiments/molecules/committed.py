"""The small trained denoisers that come with the repository, and what Table 3's figures say of their molecules.

The networks are seed 0 of `elf reproduce molecule_checkpoints`. Stability asks whether a molecule is possible; FCD, the
MMDs and the strain ask whether it is one of these molecules: do they look like the data, as a set and one by one? The
paper's Table 3 reports a worse FCD with exponential springs than without (1.495 against 0.854, for JODO); the
experiment "molecule_distributions" is the same question for these networks, with QM9 itself as the measure of what such
numbers mean. No training; a seed is another draw from the same network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from elf.generative.molecules import KarrasDenoiser
from elf.generative.samplers import Samples
from elf.metrics import molecules as metrics
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment, losses_and_seeds
from experiments.framework.published import Published
from experiments.framework.tables import mean_table, rounded, summarise_by
from experiments.molecules import small as molecules
from experiments.molecules.distribution_figures import distribution_figures

LOSSES = ("energy", "mse", "kabsch")


def training_settings() -> molecules.Settings:
    """What the networks were trained with."""
    return molecules.settings_of("molecule_checkpoints", "laptop")


PUBLISHED: Published[KarrasDenoiser] = Published(
    "molecules",
    {loss: f"molecule_checkpoints.laptop/loss={loss},*,seed=0" for loss in LOSSES},
    "elf reproduce molecule_checkpoints --scale laptop --seeds 3",
    lambda: molecules.make_denoiser(training_settings(), 0),
)

publish, trained = PUBLISHED.publish, PUBLISHED.trained


@dataclass(frozen=True)
class Settings:
    """Molecules drawn a seed; molecules of the test split to compare with; those PoseBusters and force field see."""

    samples: int
    reference: int
    checked: int
    sampler_steps: int = 50
    losses: tuple[str, ...] = (*LOSSES, "data")


SETTINGS = {
    "smoke": Settings(samples=6, reference=20, checked=3, sampler_steps=4, losses=("energy", "data")),
    "live": Settings(samples=200, reference=200, checked=50),
    "laptop": Settings(samples=1000, reference=2000, checked=200),
    "paper": Settings(samples=10_000, reference=13_083, checked=1000),
}


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Draw from the network trained with the loss, or take as many training molecules ("data"), and measure."""
    own = replace(training_settings(), samples=settings.samples, sampler_steps=settings.sampler_steps)
    if cell["loss"] == "data":
        data = molecules.training_molecules(own)
        generator = torch.Generator("cpu").manual_seed(cell["seed"])
        order = torch.randperm(len(data), generator=generator, device="cpu")
        some = data[order[: settings.samples]]
        samples = Samples(some.positions, some.numbers)
    else:
        samples = molecules.sample(trained(cell["loss"]), own, seed=cell["seed"])
    figures = {
        **metrics.evaluate(samples.positions, samples.numbers, training_smiles=molecules.training_smiles(own)),
        **distribution_figures(own.heavy_atoms, own.atoms, settings.reference, settings.checked, samples),
    }
    return rounded(figures)


COLUMNS = {
    "molecule_stability": ("stable (%)", 1, 100),
    "completeness": ("complete (%)", 1, 100),
    "fcd": ("FCD", 2, 1),
    "mmd_bond": ("MMD bonds", 3, 1),
    "mmd_angle": ("MMD angles", 3, 1),
    "mmd_dihedral": ("MMD dihedrals", 3, 1),
    "posebusters": ("PoseBusters (%)", 1, 100),
    "strain": ("strain (kcal/mol)", 1, 1),
}
"""Figure -> its heading, digits, factor."""


def table(result: dict[str, Any]) -> str:
    """Mean ± standard deviation over draws."""
    return mean_table(result["summary"], ["loss"], COLUMNS)


EXPERIMENT = Experiment(
    name="molecule_distributions",
    title="QM9, up to 7 heavy atoms: FCD, MMD, PoseBusters and strain of the committed networks' molecules",
    settings=partial(nearest, SETTINGS),
    cells=losses_and_seeds,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "loss"),
    table=table,
)
