"""A slider over pictures made beforehand: it works on a static page, where a slider that asks a kernel is dead."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeVar

import traitlets
from matplotlib.figure import Figure

from course.widgets import web
from course.widgets.widget import Checked, Widget
from elf.checks import require_count
from elf.viz import style

Value = TypeVar("Value")


def _png(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("iVBORw0KGgo"):
        raise ValueError(f"{name} is {value!r:.30}; it should be a PNG, in base64")
    return value


class FrameSlider(Widget):
    """Pictures to flip through, each with a label and its words.

    Args:
        pictures: figures, or PNGs as bytes; all of one size. With `choices`, all positions of the first choice come
            first, then all of the second.
        labels: what the slider reads at each position: "T = 0.1".
        alts: what each picture shows, in words.
        name: of the quantity that the slider changes.
        start: the picture to begin with, which is also the still one: choose the one that tells the story.
        fps: pictures a second when played; 0, the default: no play button.
        dpi: dots an inch at which figures are drawn.
        colors: colours a picture is reduced to; fewer make a smaller notebook.
        choices: texts of a menu beside the slider, for a second quantity; none by default.
        question: the menu's label.
        choice: the entry to begin with.

    Attributes:
        frame, choice: position of slider and menu; they follow the reader, and may be set.

    Raises:
        ValueError: no picture, or numbers of pictures, labels and alts that differ, or a start that is not among them;
            also when they are set later.
    """

    module_name = "frames"
    _esm = web.module("frames")

    pictures = Checked([_png], [])
    labels = Checked([str], [])
    alts = Checked([str], [])
    name = Checked(str, "")
    frame = Checked(int, 0)
    width = Checked(int, 0)
    fps = Checked(float, 0.0)
    choices = Checked([str], [])
    choice = Checked(int, 0)
    question = Checked(str, "")

    def __init__(
        self,
        pictures: Sequence[Figure | bytes],
        labels: Sequence[str],
        alts: Sequence[str],
        *,
        start: SupportsIndex = 0,
        dpi: int = 110,
        colors: int = 64,
        **others: Any,
    ) -> None:
        if len(pictures) == 0:
            raise ValueError("pictures is empty; it should hold one or more")
        drawn = [p if isinstance(p, bytes) else style.png(p, dpi=dpi, tight=False, colors=colors) for p in pictures]
        pixels = int.from_bytes(drawn[0][16:20], "big")  # a PNG states its width there
        super().__init__(
            pictures=[base64.b64encode(picture).decode("ascii") for picture in drawn],
            labels=list(labels),
            alts=list(alts),
            frame=start,
            width=round(pixels / require_count("dpi", dpi) * style.CSS_PIXELS_PER_INCH),
            **others,
        )

    def fit(self, state: dict[str, Any]) -> None:
        """One label a picture (and choice), words for each picture, and positions that are among them."""
        rows, columns, total = max(len(state["choices"]), 1), len(state["labels"]), len(state["pictures"])
        if columns * rows != total:
            menu = f" for each of {rows} choices" if state["choices"] else ""
            raise ValueError(f"labels has {columns} for {total} pictures; it should have one a picture{menu}")
        if len(state["alts"]) != total:
            raise ValueError(f"alts has {len(state['alts'])}; it should have {total}, one a picture")
        for name, count in (("frame", columns), ("choice", rows)):
            if state[name] >= count:
                raise ValueError(f"{name} is {state[name]}; it should be 0 to {count - 1}")
        if state["fps"] < 0:
            raise ValueError(f"fps is {state['fps']}; it should be 0 or more")

    @traitlets.validate("pictures", "labels", "alts", "frame", "choices", "choice", "fps")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    @property
    def _shown(self) -> int:
        return self.choice * len(self.labels) + self.frame

    @property
    def alt(self) -> str:
        """The words of the picture shown now."""
        return self.alts[self._shown]

    def still(self) -> bytes:
        """The picture shown now."""
        return base64.b64decode(self.pictures[self._shown])

    def __repr__(self) -> str:
        return f"FrameSlider({len(self.pictures)} pictures, {self.name!r} at {self.labels[self.frame]!r})"


def flip(
    draw: Callable[..., tuple[Figure, str]],
    values: Sequence[Value],
    label: Callable[[Value], str] = str,
    *,
    choices: Mapping[str, Any] | None = None,
    dpi: int = 110,
    colors: int = 64,
    **options: Any,
) -> FrameSlider:
    """A FrameSlider over `draw(value)`, which returns a figure and its words, for each value.

    With `choices`, names and what they stand for, it is `draw(value, choice)` for each pair, and a menu offers the
    names. `options` are those of FrameSlider. Figures are closed after drawing.
    """
    import matplotlib.pyplot as plt

    pictures, alts = [], []
    for more in [()] if choices is None else [(choice,) for choice in choices.values()]:
        for value in values:
            figure, words = draw(value, *more)
            pictures.append(style.png(figure, dpi=dpi, tight=False, colors=colors))
            alts.append(words)
            plt.close(figure)
    labels = [label(value) for value in values]
    return FrameSlider(pictures, labels, alts, dpi=dpi, choices=list(choices or ()), **options)
