"""The network of the longest training: the one of its rule, small, and as good as the page says."""

from __future__ import annotations

import dataclasses
import json
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from elf.metrics.molecules import summary
from experiments import load_result, reproduce
from experiments.framework.experiment import results_folder
from experiments.molecules import gifts, longest, small


def test_it_is_the_network_of_its_rule_and_small():
    entry = json.loads(longest.PUBLISHED.index.read_text())[gifts.MENDED_BEST]
    assert entry["run"] == "network=equivariant,loss=half_heights,steps=60000,learning_rate=0.002,seed=0"
    assert (results_folder() / entry["file"]).stat().st_size < 3_000_000
    assert all(block.calm for block in longest.trained().network.blocks)


def test_it_draws_what_no_other_committed_network_does():
    own = dataclasses.replace(longest.training_settings(), sampler_steps=20)
    drawn = small.sample(longest.trained(), own, n=40, seed=4)
    assert summary(drawn.positions, drawn.numbers)["molecule_stability"] > 0.4


def test_draws_are_its_own_and_counted(tmp_path):
    path = reproduce("longest_drawn", scale="smoke", seeds=2, workdir=tmp_path, threads=1, output=tmp_path / "out.json")
    cells = json.loads(path.read_text())["cells"]
    assert [cell["cell"]["seed"] for cell in cells] == [1, 2]
    assert {cell["result"]["network_evaluations"] for cell in cells} == {5}
    assert cells[0]["result"]["atoms"] != cells[1]["result"]["atoms"]


def test_the_time_is_that_of_drawing_alone(tmp_path, monkeypatch):
    clock = count(3.0, 2.5)
    monkeypatch.setattr(longest, "time", SimpleNamespace(process_time=lambda: next(clock)))
    assert longest.run_cell(longest.SETTINGS["smoke"], {"seed": 1}, tmp_path, ())["cpu_seconds"] == 2.5


def test_six_tenths_are_stable_in_one_piece_and_a_thousand_take_a_minute_at_most():
    """Three draws, and the one that the training made of itself."""
    draws = [cell["result"] for cell in load_result("longest_drawn")["cells"]]
    (own,) = [c["result"] for c in load_result("longest_equivariant")["cells"] if c["cell"]["loss"] == "half_heights"]
    assert [draw["molecules"] for draw in [*draws, own]] == [1000] * 4
    assert min(draw["stable_connected"] for draw in [*draws, own]) >= 0.6
    assert max(draw["cpu_seconds"] for draw in draws) < 60
    assert max(draw["network_evaluations"] for draw in draws) <= 100


def test_weights_go_in_and_come_out(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    with pytest.raises(FileNotFoundError, match="elf reproduce longest_equivariant"):
        longest.trained()
    folder = tmp_path / "longest_equivariant.laptop/network=equivariant,loss=half_heights,steps=60000,seed=0"
    folder.mkdir(parents=True)
    original = small.make_denoiser(longest.training_settings(), 5)
    small.save_weights(folder / "weights.safetensors", original, {})
    longest.publish(tmp_path)
    pairs = zip(longest.trained().parameters(), original.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
