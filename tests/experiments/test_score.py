"""The score experiment: its triangles, its scores of samples, and a run at smoke scale."""

from __future__ import annotations

import json

import pytest
import torch

from elf.generative.minimiser import pair_distances
from experiments.clouds import score


def test_triangles_have_their_sides():
    shapes = torch.stack([score.triangle(*sides) for sides in score.SIDES])
    torch.testing.assert_close(pair_distances(shapes), torch.tensor(score.SIDES, dtype=torch.float64))
    with pytest.raises(ValueError, match="each should be below the sum of the others"):
        score.triangle(1.0, 1.0, 2.5)


def test_quality_tells_good_samples_from_bad_ones():
    system = score.isomers(0.05)
    good = system.sample(2000, torch.Generator().manual_seed(5))
    found = score.quality(good, system)
    assert found["w1"] < 3 * found["floor"]
    assert found["first"] == pytest.approx(0.7, abs=0.04)
    assert found["wrong_hand"] == 0
    assert found["broken"] < 0.03
    mirrored = score.quality(good * torch.tensor([1.0, -1.0]), system)
    assert mirrored["wrong_hand"] == 1
    assert mirrored["w1"] == found["w1"]
    between = score.triangle(1.0, 1.2, 1.675).expand(2000, -1, -1)
    assert score.quality(between, system)["broken"] == 1
    assert score.quality(good * 1.3, system)["w1"] > 20 * found["w1"]


def test_fitted_rate_of_a_power_law():
    sigmas = [0.001, 0.003, 0.01, 0.1, 1.0]
    assert score.fitted_rate(sigmas, [s**1.5 if s < 0.03 else 7.0 for s in sigmas]) == pytest.approx(1.5, rel=1e-5)


def test_estimates_improve_with_samples():
    """MSE's variance falls as 1 / n, and neither loss is biased at small noise for a rigid shape."""
    few, many = (
        score.estimates(score.isomers(0.02, 1), 0.1, n, 4, 200, torch.Generator().manual_seed(1)) for n in (2, 8)
    )
    assert few["mse"]["variance"] / many["mse"]["variance"] == pytest.approx(4, rel=0.25)
    assert abs(many["mse"]["bias"]) < 0.01
    assert many["energy"]["variance"] < many["mse"]["variance"]


@pytest.mark.parametrize("part", ["score", "estimator", "sampling", "flow"])
def test_every_part_runs_and_its_result_is_json(part, tmp_path):
    settings = score.SETTINGS["smoke"]
    cells = [cell for cell in score.cells(settings, 1) if cell["part"] == part]
    first, second = (score.run_cell(settings, cells[-1], tmp_path / str(i), ()) for i in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    rows = [{"cell": cells[-1], "result": first, "seconds": 0.0}]
    assert score.EXPERIMENT.summarise(rows)[0]["n"] == 1
