"""Wrong values set later: refused with a ValueError that leaves all as it was, or taken whole. ELF_FUZZ=1: long."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course.widgets import Descent, FrameSlider, Guess, HeatBath, Knobs, Playground, SpinBoard, Trajectory, web
from course.widgets.dashboard import DashboardView, draw_points, draw_spins
from course.widgets.knobs import scene, tag
from course.widgets.widget import Checked
from elf.data.spin_glass import sample_couplings
from elf.viz import molecules

pytestmark = pytest.mark.fuzz
EXAMPLES = 2_000 if os.environ.get("ELF_FUZZ") else 120
WATER = torch.tensor([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
NUMBERS = torch.tensor([8, 1, 1])
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
JUNK = st.one_of(
    st.sampled_from([None, True, float("nan"), float("inf"), -float("inf"), "", "<b>", 10**400, 1j, object(), b"x"]),
    st.sampled_from([{}, [], (), [[1.0], [1.0, 2.0]], [[[]]], {"name": 3}, np.float64("nan"), np.int64(2)]),
    st.sampled_from([np.array("x"), np.array([1j]), np.zeros((2, 0)), torch.tensor(1.0), torch.zeros(2, 2, 2)]),
    st.sampled_from([torch.full((3, 3), torch.nan), torch.ones(3, 2), torch.ones(3, 3)]),
    st.integers(-3, 10**9),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.floats(), max_size=3),
)


def mutated(draw: Callable[..., Any], value: Any) -> Any:
    """A copy of the value with junk in one place, or with a part lost or doubled."""
    here = draw(st.sampled_from(["here", "lose", "double", *["below"] * 5]))
    if here == "here" or not isinstance(value, list | dict) or not value:
        return draw(JUNK)
    made, keys = copy.deepcopy(value), list(value) if isinstance(value, dict) else range(len(value))
    key = draw(st.sampled_from(list(keys)))
    if here == "lose":
        del made[key]
    elif here == "double" and isinstance(made, list):
        made.append(copy.deepcopy(made[key]))
    else:
        made[key] = mutated(draw, made[key])
    return made


def widgets() -> dict[str, Any]:
    run = WATER + torch.linspace(1, 0, 3)[:, None, None] * torch.ones(3, 3, 3)
    dashboard = DashboardView(
        curve={"steps": [0.0, 1.0], "losses": [2.0, 1.0]},
        metrics=[{"name": "a", "text": "1"}],
        samples=[draw_points(WATER[:, :2]), draw_spins(torch.ones(2, 2))],
    )
    return {
        "playground": Playground(names=["a", "b", "c"]),
        "own springs": Playground(springs=lambda r: 1 / (1 + r)),
        "board": SpinBoard(sample_couplings(1, 2, 3, seed=0)),
        "frames": FrameSlider([PNG] * 4, ["a", "b"], list("abcd"), choices=["x", "y"]),
        "trajectory": Trajectory(run, NUMBERS, targets=WATER, forces=run, labels=list("abc"), edges=[(0, 1)]),
        "dashboard": dashboard,
        "descent": Descent(),
        "bath": HeatBath(),
        "guess": Guess("Which?", 1, ["a", "b"]),
        "knobs": Knobs({"x": list("abc")}, [scene(run, NUMBERS, arrows=run, outline=WATER)], [tag("t", torch.ones(3))]),
    }


WIDGETS = widgets()
SOUND = {name: copy.deepcopy(web.state(widget)) for name, widget in WIDGETS.items()}
TAKEN: list[tuple[str, dict[str, Any]]] = []


@pytest.mark.parametrize("name", WIDGETS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_widget_takes_what_is_sound_and_refuses_the_rest(name: str, data: st.DataObject) -> None:
    widget = WIDGETS[name]
    traits = [trait for trait, kind in widget.traits().items() if isinstance(kind, Checked)]
    assert len(traits) >= 4
    before = copy.deepcopy(SOUND[name])
    with widget.hold_trait_notifications():  # whatever the last example left
        for key in traits:
            setattr(widget, key, before[key])
    trait = data.draw(st.sampled_from(traits))
    value = mutated(data.draw, before[trait])
    refusal = ""
    try:
        setattr(widget, trait, value)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert web.state(widget) == before
        assert len(refusal) > 10
        return
    TAKEN.append((widget.module_name, json.loads(json.dumps(web.state(widget), allow_nan=False))))
    assert isinstance(widget.alt, str)


def test_the_browser_draws_what_python_takes() -> None:
    node = shutil.which("node")
    if node is None:
        return  # the same functions answer in the browser tests
    script = """
      const { readFileSync } = await import("node:fs");
      const text = readFileSync(0, "utf8");
      const { sources, cases } = JSON.parse(text), found = [];
      const modules = {};
      for (const [name, source] of Object.entries(sources))
        modules[name] = await import("data:text/javascript;base64," + Buffer.from(source).toString("base64"));
      for (const [name, state] of cases) {
        const { problem } = modules[name];
        const wrong = name === "playground"
          ? problem(state.target) || problem(state.prediction, state.target.length) : problem(state);
        if (wrong) found.push([name, wrong]);
      }
      console.log(JSON.stringify(found));"""
    assert len(TAKEN) > 5 * len(WIDGETS)
    sources = {name: web.module(name) for name in {name for name, _ in TAKEN}}
    run = subprocess.run(
        [node, "--input-type=module", "--eval", script],
        input=json.dumps({"sources": sources, "cases": TAKEN}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == []


@settings(max_examples=EXAMPLES // 4)
@given(data=st.data())
def test_molecule_views_take_what_is_sound_and_refuse_the_rest(data: st.DataObject) -> None:
    sound = {
        "positions": WATER.tolist(),
        "numbers": NUMBERS.tolist(),
        "forces": WATER.tolist(),
        "target": WATER.tolist(),
        "force_scale": 1.0,
        "frame": torch.eye(3).tolist(),
    }
    name = data.draw(st.sampled_from(list(sound)))
    scene = getattr(molecules.scene, "__wrapped__", molecules.scene)
    try:
        shown = scene(**{**sound, name: mutated(data.draw, sound[name])})
    except (ValueError, TypeError):
        return
    assert shown.atoms.isfinite().all()
    assert shown.arrows is None or shown.arrows.isfinite().all()
    assert len(shown.kinds) == len(shown.atoms)


def test_no_python_file_of_the_widgets_has_an_unchecked_trait() -> None:
    for path in Path(web.HERE).glob("*.py"):
        assert ".tag(sync=True)" not in path.read_text(encoding="utf-8").replace("self.tag(sync=True)", "")
