"""Small QM9 molecules from one network trained with different losses at equal compute (Sec. 6.2, Tables 2, 4 and 8).

A scaled-down version for one CPU core of the paper's comparison: the same question (same network, same steps, another
loss on positions), another network and another diffusion (see `elf.models.transformer` and
`elf.generative.molecules`), and molecules of up to 7 heavy atoms. Compute is counted in optimizer steps, so that other
work on the machine changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from elf.checks import require_seed
from elf.chemistry import bonds
from elf.data import druglike, qm9
from elf.data.batching import bucketed_batches
from elf.data.molecules import Molecules
from elf.elements import ELEMENTS
from elf.energy import Energy
from elf.generative.molecules import KarrasDenoiser, denoising_loss
from elf.generative.samplers import Samples, draw_counts, sample_molecules
from elf.generative.schedules import Karras
from elf.geometry.alignment import random_rotations
from elf.metrics import molecules as metrics
from elf.models.transformer import EquivariantTransformer, PlainTransformer
from elf.scales import nearest
from elf.training import FitSettings, TrainRecord, fit, save_weights
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import mean_table, rounded, summarise_by
from experiments.molecules import heated
from experiments.molecules.losses import FAR, LOSSES


class Data(NamedTuple):
    """A data set: how it is read, its elements, its bond table, its root-mean-square coordinate in angstrom."""

    load: Callable[..., Molecules]
    elements: tuple[int, ...]
    rules: bonds.BondRules
    size: float


DATA = {
    "qm9": Data(qm9.load, ELEMENTS, bonds.QM9, 1.5),
    "druglike": Data(druglike.load, (1, 6, 7, 8, 9, 16, 17, 35), bonds.GEOM, 2.5),
    **{f"qm9_{kelvin}K": Data(partial(heated.load, kelvin), ELEMENTS, bonds.QM9, 1.5) for kelvin in heated.KELVIN},
}


@dataclass(frozen=True)
class Settings:
    """One scale of the comparison, for `experiments.molecules.small` and the experiments made from it.

    Attributes:
        steps, losses, learning_rates, shares: a cell for each combination; a share of 1/2 trains on half of the data.
        samples: molecules drawn from each trained network.
        data: one of `DATA`; heavy_atoms, atoms: inclusive ranges of the molecules taken from it.
        network: one of `NETWORKS`, with `channels`, `heads` and `layers`, and `calm` where it is equivariant.
        turned: whether every molecule is turned at random before it is noised, as a network without symmetry needs.
        sampler_steps, sampler_churn, closed_shell: see `elf.generative.samplers.sample_molecules`.
        log_mean, log_std: noise levels in training are exp(N(log_mean, log_std^2)) angstrom.
    """

    steps: tuple[int, ...]
    samples: int
    losses: tuple[str, ...] = ("mse", "kabsch", "energy", "sparse")
    learning_rates: tuple[float, ...] = (2e-3,)
    shares: tuple[float, ...] = (1.0,)
    data: str = "qm9"
    heavy_atoms: tuple[int, int] = (1, 7)
    atoms: tuple[int, int] = (5, 29)
    batch_size: int = 32
    network: str = "equivariant"
    calm: bool = False
    turned: bool = False
    channels: int = 64
    heads: int = 4
    layers: int = 4
    log_mean: float = -1.0
    log_std: float = 1.3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    gradient_clip: float = 1.0
    sampler_steps: int = 50
    sampler_churn: float = 0.4
    closed_shell: bool = True

    @property
    def schedule(self) -> Karras:
        """The noise levels of training and sampling."""
        return Karras(sigma_data=DATA[self.data].size, log_mean=self.log_mean, log_std=self.log_std)


SETTINGS = {
    "smoke": Settings(
        steps=(3,), samples=4, batch_size=4, channels=16, heads=2, layers=1, warmup_steps=1, sampler_steps=3
    ),
    "live": Settings(steps=(500,), losses=("mse", "kabsch", "energy"), samples=100, sampler_steps=30),
    "laptop": Settings(steps=(2400,), samples=300),
    "gpu": Settings(
        steps=(60_000,),
        samples=10_000,
        heavy_atoms=(1, 9),
        atoms=(3, 29),
        batch_size=256,
        channels=128,
        heads=8,
        layers=6,
        warmup_steps=1000,
        ema_decay=0.9995,
    ),
    "paper": Settings(
        steps=(2_000_000,),
        samples=10_000,
        heavy_atoms=(1, 9),
        atoms=(3, 29),
        batch_size=512,
        channels=256,
        heads=8,
        layers=9,
    ),
}
"""Of "molecules"; the other experiments change some of them, see `VARIANTS`."""

VARIANTS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "molecules": ("MSE, Kabsch, energy and sparse energy at equal compute", {}),
    # The sweep behind the learning rate.
    "molecule_rates": (
        "learning rates for each loss, short runs",
        {
            "*": {"losses": ("mse", "kabsch", "energy"), "learning_rates": (1e-3, 2e-3, 4e-3)},
            "laptop": {"steps": (500,), "samples": 200},
            "paper": {"steps": (500,), "samples": 200},
        },
    ),
    # Table 4's question, and shorter springs than the paper's.
    "molecule_springs": (
        "five springs in short runs",
        {
            "*": {"losses": ("energy", "inverse_square", "inverse", "constant", "short")},
            "laptop": {"steps": (800,)},
        },
    ),
    # At which noise does the energy earn its lead? Read beside the runs with one loss at all noise levels. Not in the
    # paper; its Prop. 4.4 and 4.5 say that the energy gives the score, with less variance, at small noise.
    "molecule_noise": (
        "the energy at small noise only, and at large noise only",
        {"*": {"losses": ("near", "far")}},
    ),
    # Figure 4's question, for the same number of steps.
    "molecule_shares": (
        "MSE and energy on half of the data",
        {"*": {"losses": ("mse", "energy"), "shares": (0.5,)}},
    ),
    # The networks that come with the repository are taken from these, see `experiments.molecules.committed`.
    "molecule_checkpoints": (
        "long runs of each loss",
        {
            "*": {"losses": ("energy", "mse", "kabsch")},
            "laptop": {"steps": (12_000,), "samples": 1000},
        },
    ),
}
"""Experiment -> its title, and what it changes of the settings at every scale ("*") and at some."""


def settings_of(name: str, scale: str) -> Settings:
    """The settings of one of the `VARIANTS`."""
    _, changes = VARIANTS[name]
    return replace(nearest(SETTINGS, scale), **changes.get("*", {}), **changes.get(scale, {}))


def training_molecules(settings: Settings, share: float = 1.0) -> Molecules:
    """QM9's training molecules of the settings' size range, or a share of them, the same one each time."""
    molecules = molecules_of(settings.data, settings.heavy_atoms, settings.atoms)
    if share == 1:
        return molecules
    chosen = torch.randperm(len(molecules), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return molecules[chosen[: round(share * len(molecules))].sort().values]


@cache
def molecules_of(
    data: str, heavy_atoms: tuple[int, int], atoms: tuple[int, int], split: str = "train", limit: int | None = None
) -> Molecules:
    """Of one of `DATA`, read once."""
    return DATA[data].load(heavy_atoms=heavy_atoms, atoms=atoms, split=split, limit=limit)


@cache
def training_smiles(settings: Settings, share: float = 1.0) -> frozenset[str]:
    """Canonical SMILES of the training molecules, for novelty."""
    return metrics.canonical_smiles(training_molecules(settings, share).smiles)


NETWORKS = {"equivariant": EquivariantTransformer, "plain": PlainTransformer}


def make_denoiser(settings: Settings, seed: int) -> KarrasDenoiser:
    """An untrained network; the same seed gives the same weights."""
    own = {"calm": settings.calm} if settings.network == "equivariant" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[settings.network](
            **own,
            features=len(DATA[settings.data].elements),
            channels=settings.channels,
            heads=settings.heads,
            layers=settings.layers,
            size=settings.schedule.sigma_data,
        )
    return KarrasDenoiser(network, settings.schedule, DATA[settings.data].elements)


def train(
    settings: Settings,
    energy: Energy,
    *,
    steps: int,
    seed: int,
    far: tuple[Energy, float] | None = None,
    learning_rate: float | None = None,
    share: float = 1.0,
    checkpoint: Path | None = None,
    callbacks: Callbacks = (),
) -> TrainRecord:
    """Train a denoiser with this energy as the loss on positions; everything else is the same for every energy."""
    molecules = training_molecules(settings, share)
    sizes = molecules.counts
    rows = bucketed_batches(sizes, settings.batch_size, seed)

    def batch(step: int) -> dict[str, torch.Tensor]:
        chosen = rows(step)
        widest = int(sizes[chosen].max())
        return {"positions": molecules.positions[chosen, :widest], "numbers": molecules.numbers[chosen, :widest]}

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        positions = batch["positions"]
        if settings.turned:
            positions = positions @ random_rotations(len(positions), generator=generator, dtype=positions.dtype)
        parts = denoising_loss(model, energy, positions, batch["numbers"].long(), generator, far=far)
        return parts.positions + parts.features

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
    denoiser: KarrasDenoiser, settings: Settings, *, n: int | None = None, seed: int = 0, trajectory: bool = False
) -> Samples:
    """Molecules from a trained denoiser, with sizes drawn from the training set."""
    device = next(denoiser.parameters()).device
    counts = training_molecules(settings).counts
    generator = torch.Generator(device).manual_seed(require_seed("seed", seed))
    return sample_molecules(
        denoiser,
        draw_counts(counts, n or settings.samples, seed),
        generator,
        steps=settings.sampler_steps,
        churn=settings.sampler_churn,
        closed_shell=settings.closed_shell,
        frames=settings.sampler_steps if trajectory else 0,
    )


def train_and_sample(
    settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks
) -> tuple[KarrasDenoiser, Samples, dict[str, Any]]:
    """The averaged network of a cell, its molecules, and what is recorded of the training."""
    record = train(
        settings,
        LOSSES[cell["loss"]](),
        far=FAR.get(cell["loss"]),
        steps=cell["steps"],
        seed=cell["seed"],
        learning_rate=cell["learning_rate"],
        share=cell.get("share", 1.0),
        checkpoint=workdir / "training.safetensors",
        callbacks=callbacks,
    )
    denoiser = record.ema_model
    assert isinstance(denoiser, KarrasDenoiser)
    save_weights(workdir / "weights.safetensors", denoiser, {"cell": str(cell)})
    curve = loss_curve([row["loss"] for row in record.history])
    training = {"seconds": round(record.seconds, 1), "loss_curve": curve}
    return denoiser, sample(denoiser, settings, seed=cell["seed"]), training


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train with one loss and seed, sample, and measure."""
    _, samples, training = train_and_sample(settings, cell, workdir, callbacks)
    known = training_smiles(settings, cell["share"])
    measured = metrics.evaluate(samples.positions, samples.numbers, training_smiles=known)
    return {**rounded(measured), **training}


def loss_curve(losses: Sequence[float]) -> list[float]:
    """The loss of each step, or, of 50 steps and more, its mean over each 50 of them; what is left over is dropped."""
    steps = torch.tensor(losses, dtype=torch.float32, device="cpu")
    blocks = steps[: len(losses) // 50 * 50].view(-1, 50).mean(dim=1) if len(losses) >= 50 else steps
    return [round(float(value), 4) for value in blocks]


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One run for every number of steps, loss, share of the data, learning rate and seed."""
    return [
        {"loss": loss, "steps": steps, "share": share, "learning_rate": rate, "seed": seed}
        for steps in settings.steps
        for seed in range(seeds)
        for share in settings.shares
        for loss in settings.losses
        for rate in settings.learning_rates
    ]


KEYS = ("loss", "steps", "share", "learning_rate")
"""What tells the rows of the table apart."""


def table(result: dict[str, Any]) -> str:
    """Figures in per cent, mean ± standard deviation over seeds."""
    columns = ("atom_stability", "molecule_stability", "validity", "uniqueness", "novelty")
    return mean_table(result["summary"], KEYS, {name: (name, 1, 100) for name in columns})


EXPERIMENTS = {
    name: Experiment(
        name=name,
        title=f"QM9, up to 7 heavy atoms: {title}",
        settings=partial(settings_of, name),
        cells=cells,
        run_cell=run_cell,
        summarise=lambda rows: summarise_by(rows, *KEYS),
        table=table,
    )
    for name, (title, _) in VARIANTS.items()
}
