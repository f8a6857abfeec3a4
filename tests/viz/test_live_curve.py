"""The live curve of a training: one figure in a notebook, nothing elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from torch import nn

from elf.training import FitSettings, fit
from elf.viz.live_curve import LiveCurve, smooth


def test_outside_notebooks_the_curve_does_nothing(capsys):
    before = "matplotlib.pyplot" in sys.modules
    curve = LiveCurve("toy")
    settings = FitSettings(steps=3, learning_rate=0.1, accelerator="cpu")
    fit(
        nn.Linear(1, 1),
        lambda model, batch, rng: model(batch).sum(),
        lambda step: torch.ones(2, 1),
        settings,
        callbacks=[curve],
    )
    assert capsys.readouterr().out == ""
    assert curve.curves == []
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_smooth():
    losses = [float(i) for i in range(10)]
    assert smooth(losses, points=100) == ([float(i) for i in range(10)], losses)
    assert smooth(losses, points=4) == ([2.0, 5.0, 8.0, 9.0], [1.0, 4.0, 7.0, 9.0])
    assert smooth([]) == ([], [])


def test_in_a_notebook():
    tests = Path(__file__).parents[1]
    code = f"""
import sys
sys.path[:0] = [{str(tests / "training")!r}, {str(tests.parent)!r}]
import dataclasses
from toy_training import SETTINGS, train
from elf.training import ProgressBar
from elf.viz.live_curve import LiveCurve
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
