"""Fast against slow: what is counted, and the errors."""

from __future__ import annotations

import json
import math

import pytest
import torch

from elf.metrics.molecules import Stability
from experiments import find, reproduce
from experiments.molecules import samplers


@pytest.mark.parametrize("sampler", ["heun", "ancestral"])
def test_evaluations_are_counted_right(sampler, monkeypatch, tmp_path):
    calls, true = [], samplers.trained

    def counting(loss):
        denoiser = true(loss)
        denoiser.register_forward_hook(lambda *_: calls.append(1))
        return denoiser

    monkeypatch.setattr(samplers, "trained", counting)
    clock = iter((100.0, 103.0))
    monkeypatch.setattr(samplers.time, "process_time", lambda: next(clock))
    cell = {"sampler": sampler, "steps": 4, "seed": 0}
    result = samplers.run_cell(samplers.SETTINGS["smoke"], cell, tmp_path, [])
    assert len(calls) == result["network_evaluations"] == {"heun": 7, "ancestral": 4}[sampler]
    assert result["cpu_seconds"] == 3


def test_standard_errors_are_those_of_repeated_draws():
    generator = torch.Generator().manual_seed(0)

    def draw():
        sizes = torch.randint(3, 9, (200,), generator=generator)
        mask = torch.arange(8) < sizes[:, None]
        good = torch.rand(200, generator=generator) < 0.7  # atoms of a molecule share its fate
        stable = mask & (good[:, None] | (torch.rand(200, 8, generator=generator) < 0.3))
        return Stability(stable, (stable | ~mask).all(dim=1), mask)

    draws = [draw() for _ in range(300)]
    for kind, fraction in (("atom", Stability.atom_fraction), ("molecule", Stability.molecule_fraction)):
        seen = torch.tensor([fraction.fget(result) for result in draws]).std().item()
        told = sum(samplers.standard_errors(result)[f"{kind}_error"] for result in draws) / len(draws)
        assert told == pytest.approx(seen, rel=0.15)


def test_seeds_are_pooled():
    def row(seed, stable, error):
        figures = {"atom_stability": stable, "molecule_stability": stable, "atom_error": error, "molecule_error": error}
        cell = {"sampler": "heun", "steps": 10, "seed": seed}
        return {"cell": cell, "result": {**figures, "molecules": 100, "network_evaluations": 19, "cpu_seconds": 1.0}}

    (line,) = samplers.summarise([row(0, 0.5, 0.03), row(1, 0.7, 0.04)])
    assert (line["molecules"], line["molecule_stability"], line["cpu_ms_a_molecule"]) == (200, 0.6, 10.0)
    assert line["molecule_error"] == pytest.approx(math.hypot(0.03, 0.04) / 2)


def test_the_table_compares_with_the_slowest():
    def line(steps, stable, error, evaluations):
        figures = {"atom_stability": 0.9, "atom_error": 0.01, "molecule_stability": stable, "molecule_error": error}
        return {"sampler": "heun", "steps": steps, "molecules": 50, "network_evaluations": evaluations, **figures}

    text = samplers.table({"summary": [line(10, 0.5, 0.03, 20), line(99, 0.6, 0.04, 100)]})
    fast, slow = ([cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[2:])
    assert fast == ["heun", "10", "20", "50", "90.0 ± 1.0", "50.0 ± 3.0", "5.0", "-2.0"]
    assert slow[-2:] == ["1.0", "-"]
    same = samplers.table({"summary": [line(10, 0.5, 0.0, 20), line(99, 0.6, 0.0, 100)]})
    assert [row.split("|")[-2].strip() for row in same.splitlines()[2:]] == ["-", "-"]


def test_smoke_run(tmp_path):
    path = reproduce("samplers", scale="smoke", seeds=2, workdir=tmp_path, output=tmp_path / "s.json", threads=1)
    result = json.loads(path.read_text())
    assert [(row["sampler"], row["network_evaluations"]) for row in result["summary"]] == [
        ("heun", 5),
        ("ancestral", 5),
    ]
    assert "±" in find("samplers").table(result)


def test_the_committed_fast_sampler_takes_a_tenth_of_the_evaluations():
    settings = samplers.SETTINGS["laptop"]
    slow = samplers.evaluations("ancestral", max(settings.ancestral))
    assert slow >= 10 * samplers.evaluations("heun", max(settings.heun))
