"""Which springs know most about the real energy of a molecule? A question that the paper does not ask.

QM9 molecules are distorted, and every surrogate energy of Eq. 7 (and MSE, Kabsch, MAE) is asked to put the distortions
in the order of their cost; the truth is the change of the MMFF94 energy. One rank correlation a molecule, its mean over
molecules with a bootstrap interval. Part "fit" turns the question round: which k(r) would the force field choose?
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elf import springs
from elf.checks import require_count, require_seed
from elf.chemistry import molecular_graph as graphs
from elf.chemistry.force_field import BOLTZMANN, ForceField, force_fields
from elf.chemistry.vibrations import mode_displacements, normal_modes, random_displacements, thermal_displacements
from elf.data import qm9
from elf.energy import Absolute, AlignedHarmonic, Energy, Harmonic
from elf.geometry.distances import edge_distances
from elf.geometry.graphs import complete_edges
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import text_table

Springs = Callable[[Tensor], Tensor]
TRAPS: dict[str, Energy] = {"mse": Harmonic(), "kabsch": AlignedHarmonic(), "mae": Absolute()}
SPRINGS: dict[str, springs.Spring] = {
    "constant": springs.Constant(),
    "inverse": springs.Inverse(),
    "inverse square": springs.InverseSquare(),
    "lennard-jones": springs.LennardJones(),
    "bond-aware": springs.BondAware(),
    "exponential": springs.Exponential(),
    "exponential 0.5": springs.Exponential(length=0.5),
    "exponential 0.25": springs.Exponential(length=0.25),
}
"""The paper's forms; the last two shorten the exponential's length from its 1 angstrom. Besides these, part "rank"
judges "fitted", the springs of part "fit"."""

DISTORTIONS = ("random", "thermal", "mode")
BINS = (0.8, 1.15, 1.7, 2.0, 2.3, 2.6, 3.0, 3.5, 4.0, 5.0, 6.0, 13.0)
"""Distances (angstrom) between which the fitted k(r) is constant: X-H bonds, other bonds, then beyond."""


@dataclass(frozen=True)
class Settings:
    """One scale of the experiment.

    Attributes:
        molecules: of QM9's test split, others for each seed.
        distortions: of each molecule, kind and size; kind "mode" has two for each normal mode instead.
        sizes: root mean square displacement per atom in angstrom.
        fitted: molecules of QM9's training split on which k(r) is fitted.
    """

    molecules: int
    distortions: int
    fitted: int
    sizes: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4)


SETTINGS = {
    "smoke": Settings(molecules=3, distortions=10, fitted=2, sizes=(0.05, 0.4)),
    "live": Settings(molecules=40, distortions=40, fitted=10, sizes=(0.02, 0.1, 0.4)),
    "laptop": Settings(molecules=200, distortions=60, fitted=200),
    "paper": Settings(molecules=4000, distortions=200, fitted=2000),
}


class Distorted(NamedTuple):
    """Distortions of one molecule: sizes (angstrom), (sizes, n, atoms, 3) displacements, k_B T of thermal ones."""

    displacements: Tensor
    kt: list[float]


def distort(
    kind: str, field: ForceField, minimum: Tensor, sizes: Sequence[float], n: int, generator: torch.Generator
) -> Distorted:
    """Displacements of a kind in `DISTORTIONS` from the minimum, without rigid motions.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "random":
        return Distorted(torch.stack([random_displacements(minimum, size, n, generator) for size in sizes]), [])
    if kind not in DISTORTIONS:
        raise ValueError(f"kind is {kind!r}; it should be one of {', '.join(map(repr, DISTORTIONS))}")
    modes = normal_modes(field.hessian(minimum), minimum, field.masses)
    if kind == "mode":
        return Distorted(torch.stack([mode_displacements(modes, minimum, size) for size in sizes]), [])
    drawn = [thermal_displacements(modes, minimum, size, n, generator) for size in sizes]
    return Distorted(torch.stack([moves for moves, _ in drawn]), [kt for _, kt in drawn])


def draw(split: str, n: int, seed: int) -> qm9.Molecules:
    """n random molecules of a split of QM9; seeds 0, 1, ... have none in common.

    Raises:
        ValueError: the split has no n molecules left for this seed.
    """
    molecules, n, seed = qm9.load(split=split), require_count("n", n), require_seed("seed", seed)
    if n * (seed + 1) > len(molecules):
        raise ValueError(f"seed is {seed} with n={n}; the {len(molecules)} molecules of {split!r} do not go so far")
    order = torch.randperm(len(molecules), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return molecules[order[n * seed : n * (seed + 1)]]


def stretches(positions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(r_ij - r_hat_ij)^2 of distorted molecules (..., atoms, 3), (..., pairs), and the target's r_ij, (pairs,)."""
    edges = complete_edges(len(target))
    rest = edge_distances(target, edges)
    return (edge_distances(positions, edges) - rest).square(), rest


def surrogate_values(positions: Tensor, target: Tensor, more: Mapping[str, Springs] | None = None) -> dict[str, Tensor]:
    """E(y_hat, y) of distorted molecules (..., atoms, 3) around one target (atoms, 3), for each surrogate.

    The pair energies are those of `PairEnergy`, computed here from one set of distances for all springs.
    """
    flat = positions.reshape(-1, *target.shape)
    stretch, rest = stretches(positions, target)
    traps = {name: energy(flat, target.expand_as(flat)).view(stretch.shape[:-1]) for name, energy in TRAPS.items()}
    every: dict[str, Springs] = {**SPRINGS, **(more or {})}
    return traps | {name: stretch @ spring(rest) for name, spring in every.items()}


def rank_correlation(first: Tensor, second: Tensor, *, tolerance: float = 1e-9) -> Tensor:
    """Spearman's rank correlation along the last axis, (..., items) and (..., items) -> (...), float64.

    Values are compared to `tolerance` times the largest magnitude, so that rounding noise is not ranked. A constant
    ranks nothing: its correlation with anything is 0 here.

    Raises:
        ValueError: fewer than two items; a value is not finite.
    """
    a, b = (values.detach().cpu().double() for values in torch.broadcast_tensors(first, second))
    if a.shape[-1] < 2:
        raise ValueError(f"first and second have {a.shape[-1]} items; they should have at least 2")
    if not bool((a.isfinite() & b.isfinite()).all()):
        raise ValueError("first or second holds a NaN or infinite value; all should be finite")
    a, b = (_centred_ranks(values, tolerance) for values in (a, b))
    product = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(product > 0, (a * b).sum(-1) / product.clamp(min=1e-30), 0.0)


def _centred_ranks(values: Tensor, tolerance: float) -> Tensor:
    from scipy.stats import rankdata

    unit = tolerance * values.abs().amax(-1, keepdim=True)
    steps = torch.where(unit > 0, (values / unit).round(), values)
    return torch.from_numpy(rankdata(steps.numpy(), axis=-1)) - (values.shape[-1] + 1) / 2


def bootstrap_interval(values: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of (items,); that of a single value is the value.

    Raises:
        ValueError: no values.
    """
    from scipy.stats import bootstrap

    if not len(values):
        raise ValueError("values is empty; it should have at least one number")
    if len(values) == 1:
        return float(values[0]), float(values[0])
    sample = values.detach().cpu().double().numpy()
    found = bootstrap((sample,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def rank(settings: Settings, start: str, kind: str, seed: int) -> dict[str, Any]:
    """One cell of part "rank": rank correlations of every surrogate at every size."""
    molecules = draw("test", settings.molecules, seed)
    good, lost = force_fields(molecules, graphs.to_rdkit)
    generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
    fitted = {"fitted": step_springs(fit_springs(settings, seed)["k"])}
    correlations: dict[str, list[Tensor]] = {}
    pooled: dict[str, list[Tensor]] = {}
    kts = []
    for _, field, minimum in good:
        target = minimum if start == "minimum" else field.positions
        moves = distort(kind, field, target, settings.sizes, settings.distortions, generator)
        positions = target + moves.displacements
        true = field.energy(positions) - field.energy(target)
        kts.append(moves.kt)
        pooled.setdefault("true", []).append(true)
        for name, values in surrogate_values(positions, target, fitted).items():
            correlations.setdefault(name, []).append(rank_correlation(values, true))
            pooled.setdefault(name, []).append(values)
    every = {name: torch.cat(values, dim=1) for name, values in pooled.items()}
    cost = every["true"].median(dim=1).values
    return {
        "molecules": len(good),
        "lost": {reason: [molecules.smiles[i] for i in which] for reason, which in lost.items()},
        "median_cost": [float(f"{value:.4g}") for value in cost.tolist()],
        "median_kelvin": [round(float(k) / BOLTZMANN, 2) for k in _median(kts)],
        "scores": _scores({name: torch.stack(rows) for name, rows in correlations.items()}, every, settings, seed),
    }


def _median(rows: Sequence[Sequence[float]]) -> list[float]:
    """The median of each column; of an even number of rows the lower one."""
    return [statistics.median_low(column) for column in zip(*rows, strict=True)]


def _scores(
    table: Mapping[str, Tensor], every: Mapping[str, Tensor], settings: Settings, seed: int
) -> list[dict[str, Any]]:
    """From correlations (molecules, sizes) of each surrogate, and all energies (sizes, distortions), to JSON rows."""
    rows = []
    for s, size in enumerate(settings.sizes):
        for name, all_sizes in table.items():
            found = all_sizes[:, s]
            low, high = bootstrap_interval(found, seed=seed)
            row: dict[str, Any] = {
                "mean": found.mean(),
                "low": low,
                "high": high,
                "beats_mse": (found > table["mse"][:, s]).double().mean(),
                "beats_exponential": (found > table["exponential"][:, s]).double().mean(),
                "pooled": rank_correlation(every[name][s], every["true"][s]),
            }
            rows.append({"size": size, "energy": name, **{key: round(float(value), 4) for key, value in row.items()}})
    return rows


@cache
def fit_springs(settings: Settings, seed: int) -> dict[str, Any]:
    """One cell of part "fit": the piecewise constant k(r) >= 0 with which sum_{i<j} k (r - r_hat)^2 comes closest, in
    relative error, to the MMFF94 cost of small distortions, random and thermal ones together. k in
    kcal/mol/angstrom^2."""
    from scipy.optimize import nnls

    good, _ = force_fields(draw("train", settings.fitted, seed), graphs.to_rdkit)
    generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
    rows, pairs = [], torch.zeros(len(BINS) - 1, dtype=torch.float64, device="cpu")
    for _, field, minimum in good:
        moves = [distort(kind, field, minimum, (0.02,), 30, generator).displacements[0] for kind in DISTORTIONS[:2]]
        positions = minimum + torch.cat(moves)
        true = field.energy(positions) - field.energy(minimum)
        stretch, rest = stretches(positions, minimum)
        pairs.index_add_(0, _bins(rest), torch.ones_like(rest))
        binned = stretch.new_zeros(len(stretch), len(BINS) - 1).index_add(1, _bins(rest), stretch)
        rows.append(binned / true[:, None])
    design = torch.cat(rows).numpy()
    k, _ = nnls(design, np.ones(len(design)))
    error = math.sqrt(float(((design @ k - 1) ** 2).mean()))
    return {
        "molecules": len(good),
        "edges": list(BINS),
        "k": [float(f"{value:.4g}") for value in k],
        "pairs_per_molecule": [round(float(value) / len(good), 3) for value in pairs],
        "relative_error": round(error, 4),
    }


def step_springs(k: Sequence[float]) -> Springs:
    """k(r), constant between the distances of `BINS`, as `PairEnergy` takes it."""
    return lambda r: r.new_tensor(k)[_bins(r)]


def _bins(r: Tensor) -> Tensor:
    return (torch.bucketize(r, r.new_tensor(BINS), right=True) - 1).clamp(0, len(BINS) - 2)


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """Each kind of distortion from the force field's minimum, random ones from QM9's own geometry, and the fit."""
    places = [("minimum", kind) for kind in DISTORTIONS] + [("qm9", "random")]
    return [
        cell
        for seed in range(seeds)
        for cell in (
            *({"part": "rank", "start": start, "distortion": kind, "seed": seed} for start, kind in places),
            {"part": "fit", "start": "minimum", "distortion": "random and thermal", "seed": seed},
        )
    ]


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Rank the surrogates, or fit the springs."""
    if cell["part"] == "fit":
        return fit_springs(settings, cell["seed"])
    return rank(settings, cell["start"], cell["distortion"], cell["seed"])


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each start, distortion, size and surrogate, over all molecules of all seeds.

    The interval is that of the seeds' mean: their half-widths add in quadrature, since they draw different molecules.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    counts: dict[tuple[Any, ...], int] = {}
    for row in rows:
        if row["cell"]["part"] == "rank":
            for score in row["result"]["scores"]:
                key = (row["cell"]["start"], row["cell"]["distortion"], score["size"], score["energy"])
                groups.setdefault(key, []).append(score)
                counts[key] = counts.get(key, 0) + row["result"]["molecules"]
    averaged = ("mean", "beats_mse", "beats_exponential", "pooled")
    summary = []
    for key, scores in groups.items():
        mean = {name: sum(s[name] for s in scores) / len(scores) for name in averaged}
        below = math.sqrt(sum((s["mean"] - s["low"]) ** 2 for s in scores)) / len(scores)
        above = math.sqrt(sum((s["high"] - s["mean"]) ** 2 for s in scores)) / len(scores)
        numbers = {**mean, "low": mean["mean"] - below, "high": mean["mean"] + above}
        names = dict(zip(("start", "distortion", "size", "energy"), key, strict=True))
        rounded = {name: round(value, 4) for name, value in numbers.items()}
        summary.append({**names, "molecules": counts[key], "n": len(scores), **rounded})
    return summary


def table(result: dict[str, Any]) -> str:
    """Mean rank correlation with its 95 % interval, a column for each size."""
    lines: dict[tuple[str, str, str], dict[str, object]] = {}
    for row in result["summary"]:
        key = (row["start"], row["distortion"], row["energy"])
        line = lines.setdefault(key, dict(zip(("start", "distortion", "energy"), key, strict=True)))
        line[f"{row['size']} Å"] = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    return text_table(list(lines.values()))


EXPERIMENT = Experiment(
    name="springs",
    title="Which springs know most about the real energy of a molecule?",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=summarise,
    table=table,
)
