import math
from dataclasses import replace
from statistics import mean
from types import SimpleNamespace

import pytest
import torch

from elf.energy import PairEnergy
from experiments import find, load_result
from experiments.clouds import shapes
from experiments.clouds.polygons import mean_shrinkage, regular_polygon, sample

SMOKE = shapes.SETTINGS["smoke"]


def weights_after_training(loss, angle, **changes):
    settings = replace(SMOKE, steps=30, **changes)
    record = shapes.train(settings, loss, sides=6, angle=angle, learning_rate=1e-2, batch_size=8, seed=0)
    return torch.cat([p.detach().flatten() for p in record.model.parameters()])


@pytest.mark.parametrize("loss", ["kabsch", "energy", "sparse"])
def test_training_with_an_invariant_loss_does_not_see_how_targets_are_turned(loss):
    """Prop. 4.2 and what it does to a training: the weights at theta = pi are those at theta = 0, up to rounding."""
    torch.testing.assert_close(weights_after_training(loss, 1.0), weights_after_training(loss, 0.0), rtol=0, atol=2e-4)


def test_training_with_mse_sees_it():
    change = weights_after_training("mse", 1.0) - weights_after_training("mse", 0.0)
    assert change.abs().max() > 2e-2


def test_training_minimises_the_mean_over_polygons_turned_by_up_to_the_angle(monkeypatch):
    monkeypatch.setattr(shapes, "fit", lambda *args, **kwargs: args)
    _, mean_loss, batches, _ = shapes.train(SMOKE, "mse", sides=6, angle=0.5, learning_rate=1e-2, batch_size=8, seed=3)
    drawn = sample(SMOKE.samples, 3, 0.5 * math.pi, torch.Generator().manual_seed(3))
    batch = batches(0)
    assert set(zip(batch.radius.tolist(), batch.angle.tolist(), strict=True)) < set(
        zip(drawn.radius.tolist(), drawn.angle.tolist(), strict=True)
    )
    torch.testing.assert_close(batch.vertices, regular_polygon(batch.radius, batch.angle, 6))
    found = mean_loss(lambda radius: torch.zeros(8, 6, 2), batch, torch.Generator())
    torch.testing.assert_close(found, shapes.LOSSES["mse"]()(torch.zeros(8, 6, 2), batch.vertices).sum() / 8)


def test_dense_energies_of_many_sides_have_one_seed():
    few = replace(SMOKE, many_sides=(6, 8), dense_seeds_up_to=6)
    seeds = [(cell["loss"], cell["sides"], cell["seed"]) for cell in shapes.cells(few, 2) if cell["part"] == "sides"]
    every = {(loss, sides, seed) for loss in ("mse", "sparse", "energy") for sides in (6, 8) for seed in (0, 1)}
    assert len(seeds) == 11
    assert set(seeds) == every - {("energy", 8, 1)}


def test_mse_learns_the_mean_of_the_turned_polygons():
    """Its minimiser has sin(theta) / theta of the radius: a linear fit shows it without any network."""
    data = sample(20_000, 5, 0.75 * math.pi, torch.Generator().manual_seed(0), dtype=torch.float64)
    upright = regular_polygon(data.radius, torch.zeros_like(data.angle), 5)
    factor = float((data.vertices * upright).sum() / upright.square().sum())
    assert factor == pytest.approx(mean_shrinkage(0.75 * math.pi), abs=0.01)


def test_sparse_graphs_are_regular_and_drawn_once():
    graphs = shapes.sparse_edges(12, 5)
    assert graphs.shape == (5, 2, 24)
    assert all((graph.flatten().bincount() == 4).all() for graph in graphs)
    assert len({tuple(graph.flatten().tolist()) for graph in graphs}) > 1
    assert shapes.sparse_edges(12, 5) is graphs


def test_sparse_loss_averages_to_the_dense_one(generator):
    """Each pair is an edge with probability 4 / (N - 1): scaled up, the mean over graphs is the dense energy."""
    prediction, target = torch.randn(2, 1, 9, 2, generator=generator)
    dense = PairEnergy(shapes.SPRINGS, normalize="atoms")(prediction, target)
    for name in shapes.SPARSE:
        loss = shapes.make_loss(name, 9, 200)
        draws = torch.stack([loss(prediction, target, generator) for _ in range(300)])
        assert float(draws.mean()) * 8 / 4 == pytest.approx(float(dense), rel=0.1)
        assert draws.std() > 0
        assert float(loss(target, target, generator)) == 0


def test_graphs_are_drawn_for_each_sample_or_for_the_batch(generator):
    prediction, target = torch.randn(2, 1, 9, 2, generator=generator).expand(-1, 8, -1, -1)
    own, shared = (shapes.make_loss(name, 9, 50)(prediction, target, generator) for name in shapes.SPARSE)
    assert own.std() > 1e-3 * own.mean()
    torch.testing.assert_close(shared, shared[:1].expand(8))


def test_every_cell_runs_and_summarises(tmp_path):
    experiment = find("shapes")
    rows = []
    for i, cell in enumerate(experiment.cells(SMOKE, 1)):
        (tmp_path / str(i)).mkdir()
        rows.append({"cell": cell, "result": experiment.run_cell(SMOKE, cell, tmp_path / str(i), []), "seconds": 0})
    assert all(math.isfinite(row["result"]["quality"]) for row in rows)
    polygons = [row["result"]["polygon"] for row in rows if row["cell"]["part"] == "theta"]
    assert all(len(x) == len(y) == SMOKE.sides for x, y in polygons)
    summary = experiment.summarise(rows)
    assert len(summary) == len(rows)
    assert experiment.summarise(rows)[0]["n"] == 1
    assert "radius, of the right one" in experiment.table({"summary": summary})


def test_rate_of_a_place_that_was_not_swept_is_its_neighbours():
    settings = replace(SMOKE, learning_rates={"mse,20,0.0": 1.0, "mse,20,1.0": 2.0, "mse,64,1.0": 3.0})
    assert shapes.nearest_rate(settings, "mse", 20, 0.0) == 1
    assert shapes.nearest_rate(settings, "mse", 20, 0.25) == 2
    assert shapes.nearest_rate(settings, "mse", 32, 1.0) == 2
    assert shapes.nearest_rate(settings, "mse", 128, 1.0) == 3


def test_the_sweep_tries_every_rate_at_every_place():
    cells = shapes.sweep_cells(SMOKE, 2)
    assert len(cells) == len({str(cell) for cell in cells}) == 2 * 7 * len(shapes.SWEPT)
    assert {(cell["part"], cell["loss"], cell["sides"], cell["angle"]) for cell in cells} == {
        *(("theta", loss, 6, 1.0) for loss in ("mse", "kabsch", "energy")),
        *(("sides", loss, 32, 1.0) for loss in ("sparse", "sparse_batch", "energy")),
        ("theta", "mse", 6, 0.0),
    }


def test_best_rate_has_the_lowest_validation_loss():
    places = {"loss": "mse", "sides": 20, "angle": 1.0}
    summary = [
        {**places, "learning_rate": rate, "validation_loss": {"mean": loss}}
        for rate, loss in ((1e-3, 3.0), (3e-3, 1.0), (1e-2, 2.0))
    ]
    assert shapes.best_rates({"summary": summary}) == {"mse,20,1.0": 3e-3}


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match="loss is 'huber'; it should be one of 'mse', 'kabsch', 'energy', 'sparse'"):
        shapes.make_loss("huber", 6, 2)


def laptop(part, loss, name, **where):
    """One number of the committed result: {(sides, angle, rate): mean over seeds}."""
    rows = [row for row in load_result("shapes")["summary"] if row["part"] == part and row["loss"] == loss]
    rows = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return {(row["sides"], row["angle"], row["learning_rate"]): row[name]["mean"] for row in rows}


def test_committed_rates_are_those_of_the_sweep():
    assert shapes.best_rates(load_result("shapes_rates")) == shapes.RATES
    assert load_result("shapes")["settings"]["learning_rates"] == shapes.RATES


def test_committed_result_holds_what_the_notebook_says():
    assert load_result("shapes")["seeds"] >= 3
    result = load_result("shapes")
    few = [row for row in result["summary"] if row["n"] < 3]
    assert all(row["loss"] == "energy" and row["sides"] > result["settings"]["dense_seeds_up_to"] for row in few)
    for loss in ("energy", "kabsch"):
        scores = laptop("theta", loss, "quality", sides=20)
        assert max(scores.values()) - min(scores.values()) < 0.7
        assert min(scores.values()) > 5
    for (_, angle, _), ratio in laptop("theta", "mse", "radius_ratio", sides=20).items():
        assert ratio == pytest.approx(mean_shrinkage(angle * math.pi), abs=0.05)
    assert max(laptop("theta", "mse", "radius_ratio", angle=1.0).values()) < 0.2
    runs = [c for c in load_result("shapes")["cells"] if c["cell"]["part"] == "sides" and c["cell"]["loss"] != "mse"]
    stuck = [c["cell"] for c in runs if c["result"]["validation_loss"] > 0.1]
    assert [(c["loss"], c["sides"], c["seed"]) for c in stuck] == [("sparse", 64, 2)]
    whole = [c for c in runs if c["cell"] not in stuck]
    for sides in (8, 16, 32, 64, 128):
        dense, sparse = (
            [c["result"]["quality"] for c in whole if (c["cell"]["loss"], c["cell"]["sides"]) == (loss, sides)]
            for loss in ("energy", "sparse")
        )
        assert len(dense) == 3
        assert mean(dense) - mean(sparse) < 1.5


class Polygon(torch.nn.Module):
    """Answers with a regular polygon at `angle` of `factor` times the radius."""

    def __init__(self, factor, angle=0.0):
        super().__init__()
        self.factor, self.angle = torch.nn.Parameter(torch.tensor(factor)), angle

    def forward(self, radius):
        return regular_polygon(self.factor * radius[:, 0], torch.full_like(radius[:, 0], self.angle), 6)


def test_scores_of_a_model_that_is_right_up_to_size_and_turn():
    found = shapes.evaluate(Polygon(0.9), SMOKE, "energy", 6, 0.0)
    assert found["radius_ratio"] == pytest.approx(0.9, rel=1e-5)
    assert found["radius_error"] == pytest.approx(0.1, rel=1e-4)
    assert found["quality_at_radius"] < found["quality"]
    held = sample(SMOKE.evaluated, 6, 0.0, torch.Generator().manual_seed(shapes.VALIDATION_SEED))
    distances = torch.cdist(held.vertices, held.vertices).double()
    energy = 0.5 * (2.6 * (-distances).exp() * (0.1 * distances).square()).sum((1, 2)) / 6
    assert found["validation_loss"] == pytest.approx(float(energy.mean()), rel=1e-4)
    test = sample(SMOKE.evaluated, 6, 0.0, torch.Generator().manual_seed(shapes.TEST_SEED))
    answers = regular_polygon(0.9 * test.radius, torch.zeros_like(test.radius), 6)
    expected = shapes.metrics.quality(answers).tolist(), shapes.metrics.quality(answers, test.radius).tolist()
    assert [found["quality"], found["quality_at_radius"]] == pytest.approx([mean(part) for part in expected], rel=1e-3)
    # Half a turn at most: what MSE sees of it, vertex by vertex.
    half = sample(SMOKE.evaluated, 6, 0.5 * math.pi, torch.Generator().manual_seed(shapes.VALIDATION_SEED))
    moved = (2 * half.radius * (half.angle / 2).sin()).square().mean()
    scale = shapes.LOSSES["mse"]()(torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
    seen = shapes.evaluate(Polygon(1.0), SMOKE, "mse", 6, 0.5)["validation_loss"]
    assert seen == pytest.approx(float(scale * moved), rel=1e-4)
    turned = shapes.evaluate(Polygon(1.0, angle=0.3), SMOKE, "energy", 6, 1.0)
    assert turned["validation_loss"] == pytest.approx(0, abs=1e-6)
    # At theta = 0, MSE sees the turn: 2 r sin(0.15) for every vertex.
    mse = shapes.evaluate(Polygon(1.0, angle=0.3), SMOKE, "mse", 6, 0.0)["validation_loss"]
    moved = float((2 * held.radius * math.sin(0.15)).square().mean())
    assert mse / moved == pytest.approx(
        float(shapes.LOSSES["mse"]()(torch.ones(1, 1, 1), torch.zeros(1, 1, 1))), rel=1e-4
    )


def test_each_part_has_its_own_batch_size(monkeypatch, tmp_path):
    asked = []

    def train(settings, loss, *, batch_size, **how):
        asked.append(batch_size)
        return SimpleNamespace(model=Polygon(1.0))

    monkeypatch.setattr(shapes, "train", train)
    settings = replace(SMOKE, batch_size=10, sides_batch_size=20)
    cell = {"loss": "mse", "sides": 6, "angle": 0.0, "learning_rate": 1e-2, "seed": 1}
    for part in ("theta", "sides"):
        shapes.run_cell(settings, {"part": part, **cell}, tmp_path, [])
    assert asked == [10, 20]
