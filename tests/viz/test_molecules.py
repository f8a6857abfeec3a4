from __future__ import annotations

import hashlib
import io
import math
import re

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from torch import Tensor

from elf.viz import molecules

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
    assert "UNIQUEID" not in view.html


def test_view_holds_a_picture_with_words() -> None:
    x, z = benzene()
    view = molecules.molecule_view(x, z, target=x + 0.1, alt='benzene "and" <its> target')
    with Image.open(io.BytesIO(view.picture)) as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 50
    assert 'alt="benzene &quot;and&quot; &lt;its&gt; target"' in view.html
    assert molecules.molecule_view(x, z).alt.endswith("C6H6")


def test_titles_cannot_end_the_script() -> None:
    view = molecules.gallery([WATER] * 2, [WATER_NUMBERS] * 2, titles=["</script><script>alert(1)</script>", "b"])
    assert view.html.count("</script>") == 1


def test_views_of_one_page_have_different_names() -> None:
    views = [molecules.molecule_view(WATER, WATER_NUMBERS).html for _ in range(3)]
    assert len({re.search(r'id="(elf_view_\w+)"', text)[1] for text in views}) == 3  # type: ignore[index]


def test_arrows_are_the_forces_in_the_picture_frame() -> None:
    force = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0]])
    view = molecules.molecule_view(WATER, WATER_NUMBERS, forces=force, force_scale=2.0)
    numbers = r"\{\"x\": ([-\d.e]+), \"y\": ([-\d.e]+), \"z\": ([-\d.e]+)\}"
    arrows = re.findall(rf'addArrow\(\{{"start": {numbers}, "end": {numbers}', view.html)
    lengths = [math.dist([float(v) for v in a[:3]], [float(v) for v in a[3:]]) for a in arrows]
    assert lengths == pytest.approx([1.0, 0.6], abs=2e-3)


@pytest.mark.parametrize(
    ("positions", "numbers", "words"),
    [
        (torch.zeros(3, 2), WATER_NUMBERS, r"\(atoms, 3\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "one atom or more"),
        (WATER, torch.tensor([8, 1]), "one an atom"),
        (WATER * math.nan, WATER_NUMBERS, "not finite"),
        (WATER, torch.tensor([8, 1, 0]), "padding"),
    ],
)
def test_bad_molecules_are_refused(positions: Tensor, numbers: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        molecules._check(positions, numbers)


def test_bad_galleries_are_refused() -> None:
    with pytest.raises(ValueError, match="no molecule"):
        molecules.gallery([], [])
    with pytest.raises(ValueError, match="titles: got 1"):
        molecules.gallery([WATER] * 2, [WATER_NUMBERS] * 2, titles=["a"])


def test_shipped_3dmol_is_the_published_one() -> None:
    # npm package 3dmol 2.5.5, build/3Dmol-min.js
    static = molecules.LABEXTENSIONS / "elf-3dmol" / "static"
    digest = hashlib.sha256((static / "3Dmol-min.js").read_bytes()).hexdigest()
    assert digest == "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"
    assert "BSD-3-Clause" in (static / "3Dmol-LICENSE.txt").read_text(encoding="utf-8")
    assert molecules.JS == "{labextensions}/elf-3dmol/static/3Dmol-min.js"


def test_legend_names_elements() -> None:
    fig, ax = plt.subplots()
    molecules.draw_legend(ax, torch.tensor([[8, 1, 1, 0], [6, 1, 0, 0]]))
    assert [text.get_text() for text in ax.texts] == ["hydrogen", "carbon", "oxygen"]
    plt.close(fig)
