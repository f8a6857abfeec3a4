"""bench.json as one figure of four panels."""

from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from elf.viz import style

COLORS = {name: style.COLORS[color] for name, color in (
    ("plain", "kabsch"), ("pair", "energy"), ("kabsch", "prediction"), ("mse", "mse"), ("sparse", "target"),
)}  # fmt: skip
NAMES = {"plain": "plain formula", "pair": "elf.PairEnergy", "kabsch": "Kabsch", "mse": "MSE", "sparse": "sparse edges"}


def draw(result: dict[str, Any]) -> bytes:
    """Time, time a pair beside what the machine allows, memory, and sparse edges; as PNG."""
    style.use()
    parts = result["parts"]
    fig, axes = plt.subplots(2, 2, figsize=(9.6, 7.0))
    _times(axes[0, 0], parts["losses"])
    _a_pair(axes[0, 1], parts["losses"], parts["roofline"])
    _memory(axes[1, 0], parts["memory"]["rows"])
    _edges(axes[1, 1], parts["edges"])
    fig.suptitle(f"Value and gradient, float32, one thread of {result['device'].split(',')[0]}", x=0.01, ha="left")
    picture = style.png(fig)
    plt.close(fig)
    return picture


def _size(row: dict[str, Any]) -> str:
    return f"{row['batch']} × {row['atoms']:,}"


def _times(ax: Axes, rows: list[dict[str, Any]]) -> None:
    for name in ("plain", "pair", "kabsch", "mse"):
        places = [i for i, row in enumerate(rows) if name in row["milliseconds"]]
        values = [rows[i]["milliseconds"][name] for i in places]
        ax.semilogy(places, values, "o-", color=COLORS[name], markersize=4, linewidth=1.3)
        style.label(ax, NAMES[name], places[0], values[0], COLORS[name], xytext=(-7, 0), ha="right", fontsize=8.5)
    for i, row in enumerate(rows):
        if "plain_over_pair" in row:
            style.label(
                ax, f"{row['plain_over_pair']:.2g}×", i, row["milliseconds"]["plain"], COLORS["plain"],
                xytext=(0, 8), ha="center", fontsize=8.5,
            )  # fmt: skip
    ax.set_xticks(range(len(rows)), [_size(row) for row in rows], fontsize=7.5)
    ax.set(title="Time of a call", ylabel="milliseconds", xlabel="batch × atoms", xlim=(-1.6, len(rows) - 0.6))
    ax.margins(y=0.12)


def _a_pair(ax: Axes, rows: list[dict[str, Any]], roofline: dict[str, Any]) -> None:
    for name, key in (("plain", "plain_nanoseconds_a_pair"), ("pair", "pair_nanoseconds_a_pair")):
        places = [i for i, row in enumerate(rows) if key in row]
        values = [rows[i][key] for i in places]
        ax.semilogy(places, values, "o-", color=COLORS[name], markersize=4, linewidth=1.3)
        style.label(ax, NAMES[name], places[0], values[0], COLORS[name], xytext=(0, 13), fontsize=8.5)
    for key, text, color, right in (
        ("plain_nanoseconds_for_memory", "plain formula: its traffic to memory", COLORS["plain"], True),
        ("pair_nanoseconds_in_passes", "passes over cached arrays", COLORS["pair"], False),
        ("pair_nanoseconds_for_exp_and_rsqrt", "exp and two rsqrt alone", style.INK, False),
    ):
        ax.axhline(roofline[key], color=color, linewidth=0.9, linestyle=(0, (4, 3)))
        place, up, side = (len(rows) - 0.65, 8, "right") if right else (-0.35, -8, "left")
        style.label(ax, text, place, roofline[key], color, xytext=(0, up), ha=side, fontsize=8)
    ax.set_xticks(range(len(rows)), [_size(row) for row in rows], fontsize=7.5)
    ax.set(
        title="Time of a pair; dashed: estimates from rates", ylabel="nanoseconds a pair",
        xlabel="batch × atoms", xlim=(-0.4, len(rows) - 0.6),
    )  # fmt: skip
    ax.margins(y=0.15)


def _memory(ax: Axes, rows: list[dict[str, Any]]) -> None:
    bars = sorted(rows, key=lambda row: (row["batch"] * row["atoms"] ** 2, row["loss"]))
    values = [max(row["megabytes_above"], 0.1) for row in bars]
    ax.barh(range(len(bars)), values, color=[COLORS[row["loss"]] for row in bars], height=0.65)
    for i, (row, value) in enumerate(zip(bars, values, strict=True)):
        style.label(ax, f"{row['megabytes_above']:,.0f} MB", value, i, fontsize=8)
    ax.set_yticks(range(len(bars)), [f"{NAMES[row['loss']]}, {_size(row)}" for row in bars], fontsize=8)
    ax.set_xscale("log")
    ax.set(title="Peak memory above an idle process", xlabel="megabytes", xlim=(0.1, 20 * max(values)))


def _edges(ax: Axes, edges: dict[str, Any]) -> None:
    points = [row["points"] for row in edges["rows"]]
    for name, text, color, up in (
        ("gather_autograd", "autograd over gathered edges", COLORS["plain"], 4),
        ("kabsch", NAMES["kabsch"], COLORS["kabsch"], 0),
        ("sparse", "elf.PairEnergy(edges)", COLORS["sparse"], 4),
        ("random_access", "gather and scatter alone", style.INK, -11),
        ("mse", NAMES["mse"], COLORS["mse"], 0),
    ):
        values = [row["milliseconds"][name] for row in edges["rows"]]
        dashed = (0, (4, 3)) if name == "random_access" else "-"
        ax.loglog(points, values, marker="o", color=color, markersize=4, linewidth=1.3, linestyle=dashed)
        style.label(ax, text, points[-1], values[-1], color, xytext=(6, up), fontsize=8.5)
    ax.set(
        title=f"Sparse edges, degree {edges['degree']}: time ~ n^{edges['fitted_exponent']:.2f}",
        xlabel="points", ylabel="milliseconds", xlim=(points[0] / 1.5, points[-1] * 200),
    )  # fmt: skip
    ax.set_xticks(points, [f"{n:,}" for n in points])
    ax.minorticks_off()
