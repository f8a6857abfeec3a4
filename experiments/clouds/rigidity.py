"""How often is a random regular graph globally rigid? Fraction against degree, size and dimension (Fig. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from elf.geometry.graphs import is_connected, random_regular_edges
from elf.geometry.rigidity import is_globally_rigid, is_rigid
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import text_table


@dataclass(frozen=True)
class Settings:
    """Graphs drawn for each seed, and (dimension, degree) pairs: around 2 D, and D^2, where rigidity is a theorem."""

    graphs: int
    nodes: tuple[int, ...]
    degrees: tuple[tuple[int, int], ...] = ((2, 3), (2, 4), (2, 5), (3, 5), (3, 6), (3, 7), (3, 9))


SETTINGS = {
    "smoke": Settings(graphs=4, nodes=(8, 12), degrees=((2, 4), (3, 6))),
    "live": Settings(graphs=100, nodes=(8, 10, 12, 16, 24), degrees=((2, 3), (2, 4), (3, 5), (3, 6))),
    "laptop": Settings(graphs=100, nodes=(8, 10, 12, 16, 24, 32, 48, 64)),
    "paper": Settings(graphs=1000, nodes=(8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)),
}


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One for each dimension, degree, size and seed, where such a graph exists."""
    return [
        {"dim": dim, "degree": degree, "nodes": nodes, "seed": seed}
        for dim, degree in settings.degrees
        for nodes in settings.nodes
        if degree < nodes and nodes * degree % 2 == 0
        for seed in range(seeds)
    ]


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Counts among `settings.graphs` random graphs; a disconnected one counts as flexible."""
    n, dim = cell["nodes"], cell["dim"]
    edges = random_regular_edges(n, cell["degree"], cell["seed"], count=settings.graphs)
    whole = edges[is_connected(n, edges)]
    globally = is_globally_rigid(n, whole, dim, seed=cell["seed"])
    others = whole[~globally]
    rigid = int(globally.sum()) + int(is_rigid(n, others, dim, seed=cell["seed"] + 1).sum() if len(others) else 0)
    counts = {"connected": len(whole), "rigid": rigid, "globally_rigid": int(globally.sum())}
    return {"graphs": settings.graphs, **counts}


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; informative also at 0 and at 1.

    Raises:
        ValueError: not 0 <= successes <= trials, trials >= 1.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes is {successes} of trials = {trials}; it should be in 0 .. trials, trials >= 1")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts pooled over seeds, and the fraction that is globally rigid with its 95 % interval."""
    pooled: dict[tuple[int, int, int], dict[str, int]] = {}
    for row in rows:
        total = pooled.setdefault((row["cell"]["dim"], row["cell"]["degree"], row["cell"]["nodes"]), {})
        for name, value in row["result"].items():
            total[name] = total.get(name, 0) + value
    summary = []
    for (dim, degree, nodes), total in pooled.items():
        low, high = wilson_interval(total["globally_rigid"], total["graphs"])
        fraction = total["globally_rigid"] / total["graphs"]
        numbers = {"fraction": round(fraction, 5), "low": round(low, 5), "high": round(high, 5)}
        summary.append({"dim": dim, "degree": degree, "nodes": nodes, **total, **numbers})
    return summary


def table(result: dict[str, Any]) -> str:
    """Fractions in per cent, with intervals."""
    return text_table(
        [
            {
                "D": row["dim"],
                "degree": row["degree"],
                "nodes": row["nodes"],
                "rigid": f"{row['rigid']} / {row['graphs']}",
                "globally rigid": f"{row['globally_rigid']} / {row['graphs']}",
                "%": f"{100 * row['fraction']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})",
            }
            for row in result["summary"]
        ]
    )


EXPERIMENT = Experiment(
    name="rigidity",
    title="Random regular graphs: how many are globally rigid (Fig. 5)",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=summarise,
    table=table,
)
