"""The playground in a real browser: its numbers, mouse, touch, keyboard, speed, and what it says to bad input."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import playground_golden as golden
import pytest
import torch
from browser import settle
from widget_page import placed

import elf
from course.widgets import Playground, web
from course.widgets.playground import polygon, presets, rotate
from elf.viz import fields

ROOT = ".elf-playground"
SPRINGS = {
    "constant": elf.springs.Constant,
    "inverse": elf.springs.Inverse,
    "inverse_square": elf.springs.InverseSquare,
    "exponential": elf.springs.Exponential,
}
ANSWERS = """async (cases) => {
  const { constants, squaredError, pairEnergy } = await import(new URL("elf/playground.js", location.href).href);
  return cases.map(({ prediction, target, springs }) => ({
    mse: squaredError(prediction, target), energy: pairEnergy(prediction, target, constants(target, springs)),
  }));
}"""

SENT = """() => {
  const { model } = document.querySelector("[data-elf-widget]").widget;
  return JSON.stringify(model.get("prediction")) === document.querySelector(".elf-playground").dataset.elfPrediction;
}"""
FRAMES = """([x, y]) => new Promise((resolve) => {
  const home = document.querySelector(".elf-playground"), first = Number(home.dataset.elfDraws);
  const dot = document.querySelector("[data-elf-panel=mse] [data-elf-particle='4']");
  let step = 0;
  const tick = () => {
    const at = { clientX: x + 40 * Math.sin(step / 5), clientY: y + 30 * Math.cos(step / 7) };
    dot.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerId: 1, ...at }));
    step++;
    if (step <= 60) requestAnimationFrame(tick);
    else resolve(Number(home.dataset.elfDraws) - first);
  };
  requestAnimationFrame(tick);
})"""


def data(page: Any, name: str) -> float:
    settle(page)
    return float(page.locator(ROOT).get_attribute(f"data-elf-{name}"))


def particle(page: Any, index: int, panel: str = "mse") -> Any:
    return page.locator(f"[data-elf-panel={panel}] [data-elf-particle='{index}']")


def middle(locator: Any) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Any, locator: Any, by: tuple[float, float], steps: int = 5) -> None:
    x, y = middle(locator)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by[0], y + by[1], steps=steps)
    page.mouse.up()


def kernel(page: Any, trait: str) -> Any:
    return page.evaluate("name => document.querySelector('[data-elf-widget]').widget.model.get(name)", trait)


def set_prediction(page: Any, points: list[list[float]]) -> None:
    page.evaluate("p => document.querySelector('[data-elf-widget]').widget.model.set('prediction', p)", points)


def agree(page: Any) -> tuple[float, float]:
    """The numbers shown are those that elf computes for the state that a kernel would get."""
    # The widget sends its state at most ten times a second.
    page.wait_for_function(SENT)
    settle(page)
    state = {name: kernel(page, name) for name in ("target", "prediction", "springs")}
    playground = Playground(state["target"], state["prediction"])
    playground.springs = state["springs"]
    expected = playground.energies()
    assert data(page, "mse") == pytest.approx(expected["mse"], abs=1e-6)
    assert data(page, "energy") == pytest.approx(expected["energy"], abs=1e-6)
    return expected["mse"], expected["energy"]


def test_energies_and_forces_agree_with_elf_on_random_configurations(show):
    draw = random.Random(11)

    def cloud(count: int) -> list[list[float]]:
        return [[draw.uniform(-3, 3) for _ in range(2)] for _ in range(count)]

    specs = [{"name": name, "k": draw.uniform(0.1, 3), "length": draw.uniform(0.2, 5)} for name in SPRINGS] * 12
    cases = [
        {"prediction": cloud(count), "target": cloud(count), "springs": spec}
        for spec, count in ((spec, draw.randint(1, 20)) for spec in specs)
    ]
    cases += golden.cases()
    page = show(Playground())
    for case, answer in zip(cases, page.evaluate(ANSWERS, cases), strict=True):
        prediction, target = (torch.tensor(case[key], dtype=torch.float64) for key in ("prediction", "target"))
        spec = {key: value for key, value in case["springs"].items() if key != "name"}
        formula = SPRINGS[case["springs"]["name"]]
        known = {key: value for key, value in spec.items() if key in formula.__dataclass_fields__}
        for key, energy in (("mse", elf.Harmonic()), ("energy", elf.PairEnergy(springs=formula(**known)))):
            value, force = fields.energy_and_forces(energy, prediction, target)
            assert answer[key]["value"] == pytest.approx(float(value), abs=1e-6, rel=1e-9)
            torch.testing.assert_close(torch.tensor(answer[key]["forces"], dtype=torch.float64), force)


@pytest.mark.parametrize("panel", ["mse", "energy"])
def test_dragging_by_mouse_changes_both_numbers(show, panel):
    page = show(Playground())
    assert agree(page) == pytest.approx((1.404, 0), abs=1e-3)
    before = middle(particle(page, 1, panel))
    drag(page, particle(page, 1, panel), (40, -30))
    after = middle(particle(page, 1, panel))
    assert after == pytest.approx((before[0] + 40, before[1] - 30), abs=1.5)
    mse, energy = agree(page)
    assert abs(mse - 1.404) > 0.01
    assert energy > 0.01
    shown = page.locator("[data-elf-value=energy]").inner_text()
    assert float(shown) == pytest.approx(energy, abs=6e-4)


def test_dragging_by_finger_moves_the_particle_and_not_the_page(show):
    page = show(Playground(), "<div>" + "<p>text</p>" * 60 + "</div>", touch=True, width=390, expect=1)
    x, y = middle(particle(page, 0))
    client = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    touch("touchStart", (x, y))
    for step in range(1, 6):
        touch("touchMove", (x, y + 8 * step))
    touch("touchEnd")
    mse, energy = agree(page)
    assert energy > 0.01
    assert mse != pytest.approx(1.404, abs=0.01)
    assert page.evaluate("scrollY") == 0


def test_arrow_keys_move_a_particle_and_are_told(show):
    page = show(Playground())
    start = kernel(page, "prediction")[2]
    dot = particle(page, 2)
    dot.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    moved = kernel(page, "prediction")[2]
    half = 1.75
    assert moved == pytest.approx([start[0] + 0.02 * half, start[1] + 0.1 * half])
    agree(page)
    assert f"Particle 3 at x {moved[0]:.2f}, y {moved[1]:.2f}" in dot.get_attribute("aria-label")
    told = page.locator(f"{ROOT} [aria-live]").inner_text()
    assert told.startswith("Squared error ")
    assert "pair energy" in told


def test_the_knob_raises_mse_and_leaves_the_pair_energy_at_zero(show):
    page = show(Playground(polygon(5), polygon(5)))
    knob = page.locator("[data-elf-panel=mse] [data-elf-knob]")
    assert agree(page) == pytest.approx((0, 0), abs=1e-9)
    seen = [0.0]
    knob.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
        mse, energy = agree(page)
        assert mse > seen[-1]
        assert energy == pytest.approx(0, abs=1e-12)
        seen.append(mse)
    assert knob.get_attribute("aria-valuenow") == "30"
    assert seen[-1] == pytest.approx(5 * (2 * math.sin(math.radians(15))) ** 2)
    drag(page, knob, (60, 60))
    mse, energy = agree(page)
    assert mse > seen[-1] or mse < 0.9 * seen[-1]
    assert energy == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("reduced_motion", [False, True])
@pytest.mark.parametrize("kind", ["mse", "energy"])
def test_descent_goes_down_to_rest(show, kind, reduced_motion):
    page = show(Playground(polygon(3), rotate(polygon(3), 25.0) * 1.3 + 0.2), reduced_motion=reduced_motion)
    page.get_by_role("button", name="Follow MSE" if kind == "mse" else "Follow pair energy").click()
    page.wait_for_function(f"() => document.querySelector('{ROOT}').dataset.elfBusy === ''")
    mse, energy = agree(page)
    assert energy == pytest.approx(0, abs=1e-6)
    if kind == "mse":
        assert mse == pytest.approx(0, abs=1e-6)
    else:
        assert mse > 0.1  # its own pose, not the target's


def test_descent_begins_where_a_particle_is_let_go(show):
    page = show(Playground(), reduced_motion=True)
    page.get_by_label("When a particle is let go").select_option("energy")
    drag(page, particle(page, 0), (30, 50))
    assert agree(page)[1] == pytest.approx(0, abs=1e-6)
    dot = particle(page, 0)
    dot.focus()
    page.keyboard.press("Shift+ArrowUp")  # a step by key is not a letting go
    assert agree(page)[1] > 1e-3


def test_presets_springs_range_mirror_and_start_again(show):
    page = show(Playground())
    menu = page.get_by_label("Configuration", exact=True)
    offered = menu.locator("option").all_inner_texts()
    assert offered == ["two on a line", "triangle", "square", "hexagon", "water", "benzene"]
    for preset in presets():
        menu.select_option(preset["name"])
        agree(page)
        assert kernel(page, "target") == preset["target"]
        assert page.locator("[data-elf-panel=mse] [data-elf-particle]").count() == len(preset["target"])
    assert particle(page, 0).locator("text").inner_html() == "C"
    spring = page.get_by_label("Springs", exact=True)
    drag(page, particle(page, 3), (25, 10))
    seen = set()
    for name in SPRINGS:
        spring.select_option(name)
        seen.add(round(agree(page)[1], 9))
    assert len(seen) == len(SPRINGS)
    reach = page.get_by_role("slider", name="Range of the springs")
    reach.fill("3")
    assert kernel(page, "springs")["length"] == 3
    assert round(agree(page)[1], 9) not in seen
    page.get_by_role("button", name="Start again").click()
    mse, energy = agree(page)
    assert energy == pytest.approx(0, abs=1e-8)
    page.get_by_role("button", name="Mirror").click()
    assert agree(page)[1] == pytest.approx(0, abs=1e-8)
    assert agree(page)[0] != pytest.approx(mse, abs=1e-3)


def test_springs_of_ones_own_and_state_from_outside(show):
    page = show(Playground(polygon(4), springs=lambda r: 1 / (1 + r)))
    assert page.get_by_label("Springs", exact=True).count() == 0
    drag(page, particle(page, 0), (30, 0))
    expected = elf.PairEnergy(lambda r: 1 / (1 + r))
    state = torch.tensor(kernel(page, "prediction"), dtype=torch.float64)
    assert data(page, "energy") == pytest.approx(float(expected(state[None], polygon(4)[None])), abs=1e-6)
    page.evaluate(
        "p => document.querySelector('[data-elf-widget]').widget.model.set('prediction', p)", polygon(4).tolist()
    )
    assert data(page, "mse") == 0


def test_every_frame_of_a_drag_is_drawn_once(show):
    benzene = next(preset for preset in presets() if preset["name"] == "benzene")
    page = show(Playground(benzene["target"], benzene["prediction"], elf.springs.Exponential()))
    x, y = middle(particle(page, 4))
    page.mouse.move(x, y)
    page.mouse.down()
    # Moves come from inside the page, one a frame, as a mouse would give them. Drawings are counted, not timed: a frame
    # without one is a drag that lags behind, more than one is work for nothing.
    assert page.evaluate(FRAMES, [x, y]) in (59, 60, 61)
    page.mouse.up()
    assert agree(page)[1] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": []}, "target has 0 particles; it should have 1 to 64"),
        ({"target": [[0, 0]] * 500}, "target has 500 particles; it should have 1 to 64"),
        ({"target": "triangle"}, "target should be a list of points"),
        ({"prediction": [[0, 0]]}, "prediction has 1 particles, the target has 3"),
        ({"prediction": [[0, 0], [None, 1], [1, 1]]}, "two finite numbers for each particle; number 2 has not"),
        ({"prediction": [[0, 0, 0]] * 3}, "two finite numbers"),
        ({"prediction": [["<img src=x onerror=alert(1)>", 0]] * 3}, "two finite numbers"),
        ({"springs": {"name": "rubber", "k": 1}}, "springs should be one of constant, inverse"),
        ({"springs": {"name": "constant", "k": -1}}, "springs should have a finite k"),
        ({"springs": {"name": "custom", "matrix": [[0]]}}, "springs should be 3 x 3 constants"),
    ],
)
def test_bad_state_is_answered_by_a_message_in_place_of_the_figure(show, change, words):
    page = show(placed("playground", json.dumps({**web.state(Playground()), **change})))
    assert words in page.get_by_role("alert").inner_text()
    assert page.locator("svg").count() == 0
    assert page.locator(ROOT).get_attribute("data-elf-state") == "error"


def test_a_configuration_that_becomes_sound_is_drawn(show):
    page = show(placed("playground", json.dumps({**web.state(Playground()), "prediction": []})))
    page.evaluate(
        "p => document.querySelector('[data-elf-widget]').widget.model.set('prediction', p)", polygon(3).tolist()
    )
    assert data(page, "mse") == pytest.approx(0)


def test_names_are_written_as_text(show):
    page = show(Playground(names=["<b>x</b>", "&amp;", "c"]))
    assert particle(page, 0).locator("text").text_content() == "<b>x</b>"
    assert page.locator(f"{ROOT} b").count() == 0
