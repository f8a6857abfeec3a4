"""The smoothed loss of a training, drawn while it falls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from elf.training import TrainState
from elf.training.callbacks import in_notebook
from elf.viz.style import png


class LiveCurve:
    """The smoothed loss, drawn while it falls: one figure in a notebook, updated at most once a second.

    Several runs are compared in one figure by handing the first one's curve to the others: `LiveCurve("energy",
    share=first)`. Outside notebooks it does nothing.

    Args:
        label: the run's name, written at the end of its curve.
        color: any matplotlib color; None takes the next of the axes' cycle.
        share: an earlier LiveCurve in whose figure this run is drawn too.
        every: least seconds between two updates.
    """

    def __init__(
        self,
        label: str = "loss",
        color: str | None = None,
        share: LiveCurve | None = None,
        every: float = 1.0,
    ) -> None:
        self.label, self.color, self.every = label, color, every
        self.curves: list[LiveCurve] = share.curves if share is not None else []
        self.steps: list[float] = []
        self.losses: list[float] = []
        self._handle: Any = None

    def start(self, state: TrainState) -> None:
        """Called before the first step."""
        self._active = state.rank == 0 and in_notebook()
        self._shown, self._cost = time.monotonic(), 0.0
        if self._active:
            self.curves.append(self)

    def __call__(self, state: TrainState) -> None:
        """Called after every step."""
        # Drawing takes a tenth of a second or more; it shall not take a twentieth of the training.
        if self._active and time.monotonic() - self._shown > max(self.every, 20 * self._cost):
            self._draw(state)

    def finish(self, state: TrainState) -> None:
        """Called at the end, whatever ended the run."""
        if self._active:
            self._draw(state)

    def _draw(self, state: TrainState) -> None:
        from IPython.display import Image, display

        begin = time.monotonic()
        self.steps, self.losses = smooth([entry["loss"] for entry in state.record.history])
        ends = ", ".join(curve.end for curve in self.curves if curve.losses)
        alt = f"Smoothed training loss over steps, at the end: {ends}"
        picture, first = Image(data=self.figure_png(), format="png", alt=alt), self.curves[0]
        if first._handle is None:
            first._handle = display(picture, display_id=True)
        else:
            first._handle.update(picture)
        self._shown = time.monotonic()
        self._cost = self._shown - begin

    @property
    def end(self) -> str:
        """What is written at the end of the curve."""
        return f"{self.label} {self.losses[-1]:.3g}"

    def figure_png(self) -> bytes:
        """The figure as it stands, as PNG bytes."""
        from matplotlib.figure import Figure

        # Not pyplot: such a figure is known to nobody else, so that it is neither shown twice nor left open.
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        drawn = [curve for curve in self.curves if curve.losses]
        lines = [axes.plot(curve.steps, curve.losses, color=curve.color)[0] for curve in drawn]
        if all(loss > 0 for curve in drawn for loss in curve.losses):
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="training loss (smoothed)")
        axes.margins(x=0.01)
        heights, lowest = axes.transData - axes.transAxes, -1.0
        ends = [heights.transform((curve.steps[-1], curve.losses[-1]))[1] for curve in drawn]
        for height, curve, line in sorted(zip(ends, drawn, lines, strict=True), key=lambda end: end[0]):
            # Ends that nearly meet push each other's labels apart.
            lowest = max(height, lowest + 0.08)
            axes.text(1.01, lowest, curve.end, color=line.get_color(), va="center", transform=axes.transAxes)
        axes.spines[["top", "right"]].set_visible(False)
        return png(figure, dpi=110, tight=False)


def smooth(losses: Sequence[float], points: int = 50) -> tuple[list[float], list[float]]:
    """(steps, losses) of at most `points` means over equal consecutive windows, at the windows' last steps."""
    width = max(1, -(-len(losses) // points))
    windows = [losses[i : i + width] for i in range(0, len(losses), width)]
    ends = [min(i + width, len(losses)) - 1.0 for i in range(0, len(losses), width)]
    return ends, [sum(window) / len(window) for window in windows]
