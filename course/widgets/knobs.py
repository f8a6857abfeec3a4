"""A picture with one or two sliders, and tags with what each place of them costs: made in Python, alive in a page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course.widgets import web
from course.widgets.sketch import Sketch
from course.widgets.widget import Checked
from elf.viz import style
from elf.viz.arrays import doubles, finite
from elf.viz.elements import element
from elf.viz.molecules import bonds, principal_frame

_MOST = 32.0


def _pack(name: str, values: Tensor) -> str:
    """Coordinates in thousandths, two bytes each, in base64: a tenth of what they take as text."""
    if float(values.abs().max()) >= _MOST:
        raise ValueError(f"{name} has values up to {float(values.abs().max()):.3g}; they should be below {_MOST:.0f}")
    return base64.b64encode(np.round(1000 * values.numpy()).astype("<i2").tobytes()).decode("ascii")


def _packed(name: str, value: Any) -> str:
    try:
        if isinstance(value, str) and len(base64.b64decode(value, validate=True)) % 6 == 0:
            return value
    except ValueError:
        pass
    raise ValueError(f"{name} is {value!r:.30}; it should be coordinates, packed by `scene`")


def _unpack(text: str, dots: int) -> Tensor:
    return doubles(np.frombuffer(base64.b64decode(text), dtype="<i2").reshape(-1, dots, 3) / 1000)


_DOT = {"color": str, "radius": float, "plain": bool}
_SLIDER = {"name": str, "labels": [str]}
_SCENE = {
    "title": str, "tone": str, "dots": [_DOT], "edges": [[int]], "frames": _packed, "arrows?": _packed,
    "view": "4", "outline": "points 2|",
}  # fmt: skip
_TAG = {"name": str, "tone": str, "unit": str, "values": [float], "top": float}


def scene(
    positions: Tensor,
    numbers: Tensor | None = None,
    *,
    title: str = "",
    tone: str = "",
    colors: str | Sequence[str] = "prediction",
    radius: float | Sequence[float] = 0.1,
    edges: Sequence[tuple[int, int]] | None = None,
    arrows: Tensor | None = None,
    outline: Tensor | None = None,
    turn: Tensor | None = None,
    margin: float = 0.6,
) -> dict[str, Any]:
    """One panel of `Knobs`: what is to be seen at each place of the sliders.

    Args:
        positions: (places, points, 2 or 3), angstrom; with two sliders the second runs fastest.
        numbers: atomic numbers; None: points of `colors` and `radius`, one for all or one each.
        title, tone: words above the panel, and the colour of them and of the arrows.
        edges: pairs joined by sticks; for atoms the bonds of the first place, else none.
        arrows: like positions, drawn at their length.
        outline: (points, 2 or 3), green rings that stay.
        turn: (3, 3), rotation to the page; for atoms by default the principal frame of the first place, else none.
        margin: room around all places, in the unit of positions.

    Raises:
        ValueError: wrong shapes, values that are not finite or not below 32.
    """
    x = finite("positions", positions, "places points 3", "places points 2")
    flat, places, count = x.shape[-1] == 2, x.shape[0], x.shape[1]
    if turn is None:
        turn = torch.eye(3, dtype=x.dtype, device="cpu") if numbers is None else principal_frame(x[0])
    pad = (0, 1) if flat else (0, 0)
    shown = torch.nn.functional.pad(x, pad) @ turn.T
    if numbers is None:
        each = [colors] * count if isinstance(colors, str) else list(colors)
        sizes = [radius] * count if isinstance(radius, (int, float)) else list(radius)
        dots = [{"color": c, "radius": float(r), "plain": True} for c, r in zip(each, sizes, strict=True)]
    else:
        kinds = [element(int(number)) for number in numbers]
        dots = [{"color": kind.color, "radius": 0.55 * kind.radius, "plain": False} for kind in kinds]
        edges = [(int(i), int(j)) for i, j in bonds(x[0], numbers)] if edges is None else edges
    made = {"title": title, "tone": tone, "dots": dots, "edges": [list(pair) for pair in edges or ()]}
    if arrows is not None:
        pushes = finite("arrows", arrows, f"{places} {count} {x.shape[-1]}")
        made["arrows"] = _pack("arrows", torch.nn.functional.pad(pushes, pad) @ turn.T)
    rings = torch.zeros(0, 2, dtype=x.dtype, device="cpu")
    if outline is not None:
        goal = finite("outline", outline, f"points {x.shape[-1]}")
        rings = (torch.nn.functional.pad(goal, pad) @ turn.T)[:, :2]
    everything = torch.cat([shown[..., :2].flatten(0, 1), rings])
    low, high = everything.min(0).values - margin, everything.max(0).values + margin
    view = [float(low[0]), float(high[0]), float(low[1]), float(high[1])]
    return {**made, "frames": _pack("positions", shown), "view": view, "outline": rings.tolist()}


def tag(name: str, values: Tensor, tone: str = "ink", unit: str = "", top: float | None = None) -> dict[str, Any]:
    """A number that goes with the sliders, with its bar: `values` has one for each place, `top` fills the bar.

    Raises:
        ValueError: values that are not a list of finite numbers, or top not above zero.
    """
    each = finite("values", values, "places")
    most = float(each.max()) if top is None else top
    if not most > 0:
        raise ValueError(f"top is {most}; it should be above zero")
    numbers = [float(f"{float(v):.6g}") if abs(v) > 1e-12 * most else 0.0 for v in each]  # no rounding error as a price
    return {"name": name, "tone": tone, "unit": unit, "values": numbers, "top": most}


class Knobs(Sketch):
    """A picture that follows one or two sliders, or a drag in it, and tags with numbers that follow too.

    Args:
        sliders: name -> what it reads at each of its places.
        scenes: panels, each made by `scene`.
        tags: numbers, each made by `tag`.
        about: what is shown, in words.
        at: the places to begin with; the first ones by default.
        picks: a press on a dot sets the second slider to it, and up and down is the first.
        note: a line below.

    Attributes:
        at: places of the sliders; follow the reader, and may be set.

    Raises:
        ValueError: not one or two sliders, no panel, panels or tags that do not fit the sliders.
    """

    module_name = "knobs"
    _esm = web.module("knobs")

    sliders = Checked([_SLIDER], [{"name": "", "labels": [""]}])
    panels = Checked([_SCENE], [])
    tags = Checked([_TAG], [])
    at = Checked([int], [0])
    picks = Checked(bool, False)
    about = Checked(str, "A picture with knobs")
    note = Checked(str, "")

    def __init__(
        self,
        sliders: Mapping[str, Sequence[str]],
        scenes: Sequence[dict[str, Any]],
        tags: Sequence[dict[str, Any]] = (),
        *,
        at: Sequence[int] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(
            sliders=[{"name": name, "labels": list(labels)} for name, labels in sliders.items()],
            panels=list(scenes),
            tags=list(tags),
            at=list(at or [0] * len(sliders)),
            **others,
        )

    def fit(self, state: dict[str, Any]) -> None:
        """One place on each slider, and one picture and one number for each place."""
        lengths = [len(slider["labels"]) for slider in state["sliders"]]
        count = math.prod(lengths)
        if len(lengths) not in (1, 2) or not count:
            raise ValueError(f"sliders has {len(lengths)}; it should be one or two, each with labels")
        if len(state["at"]) != len(lengths) or any(p >= n for p, n in zip(state["at"], lengths, strict=True)):
            raise ValueError(f"at is {state['at']}; it should be a place on each slider, below {lengths}")
        if not state["panels"]:
            raise ValueError("panels is empty; it should hold one or more")
        for one in state["panels"]:
            _fit_scene(one, count)
        for one in state["tags"]:
            if len(one["values"]) != count or not one["top"] > 0:
                raise ValueError(f"tags: {one['name']!r} has {len(one['values'])} values; it should have {count}")

    @traitlets.validate("sliders", "panels", "tags", "at")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    @property
    def place(self) -> int:
        """Index of the place shown now."""
        lengths = [len(slider["labels"]) for slider in self.sliders]
        return int(np.ravel_multi_index(self.at, lengths))

    @property
    def alt(self) -> str:
        """What is shown, where the sliders are, and the numbers there, in words."""
        where = ", ".join(f"{s['name']} {s['labels'][p]}" for s, p in zip(self.sliders, self.at, strict=True))
        numbers = ", ".join(f"{t['name']} {t['values'][self.place]:.3g} {t['unit']}".strip() for t in self.tags)
        return f"{self.about}. {where}: {numbers}." if numbers else f"{self.about}. {where}."

    def still(self) -> bytes:
        """The widget as it stands, as a PNG: its panels, and its tags as bars."""
        count = len(self.panels) + bool(self.tags)
        figure = Figure(figsize=(3.3 * count, 3.2), facecolor=style.PAPER, layout="constrained")
        self.draw(list(figure.subplots(1, count, squeeze=False)[0]))
        return style.png(figure, dpi=style.CSS_PIXELS_PER_INCH, tight=False)

    def draw(self, axes: list[Axes]) -> None:
        """The place shown now, a panel on each of the axes, the tags on the last."""
        for ax, one in zip(axes, self.panels, strict=False):
            _draw_scene(ax, one, self.place)
        for row, one in enumerate(self.tags):
            value = one["values"][self.place]
            axes[-1].barh(row, min(value, one["top"]) / one["top"], color=_paint(one["tone"]), height=0.3)
            axes[-1].text(0, row - 0.3, f"{one['name']}: {value:.3g} {one['unit']}", fontsize=10)
        if self.tags:
            axes[-1].set(xlim=(0, 1), ylim=(len(self.tags) - 0.4, -0.7))
            axes[-1].set_axis_off()

    def __repr__(self) -> str:
        return f"Knobs({[slider['name'] for slider in self.sliders]}, at={self.at})"


def _fit_scene(one: dict[str, Any], count: int) -> None:
    dots = len(one["dots"])
    for name in ("frames", "arrows"):
        if name in one and len(base64.b64decode(one[name])) != 6 * dots * count:
            raise ValueError(f"panels: {name} of {one['title']!r} should hold {dots} points for each of {count} places")
    if any(len(pair) != 2 or max(pair) >= dots for pair in one["edges"]):
        raise ValueError(f"panels: edges of {one['title']!r} should be pairs of its {dots} dots")
    left, right, bottom, top = one["view"]
    if not (left < right and bottom < top):
        raise ValueError(f"panels: view is {one['view']}; it should be left, right, bottom and top")


def _paint(color: str) -> str:
    return color if color.startswith("#") else style.COLORS.get(color, style.INK)


def _draw_scene(ax: Axes, one: dict[str, Any], place: int) -> None:
    points = _unpack(one["frames"], len(one["dots"]))[place]
    for i, j in one["edges"]:
        ax.plot(*points[[i, j], :2].T, color="#8a8f98", linewidth=2, zorder=1)
    for (x, y, depth), dot in zip(points.tolist(), one["dots"], strict=True):
        look: dict[str, Any] = {"color": _paint(dot["color"]), "markeredgecolor": style.INK, "zorder": 3 + 0.01 * depth}
        size = max(3.0, 34 * dot["radius"])
        ax.plot(x, y, "o", markersize=size, markeredgewidth=0.0 if dot["plain"] else 0.7, **look)
    if one["outline"]:
        green = style.COLORS["target"]
        ax.plot(*doubles(one["outline"]).T, "o", color=green, markerfacecolor="none", markersize=7, zorder=2)
    if "arrows" in one:
        push = _unpack(one["arrows"], len(one["dots"]))[place]
        options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "zorder": 6, "width": 0.012}
        ax.quiver(*points[:, :2].T, *push[:, :2].T, color=_paint(one["tone"]), **options)
    left, right, bottom, top = one["view"]
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", title=one["title"])
    ax.set_axis_off()
