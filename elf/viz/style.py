"""One palette and one way to show a figure, for the whole course."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

# Chosen by a numerical search: every pair stays at least 25 CIELAB units apart in normal sight and under simulated
# protanopia, deuteranopia and tritanopia, and each has a contrast of 2.9:1 or more on white (tests/viz/test_style.py).
COLORS: dict[str, str] = {
    "target": "#076A2B",
    "prediction": "#028FF1",
    "mse": "#DF7C17",
    "energy": "#6F377F",
    "kabsch": "#7F7F7F",
}
INK = "#1f2328"
PAPER = "#ffffff"
FAINT = "#d0d4da"
DPI = 144
CSS_PIXELS_PER_INCH = 92

_RC: dict[str, Any] = {
    "figure.dpi": DPI,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=[COLORS[name] for name in ("prediction", "mse", "energy", "target", "kabsch")]),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "font.size": 10,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "grid.color": FAINT,
}


def use() -> None:
    """Set matplotlib's defaults for the course: opaque light background, so that a figure reads on dark pages too."""
    mpl.rcParams.update(_RC)  # type: ignore[arg-type]


def png(fig: Figure, *, dpi: int = DPI, tight: bool = True, colors: int = 256) -> bytes:
    """The figure as an opaque PNG, reduced to `colors` colours (256: a third of the size, no visible difference).

    `tight` fits the picture to what is drawn; otherwise it has the figure's size.
    """
    from PIL import Image

    large, small = io.BytesIO(), io.BytesIO()
    # "tight" because constrained layout alone can cut a title off where axes have equal aspect.
    options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08} if tight else {}
    options["pil_kwargs"] = {"compress_level": 0}  # it is only read again, below
    fig.savefig(large, format="png", dpi=dpi, facecolor=PAPER, edgecolor="none", **options)
    with Image.open(large) as picture:
        reduced = picture.convert("RGB").quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(small, format="png", optimize=True)
    return small.getvalue()


def show(fig: Figure, *, alt: str) -> None:
    """Display a figure as PNG with alternative text, then close it.

    The picture is drawn finer than the screen's resolution and shown at its size in inches. `alt` says in words what
    the figure shows; it is stored in the output's metadata and as its plain text.

    Raises:
        ValueError: `alt` is empty.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    if not alt.strip():
        raise ValueError("alt is empty; it should say in words what the figure shows")
    picture = png(fig)
    width = round(int.from_bytes(picture[16:20], "big") / DPI * CSS_PIXELS_PER_INCH)  # a PNG states its width there
    bundle = {"image/png": base64.b64encode(picture).decode("ascii"), "text/plain": alt}
    plt.close(fig)
    display(bundle, raw=True, metadata={"image/png": {"alt": alt, "width": width}})


def equal_aspect(ax: Axes) -> None:
    """One unit of x as long as one of y, whether or not the axes are shared with others."""
    both = len(ax.get_shared_x_axes().get_siblings(ax)) > 1 and len(ax.get_shared_y_axes().get_siblings(ax)) > 1
    ax.set_aspect("equal", adjustable="box" if both else "datalim")


def legible(color: str) -> str:
    """The colour, darkened until text in it has a contrast above 4.5:1 on white (WCAG 2.2, AA)."""
    rgb = mpl.colors.to_rgb(color)
    for share in range(100, 0, -1):
        dark = [share / 100 * part for part in rgb]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in dark]
        if sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) <= 1.05 / 4.55 - 0.05:
            break
    red, green, blue = dark
    return mpl.colors.to_hex((red, green, blue))


def label(ax: Axes, text: str, x: float, y: float, color: str = INK, **kwargs: Any) -> Text:
    """Write `text` in `color`, made legible, beside what it names at data coordinates (x, y): not a legend."""
    options: dict[str, Any] = {
        "xytext": (5, 0), "textcoords": "offset points", "va": "center", "ha": "left", "fontsize": 9.5, "zorder": 10,
    }  # fmt: skip
    return ax.annotate(text, (x, y), color=legible(color), **(options | kwargs))


def dots(ax: Axes, rows: Mapping[str, Sequence[float]], colors: Mapping[str, str] | None = None) -> None:
    """Draw each row's numbers, one for each run, as dots beside its name, from top to bottom; a bar at the mean.

    Args:
        colors: of the rows; those that are not named, nor one of `COLORS`, are drawn in ink.

    Raises:
        ValueError: a row without a number.
    """
    palette = {**COLORS, **(colors or {})}
    for height, (name, values) in enumerate(rows.items()):
        if not len(values):
            raise ValueError(f"rows[{name!r}] is empty; it should have at least one number")
        color = palette.get(name, INK)
        ax.plot(values, [height] * len(values), "o", color=color, markersize=5, alpha=0.8, markeredgewidth=0)
        ax.plot(sum(values) / len(values), height, "|", color=color, markersize=15, markeredgewidth=2)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="x")


def lines(ax: Axes, found: Mapping[float, Sequence[float]], color: str, *, shift: float = 1.0, **kwargs: Any) -> float:
    """Draw the numbers at each place, one for each run, as dots, and a line through their means; `kwargs` are its.

    Args:
        found: place on the x axis -> the numbers there.
        shift: the dots stand at `shift` times their place, so that those of several lines do not hide each other.

    Returns:
        The last mean.

    Raises:
        ValueError: a place without a number, or no place.
    """
    means = {place: sum(values) / len(values) for place, values in found.items() if len(values)}
    if len(means) < len(found) or not found:
        raise ValueError(f"found is {dict(found)!r}; it should have places, with at least one number at each")
    ax.plot(list(means), list(means.values()), color=color, **kwargs)
    for place, values in found.items():
        ax.plot([shift * place] * len(values), values, "o", color=color, markersize=4, markeredgewidth=0)
    return list(means.values())[-1]
