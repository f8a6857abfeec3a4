"""Molecules in motion: a player with a slider, for denoising and for descent, that needs neither a kernel nor WebGL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor

from elf.viz.molecules import ELEMENTS, NAMES, draw_molecule, principal_frame
from elf.viz.style import COLORS, PAPER
from elf.viz.widgets import web
from elf.viz.widgets.widget import Widget

TONES = ("energy", "mse", "kabsch", "prediction", "target")
_POINT = 0
"""The kind of particles that are no atoms."""


def _listed(value: Any, count: int, name: str) -> list[Any]:
    """One entry a molecule: a list as it is, one tensor (or None) for all."""
    if value is None or isinstance(value, (Tensor, str)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name}: got {len(value)} entries; it should have {count}, one a molecule")
    return list(value)


def _frames(name: str, value: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """(frames, atoms, 3) in double precision on the CPU; the plane gets a third coordinate 0."""
    found = tuple(value.shape)
    if value.ndim != 3 or 0 in found or found[2] not in (2, 3) or (shape is not None and found != shape):
        wanted = shape or "(frames, atoms, 2 or 3)"
        raise ValueError(f"{name}: got shape {found}; it should be {wanted}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name}: got values that are not finite; all should be finite numbers")
    full = value.detach().cpu().double()
    return torch.nn.functional.pad(full, (0, 1)) if found[2] == 2 else full


def _kinds(numbers: Tensor | None, frames: int, atoms: int) -> Tensor:
    """Atomic numbers, (atoms,) or (frames, atoms); 0 where there are none."""
    if numbers is None:
        return torch.full((atoms,), _POINT, dtype=torch.long, device="cpu")
    if tuple(numbers.shape) not in ((atoms,), (frames, atoms)):
        raise ValueError(f"numbers: got shape {tuple(numbers.shape)}; it should be ({atoms},) or ({frames}, {atoms})")
    unknown = sorted(set(numbers.flatten().tolist()) - set(ELEMENTS))
    if unknown:
        raise ValueError(f"numbers: got {unknown}; known atomic numbers are {sorted(ELEMENTS)} (drop padding first)")
    return numbers.detach().cpu().long()


class Trajectory(Widget):
    """Molecules, or points, moving side by side: one slider, a play button, and a drag that turns all of them.

    Args:
        positions: (frames, atoms, 3), angstrom, or (frames, particles, 2); or a list of them, with equally many frames.
        numbers: atomic numbers without padding, (atoms,), or (frames, atoms) where the elements change; None: points.
        targets: (atoms, 3), drawn as green outlines.
        forces: (frames, atoms, 3), drawn as arrows of length force_scale * |force|.
        edges: pairs of particles joined by sticks, in all molecules; by default atoms closer than their radii allow.
        titles: one a molecule.
        tones: names of the palette for the arrows: "energy", "mse", ...
        labels: what the slider reads at each frame.
        name: of what the slider changes.
        start: the frame to begin with, which is also the still one; the last by default.
        fps: frames a second when played.
        turn: begin in the principal frame of the target, or of the last frame; False: as given.
        unit: of length, for the scale bar.
        alt: what is shown, in words.

    `numbers`, `targets`, `forces`, `titles`, `tones` may be lists with one entry a molecule.

    Attributes:
        frame: the frame shown now; follows the slider, and may be set.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, an unknown element, lists of different lengths.
    """

    module_name = "trajectory"
    _esm = web.module("trajectory")

    molecules: traitlets.List[Any] = traitlets.List().tag(sync=True)
    elements: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    labels: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    name = traitlets.Unicode("").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    unit = traitlets.Unicode("").tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    fps = traitlets.Float(0).tag(sync=True)
    scale = traitlets.Float(1.0).tag(sync=True)

    def __init__(
        self,
        positions: Tensor | Sequence[Tensor],
        numbers: Tensor | Sequence[Tensor] | None = None,
        *,
        targets: Tensor | Sequence[Tensor | None] | None = None,
        forces: Tensor | Sequence[Tensor | None] | None = None,
        force_scale: float = 1.0,
        edges: Sequence[tuple[int, int]] | None = None,
        titles: Sequence[str] | None = None,
        tones: str | Sequence[str] = "energy",
        labels: Sequence[str] = (),
        name: str = "frame",
        start: int = -1,
        fps: float = 12.0,
        turn: bool = True,
        unit: str = "Å",
        alt: str = "Molecules in motion.",
    ) -> None:
        runs = [positions] if isinstance(positions, Tensor) else list(positions)
        if not runs:
            raise ValueError("positions: got no molecule; it should hold one or more")
        moves = [_frames("positions", run) for run in runs]
        total = len(moves[0])
        if any(len(move) != total for move in moves):
            raise ValueError(f"positions: got {[len(move) for move in moves]} frames; they should be equally many")
        if labels and len(labels) != total:
            raise ValueError(f"labels: got {len(labels)}; it should have {total}, one a frame")
        if not -total <= start < total:
            raise ValueError(f"start: got {start}; it should be {-total} to {total - 1}")
        fewest = min(move.shape[1] for move in moves)
        for pair in edges or ():
            if len(pair) != 2 or not all(0 <= i < fewest for i in pair):
                raise ValueError(f"edges: got {pair}; each should be a pair of particles, 0 to {fewest - 1}")
        self._edges = None if edges is None else [list(pair) for pair in edges]
        count = len(runs)
        self._drawn = [
            _molecule(move, *rest, turn=turn)
            for move, *rest in zip(
                moves,
                _listed(numbers, count, "numbers"),
                _listed(targets, count, "targets"),
                _listed(forces, count, "forces"),
                strict=True,
            )
        ]
        self._columns = count
        kinds = sorted({int(kind) for drawn in self._drawn for kind in drawn["kinds"].flatten()})
        super().__init__(
            molecules=[
                {
                    "title": title or "",
                    "tone": _tone(tone),
                    **({} if self._edges is None else {"edges": self._edges}),
                    **{key: _rounded(value) for key, value in drawn.items() if value is not None},
                }
                for drawn, title, tone in zip(
                    self._drawn, _listed(titles, count, "titles"), _listed(tones, count, "tones"), strict=True
                )
            ],
            elements={str(kind): _element(kind) for kind in kinds},
            labels=list(labels),
            name=name,
            alt=alt,
            unit=unit,
            frame=start % total,
            fps=fps,
            scale=force_scale,
        )

    def __repr__(self) -> str:
        return f"Trajectory({len(self.molecules)} molecules, {len(self._drawn[0]['frames'])} frames)"

    def still(self) -> bytes:
        """The frame shown now as a PNG."""
        from matplotlib.figure import Figure

        from elf.viz.style import png

        figure = Figure(figsize=(2.4 * self._columns, 2.5), facecolor=PAPER, layout="constrained")
        axes = figure.subplots(1, self._columns, squeeze=False)[0]
        for ax, drawn, molecule in zip(axes, self._drawn, self.molecules, strict=True):
            positions, kinds = drawn["frames"][self.frame], drawn["kinds"]
            kinds = kinds[self.frame] if kinds.ndim == 2 else kinds
            if int(kinds[0]) == _POINT:
                for i, j in self._edges or ():
                    ax.plot(*positions[[i, j], :2].T, color="#8a8f98", linewidth=3, zorder=1)
                ax.scatter(positions[:, 0], positions[:, 1], s=60, color=COLORS["prediction"], zorder=2)
                ax.set_aspect("equal", adjustable="datalim")
                ax.set_axis_off()
            else:
                draw_molecule(
                    ax, positions, kinds, target=drawn["target"], frame=torch.eye(3, dtype=torch.float64, device="cpu"),
                    forces=None if drawn["forces"] is None else drawn["forces"][self.frame],
                    force_color=COLORS[molecule["tone"]], force_scale=self.scale,
                )  # fmt: skip
            ax.set_title(molecule["title"], fontsize=10, loc="left")
        return png(figure, dpi=92, tight=False)


def _molecule(
    frames: Tensor, numbers: Tensor | None, target: Tensor | None, forces: Tensor | None, *, turn: bool
) -> dict[str, Any]:
    total, atoms, _ = frames.shape
    kinds = _kinds(numbers, total, atoms)
    goal = None if target is None else _frames("targets", target[None], (1, atoms, target.shape[-1]))[0]
    pushes = None if forces is None else _frames("forces", forces, (total, atoms, forces.shape[-1]))
    reference = frames[-1] if goal is None else goal
    rotation = principal_frame(reference) if turn and atoms > 1 else torch.eye(3, dtype=torch.float64, device="cpu")
    centre = reference.mean(0)
    # With a target, where a frame lies against it is the point; without one, only its shape is.
    middle = centre if goal is not None else frames.mean(1, keepdim=True)
    return {
        "frames": (frames - middle) @ rotation.T,
        "kinds": kinds,
        "target": None if goal is None else (goal - centre) @ rotation.T,
        "forces": None if pushes is None else pushes @ rotation.T,
    }


def _rounded(value: Tensor) -> list[Any]:
    if not value.is_floating_point():
        return value.tolist()
    return torch.round(value, decimals=3).tolist()


def _tone(tone: str) -> str:
    if tone not in TONES:
        raise ValueError(f"tones: got {tone!r}; it should be one of {', '.join(TONES)}")
    return tone


def _element(kind: int) -> dict[str, Any]:
    if kind == _POINT:
        return {"color": COLORS["prediction"]}
    _, radius, color = ELEMENTS[kind]
    return {"color": color, "radius": radius, "name": NAMES[kind]}


def pick_frames(total: int, frames: int) -> list[int]:
    """`frames` indices spread evenly over 0 to total - 1, both ends included: to thin a long trajectory.

    Raises:
        ValueError: fewer than 1 frame or step.
    """
    if total < 1 or frames < 1:
        raise ValueError(f"total, frames: got {total}, {frames}; both should be 1 or more")
    if frames == 1:
        return [total - 1]
    count = min(frames, total)
    return [math.floor(i * (total - 1) / max(count - 1, 1) + 0.5) for i in range(count)]
