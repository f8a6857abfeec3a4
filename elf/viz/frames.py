"""A slider over pictures made beforehand: it works on a static page, where a slider that asks a kernel is dead."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import traitlets
from matplotlib.figure import Figure

from elf.viz import style, web
from elf.viz.widget import Widget

Value = TypeVar("Value")


class FrameSlider(Widget):
    """Pictures to flip through, each with a label and its words.

    Args:
        pictures: figures, or PNGs as bytes; all of one size.
        labels: what the slider reads at each picture: "T = 0.1".
        alts: what each picture shows, in words.
        name: of the quantity that the slider changes.
        start: the picture to begin with, which is also the still one: choose the one that tells the story.
        fps: pictures a second when played; None: no play button.
        dpi: dots an inch at which figures are drawn.
        colors: colours a picture is reduced to; fewer make a smaller notebook.

    Attributes:
        frame: the picture shown now; follows the slider, and may be set.

    Raises:
        ValueError: no picture, or numbers of pictures, labels and alts that differ, or a start that is not among them.
    """

    module_name = "frames"
    _esm = web.module("frames")

    pictures: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    labels: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    alts: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    name = traitlets.Unicode("").tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    width = traitlets.Int(0).tag(sync=True)
    fps = traitlets.Float(0).tag(sync=True)

    def __init__(
        self,
        pictures: Sequence[Figure | bytes],
        labels: Sequence[str],
        alts: Sequence[str],
        *,
        name: str = "",
        start: int = 0,
        fps: float | None = None,
        dpi: int = 110,
        colors: int = 64,
    ) -> None:
        if len(pictures) == 0:
            raise ValueError("pictures: got none; there should be one or more")
        for what, texts in (("labels", labels), ("alts", alts)):
            if len(texts) != len(pictures):
                raise ValueError(f"{what}: got {len(texts)}; it should have {len(pictures)}, one a picture")
        if not 0 <= start < len(pictures):
            raise ValueError(f"start: got {start}; it should be 0 to {len(pictures) - 1}")
        drawn = [p if isinstance(p, bytes) else style.png(p, dpi=dpi, tight=False, colors=colors) for p in pictures]
        pixels = int.from_bytes(drawn[0][16:20], "big")  # a PNG states its width there
        super().__init__(
            pictures=[base64.b64encode(picture).decode("ascii") for picture in drawn],
            labels=list(labels),
            alts=list(alts),
            name=name,
            frame=start,
            width=round(pixels / dpi * style.CSS_PIXELS_PER_INCH),
            fps=fps or 0.0,
        )

    @traitlets.validate("frame")
    def _validate_frame(self, proposal: Any) -> int:
        frame = proposal["value"]
        if self.pictures and not 0 <= frame < len(self.pictures):
            raise ValueError(f"frame: got {frame}; it should be 0 to {len(self.pictures) - 1}")
        return frame

    @property
    def alt(self) -> str:
        """The words of the picture shown now."""
        return self.alts[self.frame]

    def still(self) -> bytes:
        """The picture shown now."""
        return base64.b64decode(self.pictures[self.frame])

    def __repr__(self) -> str:
        return f"FrameSlider({len(self.pictures)} pictures, {self.name!r} at {self.labels[self.frame]!r})"


def flip(
    draw: Callable[[Value], tuple[Figure, str]],
    values: Sequence[Value],
    label: Callable[[Value], str] = str,
    **options: Any,
) -> FrameSlider:
    """A FrameSlider over `draw(value)`, which returns a figure and its words, for each value.

    `options` are those of FrameSlider. Figures are closed after drawing.
    """
    import matplotlib.pyplot as plt

    dpi, colors = options.get("dpi", 110), options.pop("colors", 64)
    pictures, alts = [], []
    for value in values:
        figure, words = draw(value)
        pictures.append(style.png(figure, dpi=dpi, tight=False, colors=colors))
        alts.append(words)
        plt.close(figure)
    return FrameSlider(pictures, [label(value) for value in values], alts, **options)
