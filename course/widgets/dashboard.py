"""The training dashboard: a callback for `elf.training.fit` that shows loss, metrics and samples while they change.

    record = fit(model, loss, batches, settings, callbacks=[Dashboard("energy", samples=draw)])

In a notebook it is a widget with a stop button, which stays behind as it ended; elsewhere it is plain text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor

from course.widgets import web
from course.widgets.widget import Checked, Widget, sound
from elf.checks import require_one_of, require_positive
from elf.training import ProgressBar, TrainState
from elf.training.callbacks import in_notebook
from elf.viz.arrays import AS_IT_IS, finite
from elf.viz.live_curve import smooth
from elf.viz.molecules import scene
from elf.viz.style import COLORS, png

MOST_SAMPLES = 8
Drawing = dict[str, Any]


def draw_points(points: Tensor) -> Drawing:
    """A closed polygon through points of the plane, (N, 2), about its centroid."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"samples has points of shape {tuple(points.shape)}; each sample should be (N, 2)")
    known = _finite(points)
    centred = known - known.mean(0)
    reach = max(float(centred.norm(dim=1).max()), 1e-6)
    ends = torch.cat([centred, centred.roll(-1, 0)] if len(centred) > 2 else [centred[:1], centred[-1:]], 1)
    dots = [[x, y, 0.09 * reach, "prediction"] for x, y in _rounded(centred)]
    return {"reach": reach, "lines": _rounded(ends), "dots": dots}


def draw_molecule(molecule: tuple[Tensor, Tensor]) -> Drawing:
    """Balls and sticks of (positions (atoms, 3), numbers (atoms,)), seen along the thinnest axis."""
    alone = len(molecule[0]) == 1
    shown = scene(_finite(molecule[0]), molecule[1], frame=AS_IT_IS if alone else None)
    flat = _rounded(shown.atoms[:, :2])
    return {
        "reach": max(float(shown.atoms[:, :2].norm(dim=1).max()), 0.5) + 0.5,
        "lines": [[*flat[i], *flat[j]] for i, j, _ in shown.bonds],
        "dots": [[*flat[i], shown.kinds[i].ball, shown.kinds[i].color] for i in shown.atoms[:, 2].argsort().tolist()],
    }


def draw_spins(spins: Tensor) -> Drawing:
    """The cells of a lattice (H, W), filled where the spin (or its logit) is positive."""
    if spins.ndim != 2 or 0 in spins.shape:
        raise ValueError(f"samples has spins of shape {tuple(spins.shape)}; each sample should be (H, W)")
    return {"reach": 1.0, "lines": [], "dots": [], "cells": ((spins > 0).long() * 2 - 1).tolist()}


def _finite(values: Tensor) -> Tensor:
    # A sample that ran away shall not end the training that it is to show: it is drawn at the rim.
    return values.detach().cpu().double().nan_to_num(0.0, 1e6, -1e6).clamp(-1e6, 1e6)


def _rounded(values: Tensor) -> list[list[float]]:
    return torch.round(values, decimals=3).tolist()


_DRAW: dict[str, Callable[[Any], Drawing]] = {"points": draw_points, "molecules": draw_molecule, "spins": draw_spins}


def _dot(name: str, value: Any) -> list[Any]:
    x, y, radius, color = value
    return [*finite(name, [x, y, radius], "3").tolist(), sound(name, color, str)]


_SAMPLE = {"reach": require_positive, "lines": "lines 4|", "dots": [_dot], "cells?": "height width"}


class DashboardView(Widget):
    """What the dashboard shows; made by `Dashboard`, and kept in the notebook as it ended."""

    module_name = "dashboard"
    _esm = web.module("dashboard")

    label = Checked(str, "training")
    tone = Checked(tuple(COLORS), "energy")
    line = Checked(str, "")
    phase = Checked(str, "running")
    step = Checked(int, 0)
    steps = Checked(int, 0)
    curve = Checked({"steps": "steps|", "losses": "steps|"}, {"steps": [], "losses": []})
    metrics = Checked([{"name": str, "text": str}], [])
    samples = Checked([_SAMPLE], [])
    asked = Checked(bool, False)

    def fit(self, state: dict[str, Any]) -> None:
        """A loss for each step."""
        steps, losses = (len(state["curve"][key]) for key in ("steps", "losses"))
        if steps != losses:
            raise ValueError(f"curve has {steps} steps, {losses} losses; it should be equally many")

    @traitlets.validate("curve")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    @property
    def alt(self) -> str:
        """The dashboard in words."""
        numbers = "".join(f", {entry['name']} {entry['text']}" for entry in self.metrics)
        return f"Training of {self.label}: {self.line}{numbers}"

    def still(self) -> bytes:
        """Loss curve and samples as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.6, 2.6), layout="constrained")
        grid: Any = figure.add_gridspec(2, 10)
        ax = figure.add_subplot(grid[:, :6] if self.samples else grid[:, :])
        ax.plot(self.curve["steps"], self.curve["losses"], color=COLORS[self.tone])
        if self.curve["losses"] and min(self.curve["losses"]) > 0:
            ax.set_yscale("log")
        ax.set(xlabel="step", ylabel="loss (smoothed)", title=self.label)
        for index, sample in enumerate(self.samples):
            cell = figure.add_subplot(grid[index // 4, 6 + index % 4])
            cell.set_axis_off()
            _draw(cell, sample)
        return png(figure, dpi=92, tight=False)


def _draw(ax: Any, sample: Drawing) -> None:
    if "cells" in sample:
        ax.imshow(sample["cells"], cmap="Greys", vmin=-1, vmax=1)
        return
    for x1, y1, x2, y2 in sample["lines"]:
        ax.plot([x1, x2], [y1, y2], color="#8a8f98", linewidth=1.5, zorder=1)
    for x, y, size, color in sample["dots"]:
        area = (60 * size / sample["reach"]) ** 2
        ax.scatter([x], [y], s=area, color=COLORS.get(color, color), edgecolors="k", lw=0.5, zorder=2, clip_on=False)
    edge = 1.1 * sample["reach"]
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge))
    ax.set_aspect("equal")


class Dashboard:
    """Shows a training run while it runs: loss, metrics, samples, time left; its button ends the run with a checkpoint.

    After an update, with the metrics and samples it needs, the next one waits until all of them together take less than
    `share` of the training's time; the one at the end is extra.

    Args:
        label: what is being trained.
        metrics: called with the state (without gradients), gives numbers by name; called only for an update.
        samples: called with the state, gives current samples; called only for an update. Up to eight are drawn.
        kind: of samples: "points", (B, N, 2), drawn as polygons; "molecules", pairs (positions, numbers); "spins",
            (B, H, W), spins or logits.
        tone: name of the curve's colour in the palette.
        every: least seconds between two updates.
        share: of the training's time, above which no update begins.

    Attributes:
        view: the widget; None outside notebooks.
        updates: how often it was drawn.
        seconds: what drawing took so far, in seconds.

    Raises:
        ValueError: an unknown kind or tone, or numbers that are not positive.
    """

    def __init__(
        self,
        label: str = "training",
        *,
        metrics: Callable[[TrainState], Mapping[str, float]] | None = None,
        samples: Callable[[TrainState], Tensor | Sequence[Any]] | None = None,
        kind: str = "points",
        tone: str = "energy",
        every: float = 0.5,
        share: float = 0.01,
    ) -> None:
        require_one_of("kind", kind, tuple(_DRAW))
        require_one_of("tone", tone, tuple(COLORS))
        self.label, self.metrics, self.samples, self.kind, self.tone = label, metrics, samples, kind, tone
        self.every, self.share = require_positive("every", every), require_positive("share", share)
        self.view: DashboardView | None = None
        self._text = ProgressBar(label)
        self._plain = True

    def start(self, state: TrainState) -> None:
        """Called before the first step."""
        self.updates, self.seconds = 0, 0.0
        self._begin = self._shown = time.perf_counter()
        self._plain = not (state.rank == 0 and in_notebook())
        if self._plain:
            self._text.start(state)
            return
        from IPython.display import display

        self.view = DashboardView(label=self.label, tone=self.tone, steps=state.steps)
        self._handle: Any = display(self.view, display_id=True)

    def __call__(self, state: TrainState) -> None:
        """Called after every step."""
        if self._plain:
            self._text(state)
            return
        assert self.view is not None
        if self.view.asked:
            state.stop()
        now = time.perf_counter()
        if now - self._shown > self.every and self.seconds <= self.share * (now - self._begin):
            self._update(state, "running")

    def finish(self, state: TrainState) -> None:
        """Called at the end, whatever ended the run."""
        if self._plain:
            self._text.finish(state)
            if self.metrics is not None and state.rank == 0:
                print(", ".join(f"{name} {value:.4g}" for name, value in self._numbers(state).items()))
            return
        self._update(state, "stopped" if state.interrupted or state.step < state.steps else "done")
        # Once more, so that the picture that the notebook keeps is that of the end.
        self._handle.update(self.view)

    def _update(self, state: TrainState, phase: str) -> None:
        assert self.view is not None
        begin = time.perf_counter()
        pairs = zip(*smooth([entry["loss"] for entry in state.record.history]), strict=True)
        known = [(step, loss) for step, loss in pairs if math.isfinite(loss)]  # a loss that ran away has no place on it
        numbers, drawings = self._numbers(state), self._drawings(state)
        with self.view.hold_sync():
            self.view.curve = {"steps": [step for step, _ in known], "losses": [loss for _, loss in known]}
            self.view.metrics = [{"name": name, "text": f"{value:.4g}"} for name, value in numbers.items()]
            self.view.samples = drawings
            self.view.step = state.step
            self.view.line = self._text.text(state).removeprefix(f"{self.label}: ")
            self.view.phase = phase
        self.updates += 1
        self._shown = time.perf_counter()
        self.seconds += self._shown - begin

    @torch.no_grad()
    def _numbers(self, state: TrainState) -> Mapping[str, float]:
        return {} if self.metrics is None else self.metrics(state)

    @torch.no_grad()
    def _drawings(self, state: TrainState) -> list[Drawing]:
        samples = [] if self.samples is None else self.samples(state)
        return [_DRAW[self.kind](sample) for sample in samples[:MOST_SAMPLES]]
