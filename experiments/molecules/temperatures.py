"""Out of equilibrium: does the energy's lead survive where data are no minima? Small QM9 molecules from 0 to 3000 K.

The energy's springs rest at the distances of the datum, as if it were the minimum of an energy. Of a hot molecule that
is not so, and nothing tells the loss. The same molecules at four temperatures of MMFF94
(`experiments.molecules.heated`), the network without symmetry on molecules turned at random, and its recipe in
`experiments.molecules.gifts`, half as long. EDM's bond table is made for minima, and finds most hot molecules unstable,
the data first: so it is also relaxed before it is judged (`experiments.molecules.relaxed`), and the data themselves,
put through the same, say what can be reached. That was to be the figure; it turned out too strict for networks of this
size, a tenth of whose molecules can be relaxed, and notebook 10b compares atoms as drawn with the data's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elf.metrics import molecules as metrics
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import enough, mean_table, rounded, summarise_by
from experiments.molecules import heated, small
from experiments.molecules.gifts import recipe_of, settings_of
from experiments.molecules.relaxed import is_itself, relaxed_figures


@dataclass(frozen=True)
class Settings:
    """One scale.

    Attributes:
        recipe: of training and sampling, at every temperature.
        temperatures: kelvin, of `heated.KELVIN`.
        losses: a cell for each at each temperature.
    """

    recipe: small.Settings
    temperatures: tuple[int, ...] = heated.KELVIN
    losses: tuple[str, ...] = ("mse", "energy")


def settings_at(scale: str) -> Settings:
    """The plain network's of "two_gifts"; at laptop scale shorter, with more molecules drawn; at every scale molecules
    of up to 7 heavy atoms, as the dynamics of 100,000 take hours."""
    recipe = recipe_of(settings_of("two_gifts", scale), "plain")
    if scale == "smoke":
        return Settings(replace(recipe, heavy_atoms=(1, 3)), temperatures=(0, 3000), losses=("energy",))
    own: dict[str, Any] = {"steps": (1200,), "samples": 500} if scale == "laptop" else {}
    return Settings(replace(recipe, heavy_atoms=(1, 7), atoms=(5, 29), **own))


def recipe_at(settings: Settings, temperature: int) -> small.Settings:
    """What networks at this temperature are trained and sampled with."""
    return replace(settings.recipe, data=f"qm9_{temperature}K")


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One run for every seed, temperature and loss; then the data themselves."""
    steps, rate = settings.recipe.steps[0], settings.recipe.learning_rates[0]
    trained = {"steps": steps, "learning_rate": rate}
    return [
        {"temperature": kelvin, "loss": loss, **trained, "seed": seed}
        for seed in range(seeds)
        for kelvin in settings.temperatures
        for loss in settings.losses
    ] + [
        {"temperature": kelvin, "loss": "data", "steps": 0, "learning_rate": 0.0, "seed": seed}
        for seed in range(seeds)
        for kelvin in settings.temperatures
    ]


def figures(positions: Tensor, numbers: Tensor) -> dict[str, Any]:
    """As drawn, by `elf.metrics.molecules.evaluate`, and `relaxed_figures`."""
    return {**metrics.evaluate(positions, numbers), **relaxed_figures(positions, numbers)}


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train, draw, relax and measure; or measure as many molecules of the data.

    Of the data there are also "itself": the share that is perceived as what it was before it was heated, the ceiling of
    "relaxed"; "equipartition": the mean energy above the minimum, of all of them, over k_B T / 2 a mode (None at 0 K);
    "heated": how many there are; "lost": reason -> the numbers in QM9 of those left out.
    """
    recipe = recipe_at(settings, cell["temperature"])
    if cell["loss"] != "data":
        _, samples, training = small.train_and_sample(recipe, cell, workdir, callbacks)
        return {**rounded(figures(samples.positions, samples.numbers)), **training}
    data = heated.heated_qm9(cell["temperature"], recipe.heavy_atoms, recipe.atoms, "train")
    order = torch.randperm(len(data.energies), generator=torch.Generator("cpu").manual_seed(cell["seed"]), device="cpu")
    some = data.molecules[order[: recipe.samples]]
    own = {
        "itself": sum(is_itself(some, i) for i in range(len(some))) / len(some),
        "equipartition": float(data.energies.mean()) if cell["temperature"] else None,
        "heated": len(data.energies),
        "lost": data.lost,
    }
    return rounded({**figures(some.positions, some.numbers), **own})


COLUMNS = {
    "atom_stability": ("stable atoms as drawn (%)", 1, 100),
    "relaxed_atoms": ("relaxed (%)", 1, 100),
    "relaxed_molecules": ("stable molecules, relaxed (%)", 1, 100),
    "relaxed": ("can be relaxed (%)", 1, 100),
    "unreadable": ("unreadable (%)", 1, 100),
    "connected": ("in one piece (%)", 1, 100),
    "bond_error": ("bonds from relaxed (Å)", 3, 1),
    "kelvin": ("temperature (K)", 0, 1),
    "itself": ("read as itself (%)", 1, 100),
    "equipartition": ("energy (kT / 2 a mode)", 2, 1),
}
"""Figure -> its heading, digits, factor."""


Runs = dict[int, list[float | None]]


def by_temperature(result: Mapping[str, Any], figure: str = "relaxed_atoms") -> dict[str, Runs]:
    """Loss, or "data" -> temperature in kelvin -> the figure of each run, in the order of the seeds; None where it is
    one of too few molecules (see `enough`)."""
    found: dict[str, Runs] = {}
    for row in sorted(map(enough, result["cells"]), key=lambda row: (row["cell"]["temperature"], row["cell"]["seed"])):
        kelvins = found.setdefault(row["cell"]["loss"], {})
        kelvins.setdefault(row["cell"]["temperature"], []).append(row["result"][figure])
    return found


def leads(result: Mapping[str, Any], figure: str = "relaxed_atoms", loss: str = "energy") -> dict[int, list[float]]:
    """Temperature -> by how much the loss leads MSE in the figure, for each seed: networks that started alike. Pairs of
    which one has no figure are left out."""
    found = by_temperature(result, figure)
    return {
        kelvin: [
            one - other
            for one, other in zip(values, found["mse"][kelvin], strict=True)
            if one is not None and other is not None
        ]
        for kelvin, values in found[loss].items()
    }


def table(result: dict[str, Any]) -> str:
    """Mean ± standard deviation over networks, by temperature, the data last."""
    rows = sorted(result["summary"], key=lambda row: row["temperature"])
    return mean_table(rows, ("temperature", "loss"), COLUMNS, always=("temperature", "loss"))


EXPERIMENT = Experiment(
    name="temperatures",
    title="Hot molecules, 0 to 3000 K: MSE and the energy out of equilibrium",
    settings=settings_at,
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "temperature", "loss", "steps"),
    table=table,
)
