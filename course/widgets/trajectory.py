"""Molecules in motion: a player with a slider, for denoising and for descent, that needs neither a kernel nor WebGL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
import traitlets
from torch import Tensor

from course.widgets import web
from course.widgets.widget import Checked, Widget, sound
from elf.checks import require_integer, require_one_of
from elf.viz.arrays import AS_IT_IS, doubles, finite
from elf.viz.elements import element, elements
from elf.viz.molecules import draw_scene, principal_frame, scene
from elf.viz.style import COLORS, PAPER, png

MOST_ATOMS = 500
_POINT = 0
"""The kind of particles that are no atoms."""


def _listed(value: Any, count: int, name: str) -> list[Any]:
    """One entry a molecule: a list as it is, one tensor (or None) for all."""
    if value is None or isinstance(value, (Tensor, np.ndarray, str)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries; it should have {count}, one a molecule")
    return list(value)


def _space(name: str, value: Any, *shape: int | str) -> Tensor:
    """Points in double precision on the CPU; the plane gets a third coordinate 0."""
    start = " ".join(map(str, shape))
    full = finite(name, value, f"{start} 3", f"{start} 2")
    return torch.nn.functional.pad(full, (0, 3 - full.shape[-1]))


_MOLECULE = {
    "title?": str, "tone?": tuple(COLORS), "frames": "frames atoms 3", "kinds": "atoms|frames atoms",
    "target?": "atoms 3", "forces?": "frames atoms 3", "edges?": [[int]],
}  # fmt: skip


def _check_molecule(name: str, value: Any) -> dict[str, Any]:
    made = {"title": "", "tone": "energy", **sound(name, value, _MOLECULE)}
    total, atoms, _ = shape = np.shape(made["frames"])
    if atoms > MOST_ATOMS:
        raise ValueError(f"{name} has {atoms} atoms; it should have at most {MOST_ATOMS}")
    wanted = {"kinds": [(atoms,), (total, atoms)], "target": [(atoms, 3)], "forces": [shape]}
    for key in wanted.keys() & made.keys():
        if np.shape(made[key]) not in wanted[key]:
            raise ValueError(f"{name}[{key!r}] has shape {np.shape(made[key])}; it should be one of {wanted[key]}")
    kinds = np.array(made["kinds"])
    if (kinds != _POINT).any():
        elements(kinds.ravel())
    for pair in made.get("edges", []):
        if len(pair) != 2 or max(pair) >= atoms:
            raise ValueError(f"edges holds {pair}; each should be a pair of particles, 0 to {atoms - 1}")
    return {**made, "kinds": kinds.astype(int).tolist()}


_ELEMENT = {"color": str, "radius?": float, "name?": str}


def _present(molecules: list[dict[str, Any]]) -> set[int]:
    return {kind for molecule in molecules for kind in np.ravel(molecule["kinds"]).tolist()}


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
        ValueError: shapes that do not fit, values that are not finite, an unknown element, lists of different lengths,
            more than 500 atoms; also when they are set later.
    """

    module_name = "trajectory"
    _esm = web.module("trajectory")

    molecules = Checked([_check_molecule], [{"frames": [[[0.0, 0.0, 0.0]]], "kinds": [_POINT]}])
    elements = Checked({...: _ELEMENT}, {})
    labels = Checked([str], [])
    name = Checked(str, "frame")
    alt = Checked(str, "Molecules in motion.")
    unit = Checked(str, "Å")
    frame = Checked(int, 0)
    fps = Checked(float, 12.0)
    scale = Checked(float, 1.0)

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
        start: SupportsIndex = -1,
        turn: bool = True,
        **others: Any,
    ) -> None:
        runs = [positions] if isinstance(positions, (Tensor, np.ndarray)) else list(positions)
        if not runs:
            raise ValueError("positions holds no molecule; it should hold one or more")
        given = {"numbers": numbers, "targets": targets, "forces": forces, "titles": titles, "tones": tones}
        lists = [_listed(value, len(runs), name) for name, value in given.items()]
        for tone in lists[-1]:
            require_one_of("tones", tone, tuple(COLORS))
        molecules = [_molecule(*rest, edges=edges, turn=turn) for rest in zip(runs, *lists, strict=True)]
        lengths = [len(molecule["frames"]) for molecule in molecules]
        if len(set(lengths)) > 1:
            raise ValueError(f"positions has {lengths} frames; they should be equally many")
        first = require_integer("start", start)
        if not -lengths[0] <= first < lengths[0]:
            raise ValueError(f"start is {start}; it should be {-lengths[0]} to {lengths[0] - 1}")
        super().__init__(
            molecules=molecules,
            elements={str(kind): _element(kind) for kind in sorted(_present(molecules))},
            frame=first % lengths[0],
            scale=force_scale,
            **others,
        )

    def fit(self, state: dict[str, Any]) -> None:
        """Each kind of atom has its element, each frame its label if any, and the frame shown is one of them."""
        lengths = {len(molecule["frames"]) for molecule in state["molecules"]}
        if len(lengths) != 1:
            raise ValueError(f"molecules has {sorted(lengths)} frames; it should be one or more, with equally many")
        total = lengths.pop()
        if missing := {str(kind) for kind in _present(state["molecules"])} - set(state["elements"]):
            raise ValueError(f"elements lacks {sorted(missing)}; it should have each kind of the molecules")
        if len(state["labels"]) not in (0, total):
            raise ValueError(f"labels has {len(state['labels'])}; it should have {total}, one a frame")
        if state["frame"] >= total:
            raise ValueError(f"frame is {state['frame']}; it should be 0 to {total - 1}")
        if state["fps"] < 0:
            raise ValueError(f"fps is {state['fps']}; it should be 0 or more")

    @traitlets.validate("molecules", "elements", "labels", "frame", "fps")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    def __repr__(self) -> str:
        return f"Trajectory({len(self.molecules)} molecules, {len(self.molecules[0]['frames'])} frames)"

    def still(self) -> bytes:
        """The frame shown now as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.4 * len(self.molecules), 2.5), facecolor=PAPER, layout="constrained")
        for ax, molecule in zip(figure.subplots(1, len(self.molecules), squeeze=False)[0], self.molecules, strict=True):
            positions = doubles(molecule["frames"][self.frame])
            kinds = molecule["kinds"]
            kinds = kinds[self.frame] if isinstance(kinds[0], list) else kinds
            if kinds[0] == _POINT:
                _draw_points(ax, positions, molecule.get("edges", ()))
            else:
                forces = molecule["forces"][self.frame] if "forces" in molecule else None
                color, target = COLORS[molecule["tone"]], molecule.get("target")
                draw_scene(ax, scene(positions, kinds, forces, color, self.scale, target, AS_IT_IS))
            ax.set_title(molecule["title"], fontsize=10, loc="left", parse_math=False)
        return png(figure, dpi=92, tight=False)


def _draw_points(ax: Any, positions: Any, edges: Any) -> None:
    for i, j in edges:
        ax.plot(*positions[[i, j], :2].T, color="#8a8f98", linewidth=3, zorder=1)
    ax.scatter(positions[:, 0], positions[:, 1], s=60, color=COLORS["prediction"], zorder=2)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()


def _molecule(
    positions: Any, numbers: Any, target: Any, forces: Any, title: str | None, tone: str, *, edges: Any, turn: bool
) -> dict[str, Any]:
    frames = _space("positions", positions, "frames", "atoms")
    total, atoms, _ = frames.shape
    if numbers is None:
        kinds = torch.full((atoms,), _POINT, dtype=torch.int64, device="cpu")
    else:
        kinds = finite("numbers", numbers, f"{atoms}", f"{total} {atoms}")
        elements(kinds.flatten())
    goal = None if target is None else _space("targets", target, atoms)
    reference = frames[-1] if goal is None else goal
    rotation = principal_frame(reference) if turn and atoms > 1 else AS_IT_IS
    centre = reference.mean(0)
    # With a target, where a frame lies against it is the point; without one, only its shape is.
    middle = centre if goal is not None else frames.mean(1, keepdim=True)
    turned = {"frames": (frames - middle) @ rotation.T}
    if goal is not None:
        turned["target"] = (goal - centre) @ rotation.T
    if forces is not None:
        turned["forces"] = _space("forces", forces, total, atoms) @ rotation.T
    return {
        "title": title or "",
        "tone": tone,
        **({} if edges is None else {"edges": [list(pair) for pair in edges]}),
        "kinds": kinds.long().tolist(),
        **{key: torch.round(value, decimals=3).tolist() for key, value in turned.items()},
    }


def _element(kind: int) -> dict[str, Any]:
    if kind == _POINT:
        return {"color": COLORS["prediction"]}
    shown = element(kind)
    return {"color": shown.color, "radius": shown.radius, "name": shown.name}
