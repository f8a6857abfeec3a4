from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from elf.data import spin_glass
from elf.spins import (
    AlignedCrossEntropy,
    Couplings,
    FreeEnergy,
    LocalField,
    Mattis,
    frustrated_plaquettes,
    ground_state,
    ising_energy,
)
from experiments.spins import table5, table5_aligned, table5_settings
from experiments.spins.mean_field import MeanFieldNet
from experiments.spins.resnet import SpinResNet


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_CACHE", str(tmp_path / "cache"))


def test_augmented_lattices_come_with_their_ground_states(generator):
    data = spin_glass.load(6, 4)
    seen = set()
    for _ in range(12):
        other = table5.augmented(data, generator)
        torch.testing.assert_close(ising_energy(other.spins, other.couplings), data.energy)
        torch.testing.assert_close(ground_state(other.couplings).energy, data.energy)
        assert (other.spins[:, 0, 0] == 1).all()
        assert int(frustrated_plaquettes(other.couplings).sum()) == int(frustrated_plaquettes(data.couplings).sum())
        seen.add(tuple(other.couplings.values[0].abs().tolist()))
    assert len(seen) > 3
    assert not torch.equal(other.couplings.right.sign(), data.couplings.right.sign())


def test_rectangles_are_transposed_too(generator):
    data = spin_glass.load(3, 2, 5)
    shapes = {table5.augmented(data, generator).couplings.shape for _ in range(12)}
    assert shapes == {(3, 2, 5), (3, 5, 2)}


def test_losses_are_what_their_names_say():
    pair, field = table5.make_loss("pair", 0.3, 2.0), table5.make_loss("local_field")
    assert isinstance(pair, FreeEnergy)
    assert isinstance(pair.energy, Mattis)
    assert (pair.temperature, pair.energy.offset) == (0.3, 2.0)
    assert isinstance(field, FreeEnergy)
    assert isinstance(field.energy, LocalField)
    assert field.energy.offset == table5.OFFSET["local_field"]
    assert isinstance(table5.make_loss("aligned"), AlignedCrossEntropy)
    with pytest.raises(ValueError, match="loss is 'hinge'; it should be one of 'cross_entropy'"):
        table5.make_loss("hinge")


def test_the_true_energy_uses_no_data():
    """Its gradient is the same whatever the target."""
    data = spin_glass.load(4, 3)
    z = torch.zeros(4, 3, 3).normal_(generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = table5.make_loss("ising")
    gradients = [
        torch.autograd.grad(loss(z, y, data.couplings).sum(), z)[0] for y in (data.spins, torch.ones_like(data.spins))
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("network", "blocks"), [("residual", 2), ("mean_field", 8)])
def test_training_on_few_lattices_finds_their_ground_states(network, blocks):
    data = spin_glass.load(8, 4)
    how = table5.Training(
        steps=150, samples=8, network=network, blocks=blocks, batch_size=8, learning_rate=5e-3, augment=False
    )
    before = table5.scores(table5.build(how, 0), data)
    # The local field is convex in the spins; the pair energy may freeze a domain wall in one of eight lattices.
    for name, share in (("local_field", 0.01), ("pair", 0.15)):
        record = table5.train(data, table5.make_loss(name), how, seed=0)
        after = table5.scores(record.model, data)
        assert after["energy"] < share * before["energy"]
        assert after["energy_descended"] <= after["energy"]
        assert after["bonds"] > 0.8


def test_the_networks_are_those_of_the_settings():
    paper = table5.SETTINGS["paper"].training
    with torch.device("meta"):
        network = table5.build(paper, 0)
    assert isinstance(network, SpinResNet)
    assert len(network.blocks) == 6
    assert network.head.in_channels == 256
    deep = table5.build(table5.Training(steps=1, samples=1, channels=8, blocks=5), 0)
    assert isinstance(deep, MeanFieldNet)
    assert len(deep.layers) == 5
    # Two magnetisations in each of four directions, of eight channels.
    assert deep.layers[0].send.out_channels == 4 * 2
    with pytest.raises(ValueError, match="network is 'transformer'; it should be 'mean_field' or 'residual'"):
        table5.build(replace(paper, network="transformer"), 0)


class Stubborn(torch.nn.Module):
    """Answers all up on a lattice whose first coupling is positive, else a checkerboard: not symmetric at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, couplings: Couplings) -> Tensor:
        _, height, width = couplings.shape
        board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 * -2.0 + 1
        first = couplings.right[:, 0, 0, None, None]
        return self.scale * torch.where(first > 0, torch.ones_like(board), board)


@pytest.mark.parametrize("gauges", [0, 4])
def test_the_best_of_many_is_no_worse_and_still_spins(gauges):
    data = spin_glass.load(40, 3, 4)
    model = Stubborn()
    one, best = table5.predict(model, data.couplings), table5.best_of(model, data.couplings, gauges)
    assert set(best.flatten().tolist()) == {-1.0, 1.0}
    gained = ising_energy(one, data.couplings) - ising_energy(best, data.couplings)
    assert gained.min() >= 0
    assert gained.mean() > 0.3
    numbers = table5.more_scores(model, data, gauges)
    names = {"energy_best_of_8", "energy_best_of_8_descended"} if gauges == 0 else set(numbers)
    assert numbers.keys() == names
    assert len(numbers) == 2


@pytest.mark.parametrize("module", [table5, table5_settings])
def test_a_cell_is_reproducible_and_goes_on_where_it_was(tmp_path: Path, module):
    settings = module.EXPERIMENT.settings("smoke")
    cells = module.EXPERIMENT.cells(settings, 2)
    assert len({str(cell) for cell in cells}) == len(cells)
    cell = cells[-1]
    results = [module.run_cell(settings, cell, tmp_path / where, ()) for where in ("a", "b", "a")]
    for result in results:
        del result["training_seconds"], result["core_seconds"]
    assert results[0] == results[1] == results[2]
    assert [point["step"] for point in results[0]["curve"]] == [2, 3]
    assert {"energy_per_spin_5", "energy_per_spin_8"} < results[0].keys()


def test_the_aligned_label_is_trained_as_the_losses_of_the_table(tmp_path: Path):
    ours, table = table5_aligned.EXPERIMENT, table5.EXPERIMENT
    settings = ours.settings("smoke")
    assert settings == table.settings("smoke")
    assert ours.cells(settings, 2) == [{"loss": "aligned", "seed": 0}, {"loss": "aligned", "seed": 1}]
    assert "aligned" not in {cell["loss"] for cell in table.cells(settings, 2)}
    aligned, plain = (
        table.run_cell(settings, {"loss": loss, "seed": 0}, tmp_path / loss, ())
        for loss in ("aligned", "cross_entropy")
    )
    assert ours.run_cell is table.run_cell
    assert aligned.keys() == plain.keys()
    assert aligned["curve"] != plain["curve"]


def test_tables_have_a_row_for_each_setting():
    for module in (table5, table5_aligned, table5_settings):
        cells = module.EXPERIMENT.cells(module.EXPERIMENT.settings("laptop"), 3)
        result = dict.fromkeys(table5.SHOWN, 1.0)
        rows = [{"cell": cell, "result": result, "seconds": 1.0} for cell in cells]
        summary = module.EXPERIMENT.summarise(rows)
        assert len(module.EXPERIMENT.table({"summary": summary}).splitlines()) == len(summary) + 2


def test_smaller_training_sets_are_part_of_the_larger():
    settings = table5_settings.SETTINGS["smoke"]
    assert replace(settings.study, samples=settings.samples[0]).samples < settings.study.samples
    small, large = spin_glass.load(16, 6), spin_glass.load(32, 6)
    assert torch.equal(small.couplings.values, large.couplings.values[:16])
    assert torch.equal(small.spins, large.spins[:16])


def test_numbers_of_a_cell_by_hand(monkeypatch, tmp_path: Path):
    """Energies are divided by the spins of each size; a fifth of the test lattices, rounded up, is for other sizes."""
    asked, clock = [], iter((100.0, 103.5))

    def load(n: int, size: int, *, seed: int) -> list[int]:
        asked.append((n, size, seed))
        return list(range(n))

    monkeypatch.setattr(table5, "load", load)
    monkeypatch.setattr(table5, "time", SimpleNamespace(process_time=lambda: next(clock)))
    monkeypatch.setattr(table5, "train", lambda *_, **__: SimpleNamespace(model=None, seconds=7.04))
    monkeypatch.setattr(table5, "scores", lambda *_: {"energy": 9.0})
    monkeypatch.setattr(table5, "more_scores", lambda *_: {})
    how = table5.Training(steps=1, samples=6)
    settings = table5.Settings(size=2, training=how, evaluated=21, other_sizes=(3,))
    result, _ = table5.train_and_test(settings, how, table5.make_loss("margin"), 0, tmp_path, ())
    assert asked == [(6, 2, 0), (21, 2, table5.TEST_SEED), (5, 3, table5.TEST_SEED)]
    assert (result["core_seconds"], result["training_seconds"]) == (3.5, 7.0)
    assert (result["energy_per_spin"], result["energy_per_spin_3"]) == (2.25, 1.0)


def test_part_best_has_a_training_of_its_own_and_every_set_is_part_of_the_largest(monkeypatch, tmp_path: Path):
    asked, loaded = [], []

    def train_and_test(_, how, *others):
        asked.append((how.blocks, how.samples, others[-1]))
        return {"energy": 1.0}, torch.nn.Linear(1, 1)

    monkeypatch.setattr(table5_settings, "train_and_test", train_and_test)
    monkeypatch.setattr(table5_settings, "load", lambda n, *_, **__: loaded.append(n))
    monkeypatch.setattr(table5_settings, "more_scores", lambda *_: {"energy_best_of_8": 0.5})
    smoke = table5_settings.SETTINGS["smoke"]
    settings = replace(
        smoke,
        table5=replace(smoke.table5, evaluated=21),
        study=replace(smoke.study, samples=32, blocks=2),
        best=replace(smoke.best, samples=8, blocks=3),
        samples=(16,),
    )
    for part in ("usual", "best"):
        cell = next(cell for cell in table5_settings.cells(settings, 1) if cell["part"] == part)
        result = table5_settings.run_cell(settings, cell, tmp_path, ())
    assert asked == [(2, 32, 32), (3, 8, 16)]
    # A fifth of the test lattices, rounded up, is asked about in many gauges.
    assert loaded == [5]
    assert result == {"energy": 1.0, "energy_best_of_8": 0.5}


class Answers(torch.nn.Module):
    """Logits that nobody has to learn, in the order of the lattices."""

    def __init__(self, spins: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(3 * spins.float())

    def forward(self, couplings: Couplings) -> Tensor:
        return self.logits


def test_scores_are_means_over_lattices(monkeypatch):
    """Of two lattices of 3 x 3 one is answered with its flip, in the other the last spin, a corner, is wrong."""
    data = spin_glass.load(2, 3)
    spins = data.spins.clone()
    spins[0] *= -1
    spins[1, 2, 2] *= -1
    found = table5.scores(Answers(spins), data)
    y, (_, right), (_, down) = data.spins[1].tolist(), data.couplings.right.tolist(), data.couplings.down.tolist()
    cost = 2 * y[2][2] * (right[2][1] * y[2][1] + down[1][2] * y[1][2])
    assert found["energy"] == pytest.approx(cost / 2, rel=1e-5)
    assert found["energy_descended"] == pytest.approx(0, abs=1e-5)
    monkeypatch.setattr(table5, "descend", lambda spins, _: spins)
    assert table5.scores(Answers(spins), data)["energy_descended"] == found["energy"]
    # Two of twelve bonds of one lattice; eight ninths less one ninth; none of nine spins and eight of nine.
    assert found["bonds"] == pytest.approx((1 + 10 / 12) / 2)
    assert found["overlap"] == pytest.approx((1 + 7 / 9) / 2)
    assert found["spins"] == pytest.approx((0 + 8 / 9) / 2)
    more = table5.more_scores(Answers(data.spins), data)
    assert more["energy_best_of_8"] == pytest.approx(0, abs=1e-5)
    monkeypatch.setattr(table5, "best_of", lambda *_: spins)
    assert table5.more_scores(Answers(spins), data) == {
        name: pytest.approx(found["energy"]) for name in ("energy_best_of_8", "energy_best_of_8_descended")
    }


def test_the_loss_of_a_step_is_a_spins_share():
    """Squared errors of the untrained network's answers, summed over a lattice by the loss, averaged over all spins."""
    data = spin_glass.load(4, 3)
    how = table5.Training(steps=1, samples=4, batch_size=4, channels=4, blocks=1, augment=False)
    record = table5.train(data, lambda z, y, _: (z - y).square().sum((1, 2)), how, seed=5)
    with torch.no_grad():
        answers = table5.build(how, 5)(data.couplings).double().flatten().tolist()
    wrong = [(z - y) ** 2 for z, y in zip(answers, data.spins.flatten().tolist(), strict=True)]
    assert record.history[0]["loss"] == pytest.approx(sum(wrong) / 36, rel=1e-4)


def test_the_curve_has_evenly_spread_points(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(table5, "predict", lambda *_: torch.tensor([1.0, 3.0], dtype=torch.float32, device="cpu"))
    monkeypatch.setattr(table5, "excess_energy", lambda spins, *_: spins)
    data, model = SimpleNamespace(couplings=None, spins=None), torch.nn.Linear(1, 1)
    curve = table5.TestCurve(data, 4, tmp_path / "curve.json")
    for step in range(1, 11):
        curve(SimpleNamespace(step=step, steps=10, model=model, rank=0))
    assert [point["step"] for point in curve.curve] == [3, 5, 8, 10]
    assert [point["energy"] for point in curve.curve] == [2.0] * 4
    again = table5.TestCurve(data, 4, tmp_path / "curve.json")
    again.start(SimpleNamespace(step=5))
    assert [point["step"] for point in again.curve] == [3, 5]
