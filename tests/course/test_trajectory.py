from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from browser import settle
from PIL import Image
from widget_page import placed

from course.widgets import FrameSlider, SpinBoard, Trajectory, web
from elf.data.spin_glass import sample_couplings
from elf.viz import molecules
from elf.viz.elements import element

ROOT = ".elf-trajectory"
WATER = torch.tensor([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
NUMBERS = torch.tensor([8, 1, 1])


def noisy(frames: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    amount = torch.linspace(3, 0, frames)[:, None, None]
    return WATER + amount * torch.randn(frames, 3, 3, generator=generator)


def test_frames_keep_every_distance():
    run = noisy()
    sent = torch.tensor(Trajectory(run, NUMBERS).molecules[0]["frames"])
    for before, after in zip(run, sent, strict=True):
        torch.testing.assert_close(torch.pdist(after), torch.pdist(before), atol=2e-3, rtol=0)
        torch.testing.assert_close(after.mean(0), torch.zeros(3), atol=1e-3, rtol=0)


def test_target_and_forces_turn_with_the_molecule():
    push = torch.zeros(1, 3, 3)
    push[0] = WATER - noisy(2)[0]
    start = noisy(2)[:1]
    molecule = Trajectory(start, NUMBERS, targets=WATER, forces=push).molecules[0]
    frame, target, force = (torch.tensor(molecule[key]) for key in ("frames", "target", "forces"))
    torch.testing.assert_close(frame[0] + force[0], target, atol=3e-3, rtol=0)


def test_points_of_the_plane_and_changing_elements():
    flat = Trajectory(torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0)))
    assert {len(point) for frame in flat.molecules[0]["frames"] for point in frame} == {3}
    assert set(flat.elements) == {"0"}
    changing = Trajectory(noisy(2), torch.tensor([[6, 1, 1], [8, 1, 1]]))
    assert set(changing.elements) == {"1", "6", "8"}
    assert changing.frame == 1


def test_the_still_picture_shows_the_frame():
    for widget in (
        Trajectory([noisy(), noisy(seed=1)], NUMBERS, targets=WATER, titles=["a", "b"]),
        Trajectory(noisy()),
    ):
        last = widget.still()
        widget.frame = 0
        assert widget.still() != last
        with Image.open(io.BytesIO(last)) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 8
    bundle, _ = widget._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} < set(bundle)
    assert bundle["text/plain"] == "Molecules in motion."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"positions": torch.zeros(3, 3)}, r"positions has shape \(3, 3\)"),
        ({"positions": torch.zeros(0, 3, 3)}, r"positions has shape \(0, 3, 3\)"),
        ({"positions": torch.full((2, 3, 3), torch.nan)}, "positions holds NaN or infinite"),
        ({"positions": []}, "positions holds no molecule"),
        ({"positions": [noisy(2), noisy(3)]}, r"positions has \[2, 3\] frames"),
        ({"numbers": torch.tensor([8, 1])}, r"numbers has shape \(2,\)"),
        ({"numbers": torch.tensor([8, 1, 0])}, r"numbers holds 0"),
        ({"targets": torch.zeros(2, 3)}, r"targets has shape \(2, 3\)"),
        ({"forces": torch.zeros(1, 3, 3)}, r"forces has shape \(1, 3, 3\)"),
        ({"titles": ["a", "b"]}, "titles has 2 entries"),
        ({"labels": ["a"]}, "labels has 1"),
        ({"tones": "red"}, "tones is 'red'"),
        ({"start": 6}, "start is 6"),
        ({"edges": [(0, 3)]}, r"edges holds \[0, 3\]"),
    ],
)
def test_bad_trajectories_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Trajectory(**{"positions": noisy(), "numbers": NUMBERS, **arguments})


# --- in the browser ----------------------------------------------------------------------------------------------


def drawn(page: Any) -> list[str]:
    return page.locator(f"{ROOT} circle.elf-ball").evaluate_all("all => all.map(b => b.getAttribute('cx'))")


def test_bonds_are_those_of_the_python_side(show):
    generator = torch.Generator().manual_seed(3)
    numbers = torch.tensor([6, 8, 1, 7, 1, 6, 9, 1])
    clouds = [1.3 * torch.randn(8, 3, generator=generator) for _ in range(5)]
    radii = [element(int(number)).radius for number in numbers]
    page = show(Trajectory(noisy(), NUMBERS))
    script = """async ([clouds, radii]) => {
      const { bonds } = await import(new URL("elf/trajectory.js", location.href).href);
      return clouds.map((points) => bonds(points, radii));
    }"""
    answers = page.evaluate(script, [[cloud.tolist() for cloud in clouds], radii])
    assert answers == [molecules.bonds(cloud, numbers).tolist() for cloud in clouds]


def test_slider_drag_and_keys_move_the_picture(show):
    page = show(Trajectory([noisy(), noisy(seed=1)], NUMBERS, titles=["a", "b"], labels=list("uvwxyz"), name="noise"))
    root, last = page.locator(ROOT), drawn(page)
    assert len(last) == 6
    assert page.locator(f"{ROOT} line.elf-stick").count() == 4
    slider = page.get_by_role("slider", name="noise")
    assert slider.get_attribute("aria-valuetext") == "z"
    slider.fill("0")
    settle(page)
    assert root.get_attribute("data-elf-frame") == "0"
    assert drawn(page) != last
    assert page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('frame')") == 0
    slider.press("End")
    settle(page)
    assert drawn(page) == last
    svg = page.locator(f"{ROOT} svg").first
    svg.press("ArrowRight")
    settle(page)
    turned = drawn(page)
    assert turned != last
    box = svg.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 110, box["y"] + 80, steps=3)
    page.mouse.up()
    settle(page)
    assert drawn(page) != turned


def test_edges_join_points(show):
    flat = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1))
    widget = Trajectory(flat, edges=[(0, 1), (1, 2)])
    assert widget.still()
    page = show(widget)
    assert page.locator(f"{ROOT} line.elf-stick").count() == 2


def test_playing_ends_at_the_last_frame(show):
    page = show(Trajectory(noisy(), NUMBERS, fps=60, start=0))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"() => document.querySelector('{ROOT}').dataset.elfFrame === '5'")
    page.wait_for_function(f"() => document.querySelector('{ROOT}').dataset.elfBusy === ''")
    assert page.get_by_role("button", name="Play").count() == 1


def test_an_overlay_of_one_frame_has_no_slider(show):
    page = show(Trajectory(noisy(2)[:1], NUMBERS, targets=WATER, forces=torch.ones(1, 3, 3)))
    assert page.get_by_role("slider").count() == 0
    assert page.locator(f"{ROOT} circle.elf-target").count() == 3
    assert page.locator(f"{ROOT} path.elf-arrow").count() == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"molecules": []}, "one or more"),
        ({"molecules": [{"frames": []}]}, "the same number of frames, one or more"),
        ({"molecules": [{"frames": [[[0, 0, None]]], "kinds": [8]}]}, "three finite coordinates"),
        ({"molecules": [{"frames": [[[0, 0, 0]] * 501], "kinds": [8] * 501}]}, "501 atoms"),
        ({"molecules": [{"frames": [[[0, 0, 0]]], "kinds": ["<b>"]}]}, "name an element"),
        ({"molecules": [{"frames": [[[0, 0, 0]]], "kinds": [8], "edges": [[0, 1]]}]}, "pairs of atoms"),
    ],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("trajectory", json.dumps({**web.state(Trajectory(noisy(), NUMBERS)), **change})))
    assert words in page.get_by_role("alert").inner_text()
    assert page.locator("svg").count() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Trajectory(WATER[None], **options),
        lambda **options: FrameSlider([b"\x89PNG\r\n\x1a\n" + bytes(16)], ["a"], ["b"], **options),
        lambda **options: SpinBoard(sample_couplings(1, 2), **options),
    ],
)
def test_an_option_that_a_widget_does_not_have_is_refused_by_name(make):
    with pytest.raises(TypeError, match=r"takes no fsp; see its Args"):
        make(fsp=3.0)
    assert make().alt
