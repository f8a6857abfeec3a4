"""Molecules in 3D (py3Dmol) and as still pictures (matplotlib), with forces as arrows.

A view is a picture first: its HTML holds a PNG with alternative text, and a script that puts the interactive 3Dmol.js
view over it where that library and WebGL are to be had. 3Dmol.js (BSD-3) comes with this package, so that no view names
a remote address: a page may define `window.$3Dmolpromise` itself (the book does); otherwise it is loaded from `JS`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from elf.viz.style import COLORS, INK, PAPER, equal_aspect

# "{labextensions}" is JupyterLab's own address for the files of extensions, known only in the browser.
JS = "{labextensions}/elf-3dmol/static/3Dmol-min.js"
# For `jupyter lab --LabApp.extra_labextensions_path=...` when the package is used from a checkout.
LABEXTENSIONS = Path(__file__).parent / "labextensions"

# Atomic number: symbol, covalent radius in angstrom (Cordero et al. 2008, doi:10.1039/b801115j), CPK colour.
ELEMENTS: dict[int, tuple[str, float, str]] = {
    1: ("H", 0.31, "#f2f2f2"), 5: ("B", 0.84, "#ffb5b5"), 6: ("C", 0.76, "#4a4a4a"), 7: ("N", 0.71, "#3050f8"),
    8: ("O", 0.66, "#e0200d"), 9: ("F", 0.57, "#5fbf3a"), 14: ("Si", 1.11, "#c8a878"), 15: ("P", 1.07, "#ff8000"),
    16: ("S", 1.05, "#e0c020"), 17: ("Cl", 1.02, "#1fb01f"), 35: ("Br", 1.20, "#a62929"), 53: ("I", 1.39, "#940094"),
}  # fmt: skip
NAMES = {1: "hydrogen", 5: "boron", 6: "carbon", 7: "nitrogen", 8: "oxygen", 9: "fluorine", 14: "silicon",
         15: "phosphorus", 16: "sulfur", 17: "chlorine", 35: "bromine", 53: "iodine"}  # fmt: skip
_BOND_TOLERANCE = 0.40  # angstrom beyond the two radii; bonds of a half-denoised molecule are still drawn

_LOADER = """
    const load = () => {
      if (window.$3Dmolpromise) return window.$3Dmolpromise;
      if (window.$3Dmol) return Promise.resolve();
      const page = document.getElementById("jupyter-config-data");
      const lab = page ? JSON.parse(page.textContent).fullLabextensionsUrl : null;
      const address = %s;
      if (address.includes("{labextensions}") && !lab) return Promise.reject();
      return window.$3Dmolpromise = new Promise((resolve, reject) => {
        const saved = [window.exports, window.module, window.define];
        window.exports = window.module = window.define = undefined;
        const restore = () => { [window.exports, window.module, window.define] = saved; };
        const tag = document.createElement("script");
        tag.src = address.replace("{labextensions}", lab);
        tag.onload = () => { restore(); resolve(); };
        tag.onerror = () => { restore(); reject(); };
        document.head.appendChild(tag);
      });
    };
"""


def _check(positions: Tensor, numbers: Tensor, name: str = "positions") -> None:
    if positions.ndim != 2 or positions.shape[1] != 3 or len(positions) == 0:
        raise ValueError(f"{name}: got shape {tuple(positions.shape)}; it should be (atoms, 3) with one atom or more")
    if numbers.shape != positions.shape[:1]:
        raise ValueError(f"numbers: got shape {tuple(numbers.shape)}; it should be ({len(positions)},), one an atom")
    if not bool(torch.isfinite(positions).all()):
        raise ValueError(f"{name}: got values that are not finite; coordinates should be finite numbers in angstrom")
    unknown = sorted({int(number) for number in numbers} - set(ELEMENTS))
    if unknown:
        raise ValueError(f"numbers: got {unknown}; known atomic numbers are {sorted(ELEMENTS)} (drop padding first)")


def bonds(positions: Float[Tensor, "atoms 3"], numbers: Int[Tensor, " atoms"]) -> Int[Tensor, "bonds 2"]:
    """Pairs i < j to draw as bonded: closer than the sum of their covalent radii plus 0.4 angstrom.

    A rule for drawing only; stability is judged with `elf.metrics.molecules`.

    Raises:
        ValueError: wrong shapes, coordinates that are not finite, or an unknown element.
    """
    _check(positions, numbers)
    radii = positions.new_tensor([ELEMENTS[int(number)][1] for number in numbers])
    near = torch.cdist(positions, positions) < radii[:, None] + radii[None, :] + _BOND_TOLERANCE
    return near.triu(1).nonzero()


def principal_frame(positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "3 3"]:
    """Rotation R (determinant +1) so that (x - mean) @ R.T is widest along its first axis, thinnest along its third."""
    centred = positions - positions.mean(0)
    frame = torch.linalg.svd(centred.double().T @ centred.double()).U.T
    # A fixed sign for each axis keeps the picture the same on every machine.
    for axis in range(2):
        row = frame[axis]
        if row[row.abs().argmax()] < 0:
            frame[axis] = -row
    frame[2] = torch.linalg.cross(frame[0], frame[1])
    return frame.to(positions.dtype)


def draw_molecule(
    ax: Axes,
    positions: Float[Tensor, "atoms 3"],
    numbers: Int[Tensor, " atoms"],
    *,
    forces: Float[Tensor, "atoms 3"] | None = None,
    force_color: str = COLORS["energy"],
    force_scale: float = 1.0,
    target: Float[Tensor, "atoms 3"] | None = None,
    frame: Float[Tensor, "3 3"] | None = None,
    alpha: float = 1.0,
) -> None:
    """Draw one molecule as balls and sticks, seen along its thinnest axis; the still picture behind every 3D view.

    Args:
        ax: axes to draw on; ticks are removed, aspect is equal.
        positions: angstrom.
        numbers: atomic numbers, no padding.
        forces: drawn as arrows of length force_scale * |force| (angstrom).
        target: a second configuration, drawn as green outlines.
        frame: rotation to the page (default: `principal_frame` of the target if given, else of the positions).

    Raises:
        ValueError: wrong shapes, coordinates that are not finite, or an unknown element.
    """
    _check(positions, numbers)
    reference = positions if target is None else target
    rotation = principal_frame(reference) if frame is None else frame
    centre = reference.mean(0)
    flat = ((positions - centre) @ rotation.T).detach().cpu().double()
    if target is not None:
        _check(target, numbers, "target")
        _draw_outline(ax, ((target - centre) @ rotation.T).detach().cpu().double(), numbers, bonds(target, numbers))
    _draw_balls(ax, flat, numbers, bonds(positions, numbers), alpha)
    if forces is not None:
        arrows = (forces @ rotation.T).detach().cpu().double() * force_scale
        seen = arrows[:, :2].norm(dim=1) > 0.05  # angstrom; matplotlib would draw shorter ones as dots
        (x, y), (u, v) = flat[seen, :2].T.numpy(), arrows[seen, :2].T.numpy()
        ax.quiver(
            x, y, u, v, color=force_color,
            angles="xy", scale_units="xy", scale=1, width=0.012, headwidth=3.4, headlength=3.8, headaxislength=3.4,
            minlength=0.3, zorder=20, edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        tips = (flat + arrows)[:, :2].numpy()
        ax.update_datalim(tips)
    ax.update_datalim((flat[:, :2] - 0.6).numpy())
    ax.update_datalim((flat[:, :2] + 0.6).numpy())
    ax.autoscale_view()
    equal_aspect(ax)
    ax.set_axis_off()


def _draw_balls(ax: Axes, flat: Tensor, numbers: Tensor, pairs: Tensor, alpha: float) -> None:
    from matplotlib.patches import Circle

    depth = flat[:, 2].argsort().argsort().tolist()
    for first, second in pairs.tolist():
        ends = flat[[first, second]]
        order = 2 + 0.01 * min(depth[first], depth[second])
        ax.plot(ends[:, 0], ends[:, 1], color="#8a8f98", linewidth=4, alpha=alpha, solid_capstyle="round", zorder=order)
    for atom, number in enumerate(numbers.tolist()):
        _, radius, color = ELEMENTS[number]
        ax.add_patch(
            Circle(
                (float(flat[atom, 0]), float(flat[atom, 1])), 0.2 + 0.28 * radius, facecolor=color, edgecolor=INK,
                linewidth=0.9, alpha=alpha, zorder=2.005 + 0.01 * depth[atom],
            )
        )  # fmt: skip


def _draw_outline(ax: Axes, flat: Tensor, numbers: Tensor, pairs: Tensor) -> None:
    for first, second in pairs.tolist():
        ends = flat[[first, second]]
        ax.plot(ends[:, 0], ends[:, 1], color=COLORS["target"], linewidth=1.4, alpha=0.6, zorder=1)
    sizes = [60 + 160 * ELEMENTS[number][1] for number in numbers.tolist()]
    color = COLORS["target"]
    ax.scatter(flat[:, 0], flat[:, 1], s=sizes, facecolors="none", edgecolors=color, linewidths=1.4, zorder=1)


def draw_legend(ax: Axes, numbers: Int[Tensor, ...]) -> None:
    """Name the CPK colours of the elements that occur in `numbers`, in a row; padding (0) is ignored."""
    present = sorted({int(number) for number in numbers.reshape(-1)} - {0})
    for column, number in enumerate(present):
        ax.scatter([column], [0], s=90, color=ELEMENTS[number][2], edgecolors=INK, linewidths=0.9)
        ax.annotate(NAMES[number], (column, 0), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_xlim(-0.3, max(len(present), 1) - 0.1)
    ax.set_ylim(-1, 1)
    ax.set_axis_off()


class MoleculeView:
    """A py3Dmol view with a still picture behind it.

    `view` is the py3Dmol view: any 3Dmol.js command may be called on it before showing. `html` is the whole output, and
    names no remote address.
    """

    _count = itertools.count()

    def __init__(self, view: Any, picture: bytes, alt: str, width: int, height: int) -> None:
        self.view, self.picture, self.alt = view, picture, alt
        self.width, self.height = width, height

    @property
    def html(self) -> str:
        """The picture, and the script that replaces it by the 3D view."""
        after_loading = self.view.startjs.split("$3Dmolpromise.then(function() {\n", 1)[1]
        commands = after_loading + self.view.endjs.split("});\n")[0]
        # A name from the commands' content keeps an executed notebook the same from run to run.
        digest = hashlib.sha256(commands.encode()).hexdigest()[:8]
        unique = f"{digest}_{next(self._count)}"
        # "</" would end the script element even inside a string.
        commands = commands.replace("UNIQUEID", unique).replace("</", "<\\/")
        image = base64.b64encode(self.picture).decode("ascii")
        words = html.escape(self.alt, quote=True)
        box = f"position:relative;width:100%;max-width:{self.width}px;aspect-ratio:{self.width}/{self.height}"
        return f"""<div id="elf_view_{unique}" class="elf-molecule" role="img" aria-label="{words}"
 style="{box};background:{PAPER};border-radius:8px;overflow:hidden">
<img src="data:image/png;base64,{image}" alt="{words}" style="width:100%;height:100%;object-fit:contain">
</div>
<script>
(() => {{{_LOADER % json.dumps(JS)}
    const host = document.getElementById("elf_view_{unique}");
    load().then(() => {{
      const stage = document.createElement("div");
      stage.id = "3dmolviewer_{unique}";
      stage.style.cssText = "position:absolute;inset:0";
      host.appendChild(stage);
      try {{
        let viewer_{unique} = null;
{commands}
        host.firstElementChild.style.visibility = "hidden";
      }} catch (error) {{ stage.remove(); }}
    }}, () => {{}});
}})();
</script>"""

    def _repr_html_(self) -> str:
        return self.html

    def show(self) -> None:
        """Display the view in a notebook."""
        from IPython.display import display

        display({"text/html": self.html, "text/plain": self.alt}, raw=True)


def _molfile(positions: Tensor, numbers: Tensor) -> str:
    """A V2000 molfile, the shortest format that carries our own bonds to 3Dmol."""
    pairs = bonds(positions, numbers).tolist()
    atoms = [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {ELEMENTS[number][0]:<3} 0  0"
        for (x, y, z), number in zip(positions.tolist(), numbers.tolist(), strict=True)
    ]
    lines = [f"{first + 1:3d}{second + 1:3d}  1  0" for first, second in pairs]
    counts = f"{len(atoms):3d}{len(lines):3d}  0  0  0  0  0  0  0  0999 V2000"
    return "\n".join(["", "", "", counts, *atoms, *lines, "M  END"])


def _style(numbers: Tensor) -> dict[str, Any]:
    present = [ELEMENTS[number] for number in sorted(set(numbers.tolist()))]
    colours = {"prop": "elem", "map": {symbol: colour for symbol, _, colour in present}}
    return {"stick": {"radius": 0.11, "color": "#8a8f98"}, "sphere": {"scale": 0.26, "colorscheme": colours}}


def _fill(
    view: Any, positions: Tensor, numbers: Tensor, forces: Tensor | None, color: str, scale: float,
    target: Tensor | None, cell: dict[str, Any],
) -> None:  # fmt: skip
    reference = positions if target is None else target
    rotation, centre = principal_frame(reference), reference.mean(0)
    flat = ((positions - centre) @ rotation.T).detach().cpu().double()
    view.addModel(_molfile(flat, numbers), "sdf", **cell)
    view.setStyle({"model": -1}, _style(numbers), **cell)
    if target is not None:
        ghost = {"color": COLORS["target"], "opacity": 0.55}
        goal = ((target - centre) @ rotation.T).detach().cpu().double()
        view.addModel(_molfile(goal, numbers), "sdf", **cell)
        view.setStyle({"model": -1}, {"stick": {"radius": 0.06, **ghost}, "sphere": {"scale": 0.18, **ghost}}, **cell)
    if forces is not None:
        arrows = (forces @ rotation.T).detach().cpu().double() * scale
        for start, arrow in zip(flat, arrows, strict=True):
            if float(arrow.norm()) > 1e-3:
                ends = [
                    {axis: round(float(v), 3) for axis, v in zip("xyz", p, strict=True)} for p in (start, start + arrow)
                ]
                view.addArrow({"start": ends[0], "end": ends[1], "radius": 0.06, "mid": 0.75, "color": color}, **cell)
    view.zoomTo(**cell)


def _formula(numbers: Tensor) -> str:
    present = sorted(set(numbers.tolist()), key=lambda number: (number != 6, number))  # carbon first, as chemists write
    counts = [(ELEMENTS[number][0], int((numbers == number).sum())) for number in present]
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in counts)


def molecule_view(
    positions: Float[Tensor, "atoms 3"],
    numbers: Int[Tensor, " atoms"],
    *,
    forces: Float[Tensor, "atoms 3"] | None = None,
    force_color: str = COLORS["energy"],
    force_scale: float = 1.0,
    target: Float[Tensor, "atoms 3"] | None = None,
    width: int = 420,
    height: int = 320,
    alt: str | None = None,
) -> MoleculeView:
    """One molecule to turn and zoom, with optional forces (arrows, angstrom = force_scale * force) and target (green).

    Raises:
        ValueError: wrong shapes, coordinates that are not finite, or an unknown element.
    """
    return gallery(
        [positions], [numbers], forces=None if forces is None else [forces], force_color=force_color,
        force_scale=force_scale, targets=None if target is None else [target], columns=1, width=width, height=height,
        alt=alt,
    )  # fmt: skip


def gallery(
    positions: Sequence[Tensor],
    numbers: Sequence[Tensor],
    *,
    forces: Sequence[Tensor] | None = None,
    force_color: str | Sequence[str] = COLORS["energy"],
    force_scale: float = 1.0,
    targets: Sequence[Tensor] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    width: int = 760,
    height: int | None = None,
    alt: str | None = None,
) -> MoleculeView:
    """Several molecules in one canvas, row by row; each can be turned by itself.

    Args:
        positions, numbers: one (atoms, 3) and (atoms,) tensor a molecule, without padding; angstrom.
        forces, targets, titles: one a molecule.
        force_color: one colour, or one a molecule.
        columns: molecules in a row.
        width, height: pixels of the whole; by default cells are nearly square.
        alt: what the picture shows; by default the formulas.

    Raises:
        ValueError: no molecule, lists of different lengths, wrong shapes, or an unknown element.
    """
    import py3Dmol

    colors = [force_color] * len(positions) if isinstance(force_color, str) else force_color
    lists = {"numbers": numbers, "force_color": colors, "forces": forces, "targets": targets, "titles": titles}
    if len(positions) == 0:
        raise ValueError("positions: got no molecule; it should hold one or more")
    for name, values in lists.items():
        if values is not None and len(values) != len(positions):
            raise ValueError(f"{name}: got {len(values)} entries; it should have {len(positions)}, one a molecule")
    for position, number in zip(positions, numbers, strict=True):
        _check(position, number)
    columns = min(columns, len(positions))
    rows = math.ceil(len(positions) / columns)
    pixels = height or round(0.85 * width / columns * rows)
    alone = len(positions) == 1
    view = py3Dmol.view(width=width, height=pixels, js=JS, linked=False, viewergrid=None if alone else (rows, columns))
    for index, (position, number) in enumerate(zip(positions, numbers, strict=True)):
        cell = {} if alone else {"viewer": divmod(index, columns)}
        _fill(
            view, position, number, forces[index] if forces else None, colors[index], force_scale,
            targets[index] if targets else None, cell,
        )  # fmt: skip
        if titles:
            options = {"useScreen": True, "screenOffset": {"x": 8, "y": -8}, "showBackground": False, "fontColor": INK}
            view.addLabel(titles[index], {**options, "fontSize": 13}, **cell)
    picture = _gallery_picture(
        positions, numbers, forces, colors, force_scale, targets, titles, rows, columns, width, pixels
    )
    words = alt or "Molecules as balls and sticks: " + ", ".join(_formula(number) for number in numbers)
    return MoleculeView(view, picture, words, width, pixels)


def _gallery_picture(
    positions: Sequence[Tensor], numbers: Sequence[Tensor], forces: Sequence[Tensor] | None, colors: Sequence[str],
    scale: float, targets: Sequence[Tensor] | None, titles: Sequence[str] | None, rows: int, columns: int, width: int,
    height: int,
) -> bytes:  # fmt: skip
    from matplotlib.figure import Figure

    from elf.viz.style import png

    # A Figure of its own, not pyplot's: nothing is left open, and nothing is shown twice.
    figure = Figure(figsize=(width / 100, height / 100), facecolor=PAPER, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for index, ax in enumerate(grid.flat[: len(positions)]):
        draw_molecule(
            ax, positions[index], numbers[index], forces=forces[index] if forces else None,
            force_color=colors[index], force_scale=scale, target=targets[index] if targets else None,
        )  # fmt: skip
        if titles:
            ax.set_title(titles[index], fontsize=10, color=INK, loc="left")
    if len(positions) > 1:
        # One scale for all cells: a small molecule looks small.
        reach = max(float((position - position.mean(0)).norm(dim=1).max()) for position in positions) + 0.8
        for ax in grid.flat[: len(positions)]:
            ax.set_aspect("equal", adjustable="box")
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    return png(figure, dpi=100, tight=False)
