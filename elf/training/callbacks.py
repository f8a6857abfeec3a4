"""What may watch a training run: a progress bar, a time limit."""

from __future__ import annotations

import math
import sys
import time
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
