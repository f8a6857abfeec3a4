"""Which learning rate suits which loss on polygons? The sweep behind the rates of `experiments.clouds.shapes`.

Every rate has the steps of the experiment itself; the best one has the lowest loss (the trained loss itself, dense
energy for sparse edges) on the validation set. The paper sweeps per loss, sides and theta (C.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.clouds import shapes
from experiments.framework.experiment import Experiment

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
MANY_SIDES = 32


def cells(settings: shapes.Settings, seeds: int) -> list[dict[str, Any]]:
    """Part "theta" at angle pi (and 0 for MSE: the others cannot tell), part "sides" at 32 sides, at every rate."""
    places = [("theta", "mse", settings.sides, 0.0)]
    places += [("theta", loss, settings.sides, 1.0) for loss in ("mse", "kabsch", "energy")]
    places += [("sides", loss, MANY_SIDES, 1.0) for loss in (*shapes.SPARSE, "energy")]
    names = ("part", "loss", "sides", "angle", "learning_rate", "seed")
    return [
        dict(zip(names, (*place, rate, seed), strict=True))
        for seed in range(seeds)
        for place in places
        for rate in RATES
    ]


def best_rates(result: dict[str, Any]) -> dict[str, float]:
    """ "loss,sides,angle" -> the rate of lowest validation loss, averaged over seeds."""
    best: dict[str, tuple[float, float]] = {}
    for row in result["summary"]:
        key = f"{row['loss']},{row['sides']},{row['angle']}"
        candidate = row["validation_loss"]["mean"], row["learning_rate"]
        best[key] = min(best.get(key, candidate), candidate)
    return {key: rate for key, (_, rate) in best.items()}


EXPERIMENT = replace(
    shapes.EXPERIMENT, name="shapes_rates", title="Regular polygons: learning rates for each loss", cells=cells
)

__all__ = ["EXPERIMENT", "RATES", "Experiment", "best_rates", "cells"]
