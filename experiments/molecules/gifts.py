"""Symmetry in the network or in the loss: {plain, equivariant} x {losses} on small QM9 molecules, at equal compute.

The recipe of `experiments.molecules.small`, with every molecule turned at random before it is noised, for both
networks. They cost about the same a step (the plain one has 667,000 weights, the equivariant one 381,000). The unit is
the trained network: seeds are paired, so that networks of one seed and architecture start from the same weights and see
the same molecules, noise and rotations. Figures of fewer than thirty molecules are not printed.

The learning rates come from "gift_rates", the mended energy from "mended_energies": on other seeds than the reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from elf.metrics import molecules as metrics
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import mean_table, rounded, summarise_by
from experiments.molecules import small
from experiments.molecules.distribution_figures import distribution_figures
from experiments.molecules.errors import error_figures, probe_of, restart_figures
from experiments.molecules.losses import MENDED


@dataclass(frozen=True)
class Settings:
    """One scale.

    Attributes:
        networks: name (see `small.NETWORKS`) -> what it changes of `recipe`.
        rates: name -> the learning rates that are tried.
        losses, steps: a cell for each combination.
        first_seed: the seeds are first_seed, first_seed + 1, ...
        reference: molecules of the test split that samples are compared with.
        probed: molecules of the test split on which errors are taken, see `experiments.molecules.errors`.
    """

    recipe: small.Settings
    networks: Mapping[str, Mapping[str, Any]]
    rates: Mapping[str, Sequence[float]]
    losses: tuple[str, ...]
    steps: tuple[int, ...]
    first_seed: int = 0
    reference: int = 2000
    probed: int = 300


NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"channels": 96, "heads": 6, "layers": 5},
    "equivariant": {"channels": 64, "heads": 4, "layers": 4},
}
RATES = {"plain": (2e-3,), "equivariant": (2e-3,)}
TINY: dict[str, dict[str, Any]] = {name: {"channels": 16, "heads": 2, "layers": 1} for name in NETWORKS}
WIDE: dict[str, dict[str, Any]] = {
    "plain": {"channels": 192, "heads": 12, "layers": 8},
    "equivariant": {"channels": 128, "heads": 8, "layers": 6},
}
THREE = ("mse", "kabsch", "energy")

MENDED_BEST = "half_heights"
"""Of the energies in "mended_energies" the one that comes nearest to what was asked (see
`experiments.molecules.mended`), chosen on seed 10 and still that on seeds 10 to 12: half Kabsch, half the pair energy
with a tenth of heights. That tenth was chosen before by MMFF94's curvature out of plane ("curvatures": 40 % of that of
bonds, MMFF94 32, the pair energy alone 11; the half of Kabsch makes the winner stiffer, 51), and trained on the
reported seeds first."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "two_gifts": ("a plain and an equivariant network, with every loss", {"losses": THREE, "steps": (2400,)}),
    "two_gifts_long": (
        "the plain network, five times as long",
        {"networks": ("plain",), "losses": ("mse", "energy"), "steps": (12_000,), "samples": 1000},
    ),
    "two_gifts_long_mended": (
        "the plain network, five times as long, with the other two losses",
        {"networks": ("plain",), "losses": ("kabsch", MENDED_BEST), "steps": (12_000,), "samples": 1000},
    ),
    "two_gifts_long_equivariant": (
        "the equivariant network, five times as long",
        {
            "networks": ("equivariant",),
            "losses": (*THREE, MENDED_BEST),
            "steps": (12_000,),
            "samples": 1000,
            "calm": True,
        },
    ),
    **{
        f"longest_{network}": (
            f"the {network} network, twenty-five times as long",
            {
                "networks": (network,),
                "losses": ("mse", MENDED_BEST),
                "steps": (60_000,),
                "samples": 1000,
                "calm": network == "equivariant",
            },
        )
        for network in NETWORKS
    },
    # Some networks of seed 10 are older than a change of last bits: the plain one of the energy, trained again, has
    # 75.1 instead of 74.8 % stable atoms.
    "mended_energies": (
        "pair energies that feel flat groups bend, on seeds of their own",
        {"losses": (*THREE, *MENDED), "steps": (2400,), "first_seed": 10},
    ),
    "two_gifts_mended": (
        "a plain and an equivariant network, with the pair energy that feels flat groups bend",
        {"losses": ("heights_0.1", MENDED_BEST), "steps": (2400,)},
    ),
    "two_gifts_loud": (
        "MSE and Kabsch, as loud beside the atom types as the pair energy",
        {"losses": ("mse_loud", "kabsch_loud"), "steps": (2400,)},
    ),
    "gift_rates": (
        "learning rates for each network and loss, short runs",
        {
            "losses": THREE,
            "steps": (800,),
            "samples": 200,
            "first_seed": 10,
            "rates": dict.fromkeys(NETWORKS, (1e-3, 2e-3, 4e-3)),
        },
    ),
}
"""Experiment -> its title, and what it has of its own at laptop scale."""


def settings_of(name: str, scale: str) -> Settings:
    """The settings of one of the `VARIANTS`."""
    own = dict(VARIANTS[name][1])
    recipe = replace(nearest(small.SETTINGS, scale), turned=True, calm=own.pop("calm", False))
    if scale == "laptop":
        recipe = replace(recipe, samples=own.pop("samples", recipe.samples))
    else:
        own = {**own, "steps": recipe.steps}
        own.pop("samples", None)
    sizes = {"smoke": TINY, "gpu": WIDE, "paper": WIDE}.get(scale, NETWORKS)
    networks = {name: sizes[name] for name in own.pop("networks", sizes)}
    tests = {"reference": 20, "probed": 40} if scale == "smoke" else {}
    return Settings(
        **{"recipe": recipe, "networks": networks, "rates": {name: RATES[name] for name in networks}, **tests, **own}
    )


def recipe_of(settings: Settings, network: str) -> small.Settings:
    """What one network is trained and sampled with."""
    return replace(settings.recipe, network=network, **settings.networks[network])


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One run for every number of steps, seed, network, loss and learning rate."""
    return [
        {"network": network, "loss": loss, "steps": steps, "learning_rate": rate, "seed": settings.first_seed + seed}
        for steps in settings.steps
        for seed in range(seeds)
        for network in settings.networks
        for loss in settings.losses
        for rate in settings.rates[network]
    ]


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train one network with one loss, draw molecules, and measure all of them."""
    recipe = recipe_of(settings, cell["network"])
    denoiser, samples, training = small.train_and_sample(recipe, cell, workdir, callbacks)
    known = small.training_smiles(recipe)
    figures = {
        **metrics.evaluate(samples.positions, samples.numbers, training_smiles=known),
        **distribution_figures(recipe.heavy_atoms, recipe.atoms, settings.reference, recipe.samples, samples),
    }
    probe = probe_of(recipe.data, recipe.heavy_atoms, recipe.atoms, settings.probed)
    wrong = error_figures(denoiser, probe, cell["seed"])
    again = restart_figures(denoiser, probe.molecules, cell["seed"])
    return {**rounded({**figures, **wrong, **again}), **training}


COLUMNS = {
    "atom_stability": ("stable atoms (%)", 1, 100),
    "molecule_stability": ("molecules (%)", 1, 100),
    "stable_connected": ("stable in one piece (%)", 1, 100),
    "connected": ("in one piece (%)", 1, 100),
    "validity": ("valid (%)", 1, 100),
    "mmd_bond": ("MMD bonds", 2, 1),
    "mmd_angle": ("angles", 2, 1),
    "mmd_dihedral": ("dihedrals", 3, 1),
    "fcd": ("FCD", 1, 1),
    "posebusters": ("PoseBusters (%)", 1, 100),
    "strain": ("strain (kcal/mol)", 1, 1),
}
"""Figure -> its heading, digits, factor."""

KEYS = ("network", "loss", "steps", "learning_rate")
"""What tells the rows of the table apart."""


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over networks."""
    return summarise_by(rows, *KEYS)


def leads(
    cells: Sequence[Mapping[str, Any]], figure: str, network: str, loss: str, other: str = "mse"
) -> dict[str, float]:
    """By how much one loss leads the other in a figure, over networks of the same seed.

    Args:
        cells: of a result, all of the same number of steps.

    Returns:
        "mean", and "low" and "high", a bootstrap interval of 95 % for the mean over pairs of networks (9,999 draws,
        BCa); "n", the pairs; "ahead", those in which the loss has more. (With three to five pairs an interval may
        leave zero out though one of them disagrees.)
    """
    found = {
        name: {c["cell"]["seed"]: c["result"][figure] for c in cells if (c["cell"]["network"], c["cell"]["loss"]) == at}
        for name in (loss, other)
        for at in [(network, name)]
    }
    pairs = sorted(found[loss].keys() & found[other].keys())
    differences = [found[loss][seed] - found[other][seed] for seed in pairs]
    low, high = interval(differences)
    ahead = sum(difference > 0 for difference in differences)
    return {"mean": fmean(differences), "low": low, "high": high, "n": len(pairs), "ahead": ahead}


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """A bootstrap interval of 95 % for the mean over pairs of networks (9,999 draws, BCa).

    Raises:
        ValueError: fewer than two pairs, which have no spread.
    """
    if len(differences) < 2:
        raise ValueError(f"differences is {list(differences)!r}; it should have two numbers or more")
    drawn = bootstrap((np.array(differences),), np.mean, n_resamples=9999, rng=np.random.default_rng(0))
    low, high = drawn.confidence_interval
    return float(low), float(high)


def table(result: dict[str, Any]) -> str:
    """Mean ± standard deviation over networks."""
    return mean_table(result["summary"], KEYS, COLUMNS, always=("network", "loss"))


EXPERIMENTS = {
    name: Experiment(
        name=name,
        title=f"QM9, up to 7 heavy atoms: {title}",
        settings=partial(settings_of, name),
        cells=cells,
        run_cell=run_cell,
        summarise=summarise,
        table=table,
    )
    for name, (title, _) in VARIANTS.items()
}
