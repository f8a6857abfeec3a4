from __future__ import annotations

import hashlib
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from PIL import Image
from rdkit import Chem
from torch import Tensor

from elf.viz import elements, molecules

WATER = torch.tensor([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
WATER_NUMBERS = torch.tensor([8, 1, 1])


def benzene() -> tuple[Tensor, Tensor]:
    angle = torch.arange(6) * math.pi / 3
    ring = torch.stack([angle.cos(), angle.sin(), torch.zeros(6)], 1)
    return torch.cat([1.39 * ring, 2.48 * ring]), torch.tensor([6] * 6 + [1] * 6)


def test_bonds_of_water_and_benzene() -> None:
    assert molecules.bonds(WATER, WATER_NUMBERS).tolist() == [[0, 1], [0, 2]]
    ring = {tuple(sorted((i, (i + 1) % 6))) for i in range(6)} | {(i, i + 6) for i in range(6)}
    assert {tuple(pair) for pair in molecules.bonds(*benzene()).tolist()} == ring


def test_principal_frame_is_a_rotation_that_orders_the_extents() -> None:
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor(
        [0.1, 2.0, 0.7]
    )
    frame = molecules.principal_frame(x)
    torch.testing.assert_close(frame @ frame.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(frame)) == pytest.approx(1)
    spread = ((x - x.mean(0)) @ frame.T).std(0)
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_views_name_no_remote_address(count: int) -> None:
    view = molecules.gallery([WATER] * count, [WATER_NUMBERS] * count, forces=[0.1 * torch.ones(3, 3)] * count)
    assert not re.search(r"https?://|//cdn|unpkg|jsdelivr", view.html)


def test_view_holds_a_picture_with_words() -> None:
    x, z = benzene()
    view = molecules.gallery([x], [z], targets=[x + 0.1], alt='benzene "and" <its> target')
    with Image.open(io.BytesIO(view.picture)) as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 50
    assert 'alt="benzene &quot;and&quot; &lt;its&gt; target"' in view.html
    assert molecules.gallery([x], [z]).alt.endswith("C6H6")


def test_views_of_one_page_have_different_names() -> None:
    views = [molecules.gallery([WATER], [WATER_NUMBERS]).html for _ in range(3)]
    assert len({re.search(r'id="(elf_view_\w+)"', text)[1] for text in views}) == 3  # type: ignore[index]


def test_arrows_are_the_forces_in_the_picture_frame() -> None:
    force = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0]])
    view = molecules.gallery([WATER], [WATER_NUMBERS], forces=[force], force_scale=2.0)
    numbers = r"\{\"x\": ([-\d.e]+), \"y\": ([-\d.e]+), \"z\": ([-\d.e]+)\}"
    arrows = re.findall(rf'addArrow\(\{{"start": {numbers}, "end": {numbers}', view.html)
    found = torch.tensor([[float(v) for v in arrow] for arrow in arrows])
    turn = molecules.principal_frame(WATER)
    begin = (WATER - WATER.mean(0)) @ turn.T
    expected = torch.cat([begin, begin + 2.0 * force @ turn.T], 1)[[0, 2]]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_arrows_of_the_still_picture_point_where_the_force_does() -> None:
    """From each atom to where it would go, worked out in coordinates of our own."""
    goal = WATER + torch.tensor([[0.0, 0.4, 0.1], [0.0, 0.0, 0.3], [0.0, -0.2, 0.0]])
    frame = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # y to the right, z up
    ax = Figure().subplots()
    molecules.draw_molecule(ax, WATER, WATER_NUMBERS, forces=(goal - WATER) / 2, force_scale=2.0, frame=frame)
    (arrows,) = [artist for artist in ax.collections if isinstance(artist, Quiver)]
    tips = torch.tensor(arrows.get_offsets()) + torch.tensor(np.stack([arrows.U, arrows.V], 1))
    expected = (goal - WATER.mean(0))[:, 1:].double()
    torch.testing.assert_close(tips.double(), expected, atol=1e-6, rtol=0)
    circles = torch.tensor([patch.center for patch in ax.patches], dtype=torch.float64)
    torch.testing.assert_close(circles, (WATER - WATER.mean(0))[:, 1:].double(), atol=1e-6, rtol=0)


def test_bonds_do_not_depend_on_where_the_molecule_lies() -> None:
    x, z = benzene()
    x = torch.cat([x, x + torch.tensor([0.0, 0.0, 4.0]), x + torch.tensor([0.0, 0.0, 8.0])])
    z = z.repeat(3)
    here = molecules.bonds(x, z)
    assert len(here) == 36
    assert torch.equal(molecules.bonds(x + torch.tensor([1500.0, -1500.0, 900.0]), z), here)
    assert torch.equal(molecules.bonds((x + 1500).to(torch.float64), z), here)


@pytest.mark.parametrize(
    "title", ["<!--<script>", "</script><script>alert(1)</script>", "<!--", "$x_1", "viewer_UNIQUEID"]
)
def test_titles_stay_what_they_are_and_end_nothing(title: str) -> None:
    view = molecules.gallery([WATER] * 2, [WATER_NUMBERS] * 2, titles=[title, "UNIQUEID"])
    script = view.html.split("<script>")[1]
    assert view.html.count("<script>") == script.count("</script>") == 1
    assert script.endswith("</script>")
    assert "<!--" not in script
    shown = [json.loads(text) for text in re.findall(r'addLabel\(("(?:[^"\\]|\\.)*")', script)]
    assert shown == [title, "UNIQUEID"]


def test_a_thousand_atoms_and_more_are_written_as_rdkit_reads_them() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1100, 3, generator=generator) * 18
    z = torch.tensor([6, 7, 8, 1])[torch.randint(4, (1100,), generator=generator)]
    shown = molecules.scene(x, z)
    block = molecules._molfile(shown.atoms, shown.kinds, shown.bonds)
    read = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
    assert [atom.GetAtomicNum() for atom in read.GetAtoms()] == z.tolist()
    pairs = [[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] for bond in read.GetBonds()]
    assert pairs == [[i, j] for i, j, _ in shown.bonds]
    assert len(pairs) > 999
    where = torch.from_numpy(read.GetConformer().GetPositions())
    torch.testing.assert_close(where, shown.atoms, atol=1e-4, rtol=0)


def test_bonds_that_are_told_are_drawn_and_no_others() -> None:
    """Formaldehyde with a bond too many and its double bond: the graph is asked, not the distances."""
    x = torch.tensor([[0.0, 0.0, -0.53], [0.0, 0.0, 0.68], [0.0, 0.94, -1.12], [0.0, -0.94, -1.12]])
    z, orders = torch.tensor([6, 8, 1, 1]), torch.zeros(4, 4, dtype=torch.long)
    for i, j, order in ((0, 1, 2), (0, 2, 1), (2, 3, 3)):
        orders[i, j] = orders[j, i] = order
    shown = molecules.scene(x, z, orders=orders)
    assert shown.bonds == [[0, 1, 2], [0, 2, 1], [2, 3, 3]]
    read = Chem.MolFromMolBlock(molecules._molfile(shown.atoms, shown.kinds, shown.bonds), sanitize=False)
    assert [bond.GetBondTypeAsDouble() for bond in read.GetBonds()] == [2, 1, 3]
    ax = Figure().subplots()
    molecules.draw_scene(ax, shown)
    assert len(ax.lines) == 2 + 1 + 3
    assert "M  V30 3 3 3 4" in molecules.gallery([x], [z], orders=[orders]).html


@pytest.mark.parametrize(
    ("orders", "words"),
    [
        (torch.zeros(2, 2), "orders has shape"),
        (torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]]), "orders is not symmetric"),
        (torch.full((3, 3), 0.5), "not whole numbers"),
        (torch.full((3, 3), 4), "the orders 0 to 3"),
        (torch.full((3, 3), torch.nan), "orders holds"),
    ],
)
def test_bad_orders_are_refused(orders: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        molecules.gallery([WATER], [WATER_NUMBERS], orders=[orders])


def test_elements_are_rdkits() -> None:
    assert elements.element(1)[:4] == (1, "H", "hydrogen", 0.31)
    assert elements.element(80).symbol == "Hg"
    for wrong in (0, 119, -1):
        with pytest.raises(ValueError, match=f"numbers holds {wrong}; it should be atomic numbers, 1 to 118"):
            elements.element(wrong)
    with pytest.raises(ValueError, match=r"numbers holds 6\.5; it should be atomic numbers"):
        elements.elements([6.5])


def test_a_frame_finds_the_axes_of_a_box() -> None:
    """Corners of a box with sides along a known rotation: the frame's rows are its axes, longest first."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    box = (signs * torch.tensor([0.5, 3.0, 1.0], dtype=torch.float64)) @ turn.T + 7.0
    frame = molecules.principal_frame(box)
    for row, column in zip(frame, (1, 2, 0), strict=True):
        assert abs(float(row @ turn[:, column])) == pytest.approx(1)
    for row in frame[:2]:
        assert float(row[row.abs().argmax()]) > 0
    assert float(torch.linalg.det(frame)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("positions", "numbers", "words"),
    [
        (torch.zeros(3, 2), WATER_NUMBERS, r"\(atoms, 3\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "no axis empty"),
        (WATER, torch.tensor([8, 1]), r"numbers has shape \(2,\)"),
        (WATER * math.nan, WATER_NUMBERS, "NaN or infinite"),
        (WATER, torch.tensor([8, 1, 0]), "padding"),
        (WATER, torch.tensor([8.0, 1.0, 1.5]), "holds 1.5; it should be atomic numbers"),
    ],
)
def test_bad_molecules_are_refused(positions: Tensor, numbers: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        molecules.scene(positions, numbers)


def test_bad_galleries_are_refused() -> None:
    for name, wrong in (("forces", WATER * math.nan), ("targets", WATER[:2])):
        with pytest.raises(ValueError, match=name.removesuffix("s")):
            molecules.gallery([WATER], [WATER_NUMBERS], **{name: [wrong]})
    with pytest.raises(ValueError, match="force_scale holds NaN or infinite"):
        molecules.gallery([WATER], [WATER_NUMBERS], forces=[WATER], force_scale=math.inf)
    with pytest.raises(ValueError, match="columns is 0"):
        molecules.gallery([WATER], [WATER_NUMBERS], columns=0)
    assert molecules.gallery([WATER] * 2, [WATER_NUMBERS] * 2, columns=np.int64(1), width=np.int32(300)).height == 510
    with pytest.raises(ValueError, match="no molecule"):
        molecules.gallery([], [])
    with pytest.raises(ValueError, match="titles has 1"):
        molecules.gallery([WATER] * 2, [WATER_NUMBERS] * 2, titles=["a"])


def test_shipped_3dmol_is_the_published_one() -> None:
    # npm package 3dmol 2.5.5, build/3Dmol-min.js
    static = molecules.LABEXTENSIONS / "elf-3dmol" / "static"
    digest = hashlib.sha256((static / "3Dmol-min.js").read_bytes()).hexdigest()
    assert digest == "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"
    assert "BSD-3-Clause" in (static / "3Dmol-LICENSE.txt").read_text(encoding="utf-8")
    assert molecules.JS == "{labextensions}/elf-3dmol/static/3Dmol-min.js"
