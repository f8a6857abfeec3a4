"""Sparse springs: time against the number of points, beside autograd over gathered edges and bare memory traffic."""

import math
from typing import Any

import torch
from torch import Tensor

import elf
from benchmarks.timing import interleaved, rounded, samples, step
from elf.geometry.graphs import random_regular_edges

POINTS = (3_000, 30_000, 300_000)
TINY = (30, 60)
DEGREE = 6


def measure(tiny: bool = False) -> dict[str, Any]:
    """Rows, and the exponent of a power law through the energy's times."""
    rows = [_row(points, 0.05 if tiny else 4.0) for points in (TINY if tiny else POINTS)]
    logs = [(math.log(row["points"]), math.log(row["milliseconds"]["sparse"])) for row in rows]
    mean = [sum(axis) / len(logs) for axis in zip(*logs, strict=True)]
    slope = sum((x - mean[0]) * (y - mean[1]) for x, y in logs) / sum((x - mean[0]) ** 2 for x, _ in logs)
    return {"degree": DEGREE, "dim": 3, "rows": rows, "fitted_exponent": rounded(slope, 3)}


def _row(points: int, seconds: float) -> dict[str, Any]:
    prediction, target = samples(1, points)
    edges = random_regular_edges(points, DEGREE, 0, method="switching")
    first, second = edges
    components = torch.cat((prediction.detach()[0], target[0]), 1).mT.contiguous()
    forces = torch.zeros(3, points)

    def gather_autograd(prediction: Tensor, target: Tensor) -> Tensor:
        lengths = [(x[0, first] - x[0, second]).square().sum(-1).sqrt() for x in (prediction, target)]
        return ((-lengths[1]).exp() * (lengths[1] - lengths[0]).square()).sum()

    def random_access() -> None:
        # What any way to compute it has to fetch and to store: both ends of every edge, six numbers and three.
        for start in range(0, len(first), 2**16):
            ends = first[start : start + 2**16], second[start : start + 2**16]
            for nodes in ends:
                fetched = components.index_select(1, nodes)
                for axis in range(3):
                    forces[axis].index_add_(0, nodes, fetched[axis])

    times = interleaved(
        {
            "sparse": step(elf.PairEnergy(edges=edges), prediction, target),
            "gather_autograd": step(gather_autograd, prediction, target),
            "random_access": random_access,
            "mse": step(elf.Harmonic(), prediction, target),
            "kabsch": step(elf.AlignedHarmonic(), prediction, target),
        },
        seconds,
    )
    sparse = times["sparse"]["seconds"]
    return {
        "points": points,
        "edges": edges.shape[1],
        "milliseconds": {name: rounded(1e3 * found["seconds"]) for name, found in times.items()},
        "quartiles_apart": {name: found["quartiles_apart"] for name, found in times.items()},
        "nanoseconds_an_edge": rounded(1e9 * sparse / edges.shape[1], 3),
        "share_of_random_access": rounded(times["random_access"]["seconds"] / sparse, 3),
    }
