"""The three experiments about sparse edges: rigidity, loss_cost, sparse_springs."""

from __future__ import annotations

import math

import pytest
import torch

import elf
from elf.geometry import pairwise_distances
from elf.geometry.rigidity import is_globally_rigid
from experiments import find
from experiments.clouds import rigidity, sparse_springs
from experiments.cost import points as loss_cost


@pytest.mark.parametrize(("successes", "trials"), [(0, 300), (300, 300), (7, 20)])
def test_wilson_interval_solves_its_equation(successes, trials):
    """Its ends are the p with (p_hat - p)^2 = z^2 p (1 - p) / n."""
    z = 1.959963984540054
    for p in rigidity.wilson_interval(successes, trials):
        assert (successes / trials - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / trials, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match=f"successes is {successes} of trials = {trials}"):
        rigidity.wilson_interval(successes, trials)


@pytest.mark.parametrize("name", ["rigidity", "loss_cost", "sparse_springs"])
def test_smoke_scale_runs_and_prints(name, tmp_path):
    experiment = find(name)
    settings = experiment.settings("smoke")
    rows = [
        {"cell": cell, "result": experiment.run_cell(settings, cell, tmp_path, []), "seconds": 0.0}
        for cell in experiment.cells(settings, 1)
    ]
    table = experiment.table({"summary": experiment.summarise(rows)})
    assert table.count("\n") >= 3
    for scale in ("live", "laptop", "paper"):
        assert len(experiment.cells(experiment.settings(scale), 3)) % 3 == 0


def test_counts_add_up_over_seeds_and_never_exceed_each_other(tmp_path):
    settings = rigidity.Settings(graphs=5, nodes=(8, 9, 12), degrees=((3, 5),))
    cells = rigidity.cells(settings, 2)
    assert [(cell["nodes"], cell["seed"]) for cell in cells] == [(8, 0), (8, 1), (12, 0), (12, 1)]
    rows = [{"cell": cell, "result": rigidity.run_cell(settings, cell, tmp_path, [])} for cell in cells]
    small, large = rigidity.summarise(rows)
    assert small["graphs"] == large["graphs"] == 10
    for row in (small, large):
        assert row["globally_rigid"] <= row["rigid"] <= row["connected"] <= row["graphs"]
    # 30 edges are as many as rigidity needs at 12 nodes, and none to spare for a stress.
    assert large["globally_rigid"] == 0
    assert small["globally_rigid"] > 0


def test_peak_memory_counts_what_is_alive_at_once():
    with loss_cost.PeakMemory() as memory:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b.view(10, 100)[2:]
        b += 1
        del b
        d = torch.zeros(500, dtype=torch.float64)
    assert memory.peak == 2 * 4000
    assert memory.live == 4000 + 4000
    del c, d
    assert memory.live == 0


def test_the_plain_formula_is_the_same_energy(generator):
    prediction, target = torch.randn(2, 3, 7, 3, dtype=torch.float64, generator=generator)
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    for given in (None, mask):
        plain = loss_cost.BroadcastPairEnergy()(prediction, target, given)
        torch.testing.assert_close(plain, elf.PairEnergy()(prediction, target, given))


def test_memory_grows_as_the_square_for_the_plain_formula_only():
    growth = {
        loss: loss_cost.measure(loss_cost.LOSSES[loss](1600, 0), 1600, 1)["bytes"]
        / loss_cost.measure(loss_cost.LOSSES[loss](800, 0), 800, 1)["bytes"]
        for loss in ("plain", "dense", "sparse")
    }
    assert growth["plain"] == pytest.approx(4, rel=0.05)
    assert growth["dense"] < 2
    assert growth["sparse"] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("bound", [{"bytes_bound": 1e8}, {"seconds_bound": 1e-3}])
def test_quadratic_losses_stop_at_the_bound_and_say_so(bound, tmp_path):
    settings = loss_cost.Settings(points=(3000,), **bound)
    cell = {"loss": "plain", "points": 3000, "seed": 0}
    result = loss_cost.run_cell(settings, cell, tmp_path, [])
    assert set(result) == {"expected_bytes", "expected_milliseconds"}
    assert result["expected_bytes"] == pytest.approx(52 * 3000**2, rel=0.3)
    assert "not run" in loss_cost.table({"summary": loss_cost.summarise([{"cell": cell, "result": result}])})


def test_what_was_measured_counts_before_what_was_expected():
    rows = [
        {"cell": {"loss": "dense", "points": 9, "seed": seed}, "result": result}
        for seed, result in enumerate(
            [{"milliseconds": 2.0, "bytes": 5}, {"expected_milliseconds": 9.0, "expected_bytes": 7}]
        )
    ]
    assert loss_cost.summarise(rows) == [{"loss": "dense", "points": 9, "milliseconds": 2.0, "bytes": 5}]


def test_chains_have_their_bonds_and_edges_are_globally_rigid(generator):
    chains = sparse_springs.random_chains(3, 16, generator)
    bonds = (chains[:, 1:] - chains[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(bonds, torch.full_like(bonds, 1.5))
    sizes = {}
    for kind in sparse_springs.EDGES:
        edges = sparse_springs.edge_list(kind, chains[0], 0)
        sizes[kind] = edges.shape[1]
        assert bool(is_globally_rigid(16, edges, 3))
    assert sizes["sparse"] == 48 < sizes["sparse_near"] < sizes["dense"] == 120
    near = (pairwise_distances(chains[0]) < 4).triu(1).nonzero()
    together = {tuple(edge) for edge in sparse_springs.edge_list("sparse_near", chains[0], 0).T.tolist()}
    assert {tuple(pair) for pair in near.tolist()} <= together


def test_shape_errors_forgive_rigid_motions_and_mirrors_and_nothing_else(generator):
    target = sparse_springs.random_chains(2, 12, generator)
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0]) + 3
    rmsd, local = sparse_springs.shape_errors(mirrored, target)
    assert rmsd == pytest.approx(0, abs=1e-4)
    assert local == pytest.approx(0, abs=1e-4)
    rmsd, local = sparse_springs.shape_errors(1.1 * target, target)
    spread = (target - target.mean(1, keepdim=True)).square().sum(-1).mean(-1).sqrt().mean()
    assert rmsd == pytest.approx(0.1 * float(spread), rel=1e-4)
    assert 0.1 < local < 0.5


def test_held_by_on_a_chain_of_two():
    target = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    edges = torch.tensor([[0], [1]])
    assert sparse_springs.held_by(target, edges, elf.springs.Inverse()) == pytest.approx(0.5)
    assert sparse_springs.held_by(target, edges, elf.springs.Exponential()) == pytest.approx(math.exp(-1.5))


def test_what_many_points_would_take_follows_from_few(monkeypatch, tmp_path):
    """Time grows as the square for both; memory as the square for the plain formula, linearly for the tiles."""
    monkeypatch.setattr(
        loss_cost, "measure", lambda energy, points, repeats, seed: {"milliseconds": 2.0, "bytes": 1000}
    )
    for loss, points, expected in (("plain", 3_000, 1e5), ("dense", 30_000, 1e4)):
        cell = {"loss": loss, "points": points, "seed": 0}
        stopped = loss_cost.run_cell(loss_cost.Settings(points=(points,), seconds_bound=0.199), cell, tmp_path, [])
        assert stopped == {"expected_milliseconds": 200.0, "expected_bytes": expected}
        for bounds in ({"seconds_bound": 0.201}, {"bytes_bound": expected + 1}):
            settings = loss_cost.Settings(points=(points,), **bounds)
            assert loss_cost.run_cell(settings, cell, tmp_path, []) == {"milliseconds": 2.0, "bytes": 1000}
        stopped = loss_cost.run_cell(loss_cost.Settings(points=(points,), bytes_bound=expected - 1), cell, tmp_path, [])
        assert "expected_bytes" in stopped


def test_the_median_timer_warms_up_once_and_takes_the_middle():
    now, calls = iter([0.0, 1.0, 10.0, 15.0, 20.0, 22.0]), []
    assert loss_cost.median_seconds(lambda: calls.append(1), 3, lambda: next(now)) == 2.0
    assert len(calls) == 4


def test_restoring_starts_at_the_perturbed_chain_and_goes_downhill(generator):
    target = sparse_springs.random_chains(2, 12, generator)
    still = sparse_springs.Settings(chains=2, atoms=(12,), steps=1, learning_rate=1e-12)
    energy = elf.PairEnergy()
    start = sparse_springs.restore(target, energy, still, torch.Generator().manual_seed(3))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(start, target + 0.5 * noise)
    moved = sparse_springs.Settings(chains=2, atoms=(12,), steps=100)
    end = sparse_springs.restore(target, energy, moved, torch.Generator().manual_seed(3))
    assert float(energy(end, target).sum()) < 0.05 * float(energy(start, target).sum())


def test_held_by_is_the_tenth_percentile_over_atoms():
    """A star of eleven: ten leaves hold by one spring each, the centre by ten."""
    target = torch.zeros(11, 3)
    target[1:, 0] = 3.0
    edges = torch.stack([torch.zeros(10, dtype=torch.long), torch.arange(1, 11)])
    assert sparse_springs.held_by(target, edges, elf.springs.Inverse()) == pytest.approx(0.5)
    assert sparse_springs.held_by(target, edges[:, :1], elf.springs.Inverse()) == 0
