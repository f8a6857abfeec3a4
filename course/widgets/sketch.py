"""The small figures to play with: what they share in Python, as stage.js is what they share in the browser."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course.widgets.widget import Widget
from elf.viz import style


class Sketch(Widget):
    """A widget of panels side by side: a subclass names its traits and draws each panel of the still picture."""

    panels: ClassVar[int] = 2

    @abstractmethod
    def draw(self, axes: list[Axes]) -> None:
        """Draw the widget as it stands, one panel on each of the axes."""

    def still(self) -> bytes:
        """The widget as it stands, as a PNG."""
        figure = Figure(figsize=(3.3 * self.panels, 3.4), facecolor=style.PAPER, layout="constrained")
        axes = list(figure.subplots(1, self.panels, squeeze=False)[0])
        self.draw(axes)
        return style.png(figure, dpi=style.CSS_PIXELS_PER_INCH, tight=False)
