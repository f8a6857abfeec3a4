from __future__ import annotations

import io
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from browser import settle
from PIL import Image
from widget_page import placed

from course.widgets import Dashboard, dashboard, web
from elf.training import FitSettings, fit

ROOT = ".elf-dashboard"
TARGET = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])


class Shape(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(3, 2) + 0.1 * torch.arange(6.0).view(3, 2))


def train(watcher: Any, steps: int = 40, pause: float = 0.0) -> Any:
    def loss(model: torch.nn.Module, batch: Any, rng: torch.Generator) -> torch.Tensor:
        time.sleep(pause)
        return (model.x - TARGET).square().sum()

    settings = FitSettings(steps=steps, learning_rate=0.05, accelerator="cpu")
    return fit(Shape(), loss, lambda step: None, settings, callbacks=[watcher])


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """As in a notebook: what is displayed, then what the display is updated with."""
    shown: list[Any] = []

    def display(thing: Any, display_id: bool) -> Any:
        shown.append(thing)
        return SimpleNamespace(update=shown.append)

    monkeypatch.setattr(dashboard, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_outside_notebooks_it_is_plain_text(capsys):
    watcher = Dashboard("shape", metrics=lambda state: {"reach": float(state.model.x.norm())})
    train(watcher)
    text = capsys.readouterr().out
    assert watcher.view is None
    assert "shape: step 40/40, loss " in text
    assert text.splitlines()[-1].startswith("reach 1.")


def test_in_a_notebook_it_ends_as_the_run_ended(notebook):
    watcher = Dashboard(
        "shape",
        metrics=lambda state: {"reach": 1.23456},
        samples=lambda state: state.model.x[None],
        every=1e-3,
        share=1.0,
    )
    record = train(watcher, pause=2e-3)
    assert notebook == [watcher.view, watcher.view]
    view = watcher.view
    assert (view.phase, view.step, view.steps) == ("done", 40, 40)
    assert view.metrics == [{"name": "reach", "text": "1.235"}]
    assert view.curve["losses"][-1] == pytest.approx(record.history[-1]["loss"])
    assert watcher.updates > 3
    assert "step 40/40" in view.alt
    with Image.open(io.BytesIO(view.still())) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert json.loads(json.dumps(web.state(view)))["samples"][0]["reach"] > 0


def test_the_stop_button_ends_the_run_with_a_record(notebook):
    class Impatient(Dashboard):
        def __call__(self, state: Any) -> None:
            if state.step == 7:
                self.view.set_state({"asked": True})  # as the button's message does
            super().__call__(state)

    watcher = Impatient("shape")
    record = train(watcher)
    assert record.steps == 7
    assert watcher.view.phase == "stopped"


def test_updates_take_their_share_of_the_time_and_no_more(notebook, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(dashboard.time, "perf_counter", lambda: clock.now)

    def spend(seconds: float) -> dict[str, float]:
        clock.now += seconds
        return {"a": 1.0}

    watcher = Dashboard("shape", metrics=lambda state: spend(0.02), every=1e-3, share=0.05)

    class Watched:
        start, finish = watcher.start, watcher.finish

        def __call__(self, state: Any) -> None:
            spend(5e-3)  # a step of the training
            watcher(state)

    train(Watched(), steps=200)
    # They begin at 5 ms, 0.4 s, 0.8 s, when those before took a twentieth of the time; one more is at the end.
    assert watcher.updates == 3 + 1
    assert watcher.seconds == pytest.approx(0.02 * watcher.updates)


def test_drawings():
    triangle = dashboard.draw_points(TARGET)
    assert len(triangle["lines"]) == len(triangle["dots"]) == 3
    assert triangle["reach"] == pytest.approx(float((TARGET - TARGET.mean(0)).norm(dim=1).max()))
    water = dashboard.draw_molecule(
        (torch.tensor([[0.0, 0, 0.1], [0, 0.76, -0.5], [0, -0.76, -0.5]]), torch.tensor([8, 1, 1]))
    )
    assert len(water["lines"]) == 2
    assert [dot[3] for dot in water["dots"]].count("#e0200d") == 1
    assert dashboard.draw_spins(torch.tensor([[0.3, -2.0]]))["cells"] == [[1, -1]]
    runaway = dashboard.draw_points(torch.tensor([[0.0, torch.nan], [1.0, torch.inf], [0.0, 1.0]]))
    assert json.loads(json.dumps(runaway, allow_nan=False))
    for draw, wrong in ((dashboard.draw_points, torch.zeros(3, 3)), (dashboard.draw_spins, torch.zeros(4))):
        with pytest.raises(ValueError, match="samples has"):
            draw(wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "atoms"}, "kind is 'atoms'"),
        ({"tone": "red"}, "tone is 'red'"),
        ({"share": 0}, "share is 0"),
        ({"every": -1}, "every"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Dashboard(**options)


# --- in the browser ----------------------------------------------------------------------------------------------


def view(**traits: Any) -> dashboard.DashboardView:
    made = dashboard.DashboardView(
        label="shape",
        line="step 20/40, loss 0.5",
        step=20,
        steps=40,
        curve={"steps": [0.0, 10.0, 20.0], "losses": [4.0, 1.0, 0.5]},
        metrics=[{"name": "<b>reach</b>", "text": "1.2"}],
        samples=[dashboard.draw_points(TARGET), dashboard.draw_spins(torch.ones(2, 2))],
    )
    for name, value in traits.items():
        setattr(made, name, value)
    return made


def set_traits(page: Any, **traits: Any) -> None:
    script = """traits => {
      const { model } = document.querySelector("[data-elf-widget]").widget;
      for (const name in traits) model.set(name, traits[name]);
    }"""
    page.evaluate(script, traits)
    settle(page)


def test_a_running_dashboard_follows_and_can_be_stopped(show):
    page = show(view())
    root = page.locator(ROOT)
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "20"
    assert root.locator("dt").inner_text() == "<b>reach</b>"
    assert root.locator("polyline").get_attribute("points").count(",") == 3
    assert root.locator(".elf-samples svg").count() == 2
    set_traits(page, step=30, line="step 30/40", curve={"steps": [0, 30], "losses": [4, -1]}, samples=[])
    assert root.get_attribute("data-elf-step") == "30"
    assert root.locator("[data-elf-line]").inner_text() == "step 30/40"
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('asked')") is True
    assert page.get_by_role("button").is_disabled()
    set_traits(page, phase="stopped")
    assert page.get_by_role("button").count() == 0
    assert "Training ended" in root.locator("[aria-live]").inner_text()


def test_an_ended_dashboard_stays_as_a_still_picture(show):
    page = show(view(phase="done"))
    assert page.get_by_role("button").count() == 0
    assert page.locator(f"{ROOT} polyline").count() == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"curve": {"steps": [1], "losses": []}}, "steps and losses"),
        ({"curve": {"steps": [1], "losses": [None]}}, "steps and losses"),
        ({"metrics": [{"name": 3}]}, "names and texts"),
        ({"samples": [{"reach": 0, "lines": [], "dots": []}]}, "finite coordinates"),
    ],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("dashboard", json.dumps({**web.state(view()), **change})))
    assert words in page.get_by_role("alert").inner_text()
    assert not page.locator(f"{ROOT} polyline").is_visible()
