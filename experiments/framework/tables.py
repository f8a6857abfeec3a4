"""From the results of cells to the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 30
"""Molecules that a figure of a subset (valid, relaxed ones) should be taken from."""
OF_SOME: dict[str, tuple[str, ...]] = {
    "fcd": ("validity",),
    "uniqueness": ("validity",),
    "novelty": ("validity", "uniqueness"),
    "graph_fcd": ("graph_validity",),
    "graph_uniqueness": ("graph_validity",),
    "graph_novelty": ("graph_validity", "graph_uniqueness"),
    "graph_contradicted": ("graph_right",),
    "bond_error": ("relaxed",),
    "kelvin": ("relaxed",),
}
"""Figure of some of the molecules -> the shares whose product says of how many: of all "molecules" the valid ones, of
these the distinct ones."""


def enough(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with None for the figures that rest on fewer than `LEAST` molecules: those of `OF_SOME`, and "strain",
    which is that of the "strained"."""
    result = dict(row["result"])
    few = [figure for figure, shares in OF_SOME.items() if figure in result and _counted(row["result"], shares) < LEAST]
    if result.get("strained", LEAST) < LEAST:
        few.append("strain")
    return {**row, "result": result | dict.fromkeys(few)}


def _counted(result: Mapping[str, Any], shares: Sequence[str]) -> float:
    """The molecules of these shares; a result that does not say how many there are is not judged."""
    if not {"molecules", *shares} <= result.keys():
        return math.inf
    # Shares are rounded to five digits: 30 of 900 should be 30. Where nothing is valid, the share of distinct is None.
    return round(result["molecules"] * math.prod(result[share] or 0 for share in shares))


def mean_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); a single value has spread 0.0, which says nothing about it.

    Raises:
        ValueError: no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("values is empty; it should have at least one number")
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0


def summarise_by(rows: Sequence[Mapping[str, Any]], *keys: str, digits: int = 6) -> list[dict[str, Any]]:
    """One row for each distinct value of the cells' `keys`, in order of appearance, averaged over the rest (seeds).

    A figure that rests on too few molecules in one of the group's results (see `enough`) is left out.

    Args:
        rows: {"cell": ..., "result": ..., ...} of finished cells.
        keys: names in "cell" that tell the groups apart.
        digits: significant digits kept.

    Returns:
        Dicts of the keys, "n" (cells in the group), and {"mean", "std"} for each number that all its results have.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row["cell"][key] for key in keys), []).append(enough(row)["result"])
    summary = []
    for group, results in groups.items():
        names = [name for name in results[0] if all(_is_number(result.get(name)) for result in results)]
        spreads = {name: mean_spread([result[name] for result in results]) for name in names}
        numbers = {
            name: {"mean": float(f"{mean:.{digits}g}"), "std": float(f"{std:.{digits}g}")}
            for name, (mean, std) in spreads.items()
        }
        summary.append({**dict(zip(keys, group, strict=True)), "n": len(results), **numbers})
    return summary


def rounded(figures: Mapping[str, Any], decimals: int = 5) -> dict[str, Any]:
    """The same figures with their floats rounded."""
    return {name: round(value, decimals) if isinstance(value, float) else value for name, value in figures.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def format_mean(row: Mapping[str, Any], name: str, digits: int = 3, scale: float = 1.0) -> str:
    """'mean ± std (n)' of one number of a `summarise_by` row, times `scale` (100 for per cent); no ± for n = 1."""
    mean, std, n = row[name]["mean"] * scale, row[name]["std"] * scale, row["n"]
    return f"{mean:.{digits}f} ± {std:.{digits}f} ({n})" if n > 1 else f"{mean:.{digits}f} (1)"


WORDS = {
    "atom_stability": "stable atoms (%)",
    "molecule_stability": "stable molecules (%)",
    "validity": "valid (%)",
    "uniqueness": "unique (%)",
    "novelty": "new (%)",
    "completeness": "complete (%)",
    "learning_rate": "learning rate",
    "network_evaluations": "evaluations",
    "fcd": "FCD",
    "mmd_bond": "MMD bonds",
    "mmd_angle": "MMD angles",
    "mmd_dihedral": "MMD dihedrals",
    "error_1": "bonds (Å)",
    "error_2": "1-3 distances (Å)",
    "error_3": "1-4 distances (Å)",
    "distance_error": "all three (Å)",
    "hands_wrong (%)": "wrong hands (%)",
    "relative_wrong (%)": "wrong isomers (%)",
    "quality_at_radius": "quality at the right radius",
    "radius_ratio": "radius, of the right one",
    "radius_error": "error of the radius",
    "energy_descended": "after descent",
    "energy_best_of_8_descended": "best of 8, after descent",
    "core_seconds": "core seconds",
    "training_seconds": "training (s)",
    "w1": "W1",
    "first": "first moment",
    "wrong_hand": "wrong hands",
}
"""Name of a number in a result -> its heading in a table, with its unit."""


NAMES = {
    "mse": "MSE",
    "mae": "MAE",
    "kabsch": "Kabsch",
    "ising": "true energy",
    "mmff94": "MMFF94",
    "gfn2": "GFN2-xTB",
    "gdm": "GDM",
    "gdm-aug": "GDM-aug",
    "edm": "EDM",
}
"""Loss or model in a result -> what sentences and pictures call it."""


def name_in_words(name: object) -> str:
    """One of `NAMES`; else the name without underscores."""
    return NAMES.get(str(name), str(name).replace("_", " "))


def heading(name: str) -> str:
    """One of `WORDS`, behind "paper: " too; else the name."""
    before, colon, own = name.rpartition("paper: ")
    return before + colon + WORDS.get(own, own)


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table, aligned so that it also reads as plain text; its columns are the first row's keys, headed by
    their `heading`.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows is empty; it should have at least one row")
    columns = list(rows[0])
    cells = [[heading(column) for column in columns]] + [
        [str(row.get(column, "")) for column in columns] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def mean_table(
    summary: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    columns: Mapping[str, tuple[str, int, float]],
    always: Sequence[str] = ("loss",),
) -> str:
    """A table of a `summarise_by` summary: mean ± standard deviation (number), "-" for what a row does not have.

    Args:
        summary: the rows.
        keys: what tells them apart; there is no column for those that never vary, but for those in `always`.
        columns: number -> its heading, digits, factor (100 for per cent).
    """
    varied = [key for key in keys if key in always or len({row[key] for row in summary}) > 1]

    def figures(row: Mapping[str, Any]) -> dict[str, str]:
        return {
            heading: format_mean(row, name, digits, factor) if name in row else "-"
            for name, (heading, digits, factor) in columns.items()
        }

    return text_table([{**{key: row[key] for key in varied}, **figures(row)} for row in summary])
