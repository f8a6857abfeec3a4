"""The picture above each table of the results page: one dot a run, a bar at the mean, as SVG in the page's own ink."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from experiments.framework.tables import enough, name_in_words


@dataclass(frozen=True)
class Plot:
    """What is drawn of one result.

    Attributes:
        figure: its name in each cell's "result" or each row of the summary.
        label: of the axis, with its unit.
        by: names in a cell that tell the rows of the picture apart.
        factor: 100 for per cent.
        where: values that a cell must have to be drawn.
        rows: from the result, (cell, result) pairs; the cells themselves by default.
        log: whether the axis is logarithmic.
    """

    figure: str
    label: str
    by: tuple[str, ...] = ("loss",)
    factor: float = 1.0
    where: dict[str, Any] = field(default_factory=dict)
    rows: Callable[[dict[str, Any]], list[tuple[dict[str, Any], dict[str, Any]]]] | None = None
    log: bool = False


def summary(result: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of the summary in place of cells, where the cells hold something else."""
    return [(row, row) for row in result["summary"]]


def _score_orders(result: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    names = ("constant", "balanced", "inverse", "exponential")
    return [
        ({"blur": f"blur {row['case']}", "springs": name}, {"rate": row[f"rate_{name}"]})
        for row in result["summary"]
        if row["part"] == "score"
        for name in names
    ]


def _kelvins(result: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    cells = sorted(result["cells"], key=lambda cell: cell["cell"]["temperature"])
    return [({"kelvin": f"{c['cell']['temperature']} K", "loss": c["cell"]["loss"]}, c["result"]) for c in cells]


ATOMS = Plot("atom_stability", "stable atoms (%)", factor=100)


def _atoms(*by: str, **where: Any) -> Plot:
    return Plot(ATOMS.figure, ATOMS.label, by, ATOMS.factor, where)


PLOTS: dict[str, Plot] = {
    "conformers": Plot("distance_error", "error of distances up to three bonds (Å)"),
    "conformers_tenth": Plot("hands_wrong", "wrong hands (%)", factor=100),
    "conformers_told": Plot("hands_wrong", "wrong hands (%)", factor=100),
    "curvatures": Plot("out of plane", "curvature out of plane, in % of that of bonds", ("energy",), rows=summary),
    "druglike": ATOMS,
    "druglike_sparse": ATOMS,
    "edm_errors": _atoms("above", "below"),
    "edm_rates": _atoms("loss", "learning_rate"),
    "figure4": _atoms("loss", "share"),
    "gdm_rates": _atoms("model", "loss", "learning_rate"),
    "gift_rates": _atoms("network", "loss", "learning_rate"),
    "jodo_rates": _atoms("loss", "learning_rate"),
    "loss_cost": Plot("milliseconds", "one evaluation at 3,000 points (ms)", where={"points": 3000}, log=True),
    "mended_energies": _atoms("network", "loss"),
    "molecule_checkpoints": ATOMS,
    "molecule_distributions": Plot("fcd", "Fréchet ChemNet distance to the data"),
    "molecule_noise": ATOMS,
    "molecule_rates": _atoms("loss", "learning_rate"),
    "molecule_shares": ATOMS,
    "molecule_springs": ATOMS,
    "molecule_step": Plot("share", "share of the loss in a training step (%)", factor=100),
    "molecules": ATOMS,
    "paper_distributions": Plot("mmd_bond", "MMD of bond lengths", ("model", "loss")),
    "paper_models": Plot(
        "loss_share", "share of the loss in a training step (%)", ("model", "loss"), 100, {"size": "paper"}
    ),
    "paper_spring_rates": _atoms("model", "loss", "learning_rate"),
    "rigidity": Plot(
        "fraction",
        "globally rigid graphs in space, degree 6 (%)",
        ("nodes",),
        100,
        {"dim": 3, "degree": 6},
        rows=summary,
    ),
    "samplers": _atoms("sampler", "steps"),
    "score": Plot("rate", "order in sigma of the error of the score", ("blur", "springs"), rows=_score_orders),
    "shapes": Plot("quality_at_radius", "quality at the right radius", ("loss", "angle"), where={"part": "theta"}),
    "shapes_rates": Plot(
        "quality_at_radius", "quality at the right radius", ("loss", "learning_rate"), where={"part": "theta"}
    ),
    "sparse_springs": Plot("rmsd", "RMSD of chains of 80 atoms (Å)", ("springs", "edges"), where={"atoms": 80}),
    "springs": Plot(
        "mean",
        "rank correlation with MMFF94, distortions of 0.1 Å",
        ("energy",),
        where={"start": "minimum", "distortion": "thermal", "size": 0.1},
        rows=summary,
    ),
    "table1": _atoms("model", "loss"),
    "table2": _atoms("model", "loss"),
    "table3": ATOMS,
    "table4": ATOMS,
    "table5": Plot("energy", "energy above the ground state (J)"),
    "table5_aligned": Plot("energy", "energy above the ground state (J)"),
    "table5_settings": Plot("energy", "energy above the ground state (J)", ("part", "loss")),
    "temperatures": Plot("atom_stability", "stable atoms (%)", ("kelvin", "loss"), 100, rows=_kelvins),
    "two_gifts": _atoms("network", "loss"),
    "two_gifts_long": _atoms("network", "loss"),
    "two_gifts_long_mended": _atoms("network", "loss"),
    "two_gifts_long_equivariant": _atoms("network", "loss"),
    "longest_drawn": ATOMS,
    "longest_plain": _atoms("network", "loss"),
    "longest_equivariant": _atoms("network", "loss"),
    "two_gifts_loud": _atoms("network", "loss"),
    "two_gifts_mended": _atoms("network", "loss"),
}
"""Experiment -> its picture."""


def values(result: dict[str, Any], plot: Plot) -> dict[str, list[float]]:
    """Row of the picture -> its dots, one a run."""
    pairs = plot.rows(result) if plot.rows else [(cell["cell"], enough(cell)["result"]) for cell in result["cells"]]
    found: dict[str, list[float]] = {}
    for cell, figures in pairs:
        value = figures.get(plot.figure)
        if value is None or any(cell.get(name) != wanted for name, wanted in plot.where.items()):
            continue
        number = value["mean"] if isinstance(value, dict) else value
        found.setdefault(", ".join(name_in_words(cell[name]) for name in plot.by), []).append(plot.factor * number)
    return found


def svg(name: str, rows: dict[str, list[float]], plot: Plot) -> str:
    """The picture, with a sentence of its content as its alternative text; colours follow the page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from elf.viz import style

    losses = {row: key for row in rows for key in style.COLORS if name_in_words(key) in row.split(", ")}
    colors = {row: style.COLORS[key] for row, key in losses.items()}
    with mpl.rc_context():
        style.use()
        mpl.rcParams.update({"svg.hashsalt": name, "svg.fonttype": "none"})
        fig = Figure(figsize=(4.6, 0.7 + 0.21 * len(rows)))
        ax = fig.subplots()
        style.dots(ax, rows, colors)
        ax.set_xlabel(plot.label)
        if plot.log:
            ax.set_xscale("log")
        text = io.StringIO()
        fig.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()[text.getvalue().index("<svg") :]
    drawing = drawing.replace(style.INK, "currentColor").replace(style.FAINT, "#80868e66")
    for loss, color in style.COLORS.items():  # book.css has lighter ones for dark pages
        drawing = drawing.replace(color.lower(), f"var(--elf-{loss}, {color})")
    drawing = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", drawing)  # many pictures share the page
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    label = escape(f"{plot.label}: {sentence(rows)}", quote=True)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" class="dot-plot" ', 1)
    return "\n".join(line for line in drawing.splitlines() if line.strip())


def sentence(rows: Mapping[str, Sequence[float]]) -> str:
    """'MSE 61.8, energy 74.0': the means."""
    return ", ".join(f"{name} {sum(dots) / len(dots):.3g}" for name, dots in rows.items())
