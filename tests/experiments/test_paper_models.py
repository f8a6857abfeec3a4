"""Parameters, operations and shares of time of the paper's models."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from elf.energy import PairEnergy
from experiments import find, reproduce
from experiments.cost import step
from experiments.molecules import paper as paper_molecules
from experiments.molecules.paper_tables import SETTINGS


def test_operations_are_those_of_the_matrix_products():
    predictor = paper_molecules.make_predictor(SETTINGS["table2"]["smoke"], "gdm", 0)
    counted = step.count_flops(predictor, PairEnergy(), 29)
    n, c, features = 29, 8, 6
    atoms = (features + 4) * c + 2 * c * c + 2 * c * c + c * c + c * (features + 3)
    pairs = n * (c * c + c)
    assert counted["forward_gflop"] == pytest.approx(2e-9 * n * (atoms + pairs), rel=1e-3)
    # Each product has two more on the way back, one for the weights, one for what went in.
    assert counted["step_gflop"] / counted["forward_gflop"] == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize(("model", "millions"), [("gdm", 3.56), ("edm", 5.34)])
def test_paper_size_builds_counts_and_takes_two_steps(model, millions):
    predictor = paper_molecules.make_predictor(SETTINGS["table2"]["paper"], model, 0)
    assert sum(p.numel() for p in predictor.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    counted = step.count_flops(predictor, PairEnergy(), 29)
    assert 1 < counted["forward_gflop"] < 10
    assert torch.isfinite(torch.tensor(step.two_steps(model, "paper", "energy")))


def test_smoke_run(tmp_path):
    path = reproduce("paper_models", scale="smoke", seeds=1, workdir=tmp_path, output=tmp_path / "r.json", threads=1)
    result = json.loads(path.read_text())
    assert {row["model"] for row in result["summary"]} == {"gdm", "edm"}
    text = find("paper_models").table(result)
    assert "Table 10, L40S" in text
    assert all(0 < row["result"]["loss_share"] < 1 for row in result["cells"])


def test_a_models_batch_is_that_of_its_size(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(step, "loss_share", lambda predictor, energy, batch, repeats: asked.append(batch) or {})
    monkeypatch.setattr(step, "count_flops", lambda *_: {})
    monkeypatch.setattr(step, "two_steps", lambda *_: 1.0)
    monkeypatch.setattr(step.paper, "make_predictor", lambda *_: torch.nn.Linear(3, 2))
    settings = step.ModelSettings(batch_size=4, paper_batch_size=5)
    cells = [{"model": "gdm", "size": size, "loss": "mse"} for size in ("laptop", "paper")]
    found = [step.model_cell(settings, cell, tmp_path, []) for cell in cells]
    assert asked == [row["batch_size"] for row in found] == [4, 5]
    assert [row["parameters"] for row in found] == [8, 8]


@torch.no_grad()
def test_the_objective_is_the_sum_of_its_parts():
    predictor = paper_molecules.make_predictor(SETTINGS["table2"]["smoke"], "gdm", 0)
    x, z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4, dtype=torch.long)
    parts = step.denoising_loss(predictor, PairEnergy(), x, z, torch.Generator().manual_seed(1))
    whole = step.objective(predictor, PairEnergy(), x, z, torch.Generator().manual_seed(1))
    assert float(parts.positions) > 0
    assert float(parts.features) > 0
    assert float(whole) == pytest.approx(float(parts.positions) + float(parts.features), rel=1e-6)


def test_the_share_is_loss_over_step(monkeypatch):
    predictor = paper_molecules.make_predictor(SETTINGS["table2"]["smoke"], "gdm", 0)
    times = iter([0.5, 0.002])
    monkeypatch.setattr(step, "median_seconds", lambda run, repeats, *clock: next(times))
    shares = step.loss_share(predictor, PairEnergy(), 2, 1)
    assert shares == {"step_ms": 500.0, "loss_ms": 2.0, "loss_share": 0.004}


def test_a_step_of_the_notebooks_network_and_its_loss(monkeypatch, tmp_path):
    times = iter([0.5, 0.002])
    ran = []

    def median(run, repeats, *clock):
        run()
        ran.append(repeats)
        return next(times)

    monkeypatch.setattr(step, "median_seconds", median)
    found = step.step_cell(step.STEP_SETTINGS["smoke"], {"loss": "energy", "seed": 0}, tmp_path, [])
    assert ran == [2, 2]
    assert {key: found[key] for key in ("step_ms", "loss_ms", "share")} == {
        "step_ms": 500.0, "loss_ms": 2.0, "share": 0.004,
    }  # fmt: skip


def test_a_step_goes_down_the_sum_of_both_losses(monkeypatch, tmp_path):
    """3 p and 5 p pull the same way: a difference would push p up."""
    networks = []

    def losses(denoiser, *_):
        (p, *_) = denoiser.parameters()
        networks.append(p)
        return SimpleNamespace(positions=3 * p.sum(), features=5 * p.sum())

    def median(run, *_):
        run()
        return 1.0

    monkeypatch.setattr(step, "denoising_loss", losses)
    monkeypatch.setattr(step, "median_seconds", median)
    step.step_cell(step.STEP_SETTINGS["smoke"], {"loss": "mse", "seed": 0}, tmp_path, [])
    assert (networks[0].grad > 0).all()


def summary_row(n=1, **values):
    return {"n": n, **{name: {"mean": v, "std": 0.0} if isinstance(v, float) else v for name, v in values.items()}}


def test_the_tables_in_their_units():
    sizes = {"parameters": 3_560_000.0, "forward_gflop": 1.25, "step_gflop": 3.75}
    row = summary_row(model="gdm", size="paper", loss="mse", **sizes, step_ms=500.0, loss_ms=2.0, loss_share=0.004)
    text = step.model_table({"summary": [row], "settings": {"atoms": 29}, "device": "CPU"}).splitlines()[2]
    assert [cell.strip() for cell in text.split("|")[1:-1]] == [
        "gdm", "paper", "mse", "3,560,000", "1.25", "3.75", "500", "2", "0.40",
    ]  # fmt: skip
    shown = step.step_table({"summary": [summary_row(loss="mse", step_ms=9.0, loss_ms=0.5, share=0.0556)]})
    assert [cell.strip() for cell in shown.splitlines()[2].split("|")[1:-1]] == [
        "mse",
        "9.0 (1)",
        "0.50 (1)",
        "5.56 (1)",
    ]
