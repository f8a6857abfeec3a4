"""Train one of the paper's models in the paper's setting, sample, measure: what all its molecule tables share.

`paper_settings` says what is held fixed, `paper_tables` which models and losses each table has. The diffusion is
`elf.generative.molecules.NoisePredictor`, the sampler the ancestral one. `experiments.molecules.small` is the faster
variant that the notebooks and the committed checkpoints use.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from elf.checks import require_seed
from elf.chemistry import bonds
from elf.data import geom, qm9
from elf.data.batching import bucketed_batches, process_rank
from elf.data.molecules import Molecules
from elf.elements import ELEMENTS, GEOM_ELEMENTS
from elf.generative.molecules import Featuriser, NoisePredictor, denoising_loss
from elf.generative.samplers import Samples, draw_counts, sample_molecules
from elf.generative.schedules import Polynomial
from elf.geometry.alignment import random_rotations
from elf.metrics import molecules as metrics
from elf.training import FitSettings, TrainRecord, fit, save_weights, with_fabric_options
from experiments.framework.experiment import Callbacks, Cell, shared_folder, versions
from experiments.framework.tables import rounded
from experiments.molecules.distribution_figures import distribution_figures
from experiments.molecules.paper_settings import LOSSES, MODELS, Settings


class TrainingSet:
    """Molecules of either data set, by row: sizes, padded batches, SMILES for novelty."""

    def __init__(self, settings: Settings, share: float = 1.0) -> None:
        self.settings = settings
        if settings.data == "geom":
            self.geom, self.rows = geom.load(split="train", max_atoms=settings.atoms[1])
            self.sizes = self.geom.counts[self.rows]
        else:
            self.qm9 = _qm9(settings.heavy_atoms, settings.atoms, "train")
            self.rows, self.sizes = torch.arange(len(self.qm9), device="cpu"), self.qm9.counts
        if share < 1:
            keep = _order(len(self.rows), 0)[: max(1, round(share * len(self.rows)))].sort().values
            self.rows, self.sizes = self.rows[keep], self.sizes[keep]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, chosen: Tensor) -> dict[str, Tensor]:
        """Padded positions and numbers of these molecules."""
        rows = self.rows[chosen]
        if self.settings.data == "geom":
            found = self.geom.batch(rows)
            return {"positions": found.positions, "numbers": found.numbers}
        widest = int(self.sizes[chosen].max())
        return {"positions": self.qm9.positions[rows, :widest], "numbers": self.qm9.numbers[rows, :widest]}

    def smiles(self) -> frozenset[str] | None:
        """Canonical SMILES of the molecules, for novelty; of GEOM-Drugs, of all in the file, None if it is missing."""
        if self.settings.data == "geom":
            return None if self.geom.smiles is None else metrics.canonical_smiles(self.geom.read_smiles())
        return metrics.canonical_smiles(self.qm9[self.rows].smiles)


def _order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


@cache
def _qm9(heavy_atoms: tuple[int, int], atoms: tuple[int, int], split: str) -> Molecules:
    return qm9.load(heavy_atoms=heavy_atoms, atoms=atoms, split=split)


def rules(settings: Settings) -> bonds.BondRules:
    """The bond table of the data set."""
    return bonds.GEOM if settings.data == "geom" else bonds.QM9


def make_predictor(settings: Settings, model: str, seed: int) -> NoisePredictor:
    """An untrained model; the same seed gives the same weights.

    Raises:
        ValueError: a model that is not one of `MODELS`.
    """
    if model not in MODELS:
        raise ValueError(f"model is {model!r}; it should be one of {', '.join(MODELS)}")
    featuriser = Featuriser(GEOM_ELEMENTS, False) if settings.data == "geom" else Featuriser(ELEMENTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MODELS[model].network(features=featuriser.width, channels=settings.channels, layers=settings.layers)
    return NoisePredictor(network, Polynomial(levels=settings.levels), featuriser)


def fit_settings(
    settings: Settings, model: str, loss: str, molecules: int, seed: int, learning_rate: float | None = None
) -> FitSettings:
    """The training's settings: the learning rate given, the scale's own or C.2's; its number of epochs as steps."""
    own = settings.learning_rates.get(model, {}).get(loss)
    batch = settings.batch_size or MODELS[model].batch_size
    steps = settings.epochs * (molecules // batch) if settings.epochs else settings.steps
    return FitSettings(
        steps=steps,
        learning_rate=learning_rate or own or LOSSES[loss].tuned(model).rate,
        warmup_steps=settings.warmup_steps,
        schedule=settings.schedule,
        gradient_clip=settings.gradient_clip,
        ema_decay=settings.ema_decay,
        seed=seed,
        checkpoint_every=min(2000, max(100, steps // 20)),
    )


def train(
    settings: Settings,
    model: str,
    loss: str,
    *,
    seed: int,
    data: TrainingSet,
    learning_rate: float | None = None,
    checkpoint: Path | None = None,
    callbacks: Callbacks = (),
) -> TrainRecord:
    """Train this model with this loss on positions; noise, batches and initial weights depend on the seed alone."""
    predictor = make_predictor(settings, model, seed)
    spec, rotated = LOSSES[loss], MODELS[model].rotated
    energy, weight = spec.energy(), spec.tuned(model).weight
    as_edm = settings.features_over == "edm"
    # Divided by a batch's padded width, features' weight would follow the sizes where batches are of one size.
    pool = 1 if as_edm else 50
    rows = bucketed_batches(data.sizes, settings.batch_size or MODELS[model].batch_size, seed, pool=pool)
    over: Literal["atoms", "edm"] = "edm" if as_edm and spec.apart else "atoms"

    def objective(module: torch.nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        positions = batch["positions"]
        if rotated:
            turns = random_rotations(len(positions), 3, generator=generator, dtype=positions.dtype)
            positions = positions @ turns.to(positions.device).mT  # the augmentation of GDM-aug
        parts = denoising_loss(
            module, energy, positions, batch["numbers"].long(), generator, degree=spec.degree, features_over=over
        )
        return weight * parts.positions + parts.features

    return fit(
        predictor,
        objective,
        lambda step: data.batch(rows(step)),
        fit_settings(settings, model, loss, len(data), seed, learning_rate),
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


NOT_OF_TRAINING = (
    *("models", "losses", "shares", "learning_rates", "rates", "first_seed"),  # each cell says its own
    *("samples", "sample_batch", "reference", "checked"),
)
"""Settings that change what is trained, drawn or measured, but no training."""


def training_name(settings: Settings, cell: Mapping[str, Any], molecules: int) -> str:
    """The name of a cell's training: the same in all tables that have it, another for every other training.

    Table 4's exponential springs are Table 2's energy and Figure 4's whole data set; it is trained once. The name has
    a hash of all that the training depends on: settings, model, loss, share, seed, devices, precision, versions,
    threads.
    """
    depends = {name: value for name, value in dataclasses.asdict(settings).items() if name not in NOT_OF_TRAINING}
    fitted = with_fabric_options(
        fit_settings(settings, cell["model"], cell["loss"], molecules, cell["seed"], cell.get("learning_rate"))
    )
    key = json.dumps(
        [depends, dataclasses.asdict(fitted), dict(cell), versions(), torch.get_num_threads()], sort_keys=True
    )
    return f"{cell['model']}-{cell['loss']}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def sample(
    predictor: NoisePredictor,
    settings: Settings,
    sizes: Tensor,
    *,
    seed: int,
    frames: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Samples:
    """Molecules from a trained model, with sizes drawn from the training set's."""
    device = next(predictor.parameters()).device
    return sample_molecules(
        predictor,
        draw_counts(sizes, settings.samples, seed),
        torch.Generator(device).manual_seed(require_seed("seed", seed)),
        method="ancestral",
        steps=settings.levels,
        batch_size=settings.sample_batch,
        frames=frames,
        progress=progress,
    )


def measure(settings: Settings, samples: Samples, known: frozenset[str] | None) -> dict[str, Any]:
    """The figures of the tables, and those of Table 3 where the settings ask for them; see `whole_figures`."""
    figures = whole_figures(samples, known, rules(settings))
    if settings.reference:
        figures |= distribution_figures(
            settings.heavy_atoms, settings.atoms, settings.reference, settings.checked, samples
        )
    return rounded(figures)


def whole_figures(samples: Samples, known: frozenset[str] | None, own: bonds.BondRules) -> dict[str, Any]:
    """`metrics.evaluate` of molecules of which a network that learned too fast may have sent some to infinity.

    Such a molecule is one that is not stable, not valid, not in one piece, and so are its atoms: it counts, and
    "broken" is the share of them, where there are any.
    """
    whole = samples.positions.isfinite().all(-1).all(-1)
    n, atoms, kept = len(whole), int((samples.numbers != 0).sum()), float(whole.double().mean())
    if not kept:
        return {"molecules": n, "atoms": atoms, "broken": 1.0, **dict.fromkeys((*OF_ALL, "atom_stability"), 0.0)}
    figures: dict[str, Any] = metrics.evaluate(
        samples.positions[whole], samples.numbers[whole], training_smiles=known, rules=own
    )
    if kept == 1:
        return figures
    factors = {**dict.fromkeys(OF_ALL, kept), "atom_stability": figures["atoms"] / atoms}
    figures |= {name: figures[name] * factor for name, factor in factors.items()}
    return {**figures, "molecules": n, "atoms": atoms, "broken": 1 - kept}


OF_ALL = ("molecule_stability", "validity", "connected", "stable_connected", "completeness")
"""Figures that are shares of all molecules."""


def trained(
    settings: Settings, cell: Mapping[str, Any], workdir: Path, callbacks: Callbacks, data: TrainingSet
) -> TrainRecord:
    """The training of a cell, which several tables may share: done once, in a folder of its own."""
    with shared_folder(workdir, "paper_trainings", training_name(settings, cell, len(data))) as folder:
        return train(
            settings,
            cell["model"],
            cell["loss"],
            seed=cell["seed"],
            data=data,
            learning_rate=cell.get("learning_rate"),
            checkpoint=folder / "training.safetensors",
            callbacks=callbacks,
        )


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train, sample, measure; or, for the model "data", measure as many molecules of the data."""
    data = TrainingSet(settings, cell["share"])
    known = data.smiles()  # before the training, so that what is wrong with them costs none
    if cell["model"] == "data":
        pick = _order(len(data), cell["seed"])[: settings.samples]
        return measure(settings, Samples(**data.batch(pick)), known)
    record = trained(settings, cell, workdir, callbacks, data)
    assert isinstance(record.ema_model, NoisePredictor)
    if process_rank()[0] == 0:
        save_weights(workdir / "weights.safetensors", record.ema_model, {"cell": str(cell)})
    samples = sample(record.ema_model, settings, data.sizes, seed=cell["seed"])
    moved = Samples(samples.positions.cpu(), samples.numbers.cpu())
    losses = torch.tensor([row["loss"] for row in record.history], dtype=torch.float32, device="cpu")
    return {
        **measure(settings, moved, known),
        "training_seconds": round(record.seconds, 1),
        "last_loss": round(float(losses[-100:].mean()), 4),
        "network_evaluations": settings.levels + 1,
    }


NOT_OF_EDM = ("sparse", "sparse_inverse", "inverse_square", "constant")
"""Losses that the paper has for GDM and GDM-aug alone."""


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One run for every model, loss, share of the data, learning rate and seed; then the data themselves."""
    tried = [{"learning_rate": rate} for rate in settings.rates] or [{}]
    numbers = range(settings.first_seed, settings.first_seed + seeds)
    runs = [
        {"model": model, "loss": loss, "share": share, "seed": seed, **rate}
        for seed in numbers
        for model in settings.models
        for loss in settings.losses
        if not (model == "edm" and loss in NOT_OF_EDM)
        for share in settings.shares
        for rate in tried
    ]
    data = [] if settings.rates else [{"model": "data", "loss": "-", "share": 1.0, "seed": seed} for seed in numbers]
    return runs + data
