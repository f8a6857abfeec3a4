"""The paper's molecule tables and Figure 4: models and losses of each, ours beside the figures printed there.

Tables 2 and 8 are "table2" here, Tables 1, 9 and 12 "table1" (GEOM-Drugs from the user's file, see `elf.data.geom`).
The paper's Table 3 puts the energy into JODO, which diffuses the molecular graph together with the coordinates: that is
"table3" (`experiments.molecules.jodo`). "paper_distributions" asks its questions of GDM-aug and EDM; the rows of JODO,
printed below ours under that name, are no target for other models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from elf.scales import nearest
from experiments.framework.experiment import Experiment
from experiments.framework.tables import format_mean, summarise_by, text_table
from experiments.molecules.paper import cells, run_cell
from experiments.molecules.paper_settings import Settings, scales

KEYS = ("model", "loss", "share")
"""What tells the rows of a table apart."""
COLUMNS = ("molecule_stability", "atom_stability", "validity", "uniqueness")

Printed = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Model -> loss -> the paper's figures for `COLUMNS`, in per cent."""

TABLE_1: Printed = {
    "gdm": {
        "mse": ("0.3", "84.7", "93.8", "100"),
        "energy": ("21.1", "95.8", "89.6", "100"),
        "sparse_inverse": ("7.4", "91.9", "92.6", "100"),
    },
    "gdm-aug": {"mse": ("0.8", "85.6", "94.8", "100"), "energy": ("24.6", "96.0", "89.7", "100")},
}
TABLE_8: Printed = {
    "gdm": {
        "mse": ("81.7±3.3", "98.3", "93.3", "99.98"),
        "mae": ("76.3±2.0", "97.7", "91.1", "99.96"),
        "kabsch": ("81.7±2.2", "98.4", "93.1", "99.93"),
        "sparse": ("86.1±2.3", "99.0", "96.2", "100"),
        "energy": ("86.2±2.1", "98.9", "96.6", "100"),
    },
    "gdm-aug": {
        "mse": ("83.7±2.3", "98.3", "93.6", "100"),
        "mae": ("76.4±0.9", "98.1", "92.6", "99.99"),
        "kabsch": ("82.3±0.5", "97.8", "90.8", "100"),
        "sparse": ("89.1±0.9", "99.0", "97.4", "100"),
        "energy": ("89.8±2.8", "99.3", "97.7", "99.99"),
    },
    "edm": {
        "mse": ("82.4±3.4", "98.8", "93.0", "99.89"),
        "mae": ("74.8±1.7", "97.8", "88.6", "99.96"),
        "kabsch": ("80.6±3.0", "98.3", "92.5", "99.91"),
        "energy": ("86.6±1.6", "99.0", "96.8", "99.96"),
    },
}
"""Table 2 has the first column of it."""
TABLE_4: Printed = {
    "gdm-aug": {
        "energy": ("89.8", "99.3", "97.7", "-"),
        "inverse_square": ("84.6", "98.9", "96.6", "-"),
        "inverse": ("84.5", "98.7", "95.0", "-"),
        "constant": ("83.6", "98.7", "93.6", "-"),
    }
}
TABLE_3 = {
    "JODO as published": ("99.2", "93.4", "-", "-", "0.885", "0.1475", "0.0121", "6.29e-4"),
    "JODO rerun": ("99.2", "92.8", "95.6", "95.5", "0.854", "0.1218", "0.0110", "5.91e-4"),
    "JODO + energy (inverse)": ("99.4", "94.3", "97.1", "97.0", "0.892", "0.1125", "0.0046", "4.95e-4"),
    "JODO + energy (exponential)": ("99.6", "96.6", "98.4", "98.4", "1.495", "0.0928", "0.0142", "4.97e-3"),
}
"""Row -> the paper's figures for `TABLE_3_COLUMNS`."""
TABLE_3_COLUMNS = (
    *("atom_stability", "molecule_stability", "validity", "completeness"),
    *("fcd", "mmd_bond", "mmd_angle", "mmd_dihedral"),
)
"""The first four in per cent."""


def _table_1() -> dict[str, Settings]:
    """The paper has 4 layers and 13 epochs; batch size 64 is EDM's for GEOM-Drugs, learning rates are QM9's."""
    found = scales(("gdm", "gdm-aug"), ("mse", "energy", "sparse_inverse"), smoke=(("gdm",), ("mse", "energy")))
    small = {
        scale: replace(own, data="geom", atoms=(1, 60), batch_size=min(16, own.batch_size), sample_batch=32)
        for scale, own in found.items()
    }
    paper = replace(small["paper"], atoms=(1, 181), epochs=13, layers=4, batch_size=64)
    return {**small, "paper": paper}


def _table_3() -> dict[str, Settings]:
    found = scales(("gdm-aug", "edm"), ("mse", "inverse", "energy"), smoke=(("edm",), ("energy",)))
    compared = {"smoke": (20, 4), "live": (200, 50), "laptop": (2000, 200), "paper": (10_000, 1000)}
    return {
        scale: replace(found[scale], reference=reference, checked=checked)
        for scale, (reference, checked) in compared.items()
    }


def _figure_4() -> dict[str, Settings]:
    found = scales(("gdm-aug",), ("mse", "energy"), smoke=(("gdm-aug",), ("energy",)))
    return {
        scale: replace(own, shares=(0.5,) if scale == "smoke" else (1.0, 0.5, 0.25, 0.125))
        for scale, own in found.items()
    }


TWO, FOUR = ("mse", "mae", "kabsch", "sparse", "energy"), ("energy", "inverse_square", "inverse", "constant")
"""Losses of Tables 2 and 4."""


def _rates(models: tuple[str, ...], losses: tuple[str, ...], *more: float) -> dict[str, Settings]:
    """Three rates or more, on a seed that no table reports."""
    found = scales(models, losses, smoke=(models[:1], losses[:1]))
    return {scale: replace(own, rates=(1e-3, 2e-3, 4e-3, *more), first_seed=10) for scale, own in found.items()}


SETTINGS: dict[str, dict[str, Settings]] = {
    "edm_rates": _rates(("edm",), TWO, 8e-3, 16e-3),
    "gdm_rates": _rates(("gdm", "gdm-aug"), TWO),
    "paper_spring_rates": _rates(("gdm-aug", "edm"), FOUR[1:]),
    "table1": _table_1(),
    "table2": scales(
        ("gdm", "gdm-aug", "edm"),
        TWO,
        smoke=(("gdm-aug", "edm"), ("mse", "energy")),
    ),
    "paper_distributions": _table_3(),
    "table4": scales(
        ("gdm-aug",),
        FOUR,
        smoke=(("gdm-aug",), ("inverse_square", "constant")),
    ),
    "figure4": _figure_4(),
}
"""Experiment -> scale -> settings."""


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over seeds; a row for each learning rate where it is swept."""
    return summarise_by(rows, *KEYS, *[key for key in ("learning_rate",) if key in rows[0]["cell"]])


def table(printed: Printed, result: dict[str, Any]) -> str:
    """Ours, mean ± standard deviation over seeds (number of seeds), with the paper's figures beside them."""
    lines = []
    varied = len({row["share"] for row in result["summary"]}) > 1
    for row in result["summary"]:
        published = printed.get(row["model"], {}).get(row["loss"], ("-",) * len(COLUMNS))
        shown = {name: format_mean(row, name, 1, 100) if name in row else "-" for name in COLUMNS}
        keys = {key: row[key] for key in (*KEYS, "learning_rate") if key in row and (key != "share" or varied)}
        beside = {f"paper: {name}": text for name, text in zip(COLUMNS, published, strict=True)}
        lines.append({"model": "", "loss": "", **keys, **shown, **beside})
    settings = result["settings"]
    note = (
        f"ours: {result['scale']} scale, {settings['layers']} layers x {settings['channels']}, per cent; "
        "paper: 9 layers x 256, 3000 epochs (QM9) or 4 layers, 13 epochs (GEOM-Drugs), as printed there"
    )
    return f"{text_table(lines)}\n{note}"


def table_3_lines(ours: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Table 3: rows of a summary with their names, the mean over networks, above the paper's."""
    lines = []
    for name, row in ours:
        line = {"model": name}
        for figure in TABLE_3_COLUMNS:
            factor, form = (100, ".1f") if figure in TABLE_3_COLUMNS[:4] else (1, ".3g")
            line[figure] = f"{row[figure]['mean'] * factor:{form}}" if figure in row else "-"
        lines.append(line)
    for name, figures in TABLE_3.items():
        lines.append({"model": f"paper: {name}", **dict(zip(TABLE_3_COLUMNS, figures, strict=True))})
    return lines


def table_3(result: dict[str, Any]) -> str:
    """Ours (mean over seeds), the data's own figures by the same measure, then the paper's rows for JODO."""
    ours = [
        (f"{row['model']}, {row['loss']}" if row["model"] != "data" else "data (train against test)", row)
        for row in result["summary"]
    ]
    return (
        f"{text_table(table_3_lines(ours))}\nours: {result['scale']} scale, {result['settings']['samples']} molecules "
        "a seed (FCD and MMD fall with their number); paper: JODO, another kind of model, with 10,000 molecules"
    )


def figure_4(result: dict[str, Any]) -> str:
    """Ours, and what the paper says of its curve."""
    claim = "paper: with half of the data the energy reaches more than 75 % stable molecules, 10 points above MSE"
    return f"{table({}, result)}\n{claim}"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "table1": ("GEOM-Drugs: GDM and GDM-aug (Tables 1, 9, 12)", partial(table, TABLE_1)),
    "table2": ("QM9: GDM, GDM-aug and EDM with five losses (Tables 2 and 8)", partial(table, TABLE_8)),
    "paper_distributions": ("QM9, GDM-aug and EDM: distributions of bonds, angles, dihedrals, molecules", table_3),
    "table4": ("QM9, GDM-aug: exponential, inverse square, inverse, constant springs", partial(table, TABLE_4)),
    "paper_spring_rates": ("QM9: learning rates for each spring, on a seed of its own", partial(table, {})),
    "edm_rates": ("QM9, EDM: learning rates for each loss, on a seed of its own", partial(table, {})),
    "gdm_rates": ("QM9, GDM and GDM-aug: learning rates for each loss, on a seed of its own", partial(table, {})),
    "figure4": ("QM9, GDM-aug: stability against the share of the data (Fig. 4)", figure_4),
}
"""Experiment -> its title, and its result as text."""

EXPERIMENTS = {
    name: Experiment(
        name=name,
        title=title,
        settings=partial(nearest, SETTINGS[name]),
        cells=cells,
        run_cell=run_cell,
        summarise=lambda rows: summarise_by(
            rows, *KEYS, *(["learning_rate"] if "learning_rate" in rows[0]["cell"] else [])
        ),
        table=show,
    )
    for name, (title, show) in TABLES.items()
}
