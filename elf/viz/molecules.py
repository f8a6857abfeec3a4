"""Molecules in 3D (py3Dmol) and as still pictures (matplotlib), with forces as arrows.

A view is a picture first: its HTML holds a PNG with alternative text, and a script (`molecules.js`) that puts the
interactive 3Dmol.js view over it where that library and WebGL are to be had. 3Dmol.js (BSD-3) comes with this package,
so that no view names a remote address: a page may define `window.$3Dmolpromise` itself (the book does); otherwise it is
loaded from `JS`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, SupportsIndex

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from elf.checks import require_count
from elf.data.molecules import formula
from elf.viz.arrays import doubles, finite
from elf.viz.elements import Element, elements
from elf.viz.style import COLORS, INK, PAPER, equal_aspect, png

# "{labextensions}" is JupyterLab's own address for the files of extensions, known only in the browser.
JS = "{labextensions}/elf-3dmol/static/3Dmol-min.js"
# For `jupyter lab --LabApp.extra_labextensions_path=...` when the package is used from a checkout.
LABEXTENSIONS = Path(__file__).parent / "labextensions"

_BOND_TOLERANCE = 0.40  # angstrom beyond the two radii; bonds of a half-denoised molecule are still drawn
_BOND = "#8a8f98"


def _bonded(atoms: Tensor, kinds: Sequence[Element]) -> Int[Tensor, "bonds 2"]:
    radii = doubles([kind.radius for kind in kinds])
    # cdist's shortcut by a matrix product loses all digits far from the origin.
    gaps = torch.cdist(atoms, atoms, compute_mode="donot_use_mm_for_euclid_dist")
    return (gaps < radii[:, None] + radii[None, :] + _BOND_TOLERANCE).triu(1).nonzero()


def _sticks(atoms: Tensor, kinds: Sequence[Element]) -> list[list[int]]:
    return [[*pair, 1] for pair in _bonded(atoms, kinds).tolist()]


def bonds(positions: Float[Tensor, "atoms 3"], numbers: Int[Tensor, " atoms"]) -> Int[Tensor, "bonds 2"]:
    """Pairs i < j to draw as bonded: closer than the sum of their covalent radii plus 0.4 angstrom.

    A rule for drawing only; stability is judged with `elf.metrics.molecules`.

    Raises:
        ValueError: wrong shapes, coordinates that are not finite, or an unknown element.
    """
    atoms = finite("positions", positions, "atoms 3")
    return _bonded(atoms, elements(numbers, f"{len(atoms)}")).to(positions.device)


def principal_frame(positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "3 3"]:
    """Rotation R (determinant +1) so that (x - mean) @ R.T is widest along its first axis, thinnest along its third.

    Raises:
        ValueError: wrong shape, or coordinates that are not finite.
    """
    atoms = finite("positions", positions, "atoms 3")
    centred = atoms - atoms.mean(0)
    frame = torch.linalg.svd(centred.T @ centred).U.T
    for row in frame[:2]:  # a fixed sign for each axis keeps the picture the same on every machine
        row *= row[row.abs().argmax()].sign()
    frame[2] = torch.linalg.cross(frame[0], frame[1])
    return frame.to(positions)


class Scene(NamedTuple):
    """A molecule turned to the page, in angstrom: what both the still picture and the 3D view draw."""

    atoms: Float[Tensor, "atoms 3"]
    kinds: list[Element]
    bonds: list[list[int]]
    """First atom, second atom, order; those of the target as well."""
    target: Float[Tensor, "atoms 3"] | None
    target_bonds: list[list[int]]
    arrows: Float[Tensor, "atoms 3"] | None
    color: str


def scene(
    positions: Any,
    numbers: Any,
    forces: Any = None,
    force_color: str = COLORS["energy"],
    force_scale: float = 1.0,
    target: Any = None,
    frame: Any = None,
    orders: Any = None,
) -> Scene:
    """Check a molecule and turn it to the page; arguments and errors are those of `draw_molecule` and `gallery`."""
    atoms = finite("positions", positions, "atoms 3")
    layout = f"{len(atoms)} 3"
    kinds = elements(numbers, f"{len(atoms)}")
    goal = None if target is None else finite("target", target, layout)
    pushes = None if forces is None else finite("forces", forces, layout) * finite("force_scale", force_scale, "")
    reference = atoms if goal is None else goal
    turn = (principal_frame(reference) if frame is None else finite("frame", frame, "3 3")).T
    centre = reference.mean(0)
    if orders is None:
        sticks = _sticks(atoms, kinds)
    else:
        drawn = finite("orders", orders, f"{len(atoms)} {len(atoms)}")
        if not bool(((drawn == drawn.T) & (drawn >= 0) & (drawn <= 3) & (drawn == drawn.round())).all()):
            raise ValueError("orders is not symmetric, or not whole numbers; it should hold the orders 0 to 3")
        sticks = [[i, j, int(drawn[i, j])] for i, j in drawn.triu(1).nonzero().tolist()]
    return Scene(
        (atoms - centre) @ turn,
        kinds,
        sticks,
        None if goal is None else (goal - centre) @ turn,
        [] if goal is None else _sticks(goal, kinds),
        None if pushes is None else pushes @ turn,
        force_color,
    )


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
        ValueError: wrong shapes, values that are not finite, or an unknown element.
    """
    draw_scene(ax, scene(positions, numbers, forces, force_color, force_scale, target, frame), alpha)


def draw_scene(ax: Axes, shown: Scene, alpha: float = 1.0) -> None:
    """What `draw_molecule` does, once the molecule is checked and turned."""
    flat = shown.atoms
    if shown.target is not None:
        color = COLORS["target"]
        for *pair, _ in shown.target_bonds:
            ends = shown.target[pair]
            ax.plot(ends[:, 0], ends[:, 1], color=color, linewidth=1.4, alpha=0.6, zorder=1)
        (x, y, _), sizes = shown.target.T, [60 + 160 * kind.radius for kind in shown.kinds]
        ax.scatter(x, y, s=sizes, facecolors="none", edgecolors=color, linewidths=1.4, zorder=1)
    _draw_balls(ax, shown, alpha)
    if shown.arrows is not None:
        seen = shown.arrows[:, :2].norm(dim=1) > 0.05  # angstrom; matplotlib would draw shorter ones as dots
        (x, y), (u, v) = flat[seen, :2].T.numpy(), shown.arrows[seen, :2].T.numpy()
        ax.quiver(
            x, y, u, v, color=shown.color,
            angles="xy", scale_units="xy", scale=1, width=0.012, headwidth=3.4, headlength=3.8, headaxislength=3.4,
            minlength=0.3, zorder=20, edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        ax.update_datalim((flat + shown.arrows)[:, :2].numpy())
    ax.update_datalim(torch.cat([flat[:, :2] - 0.6, flat[:, :2] + 0.6]).numpy())
    ax.autoscale_view()
    equal_aspect(ax)
    ax.set_axis_off()


def _draw_balls(ax: Axes, shown: Scene, alpha: float) -> None:
    from matplotlib.patches import Circle

    depth = shown.atoms[:, 2].argsort().argsort().tolist()
    for *pair, order in shown.bonds:
        ends, height = shown.atoms[pair][:, :2], 2 + 0.01 * min(depth[atom] for atom in pair)
        along = ends[1] - ends[0]
        across = 0.09 * torch.stack([-along[1], along[0]]) / along.norm().clamp(min=1e-3)
        for side in range(1 - order, order, 2):
            x, y = (ends + side * across).T
            width = 4 if order == 1 else 2
            ax.plot(x, y, color=_BOND, linewidth=width, alpha=alpha, solid_capstyle="round", zorder=height)
    for atom, ((x, y, _), kind) in enumerate(zip(shown.atoms.tolist(), shown.kinds, strict=True)):
        ball = {"facecolor": kind.color, "edgecolor": INK, "linewidth": 0.9, "alpha": alpha}
        ax.add_patch(Circle((x, y), kind.ball, zorder=2.005 + 0.01 * depth[atom], **ball))


@dataclass(frozen=True, eq=False)
class MoleculeView:
    """A py3Dmol view with a still picture behind it.

    `view` is the py3Dmol view: any 3Dmol.js command may be called on it before showing. `html` is the whole output, and
    names no remote address.
    """

    view: Any
    picture: bytes
    alt: str
    width: int
    height: int
    _count: ClassVar = itertools.count()

    @property
    def html(self) -> str:
        """The picture, and the script that replaces it by the 3D view."""
        after_loading = self.view.startjs.split("$3Dmolpromise.then(function() {\n", 1)[1]
        # All that can hold a "<" is text in JSON, which "<!--" or "</script>" could end; as an escape it cannot.
        commands = (after_loading + self.view.endjs.split("});\n")[0]).replace("<", "\\u003c")
        # A name from the commands' content keeps an executed notebook the same from run to run.
        name = f"elf_view_{hashlib.sha256(commands.encode()).hexdigest()[:8]}_{next(self._count)}"
        image = base64.b64encode(self.picture).decode("ascii")
        words = html.escape(self.alt, quote=True)
        script = Path(__file__).with_name("molecules.js").read_text(encoding="utf-8").rstrip()
        box = f"position:relative;width:100%;max-width:{self.width}px;aspect-ratio:{self.width}/{self.height}"
        return f"""<div id="{name}" class="elf-molecule" role="img" aria-label="{words}"
 style="{box};background:{PAPER};border-radius:8px;overflow:hidden">
<img src="data:image/png;base64,{image}" alt="{words}" style="width:100%;height:100%;object-fit:contain">
</div>
<script>
({script})({json.dumps(name)}, {json.dumps(JS)}, () => {{
let viewer_UNIQUEID = null;
{commands}}});
</script>"""

    def _repr_html_(self) -> str:
        return self.html

    def show(self) -> None:
        """Display the view in a notebook."""
        from IPython.display import display

        display({"text/html": self.html, "text/plain": self.alt}, raw=True)


def _molfile(atoms: Tensor, kinds: Sequence[Element], bonds: Sequence[Sequence[int]]) -> str:
    """A V3000 molfile: it carries our own bonds to 3Dmol, for any number of atoms (V2000 has columns for 999)."""
    lines = [f"{i} {kind.symbol} {x:.4f} {y:.4f} {z:.4f} 0"
             for i, ((x, y, z), kind) in enumerate(zip(atoms.tolist(), kinds, strict=True), 1)]  # fmt: skip
    sticks = [f"{i} {order} {first + 1} {second + 1}" for i, (first, second, order) in enumerate(bonds, 1)]
    table = ["BEGIN CTAB", f"COUNTS {len(lines)} {len(sticks)} 0 0 0", "BEGIN ATOM", *lines, "END ATOM"]
    table += ["BEGIN BOND", *sticks, "END BOND", "END CTAB"] if sticks else ["END CTAB"]
    counts = "  0  0  0     0  0            999 V3000"
    return "\n".join(["", "", "", counts, *(f"M  V30 {line}" for line in table), "M  END"])


def _fill(view: Any, shown: Scene, cell: dict[str, Any]) -> None:
    colours = {"prop": "elem", "map": {kind.symbol: kind.color for kind in shown.kinds}}
    style = {"stick": {"radius": 0.11, "color": _BOND}, "sphere": {"scale": 0.26, "colorscheme": colours}}
    view.addModel(_molfile(shown.atoms, shown.kinds, shown.bonds), "sdf", **cell)
    view.setStyle({"model": -1}, style, **cell)
    if shown.target is not None:
        ghost = {"color": COLORS["target"], "opacity": 0.55}
        view.addModel(_molfile(shown.target, shown.kinds, shown.target_bonds), "sdf", **cell)
        view.setStyle({"model": -1}, {"stick": {"radius": 0.06, **ghost}, "sphere": {"scale": 0.18, **ghost}}, **cell)
    for start, arrow in () if shown.arrows is None else zip(shown.atoms, shown.arrows, strict=True):
        if float(arrow.norm()) > 1e-3:
            begin, end = (dict(zip("xyz", p.round(decimals=3).tolist(), strict=True)) for p in (start, start + arrow))
            view.addArrow({"start": begin, "end": end, "radius": 0.06, "mid": 0.75, "color": shown.color}, **cell)
    view.zoomTo(**cell)


def _formula(shown: Scene) -> str:
    return formula(torch.tensor([kind.number for kind in shown.kinds], dtype=torch.int64, device="cpu"))


def gallery(
    positions: Sequence[Tensor],
    numbers: Sequence[Tensor],
    *,
    forces: Sequence[Tensor] | None = None,
    force_color: str | Sequence[str] = COLORS["energy"],
    force_scale: float = 1.0,
    targets: Sequence[Tensor] | None = None,
    titles: Sequence[str] | None = None,
    orders: Sequence[Tensor] | None = None,
    columns: SupportsIndex = 4,
    width: SupportsIndex = 760,
    height: SupportsIndex | None = None,
    alt: str | None = None,
) -> MoleculeView:
    """Several molecules (or one) in one canvas, row by row; each can be turned by itself.

    Args:
        positions, numbers: one (atoms, 3) and (atoms,) tensor a molecule, without padding; angstrom.
        forces, targets, titles: one a molecule.
        orders: bond orders to draw, 0 to 3, one (atoms, atoms) a molecule; by default atoms closer than radii allow.
        force_color: one colour, or one a molecule.
        columns: molecules in a row.
        width, height: pixels of the whole; by default cells are nearly square.
        alt: what the picture shows; by default the formulas.

    Raises:
        ValueError: no molecule, lists of different lengths, wrong shapes, values that are not finite, or an unknown
            element.
        TypeError: columns, width or height that are no whole numbers.
    """
    import py3Dmol

    if (total := len(positions)) == 0:
        raise ValueError("positions holds no molecule; it should hold one or more")
    colors = [force_color] * total if isinstance(force_color, str) else force_color
    lists = {"numbers": numbers, "forces": forces, "force_color": colors, "targets": targets}
    lists |= {"titles": titles, "orders": orders}
    for name, values in lists.items():
        if values is not None and len(values) != total:
            raise ValueError(f"{name} has {len(values)} entries; it should have {total}, one a molecule")
    none = [None] * total
    scenes = [
        scene(x, z, force, color, force_scale, target, orders=order)
        for x, z, force, color, target, order in zip(
            positions, numbers, forces or none, colors, targets or none, orders or none, strict=True
        )
    ]
    columns, width = min(require_count("columns", columns), total), require_count("width", width)
    rows = math.ceil(total / columns)
    pixels = round(0.85 * width / columns * rows) if height is None else require_count("height", height)
    alone = total == 1
    view = py3Dmol.view(width=width, height=pixels, js=JS, linked=False, viewergrid=None if alone else (rows, columns))
    for index, shown in enumerate(scenes):
        cell = {} if alone else {"viewer": divmod(index, columns)}
        _fill(view, shown, cell)
        if titles:
            options = {"useScreen": True, "screenOffset": {"x": 8, "y": -8}, "showBackground": False, "fontColor": INK}
            view.addLabel(str(titles[index]), {**options, "fontSize": 13}, **cell)
    picture = _gallery_picture(scenes, titles, rows, columns, (width / 100, pixels / 100))
    words = alt or "Molecules as balls and sticks: " + ", ".join(map(_formula, scenes))
    return MoleculeView(view, picture, words, width, pixels)


def _gallery_picture(
    scenes: Sequence[Scene], titles: Sequence[str] | None, rows: int, columns: int, size: tuple[float, float]
) -> bytes:
    from matplotlib.figure import Figure

    # A Figure of its own, not pyplot's: nothing is left open, and nothing is shown twice.
    figure = Figure(figsize=size, facecolor=PAPER, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    # One scale for all cells: a small molecule looks small.
    reach = max(float((shown.atoms - shown.atoms.mean(0)).norm(dim=1).max()) for shown in scenes) + 0.8
    for index, (ax, shown) in enumerate(zip(grid.flat, scenes, strict=False)):
        draw_scene(ax, shown)
        if titles:
            # Words as they are: matplotlib would read formulas between dollar signs.
            ax.set_title(str(titles[index]), fontsize=10, color=INK, loc="left", parse_math=False)
        if len(scenes) > 1:
            ax.set_aspect("equal", adjustable="box")
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    return png(figure, dpi=100, tight=False)
