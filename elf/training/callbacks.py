"""What may watch a training run: a progress bar, a live curve, a time limit."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from elf.training.state import TrainState


class TimeLimit:
    """Ends the training, with its checkpoint, when this session has lasted `seconds`."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds is {seconds}; it should be positive")
        self.seconds = seconds

    def start(self, state: TrainState) -> None:
        """Called before the first step."""
        self._end = time.monotonic() + self.seconds

    def __call__(self, state: TrainState) -> None:
        """Called after every step."""
        if time.monotonic() >= self._end:
            state.stop()


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar:
    """One line on stdout: steps, loss, speed, time left.

    In a terminal the line is rewritten in place, in a notebook it is one display that ends as one clean line, and
    elsewhere (CI, files) it is `lines` plain lines over the whole run.

    Args:
        label: what is being trained.
        every: least seconds between two updates.
        lines: number of plain lines where nothing can be rewritten.
    """

    def __init__(self, label: str = "training", every: float = 0.3, lines: int = 5) -> None:
        self.label, self.every, self.lines = label, every, lines

    def start(self, state: TrainState) -> None:
        """Called before the first step."""
        self._shown, self._mode, self._first = 0.0, "plain", state.step
        if state.rank != 0:
            self._mode = "silent"
        elif in_notebook():
            from IPython.display import display

            self._mode = "notebook"
            self._handle: Any = display({"text/plain": self.label}, raw=True, display_id=True)
        elif sys.stdout.isatty():
            from tqdm.auto import tqdm

            self._mode = "terminal"
            self._bar: Any = tqdm(total=state.steps, initial=state.step, desc=self.label, file=sys.stdout)

    def text(self, state: TrainState) -> str:
        """The line for a state."""
        end = "stopped by hand, " if state.interrupted else ""
        left = f", {_clock(state.seconds_left)} left" if state.step < state.steps and not end else ""
        done = f"{self.label}: step {state.step}/{state.steps}, loss {state.loss:.4g}"
        return f"{done}, {end}{_clock(state.seconds)}{left}"

    def _show(self, state: TrainState) -> None:
        if self._mode == "terminal":
            self._bar.set_postfix_str(f"loss {state.loss:.4g}", refresh=False)
            self._bar.update(state.step - self._bar.n)
        elif self._mode == "notebook":
            self._handle.update({"text/plain": self.text(state)}, raw=True)
        elif self._mode == "plain":
            print(self.text(state), flush=True)

    def __call__(self, state: TrainState) -> None:
        """Called after every step."""
        if self._mode == "plain":
            # The end is shown by `finish`.
            parts, last = self.lines, state.step == state.steps
            if not last and state.step * parts // state.steps > (state.step - 1) * parts // state.steps:
                self._show(state)
        elif time.monotonic() - self._shown > self.every:
            self._shown = time.monotonic()
            self._show(state)

    def finish(self, state: TrainState) -> None:
        """Called at the end, whatever ended the run."""
        self._show(state)
        if self._mode == "terminal":
            self._bar.close()


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
