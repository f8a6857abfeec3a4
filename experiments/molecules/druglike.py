"""Table 1's question at home: drug-like molecules, the network without symmetry, and four losses, at equal compute.

GEOM-Drugs, on which the paper has its largest effect, is on no package registry (`elf reproduce table1` reads the
user's own file). These are 10,000 of MOSES' molecules with a conformer each (`elf.data.druglike`), sixty times fewer,
judged as there by EDM's bond table for GEOM-Drugs. That table sees neither charges nor aromatic bonds: the data
themselves come first in the table, and no network should be expected to do better. Recipe and denoiser are those of
`experiments.molecules.small` with every molecule turned at random, sizes up to 58 atoms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elf.chemistry.bonds import BondRules
from elf.data.molecules import Molecules
from elf.metrics import chemnet
from elf.metrics import molecules as metrics
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import LEAST, format_mean, rounded, summarise_by, text_table
from experiments.molecules import small
from experiments.molecules.errors import error_figures, probe_of
from experiments.molecules.gifts import COLUMNS, NETWORKS, TINY
from experiments.molecules.paper_tables import TABLE_1

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "druglike": ("MSE, Kabsch and energy (as Table 1)", ("mse", "kabsch", "energy")),
    "druglike_sparse": (
        "sparse energy with inverse springs (as Table 1), that as loud as the energy, and each of the two alone",
        ("sparse_even", "inverse_even", "sparse_inverse_even", "sparse_inverse"),
    ),
}
"""Experiment -> its title and its losses."""
ALL = {"heavy_atoms": (1, 60), "atoms": (1, 60)}


@dataclass(frozen=True)
class Settings:
    """One scale.

    Attributes:
        recipe: of training and sampling.
        losses: a cell for each.
        probed: molecules of the test split on which errors are taken, see `experiments.molecules.errors`.
    """

    recipe: small.Settings
    losses: tuple[str, ...]
    probed: int = 100


def settings_of(name: str, scale: str) -> Settings:
    """Those of `small`, with larger molecules, for one of the `VARIANTS`."""
    own: dict[str, Any] = {"data": "druglike", "network": "plain", "turned": True, **ALL, **NETWORKS["plain"]}
    if scale == "smoke":
        own |= TINY["plain"]
        return Settings(replace(small.SETTINGS["smoke"], **own), losses=VARIANTS[name][1][-1:], probed=10)
    if scale == "laptop":
        own |= {"batch_size": 16}
    return Settings(replace(nearest(small.SETTINGS, scale), **own), VARIANTS[name][1])


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One run for every seed and loss; then the data themselves."""
    steps, rate = settings.recipe.steps[0], settings.recipe.learning_rates[0]
    return [
        {"loss": loss, "steps": steps, "learning_rate": rate, "seed": seed}
        for seed in range(seeds)
        for loss in settings.losses
    ] + [{"loss": "data", "steps": 0, "learning_rate": 0.0, "seed": seed} for seed in range(seeds)]


def figures(recipe: small.Settings, positions: Tensor, numbers: Tensor) -> dict[str, Any]:
    """What `metrics.evaluate` finds by the data's bond table, and the Frechet ChemNet distance ("fcd") of the valid
    molecules to the test split, both read by that table; None below 30 of them."""
    rules, known = small.DATA[recipe.data].rules, small.training_smiles(recipe)
    found: dict[str, Any] = metrics.evaluate(positions, numbers, training_smiles=known, rules=rules)
    found["fcd"] = None
    if found["validity"] * len(numbers) >= LEAST:
        found["fcd"] = chemnet.frechet_distance(activations(positions, numbers, rules), reference(recipe))
    return found


def activations(positions: Tensor, numbers: Tensor, rules: BondRules) -> Tensor:
    """ChemNet's, of the molecules that are valid by this bond table."""
    smiles = metrics.to_smiles(positions, numbers, rules=rules)
    return chemnet.chemnet_activations([text for text in smiles if text is not None])


@cache
def reference(recipe: small.Settings) -> Tensor:
    """`activations` of the test split."""
    known = small.molecules_of(recipe.data, recipe.heavy_atoms, recipe.atoms, "test")
    return activations(known.positions, known.numbers, small.DATA[recipe.data].rules)


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train, sample and measure; or measure as many molecules of the data."""
    recipe = settings.recipe
    if cell["loss"] == "data":
        data: Molecules = small.training_molecules(recipe)
        order = torch.randperm(len(data), generator=torch.Generator("cpu").manual_seed(cell["seed"]), device="cpu")
        some = data[order[: recipe.samples]]
        return rounded(figures(recipe, some.positions, some.numbers))
    denoiser, samples, training = small.train_and_sample(recipe, cell, workdir, callbacks)
    probe = probe_of(recipe.data, recipe.heavy_atoms, recipe.atoms, settings.probed)
    found = {**figures(recipe, samples.positions, samples.numbers), **error_figures(denoiser, probe, cell["seed"])}
    return {**rounded(found), **training}


SHOWN = ("atom_stability", "molecule_stability", "connected", "stable_connected", "validity", "fcd")


def table(result: dict[str, Any]) -> str:
    """Mean ± standard deviation over networks; the paper's stable atoms and molecules (Table 1) beside them."""
    lines = []
    for row in result["summary"]:
        printed = TABLE_1["gdm-aug"].get(row["loss"]) or TABLE_1["gdm"].get(row["loss"]) or ("-", "-")
        shown = {COLUMNS[n][0]: format_mean(row, n, *COLUMNS[n][1:]) if n in row else "-" for n in SHOWN}
        lines.append({"loss": row["loss"], **shown, "paper: atoms": printed[1], "paper: molecules": printed[0]})
    return (
        f"{text_table(lines)}\npaper: GEOM-Drugs, GDM-aug (sparse: GDM), 13 epochs of some 5.7 million conformers; "
        "ours: 8,000 molecules of another set, one conformer each"
    )


EXPERIMENTS = {
    name: Experiment(
        name=name,
        title=f"Drug-like molecules, the network without symmetry: {title}",
        settings=partial(settings_of, name),
        cells=cells,
        run_cell=run_cell,
        summarise=lambda rows: summarise_by(rows, "loss", "steps"),
        table=table,
    )
    for name, (title, _) in VARIANTS.items()
}
