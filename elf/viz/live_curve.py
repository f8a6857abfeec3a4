"""The smoothed loss of a training, drawn while it falls."""

from __future__ import annotations

import time
from collections.abc import Sequence

from elf.training import TrainState
from elf.training.callbacks import in_notebook


class LiveCurve:
    """The smoothed loss, drawn while it falls: one figure in a notebook, updated at most once a second.

    Several runs are compared in one figure by handing the first one's curve to the others: `LiveCurve("energy",
    share=first)`. Outside notebooks it does nothing.

    Args:
        label: the run's name, written at the end of its curve.
        color: any matplotlib color; None takes the next of the axes' cycle.
        share: an earlier LiveCurve in whose figure this run is drawn too.
        every: least seconds between two updates.
        log: whether the loss axis is logarithmic.
    """

    def __init__(
        self,
        label: str = "loss",
        color: str | None = None,
        share: LiveCurve | None = None,
        every: float = 1.0,
        log: bool = True,
    ) -> None:
        self.label, self.color, self.every, self.log = label, color, every, log
        self.curves: list[tuple[LiveCurve, list[float], list[float]]] = share.curves if share is not None else []
        self._share, self._handle, self._shown = share, None, 0.0
        self._points: tuple[list[float], list[float]] = ([], [])

    def start(self, state: TrainState) -> None:
        """Called before the first step."""
        self._active = state.rank == 0 and in_notebook()
        self._shown, self._cost = time.monotonic(), 0.0
        if self._active:
            self.curves.append((self, *self._points))

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
        steps, losses = smooth([entry["loss"] for entry in state.record.history])
        self._points[0][:], self._points[1][:] = steps, losses
        ends = ", ".join(f"{curve.label} {losses[-1]:.3g}" for curve, _, losses in self.curves if losses)
        picture = Image(
            data=self.figure_png(), format="png", alt=f"Smoothed training loss over steps, at the end: {ends}"
        )
        first = self.curves[0][0]
        if first._handle is None:
            first._handle = display(picture, display_id=True)
        else:
            first._handle.update(picture)
        self._shown = time.monotonic()
        self._cost = self._shown - begin

    def figure_png(self) -> bytes:
        """The figure as it stands, as PNG bytes."""
        import io

        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # Not pyplot: such a figure is known to nobody else, so that it is neither shown twice nor left open.
        figure = Figure(figsize=(6, 3), dpi=110, layout="constrained")
        axes = figure.subplots()
        for curve, steps, losses in self.curves:
            axes.plot(steps, losses, color=curve.color, label=curve.label)
        if self.log and all(loss > 0 for _, _, losses in self.curves for loss in losses):
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="training loss (smoothed)")
        axes.margins(x=0.01)
        heights = axes.transData - axes.transAxes
        ends = [
            (heights.transform((steps[-1], losses[-1]))[1], f"{curve.label} {losses[-1]:.3g}", line.get_color())
            for (curve, steps, losses), line in zip(self.curves, axes.lines, strict=True)
            if steps
        ]
        lowest = -1.0
        for height, text, color in sorted(ends):
            # Ends that nearly meet push each other's labels apart.
            lowest = max(height, lowest + 0.08)
            axes.text(1.01, lowest, text, color=color, va="center", transform=axes.transAxes)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.BytesIO()
        FigureCanvasAgg(figure).print_png(out)
        return out.getvalue()


def smooth(losses: Sequence[float], points: int = 50) -> tuple[list[float], list[float]]:
    """(steps, losses) of at most `points` means over equal consecutive windows, at the windows' last steps."""
    width = max(1, -(-len(losses) // points))
    windows = [losses[i : i + width] for i in range(0, len(losses), width)]
    ends = [min(i + width, len(losses)) - 1.0 for i in range(0, len(losses), width)]
    return ends, [sum(window) / len(window) for window in windows]
