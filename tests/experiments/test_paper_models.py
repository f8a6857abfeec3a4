"""Parameters, operations and shares of time of the paper's models."""

from __future__ import annotations

import json

import pytest
import torch

from elf.energy import PairEnergy
from experiments import find, reproduce
from experiments.cost import step as paper_models
from experiments.molecules import paper as paper_molecules
from experiments.molecules.paper_tables import SETTINGS


def test_operations_are_those_of_the_matrix_products():
    predictor = paper_molecules.make_predictor(SETTINGS["table2"]["smoke"], "gdm", 0)
    counted = paper_models.count_flops(predictor, PairEnergy(), 29)
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
    counted = paper_models.count_flops(predictor, PairEnergy(), 29)
    assert 1 < counted["forward_gflop"] < 10
    assert torch.isfinite(torch.tensor(paper_models.two_steps(model, "paper", "energy")))


def test_smoke_run(tmp_path):
    path = reproduce("paper_models", scale="smoke", seeds=1, workdir=tmp_path, output=tmp_path / "r.json", threads=1)
    result = json.loads(path.read_text())
    assert {row["model"] for row in result["summary"]} == {"gdm", "edm"}
    text = find("paper_models").table(result)
    assert "Table 10, L40S" in text
    assert all(0 < row["result"]["loss_share"] < 1 for row in result["cells"])
