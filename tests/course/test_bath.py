"""The heat bath in the browser: its steps are Langevin's, it settles as quadrature says, it can be moved."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from moving import assert_moves
from widget_page import placed

from course import boltzmann as bz
from course.widgets import HeatBath, web
from course.widgets.bath import BOND, double_well, energies

ROOT = ".elf-bath"
STEPS = """async ([kind, points, T, h, noise]) => {
  const { heated } = await import(new URL("elf/bath.js", location.href).href);
  let next = 0;
  return heated(kind, points, T, h, () => noise[next++]);
}"""
SETTLED = """async ([kind, count, steps, T, h]) => {
  const { heated, normal, BOND } = await import(new URL("elf/bath.js", location.href).href);
  const { random } = await import(new URL("elf/dom.js", location.href).href);
  const noise = normal(random(1));
  let points = Array.from({ length: count }, () => (kind === "well" ? [-1] : [BOND, 0]));
  for (let i = 0; i < steps; i++) points = heated(kind, points, T, h, noise);
  return points;
}"""
LABELS = 'boxes => boxes.map((box) => box.getAttribute("aria-label"))'
# Frames handed out by hand, thirty a second, and then one after ten seconds of a hidden page.
FRAMES = """() => {
  const model = document.querySelector("[data-elf-widget]").widget.model, home = document.querySelector(".elf-bath");
  const clock = () => Number(home.innerText.match(/time (\\d+)/)[1]) / model.get("step");
  let queue = [], now = performance.now();
  window.requestAnimationFrame = (call) => queue.push(call);
  const frame = (ms) => { now += ms; const calls = queue; queue = []; for (const call of calls) call(now); };
  [...home.querySelectorAll("button")].find((one) => one.textContent === "Heat").click();
  const start = { steps: clock(), draws: Number(home.dataset.elfDraws) }, begin = performance.now();
  for (let i = 0; i < 300; i++) frame(1000 / 30);
  const took = (performance.now() - begin) / 300, drawn = Number(home.dataset.elfDraws) - start.draws;
  const after = clock();
  frame(10_000);
  frame(0);
  return { took, drawn, steps: after - start.steps, late: clock() - after, rounding: 0.5 / model.get("step") };
}"""


@pytest.mark.parametrize("kind", ["mse", "energy", "well"])
def test_a_step_is_that_of_langevin_for_the_same_kicks(kind, show):
    page = show(HeatBath())
    dim = 1 if kind == "well" else 2
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(20, dim, generator=draws, dtype=torch.float64)
    same = torch.Generator().manual_seed(1)
    expected = bz.langevin(energies()[kind], points, 0.3, step=0.02, steps=1, generator=same).positions[1]
    noise = torch.randn(20, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = page.evaluate(STEPS, [kind, points.tolist(), 0.3, 0.02, noise.flatten().tolist()])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("kind", "T"), [("mse", 0.08), ("energy", 0.08), ("well", 0.8)])
def test_the_bath_settles_at_the_energy_that_quadrature_gives(kind, T, show):
    page = show(HeatBath())
    energy = energies()[kind]
    window = [(-4.0, 4.0)] if kind == "well" else [(-3.5, 4.5), (-4.0, 4.0)]
    found = bz.distribution(energy, bz.grid(*window, points=301, dtype=torch.float64), T)
    points = torch.tensor(page.evaluate(SETTLED, [kind, 2000, 1500, T, 0.01]), dtype=torch.float64)
    values = energy(points)
    error = float(values.std()) / math.sqrt(len(values))
    bias = 0.05 * T if kind == "well" else 0.01 * T  # of a step of 0.01
    assert abs(float(values.mean()) - float(found.expectation(found.energy))) < 4 * error + bias


def test_the_browser_s_boltzmann_density_is_that_of_quadrature(show):
    page = show(HeatBath())
    script = 'async (T) => (await import(new URL("elf/bath.js", location.href).href)).boltzmann(T)'
    middles = torch.linspace(-2.15, 2.15, 44, dtype=torch.float64)
    for T in (0.1, 0.4, 1.0):
        found = bz.distribution(double_well, bz.grid((-4.0, 4.0), points=801, dtype=torch.float64), T)
        expected = (-double_well(middles[:, None]) / T - found.log_z).exp()
        np.testing.assert_allclose(page.evaluate(script, T), expected, rtol=0.01)


@pytest.mark.parametrize("T", [0.02, 0.08, 0.3, 0.5])
def test_nine_tenths_lie_within_the_dashed_lines(T):
    r = torch.linspace(0, 8, 80_001, dtype=torch.float64)
    ring = r * torch.exp(-((r - BOND) ** 2) / T)
    inside = (r - BOND).abs() < 1.645 * math.sqrt(T / 2)
    assert float(ring[inside].sum() / ring.sum()) == pytest.approx(0.9, abs=0.02)
    blob = r * torch.exp(-(r**2) / T)
    assert float(blob[r < math.sqrt(T * math.log(10))].sum() / blob.sum()) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("world", ["bond", "well"])
def test_heat_moves_the_picture_and_runs_until_paused(world, show):
    page = show(HeatBath(world))

    def heat() -> None:
        page.get_by_role("button", name="Heat").click()
        draws = page.locator(ROOT).get_attribute("data-elf-draws")
        page.wait_for_function(
            f"(draws) => Number(document.querySelector('{ROOT}').dataset.elfDraws) > Number(draws) + 5", arg=draws
        )
        page.get_by_role("button", name="Pause").click()

    assert_moves(page, "bath", heat)
    assert page.get_by_role("button", name="Heat").count() == 1


@pytest.mark.parametrize("world", ["bond", "well"])
def test_thirty_frames_a_second_are_six_steps_and_one_picture_each(world, show):
    """The work of a frame is counted, as its time is the machine's; a frame that comes late does no more than eight."""
    found = show(HeatBath(world)).evaluate(FRAMES)
    print(f"\n{world}: {found['took']:.1f} ms of work a frame here; thirty a second leave 33")
    assert 299 <= found["drawn"] <= 301
    assert found["steps"] == pytest.approx(300 * 6, abs=2 * found["rounding"])
    assert found["late"] <= 8 + 1 + 2 * found["rounding"]


@pytest.mark.parametrize(
    ("world", "name", "most"), [("bond", "temperature", 0.5), ("well", "temperature", 1.0), ("well", "step", 0.1)]
)
def test_sliders_move_the_picture(world, name, most, show):
    page = show(HeatBath(world))
    slider = page.get_by_role("slider", name=name)
    assert_moves(page, "bath", lambda: slider.press("End"))
    assert page.evaluate(f"document.querySelector('[data-elf-widget]').widget.model.get('{name}')") == most
    told = page.locator(f"{ROOT} [aria-live]").inner_text()
    assert told == ". ".join(page.locator(f"{ROOT} [role=img]").evaluate_all(LABELS))
    page.get_by_role("button", name="Start again").click()
    assert page.locator(f"{ROOT} [aria-live]").inner_text() not in ("", told)


def test_under_mse_the_mean_stays_and_under_the_energy_the_length_does(show):
    page = show(HeatBath(temperature=0.3), reduced_motion=True)
    heat = page.get_by_role("button", name="Heat")
    for _ in range(2):  # five hundred steps each
        heat.click()
    mse, energy = json.loads(page.locator(ROOT).get_attribute("data-elf-found"))
    assert math.hypot(mse["x"] - BOND, mse["y"]) < 0.15
    assert math.hypot(energy["x"], energy["y"]) < 0.5
    assert energy["length"] > BOND
    assert "Pair energy" in page.locator(f"{ROOT} [aria-live]").inner_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"world": "cup"}, "bond or well"), ({"temperature": 0}, "above zero"), ({"count": 10**6}, "1 to 5000")],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("bath", json.dumps({**web.state(HeatBath()), **change})))
    assert words in page.get_by_role("alert").inner_text()


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="world"):
        HeatBath("cup")
    with pytest.raises(ValueError, match="at most 5000"):
        HeatBath(count=10_000)
    widget = HeatBath("well")
    with pytest.raises(ValueError, match="temperature"):
        widget.temperature = -1.0
    assert widget.temperature == 0.4


@pytest.mark.parametrize("world", ["bond", "well"])
def test_words_and_still_picture(world):
    widget = HeatBath(world)
    assert widget.still()[:4] == b"\x89PNG"
    assert "heat bath" in widget.alt
