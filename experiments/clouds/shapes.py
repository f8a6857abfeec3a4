"""Regular polygons at random angles: what MSE, Kabsch and the pair energy learn from them (Sec. 6.1, Fig. 3b and 3c).

A network is told a radius and answers with the vertices of a polygon; the training targets are turned by an angle that
it is not told. Part "theta" widens the range of angles at a fixed number of sides (Fig. 3b), part "sides" goes to more
sides at any angle, with dense and with sparse pair energy (Fig. 3c).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elf import springs
from elf.energy import AlignedHarmonic, Energy, Harmonic, PairEnergy
from elf.geometry.graphs import random_regular_edges
from elf.models.mlp import MLP
from elf.scales import nearest
from elf.training import FitSettings, TrainRecord, fit, shuffled_batches
from experiments.clouds import regularity as metrics
from experiments.clouds.polygons import Polygons, regular_polygon, sample
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import format_mean, summarise_by, text_table

SPRINGS = springs.Exponential(k=2.6)
"""Springs and prefactor of the authors' shapes program."""

LOSSES: dict[str, Callable[[], Energy]] = {
    "mse": lambda: Harmonic(normalize="atoms"),
    "kabsch": lambda: AlignedHarmonic(normalize="atoms"),
    "energy": lambda: PairEnergy(SPRINGS, normalize="atoms"),
}
"""The losses that need no more than prediction and target."""

SPARSE = ("sparse", "sparse_batch")
"""Pair energy along random 4-regular graphs, drawn for each sample or for each batch (see `make_loss`)."""

VALIDATION_SEED, TEST_SEED, GRAPH_SEED = 1_000_001, 1_000_002, 1_000_003


@dataclass(frozen=True)
class Settings:
    """One scale of the experiment.

    Attributes:
        steps: optimizer steps of every run.
        samples: (radius, angle) pairs in the training set.
        batch_size: polygons a step in part "theta".
        sides: vertices in part "theta".
        angles: theta in units of pi, for part "theta" with MSE.
        invariant_angles: the same for Kabsch and energy, which cannot tell them apart.
        many_sides: numbers of vertices for part "sides", where theta = pi.
        sides_batch_size: polygons a step in part "sides".
        learning_rates: "loss,sides,angle" -> the best rate in `shapes_rates`; other places use the nearest.
        dense_seeds_up_to: with more sides than this, the dense energy is trained with seed 0 alone, as it is slow.
        evaluated: polygons in the validation set and in the test set.
        graphs: sparse graphs drawn beforehand; each evaluation picks one.
    """

    steps: int
    samples: int
    batch_size: int
    sides_batch_size: int
    learning_rates: dict[str, float]
    sides: int = 20
    angles: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    invariant_angles: tuple[float, ...] = (0.0, 1.0)
    many_sides: tuple[int, ...] = (8, 32, 128)
    dense_seeds_up_to: int = 64
    hidden: tuple[int, ...] = (64, 64)
    evaluated: int = 2000
    graphs: int = 100


# Learning rates chosen on the validation set by the laptop run of `shapes_rates` (results/shapes_rates.laptop.json).
RATES: dict[str, float] = {
    "mse,20,0.0": 3e-2, "mse,20,1.0": 3e-2, "kabsch,20,1.0": 3e-2, "energy,20,1.0": 3e-2,
    "energy,32,1.0": 3e-2, "sparse,32,1.0": 3e-2, "sparse_batch,32,1.0": 3e-2,
}  # fmt: skip

SETTINGS = {
    "smoke": Settings(
        steps=3, samples=64, batch_size=8, sides_batch_size=8, learning_rates=RATES, sides=6, angles=(0.0, 1.0),
        many_sides=(6, 8), evaluated=16, graphs=2,
    ),
    "live": Settings(
        steps=300, samples=10_000, batch_size=100, sides_batch_size=50, learning_rates=RATES, many_sides=(8, 32)
    ),
    "laptop": Settings(
        steps=1000, samples=100_000, batch_size=100, sides_batch_size=32, learning_rates=RATES,
        invariant_angles=(0.0, 0.25, 0.5, 0.75, 1.0), many_sides=(8, 16, 32, 64, 128), dense_seeds_up_to=128,
    ),
    "paper": Settings(
        steps=50_000, samples=100_000, batch_size=100, sides_batch_size=100, learning_rates=RATES,
        invariant_angles=(0.0, 0.25, 0.5, 0.75, 1.0), many_sides=(8, 16, 32, 64, 128), dense_seeds_up_to=128,
    ),
}  # fmt: skip


def nearest_rate(settings: Settings, loss: str, sides: int, angle: float) -> float:
    """The swept learning rate of this loss: at the nearest number of sides (as a ratio), then at angle 0 or not."""

    def distance(key: str) -> tuple[float, bool]:
        _, swept_sides, swept_angle = key.split(",")
        return abs(math.log(int(swept_sides) / sides)), (float(swept_angle) > 0) != (angle > 0)

    return settings.learning_rates[min((k for k in settings.learning_rates if k.startswith(f"{loss},")), key=distance)]


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """Both parts, for each seed; the cheap ones of a seed first."""

    def place(part: str, loss: str, sides: int, angle: float, seed: int) -> dict[str, Any]:
        rate = nearest_rate(settings, loss, sides, angle)
        return {"part": part, "loss": loss, "sides": sides, "angle": angle, "learning_rate": rate, "seed": seed}

    angles = {"mse": settings.angles, "kabsch": settings.invariant_angles, "energy": settings.invariant_angles}
    return [
        cell
        for seed in range(seeds)
        for cell in (
            *(place("theta", loss, settings.sides, angle, seed) for loss in angles for angle in angles[loss]),
            *(
                place("sides", loss, sides, 1.0, seed)
                for sides in settings.many_sides
                for loss in ("mse", "sparse", "energy")
                if seed == 0 or loss != "energy" or sides <= settings.dense_seeds_up_to
            ),
        )
    ]


@cache
def sparse_edges(sides: int, graphs: int) -> Tensor:
    """Random 4-regular graphs (2D-regular, D = 2: Sec. 4.3), (graphs, 2, 2 sides), the same in every run."""
    return random_regular_edges(sides, 4, GRAPH_SEED, count=graphs)


def make_loss(name: str, sides: int, graphs: int) -> Callable[[Tensor, Tensor, torch.Generator], Tensor]:
    """(prediction, target, generator) -> (batch,); the generator picks the graphs of a sparse evaluation.

    "sparse" picks one of the graphs for each sample, "sparse_batch" (in `shapes_rates`) one for the whole batch.

    Raises:
        ValueError: an unknown loss.
    """
    if name in LOSSES:
        energy = LOSSES[name]()
        return lambda prediction, target, _: energy(prediction, target)
    if name not in SPARSE:
        raise ValueError(f"loss is {name!r}; it should be one of {', '.join(map(repr, [*LOSSES, *SPARSE]))}")
    edges = sparse_edges(sides, graphs)

    def value(prediction: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        shape = prediction.shape[:1] if name == "sparse" else ()
        pick = torch.randint(len(edges), shape, generator=generator, device=generator.device)
        chosen = edges.to(pick.device)[pick]
        return PairEnergy(SPRINGS, normalize="atoms", edges=chosen)(prediction, target)

    return value


def train(
    settings: Settings,
    loss: str,
    *,
    sides: int,
    angle: float,
    learning_rate: float,
    batch_size: int,
    seed: int,
    checkpoint: Path | None = None,
    callbacks: Callbacks = (),
) -> TrainRecord:
    """Train an `MLP` from radius to polygon; `angle` is theta in units of pi.

    The same seed gives the same first weights, radii and batches, whatever the loss and the angle.
    """
    # Only radius and angle are kept; each batch builds its polygons, which at 128 sides would fill memory.
    data = sample(settings.samples, 3, angle * math.pi, torch.Generator().manual_seed(seed))
    rows = shuffled_batches(settings.samples, batch_size, seed)

    def batch(step: int) -> Polygons:
        radius, turned = data.radius[rows(step)], data.angle[rows(step)]
        return Polygons(regular_polygon(radius, turned, sides), radius, turned)

    energy = make_loss(loss, sides, settings.graphs)

    def mean_loss(model: nn.Module, batch: Polygons, generator: torch.Generator) -> Tensor:
        return energy(model(batch.radius[:, None]), batch.vertices, generator).mean()

    how = FitSettings(steps=settings.steps, learning_rate=learning_rate, seed=seed, checkpoint_every=10_000)
    model = MLP(1, (sides, 2), settings.hidden, seed=seed)
    return fit(model, mean_loss, batch, how, checkpoint=checkpoint, callbacks=callbacks)


@torch.no_grad()
def predict(model: nn.Module, radius: Tensor) -> Tensor:
    """The polygons (n, sides, 2) that a trained model answers radii (n,) with, on the CPU."""
    device = next(model.parameters()).device
    return model(radius.to(device)[:, None]).cpu()


def evaluate(model: nn.Module, settings: Settings, loss: str, sides: int, angle: float) -> dict[str, float]:
    """Scores on the test set, and the loss on the validation set (sparse edges are judged by the dense energy)."""
    held_out, test = (
        sample(settings.evaluated, sides, angle * math.pi, torch.Generator().manual_seed(seed))
        for seed in (VALIDATION_SEED, TEST_SEED)
    )
    judge = LOSSES["energy" if loss in SPARSE else loss]()
    polygons = predict(model, test.radius)
    return {
        "validation_loss": float(judge(predict(model, held_out.radius), held_out.vertices).double().mean()),
        "quality": float(metrics.quality(polygons).mean()),
        "quality_at_radius": float(metrics.quality(polygons, test.radius).mean()),
        "radius_error": float(metrics.radius_error(polygons, test.radius).mean()),
        "radius_ratio": float((metrics.regularity(polygons).mean_radius / test.radius).mean()),
    }


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train one network and score it; seed 0 of part "theta" also leaves its polygon for radius 3, for Fig. 3a."""
    what = {key: cell[key] for key in ("sides", "angle", "learning_rate", "seed")}
    batch_size = settings.batch_size if cell["part"] == "theta" else settings.sides_batch_size
    checkpoint = workdir / "training.safetensors"
    record = train(settings, cell["loss"], batch_size=batch_size, checkpoint=checkpoint, callbacks=callbacks, **what)
    scores = evaluate(record.model, settings, cell["loss"], cell["sides"], cell["angle"])
    result: dict[str, Any] = {name: float(f"{value:.6g}") for name, value in scores.items()}
    if cell["part"] == "theta" and cell["seed"] == 0:
        shape = predict(record.model, torch.tensor([3.0]))[0]
        result["polygon"] = [[float(f"{x:.4g}") for x in column] for column in shape.T.tolist()]
    return result


def table(result: dict[str, Any]) -> str:
    """Quality and what it leaves out, mean ± standard deviation over seeds (number of seeds)."""
    scores = {"quality": 2, "quality_at_radius": 2, "radius_ratio": 3, "radius_error": 4}
    keys = ("part", "loss", "sides", "angle", "learning_rate")
    return text_table(
        [
            {**{key: row[key] for key in keys}, **{name: format_mean(row, name, n) for name, n in scores.items()}}
            for row in result["summary"]
        ]
    )


SWEPT = (1e-3, 3e-3, 1e-2, 3e-2)
"""Learning rates of the sweep behind `RATES`. The paper sweeps per loss, sides and theta (C.1)."""


def sweep_cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """Part "theta" at angle pi (and 0 for MSE: the others cannot tell), part "sides" at 32 sides, at every rate.

    Every rate has the steps of the experiment itself; the best one has the lowest loss (the trained loss itself, dense
    energy for sparse edges) on the validation set.
    """
    places = [("theta", "mse", settings.sides, 0.0)]
    places += [("theta", loss, settings.sides, 1.0) for loss in ("mse", "kabsch", "energy")]
    places += [("sides", loss, 32, 1.0) for loss in (*SPARSE, "energy")]
    names = ("part", "loss", "sides", "angle", "learning_rate", "seed")
    return [
        dict(zip(names, (*place, rate, seed), strict=True))
        for seed in range(seeds)
        for place in places
        for rate in SWEPT
    ]


def best_rates(result: dict[str, Any]) -> dict[str, float]:
    """ "loss,sides,angle" -> the rate of lowest validation loss, averaged over seeds."""
    best: dict[str, tuple[float, float]] = {}
    for row in result["summary"]:
        key = f"{row['loss']},{row['sides']},{row['angle']}"
        candidate = row["validation_loss"]["mean"], row["learning_rate"]
        best[key] = min(best.get(key, candidate), candidate)
    return {key: rate for key, (_, rate) in best.items()}


VARIANTS: dict[str, tuple[str, Callable[[Settings, int], list[dict[str, Any]]]]] = {
    "shapes": ("Regular polygons at random angles (Fig. 3)", cells),
    "shapes_rates": ("Regular polygons: learning rates for each loss", sweep_cells),
}

EXPERIMENTS = {
    name: Experiment(
        name=name,
        title=title,
        settings=partial(nearest, SETTINGS),
        cells=variant_cells,
        run_cell=run_cell,
        summarise=lambda rows: summarise_by(rows, "part", "loss", "sides", "angle", "learning_rate"),
        table=table,
    )
    for name, (title, variant_cells) in VARIANTS.items()
}
