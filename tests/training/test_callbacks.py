"""What watches a run: lines in a file, one display in a notebook, a curve, a time limit."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from toy_training import SETTINGS, toy_model, train

from elf.training import LiveCurve, ProgressBar, TimeLimit, TrainState
from elf.training.callbacks import smooth


def test_protocol_and_state():
    seen = []

    class Watch:
        def start(self, state):
            seen.append(("start", state.step))

        def __call__(self, state):
            assert state.steps == 60
            assert state.seconds > 0
            assert state.seconds_left >= 0
            assert state.loss == state.record.history[-1]["loss"]
            assert state.lr == state.record.history[-1]["lr"]
            assert state.model.training
            assert not state.ema_model.training
            seen.append((state.step, len(state.record.history)))

        def finish(self, state):
            seen.append(("finish", state.step))

    train(callbacks=[Watch()])
    assert seen == [("start", 0), *((i, i) for i in range(1, 61)), ("finish", 60)]


def test_finish_is_told_of_a_failure():
    def fail(state):
        raise RuntimeError("no")

    told = []

    class Watch:
        def __call__(self, state):
            pass

        def finish(self, state):
            told.append(state.step)

    with pytest.raises(RuntimeError, match="no"):
        train(callbacks=[Watch(), fail])
    assert told == [1]


def test_time_limit():
    record = train(
        dataclasses.replace(SETTINGS, steps=100_000, warmup_steps=0),
        callbacks=[TimeLimit(0.2), lambda s: time.sleep(0.01)],
    )
    assert 0 < record.steps <= 21
    assert record.seconds < 10
    assert not record.interrupted
    with pytest.raises(ValueError, match="seconds is 0; it should be positive"):
        TimeLimit(0)


def test_progress_in_a_file_is_a_few_plain_lines(capsys):
    train(callbacks=[ProgressBar("toy", lines=3)])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert [re.match(r"toy: step (\d+)/60, loss [\d.]+", line)[1] for line in lines] == ["20", "40", "60"]
    assert "left" in lines[0]
    assert "left" not in lines[-1]
    assert "\r" not in out


def test_progress_in_a_terminal_is_one_bar_on_stdout(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train(callbacks=[ProgressBar("toy")])
    out, err = capsys.readouterr()
    assert err == ""
    assert "60/60" in out
    assert "loss" in out


def test_only_the_first_process_shows_progress(capsys):
    bar, curve = ProgressBar("toy"), LiveCurve()
    state = TrainState(SETTINGS, toy_model(), None, rank=1, distributed=True)
    for watch in (bar, curve):
        watch.start(state)
        watch(state)
        watch.finish(state)
    assert capsys.readouterr().out == ""


def test_outside_notebooks_the_curve_does_nothing(capsys):
    before = "matplotlib.pyplot" in sys.modules
    curve = LiveCurve("toy")
    train(callbacks=[curve])
    assert capsys.readouterr().out == ""
    assert curve.curves == []
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_smooth():
    losses = [float(i) for i in range(10)]
    assert smooth(losses, points=100) == ([float(i) for i in range(10)], losses)
    assert smooth(losses, points=4) == ([2.0, 5.0, 8.0, 9.0], [1.0, 4.0, 7.0, 9.0])
    assert smooth([]) == ([], [])


def test_in_a_notebook():
    here = Path(__file__).parent
    code = f"""
import sys
sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]
import dataclasses
from toy_training import SETTINGS, train
from elf.training import LiveCurve, ProgressBar
first = LiveCurve("energy", color="purple", every=0.01)
train(callbacks=[ProgressBar("one"), first])
other = dataclasses.replace(SETTINGS, seed=9, precision="bf16-mixed")
train(other, callbacks=[ProgressBar("two"), LiveCurve("mse", share=first)])
assert len(first.curves) == 2
assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"] * 3
    texts = [output.data["text/plain"] for output in outputs if "image/png" not in output.data]
    assert [re.match(r"(\w+): step 60/60, loss [\d.]+, \d+:\d\d$", text)[1] for text in texts] == ["one", "two"]
    (figure,) = [output.data["image/png"] for output in outputs if "image/png" in output.data]
    assert len(figure) > 5000
    (alt,) = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.data]
    assert re.match(r"Smoothed training loss over steps, at the end: energy [\d.]+, mse [\d.]+$", alt)
