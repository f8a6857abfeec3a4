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


def test_bonds_turn_by_noise_of_four_fifths():
    """Each bond lies along the one before it plus 0.8 times a random vector: parallel, and not the other way."""
    chains = sparse_springs.random_chains(2, 5, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    draws = [torch.randn(2, 3, generator=generator) for _ in range(5)]
    bonds = (chains.diff(dim=1) / 1.5).unbind(1)
    torch.testing.assert_close(bonds[0], torch.nn.functional.normalize(draws[0], dim=-1))
    for bond, before, kick in zip(bonds[1:], bonds, draws[1:], strict=False):
        along = before + 0.8 * kick
        assert torch.linalg.cross(bond, along).abs().max() < 1e-5
        assert ((bond * along).sum(-1) > 0).all()


def test_the_local_error_is_the_mean_change_of_near_distances():
    """Distances 3, 4 and 7 of points on a line, a tenth longer: 0.3 and 0.4 count, 7 is not near."""
    line = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [7.0, 0.0, 0.0]]])
    rmsd, local = sparse_springs.shape_errors(1.1 * line, line)
    assert local == pytest.approx(0.35, rel=1e-4)
    # The centre is at 10 / 3.
    assert rmsd == pytest.approx(0.1 * math.sqrt((10**2 + 1 + 11**2) / 27), rel=1e-4)


def test_figures_of_a_cell_are_means_over_its_chains(tmp_path):
    settings = sparse_springs.Settings(chains=2, atoms=(12,), steps=1)
    cell = {"atoms": 12, "springs": "inverse", "edges": "sparse", "seed": 1}
    found = sparse_springs.run_cell(settings, cell, tmp_path, [])
    chains = sparse_springs.random_chains(2, 12, torch.Generator().manual_seed(1))
    edges = sparse_springs.rigid_graph(12, 1)
    one, two = (sparse_springs.held_by(chain, edges, elf.springs.Inverse()) for chain in chains)
    assert one != pytest.approx(two, rel=0.01)
    # Six neighbours each, and every edge has two ends.
    assert found["pairs"] == 12 * 6 / 2
    assert found["held"] == pytest.approx((one + two) / 2, rel=1e-3)
    generator = torch.Generator().manual_seed(1)
    target, energy = sparse_springs.random_chains(2, 12, generator), elf.PairEnergy(elf.springs.Inverse(), edges=edges)
    errors = sparse_springs.shape_errors(sparse_springs.restore(target, energy, settings, generator), target)
    assert (found["rmsd"], found["local"]) == pytest.approx(errors, abs=1e-5)
    # Lists of different lengths.
    near = [sparse_springs.edge_list("sparse_near", chain, 1).shape[1] for chain in chains]
    assert near[0] != near[1]
    found = sparse_springs.run_cell(settings, {**cell, "edges": "sparse_near"}, tmp_path, [])
    assert found["pairs"] == sum(near) / 2


def test_fractions_of_pooled_counts_and_their_per_cents():
    cell = {"dim": 2, "degree": 3, "nodes": 8}
    result = {"graphs": 10, "connected": 9, "rigid": 6, "globally_rigid": 2}
    rows = [{"cell": {**cell, "seed": seed}, "result": {**result, "globally_rigid": 2 + seed}} for seed in (0, 1)]
    (row,) = rigidity.summarise(rows)
    assert (row["graphs"], row["rigid"], row["globally_rigid"], row["fraction"]) == (20, 12, 5, 0.25)
    assert (row["low"], row["high"]) == pytest.approx(rigidity.wilson_interval(5, 20), abs=1e-5)
    line = rigidity.table({"summary": [{**row, "low": 0.1, "high": 0.5}]}).splitlines()[2]
    assert [text.strip() for text in line.split("|")[1:-1]] == [
        "2", "3", "8", "12 / 20", "5 / 20", "25.0 (10.0 to 50.0)",
    ]  # fmt: skip


def test_rigid_graphs_that_are_not_globally_rigid_count_as_rigid(tmp_path):
    """3-regular graphs of 8 nodes have 12 edges; rigid in the plane are those of 2 * 8 - 3 = 13 and more."""
    settings = rigidity.Settings(graphs=6, nodes=(8, 12))
    flexible = rigidity.run_cell(settings, {"dim": 2, "degree": 3, "nodes": 8, "seed": 0}, tmp_path, [])
    assert (flexible["rigid"], flexible["globally_rigid"]) == (0, 0)
    # 5 * 12 / 2 = 30 = 3 * 12 - 6 edges: rigid without one to spare, so never globally rigid.
    tight = rigidity.run_cell(settings, {"dim": 3, "degree": 5, "nodes": 12, "seed": 0}, tmp_path, [])
    assert tight["globally_rigid"] == 0 < tight["rigid"] <= tight["connected"] == 6


def test_milliseconds_and_repetitions_of_a_measurement(monkeypatch, tmp_path):
    asked = []

    def median(run, repeats, *clock):
        asked.append(repeats)
        return 0.0025

    monkeypatch.setattr(loss_cost, "median_seconds", median)
    for points in (2999, 3000):
        cell = {"loss": "mse", "points": points, "seed": 0}
        found = loss_cost.run_cell(loss_cost.Settings(points=(points,), repeats=7), cell, tmp_path, [])
        assert found["milliseconds"] == 2.5
    # Of many points fewer measurements are enough.
    assert asked == [7, 3]


def test_the_cost_table_says_what_was_measured_and_what_was_expected():
    summary = [
        {"loss": "mse", "points": 30, "milliseconds": 0.25, "bytes": 3e6},
        {"loss": "plain", "points": 30, "expected_milliseconds": 4000.0, "expected_bytes": 5e9},
        {"loss": "mse", "points": 3000, "milliseconds": 2509.4, "bytes": 1.45e3},
        {"loss": "plain", "points": 3000, "expected_milliseconds": 1.83e6, "expected_bytes": 4.71e15},
    ]
    lines = loss_cost.table({"summary": summary}).splitlines()[2:]
    assert [[text.strip() for text in line.split("|")[1:-1]] for line in lines] == [
        ["30", "0.25 ms, 3 MB", "not run: 4 s, 5 GB expected"],
        ["3000", "2,510 ms, 0.00145 MB", "not run: 1,800 s, 4,700,000 GB expected"],
    ]
