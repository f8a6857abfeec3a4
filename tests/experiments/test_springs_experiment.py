import json
import math

import pytest
import torch
from scipy.stats import spearmanr

from elf.chemistry import molecular_graph as graphs
from elf.chemistry.force_field import ForceField, force_fields
from elf.data import qm9
from elf.energy import PairEnergy
from experiments import load_result, reproduce
from experiments.molecules import springs
from experiments.molecules.springs import bootstrap_interval, rank_correlation


@pytest.fixture(autouse=True)
def _shared_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ELF_CACHE", str(tmp_path_factory.getbasetemp() / "qm9-cache"))
    springs.fit_springs.cache_clear()


def test_scipys_spearman_with_and_without_ties(dtype, generator):
    first = torch.randn(4, 30, generator=generator, dtype=dtype)
    second = first + torch.randn(4, 30, generator=generator, dtype=dtype)
    for a, b in ((first, second), ((first * 2).round(), (second * 2).round())):
        expected = torch.tensor([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])
        torch.testing.assert_close(rank_correlation(a, b), expected.double())


def test_only_the_order_counts(dtype):
    x = torch.linspace(-2, 3, 12, dtype=dtype)
    assert float(rank_correlation(x, x.exp())) == pytest.approx(1)
    assert float(rank_correlation(x, -(x**3))) == pytest.approx(-1)
    assert float(rank_correlation(x, (x - 0.5).square())) < 0.9


def test_rounding_noise_is_not_a_ranking(generator):
    truth = torch.randn(50, generator=generator, dtype=torch.float64)
    flat = 3 + 1e-13 * truth
    for unit in (1e-9, 1.0, 1e9):
        assert float(rank_correlation(unit * flat, truth)) == 0
        assert float(rank_correlation(unit * truth, truth)) == pytest.approx(1)
    assert float(rank_correlation(flat, truth, tolerance=0.0)) > 0.9
    assert float(rank_correlation(torch.zeros(50), truth)) == 0
    # It is the largest value that says how much is noise, not the smallest.
    noisy = torch.tensor([0, 1 + 1e-12, 1, 2], dtype=torch.float64)
    assert float(rank_correlation(noisy, noisy.round())) == pytest.approx(1)
    assert rank_correlation(truth.expand(3, 1, 50), flat.expand(4, 50)).shape == (3, 4)


def test_bootstrap_interval_is_the_normal_one_for_many_values(generator):
    values = 2 + torch.randn(400, generator=generator, dtype=torch.float64)
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != (low, high)
    assert bootstrap_interval(values[:1]) == (float(values[0]),) * 2


def test_what_cannot_be_ranked():
    x = torch.arange(4.0)
    with pytest.raises(ValueError, match="have 1 items; they should have at least 2"):
        rank_correlation(x[:1], x[:1])
    with pytest.raises(ValueError, match="NaN or infinite"):
        rank_correlation(x, x / 0)
    with pytest.raises(ValueError, match="values is empty"):
        bootstrap_interval(x[:0])


@pytest.fixture
def distorted(dtype):
    generator = torch.Generator().manual_seed(0)
    target = 1.5 * torch.randn(7, 3, generator=generator, dtype=dtype)
    return target + 0.1 * torch.randn(2, 20, 7, 3, generator=generator, dtype=dtype), target


def test_pair_surrogates_are_pair_energies(distorted, rtol):
    positions, target = distorted
    values = springs.surrogate_values(positions, target, {"step": springs.step_springs(range(1, len(springs.BINS)))})
    flat = positions.flatten(0, 1)
    for name, spring in {**springs.SPRINGS, "step": springs.step_springs(range(1, len(springs.BINS)))}.items():
        expected = PairEnergy(spring)(flat, target.expand_as(flat)).view(2, 20)
        torch.testing.assert_close(values[name], expected, rtol=10 * rtol, atol=0)
    assert list(values)[:3] == ["mse", "kabsch", "mae"]


def test_lennard_jones_ranks_as_inverse_square_and_no_other_pair_does(distorted):
    positions, target = distorted
    values = springs.surrogate_values(positions, target)
    assert bool((rank_correlation(values["lennard-jones"], values["inverse square"]) > 0.999999).all())
    assert bool((rank_correlation(values["constant"], values["inverse square"]) < 0.9999).all())


def test_step_springs():
    spring = springs.step_springs([float(i) for i in range(len(springs.BINS) - 1)])
    r = torch.tensor([0.5, 0.8, 1.1, 1.15, 1.69, 5.5, 6.0, 40.0])
    assert spring(r).tolist() == [0, 0, 0, 1, 1, 9, 10, 10]


class KnownSprings(ForceField):
    """A force field whose energy is 7 and a pair energy with known springs; its Hessian is MMFF94's, to draw from."""

    def __init__(self, field, minimum, spring):
        self.__dict__.update(field.__dict__)
        self.minimum, self.spring, self.asked = minimum, spring, []
        self.hessian = field.hessian

    def energy(self, positions):
        self.asked.append(positions)
        flat = positions.reshape(-1, *self.minimum.shape)
        return 7 + PairEnergy(self.spring)(flat, self.minimum.expand_as(flat)).view(positions.shape[:-2])


def test_fit_finds_the_springs_of_a_molecule_made_of_springs(monkeypatch):
    known = [300.0, 500.0, 90.0, 60.0, 20.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]

    def fields(molecules, build):
        good, lost = force_fields(molecules, build)
        return [(i, KnownSprings(f, x, springs.step_springs(known)), x) for i, f, x in good], lost

    monkeypatch.setattr(springs, "force_fields", fields)
    fit = springs.fit_springs(springs.Settings(molecules=1, distortions=1, fitted=12), 0)
    assert fit["k"] == pytest.approx(known, rel=1e-3)
    assert fit["relative_error"] < 1e-4
    assert len(fit["pairs_per_molecule"]) == len(fit["k"]) == len(fit["edges"]) - 1
    sizes = springs.draw("train", 12, 0).counts[
        [i for i, _, _ in force_fields(springs.draw("train", 12, 0), graphs.to_rdkit)[0]]
    ]
    assert sum(fit["pairs_per_molecule"]) == pytest.approx((sizes * (sizes - 1) / 2).double().mean().item(), abs=0.02)


def test_the_fit_says_how_far_off_it_is(monkeypatch):
    """Springs that differ within a bin: the best constant ones are off by what least squares leaves."""
    kept = []

    def fields(molecules, build):
        good, lost = force_fields(molecules, build)
        kept[:] = [(i, KnownSprings(f, x, lambda r: 100 / r**2), x) for i, f, x in good]
        return kept, lost

    monkeypatch.setattr(springs, "force_fields", fields)
    fit = springs.fit_springs(springs.Settings(molecules=1, distortions=1, fitted=4), 0)
    guess, off = springs.step_springs(fit["k"]), []
    generator = torch.Generator().manual_seed(0)
    for _, field, x in kept:
        drawn = [springs.distort(kind, field, x, (0.02,), 30, generator) for kind in ("random", "thermal")]
        positions = x + torch.cat([moves.displacements[0] for moves in drawn])
        torch.testing.assert_close(field.asked[0], positions)
        true = PairEnergy(field.spring)(positions, x.expand_as(positions))
        off.append(PairEnergy(guess)(positions, x.expand_as(positions)) / true - 1)
    assert fit["relative_error"] == pytest.approx(torch.cat(off).square().mean().sqrt().item(), rel=0.02)
    assert fit["relative_error"] > 0.001


@pytest.mark.parametrize(("start", "kind"), [("minimum", "random"), ("qm9", "random"), ("minimum", "thermal")])
def test_ranking_by_the_energy_of_known_springs(start, kind, monkeypatch):
    """The surrogate that is the force field ranks without fault; costs are differences from the start."""
    kept = []

    def fields(molecules, build):
        good, lost = force_fields(molecules, build)
        kept[:] = [(i, KnownSprings(f, x, springs.SPRINGS["exponential"]), x) for i, f, x in good]
        return kept, lost

    monkeypatch.setattr(springs, "force_fields", fields)
    monkeypatch.setattr(springs, "fit_springs", lambda *_: {"k": [1.0] * (len(springs.BINS) - 1)})
    settings = springs.Settings(molecules=3, distortions=8, fitted=1, sizes=(0.05, 0.3))
    result = springs.rank(settings, start, kind, 0)
    generator, costs, kelvin = torch.Generator().manual_seed(0), [], []
    for _, field, minimum in kept:
        target = minimum if start == "minimum" else field.positions
        moves = springs.distort(kind, field, target, settings.sizes, settings.distortions, generator)
        torch.testing.assert_close(field.asked[0], target + moves.displacements)
        costs.append(field.energy(target + moves.displacements) - field.energy(target))
        kelvin.append([kt / 0.0019872043 for kt in moves.kt])
    assert result["median_cost"] == pytest.approx(torch.cat(costs, dim=1).median(dim=1).values.tolist(), rel=1e-3)
    expected = torch.tensor(kelvin).median(0).values.tolist() if kelvin[0] else []
    assert result["median_kelvin"] == pytest.approx(expected, rel=1e-3)
    best = [row for row in result["scores"] if row["energy"] == "exponential"]
    assert len(best) == 2
    if start == "minimum":
        assert all(row["mean"] == row["low"] == row["high"] == row["pooled"] == 1 for row in best)
        assert all(row["beats_mse"] == 1 and row["beats_exponential"] == 0 for row in best)


def test_scores_compare_molecule_by_molecule():
    settings = springs.Settings(molecules=4, distortions=3, fitted=1, sizes=(0.1,))
    found = {"mse": [0.1, 0.2, 0.3, 0.4], "exponential": [0.5, 0.1, 0.6, 0.7], "short": [0.6, 0.3, 0.2, 0.8]}
    table = {name: torch.tensor(values)[:, None] for name, values in found.items()}
    true = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    every = {"true": true, "mse": -true, "exponential": true, "short": true[:, [1, 0, 2, 3]]}
    rows = {row["energy"]: row for row in springs._scores(table, every, settings, 0)}
    assert rows["short"]["mean"] == pytest.approx(0.475)
    assert (rows["short"]["beats_mse"], rows["short"]["beats_exponential"]) == (0.75, 0.75)
    assert rows["exponential"]["beats_mse"] == 0.75
    assert rows["mse"]["beats_exponential"] == 0.25
    assert [rows[name]["pooled"] for name in found] == pytest.approx([-1, 1, 0.8])
    assert all(row["low"] < row["mean"] < row["high"] for row in rows.values())


def test_seeds_draw_different_molecules():
    first, second = (springs.draw("test", 50, seed) for seed in (0, 1))
    assert len(first) == len(second) == 50
    assert not set(first.index.tolist()) & set(second.index.tolist())
    assert set(first.index.tolist()) <= set(qm9.load(split="test").index.tolist())
    assert springs.draw("test", 50, 1).index.tolist() == second.index.tolist()
    with pytest.raises(ValueError, match="seed is 3"):
        springs.draw("test", 4000, 3)


def test_unknown_distortion():
    ((_, field, x),), _ = force_fields(qm9.find("water"), graphs.to_rdkit)
    with pytest.raises(ValueError, match="kind is 'bend'; it should be one of 'random', 'thermal', 'mode'"):
        springs.distort("bend", field, x, (0.1,), 2, torch.Generator())


def test_smoke_run_counts_every_molecule(tmp_path, capsys):
    path = reproduce("springs", scale="smoke", seeds=1, workdir=tmp_path / "runs", output=tmp_path / "springs.json")
    result = json.loads(path.read_text())
    ranked = [cell for cell in result["cells"] if cell["cell"]["part"] == "rank"]
    assert len(ranked) == 4
    for cell in ranked:
        lost = sum(len(smiles) for smiles in cell["result"]["lost"].values())
        assert cell["result"]["molecules"] + lost == result["settings"]["molecules"]
    assert "| minimum | random     | mse " in capsys.readouterr().out
    modes = [row for row in result["summary"] if row["distortion"] == "mode" and row["energy"] in ("mse", "kabsch")]
    assert len(modes) == 4
    # Modes of one size are all the same to MSE, and to Kabsch.
    assert all(row["mean"] == row["low"] == row["high"] == 0 for row in modes)


def test_summary_averages_seeds():
    score = {"size": 0.1, "energy": "mse", "beats_mse": 0.0, "beats_exponential": 0.25, "pooled": 0.5}
    cell = {"part": "rank", "start": "minimum", "distortion": "random"}
    scores = [{**score, "mean": mean, "low": mean - 0.1, "high": high} for mean, high in ((0.4, 0.6), (0.6, 0.6))]
    rows = [
        {"cell": {**cell, "seed": 0}, "result": {"molecules": 10, "scores": scores[:1]}},
        {"cell": {**cell, "seed": 1}, "result": {"molecules": 9, "scores": scores[1:]}},
        {"cell": {**cell, "part": "fit", "seed": 1}, "result": {}},
    ]
    (row,) = springs.summarise(rows)
    assert row["molecules"] == 19
    assert row["mean"] == 0.5
    assert row["low"] == pytest.approx(0.5 - (0.1**2 + 0.1**2) ** 0.5 / 2, abs=1e-4)
    assert row["high"] == pytest.approx(0.5 + 0.2 / 2)


def test_committed_result_says_what_the_notebook_says():
    result = load_result("springs")
    ranked = [cell["result"] for cell in result["cells"] if cell["cell"]["part"] == "rank"]
    lost = {smiles for one in ranked for reason in one["lost"].values() for smiles in reason}
    assert lost == {"CC#CC1=CN(C)C=C1"}
    rows = {(r["start"], r["distortion"], r["size"], r["energy"]): r for r in result["summary"]}
    for size in result["settings"]["sizes"]:
        for kind in springs.DISTORTIONS:
            row = {name: rows["minimum", kind, size, name] for name in (*springs.TRAPS, *springs.SPRINGS, "fitted")}
            assert row["mse"]["molecules"] >= 200
            assert row["exponential 0.5"]["beats_exponential"] > 0.89
            for better, worse in (("exponential", "inverse"), ("inverse square", "inverse"), ("inverse", "constant")):
                assert row[better]["low"] > row[worse]["high"]
            assert row["kabsch"]["mean"] == pytest.approx(row["mse"]["mean"], abs=1e-4)
        random, mode = ({name: rows["minimum", kind, size, name] for name in row} for kind in ("random", "mode"))
        assert abs(random["mse"]["mean"] - random["constant"]["mean"]) < 0.02
        assert random["mae"]["high"] < random["mse"]["low"]
        assert mode["mae"]["high"] < 0 == mode["mse"]["mean"] < mode["constant"]["low"]
        assert rows["qm9", "random", size, "exponential"]["mean"] < random["exponential"]["mean"]
