"""The score experiment: its triangles, its scores of samples, and a run at smoke scale."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from experiments.clouds import score
from experiments.clouds.minimiser import pair_distances


def test_triangles_have_their_sides():
    shapes = torch.stack([score.triangle(*sides) for sides in score.SIDES])
    torch.testing.assert_close(pair_distances(shapes), torch.tensor(score.SIDES, dtype=torch.float64))
    large = score.triangle(6.0, 10.0, 8.0)
    torch.testing.assert_close(large, torch.tensor([[0.0, 0.0], [6.0, 0.0], [6.0, 8.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="each should be below the sum of the others"):
        score.triangle(1.0, 1.0, 2.5)


def test_quality_tells_good_samples_from_bad_ones():
    system = score.isomers(0.05)
    good = system.sample(2000, torch.Generator().manual_seed(5))
    found = score.quality(good, system)
    assert found["w1"] < 3 * found["floor"]
    assert 0 < found["floor"] < 0.01
    assert found["first"] == pytest.approx(0.7, abs=0.04)
    assert found["wrong_hand"] == 0
    assert found["broken"] < 0.03
    # Where a triangle stands does not matter, whichever corner is far from the origin.
    for far in good.unbind(1):
        assert score.quality(good - far[:, None], system)["wrong_hand"] == 0
        assert score.quality(good + 5 * far[:, None], system)["wrong_hand"] == 0
    mirrored = score.quality(good * torch.tensor([1.0, -1.0]), system)
    assert mirrored["wrong_hand"] == 1
    assert mirrored["w1"] == found["w1"]
    between = score.triangle(1.0, 1.2, 1.675).expand(2000, -1, -1)
    assert score.quality(between, system)["broken"] == 1
    assert score.quality(good * 1.3, system)["w1"] > 20 * found["w1"]


def test_fitted_rate_of_a_power_law():
    sigmas = [0.001, 0.003, 0.01, 0.1, 1.0, 2.0, 3.0]
    assert score.fitted_rate(sigmas, [s**1.5 if s < 0.03 else 7.0 for s in sigmas]) == pytest.approx(1.5, rel=1e-5)


def test_fitted_rate_is_the_least_squares_slope_of_all_small_levels():
    """At log sigma = -6, -5, -4 it is (last - first) / 2, whatever lies between; where all are large, that of two."""
    sigmas = [math.exp(-6), math.exp(-5), math.exp(-4), 1.0]
    assert score.fitted_rate(sigmas, [1.0, math.exp(9), math.exp(3), 5.0]) == pytest.approx(1.5, rel=1e-5)
    assert score.fitted_rate([1.0, math.e, math.e**2], [1.0, math.exp(2), 1.0]) == pytest.approx(2, rel=1e-5)


def test_estimates_improve_with_samples():
    """MSE's variance falls as 1 / n, and neither loss is biased at small noise for a rigid shape."""
    few, many = (
        score.estimates(score.isomers(0.02, 1), 0.1, n, 4, 200, torch.Generator().manual_seed(1)) for n in (2, 8)
    )
    assert few["mse"]["variance"] / many["mse"]["variance"] == pytest.approx(4, rel=0.25)
    assert abs(many["mse"]["bias"]) < 0.01
    assert many["energy"]["variance"] < many["mse"]["variance"]


class Wrong(nn.Module):
    """The posterior mean, scaled and turned and moved: an answer whose errors can be worked out. Keeps what it sees."""

    def __init__(self, factor=1.1, angle=0.2, shift=0.03):
        super().__init__()
        c, s = math.cos(angle), math.sin(angle)
        self.system, self.seen = score.isomers(score.SETTINGS["smoke"].trained_blur, dtype=torch.float32), []
        self.factor, self.turn, self.shift = factor, torch.tensor([[c, s], [-s, c]]), shift

    def forward(self, x_t, t):
        mean = self.system.posterior_mean(x_t, 1 - t, t)
        x_hat = self.factor * mean @ self.turn + self.shift * x_t.sin()
        self.seen.append((x_t.double(), t.double(), x_hat.double()))
        return x_hat


def complex_plane(x):
    return torch.view_as_complex(x.contiguous())


def test_evaluation_of_a_network_is_that_of_its_scores():
    """Each figure a second way: scores written out, the nearest pose and rigid turns by complex numbers."""
    settings, model = score.SETTINGS["smoke"], Wrong()
    found = score.evaluate(model, settings, seed=3)
    system = score.isomers(settings.trained_blur)
    first = score.gaussian((settings.generated, 3, 2), torch.Generator().manual_seed(score.TEST_SEED + 4))
    assert torch.equal(model.seen[0][0], first.double())
    for index, (x_t, t, x_hat) in enumerate(model.seen[-len(found["t"]) :]):
        time = float(t[0])
        assert time == pytest.approx(found["t"][index])
        true = system.score(x_t, 1 - t, t)

        def error(answer, x_t=x_t, time=time, true=true):
            return float((((1 - time) * answer - x_t) / time**2 - true).norm() / true.norm())

        assert found["relative"][index] == pytest.approx(error(x_hat), rel=1e-3)
        z, goal = complex_plane(x_hat), complex_plane(x_t)
        z = z - z.mean(1, keepdim=True)
        overlap = (goal * z.conj()).sum(1, keepdim=True)
        posed = torch.view_as_real(z * overlap / overlap.abs() + goal.mean(1, keepdim=True))
        assert found["posed"][index] == pytest.approx(error(posed), rel=1e-3)
        # eps_hat - eps = -alpha (x_hat - mean) / sigma; its rigid part: the mean, and what is along i (z - mean z).
        wrong = complex_plane(x_hat - system.posterior_mean(x_t, 1 - t, t))
        arm = 1j * (goal - goal.mean(1, keepdim=True))
        along = (wrong * arm.conj()).real.sum(1) ** 2 / arm.abs().square().sum(1)
        moved = 3 * wrong.mean(1).abs().square()
        rigid = float((along + moved).sum() / wrong.abs().square().sum())
        assert found["rigid"][index] == pytest.approx(rigid, abs=2e-3)


def test_errors_of_a_minimiser_are_those_of_its_scores(monkeypatch):
    """A stand-in whose answers are off by known amounts: relative, a degree of freedom, and in size."""
    seen = []

    def minimiser(system, x_t, alpha, level, springs_of):
        seen.append((x_t, level))
        return 1.5 * system.posterior_mean(x_t, alpha, level)

    monkeypatch.setattr(score, "energy_minimiser", minimiser)
    settings, system = score.SETTINGS["smoke"], score.isomers(0.1, 1)
    found = score.score_errors(settings, 0.1, seed=2)
    for index, (x_t, level) in enumerate(seen[:: len(score.SPRINGS)]):
        sigma = settings.sigmas[index]
        generator = torch.Generator().manual_seed(2000 + index)
        clean = system.sample(settings.clouds, generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        torch.testing.assert_close(x_t, clean + sigma * (noise - noise.mean(1, keepdim=True)))
        assert level.tolist() == [sigma] * settings.clouds
        mean = system.posterior_mean(x_t, torch.ones_like(level), level)
        true = system.score(x_t, torch.ones_like(level), level)
        theirs = (1.5 * mean - x_t) / sigma**2
        expected = float((theirs - true).norm() / true.norm())
        assert found["relative_constant"][index] == pytest.approx(expected, rel=1e-4)
        per_freedom = sigma * (theirs - true).square().sum().div(settings.clouds * (3 * 2 - 2)).sqrt()
        assert found["noise_constant"][index] == pytest.approx(float(per_freedom), rel=1e-4)
        assert found["size_constant"][index] == pytest.approx(1.5)


def test_ideal_denoisers_are_told_apart_by_what_they_do_to_a_blurred_and_mirrored_cloud():
    system = score.isomers(0.05)
    generator = torch.Generator().manual_seed(1)
    x = system.sample(50, generator)
    mirrored = x * torch.tensor([1.0, -1.0], dtype=torch.float64)
    level = torch.full((50,), 0.05, dtype=torch.float64)
    found = {loss: score.ideal_denoiser(loss, system)(mirrored, level) for loss in ("mse", "energy", "one_hand")}
    mean = system.posterior_mean(mirrored, torch.ones(50).double(), level)
    torch.testing.assert_close(found["mse"], mean)

    def hand(points):
        return torch.linalg.det(points[:, 1:] - points[:, :1]).sign()

    assert torch.equal(hand(found["energy"]), hand(mirrored))
    assert torch.equal(hand(found["one_hand"]), hand(mean))
    assert not torch.equal(hand(mean), hand(mirrored))
    assert not torch.allclose(found["one_hand"], mean)


def test_every_seed_has_all_parts_and_no_estimate_is_made_without_a_blur():
    cells = score.cells(score.Settings(blurs=(0.0, 0.1)), 2)
    assert [cell["seed"] for cell in cells] == [0] * 9 + [1] * 9
    assert [(cell["part"], cell["case"]) for cell in cells[:3]] == [
        ("score", "0"), ("score", "0.1"), ("estimator", "0.1"),
    ]  # fmt: skip


def test_springs_named_after_powers_of_the_distance_are_these():
    d = torch.tensor([0.25, 4.0])
    assert score.SPRINGS["constant"] is None
    torch.testing.assert_close(score.SPRINGS["balanced"](d), torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(score.SPRINGS["inverse"](d), torch.tensor([4.0, 0.25]))
    torch.testing.assert_close(score.SPRINGS["exponential"](d), torch.tensor([math.exp(-0.25), math.exp(-4.0)]))


def test_estimates_bias_is_that_of_the_mean_answer_without_what_chance_adds(monkeypatch):
    """Answers off by a known bias, and by a known amount to and fro: bias and variance come out, apart."""
    system, sigma, clouds, repeats = score.isomers(0.05, 1), 0.2, 3, 4

    def answers(samples, x_t):
        mean = system.posterior_mean(x_t, torch.ones(len(x_t)).double(), torch.full((len(x_t),), sigma).double())
        off = torch.tensor([[0.02, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
        return mean + off + 0.05 * (-1.0) ** torch.arange(len(x_t))[:, None, None]

    monkeypatch.setattr(score, "nearest_pose", answers)
    found = score.estimates(system, sigma, 2, clouds, repeats, torch.Generator().manual_seed(6))["energy"]
    x_t, alpha, level = score.noisy_clouds(system, sigma, clouds, torch.Generator().manual_seed(6))
    scale = sigma**4 * float(system.score(x_t, alpha, level).square().sum())
    variance = clouds * 6 * 0.05**2 * repeats / (repeats - 1) / scale
    assert found["variance"] == pytest.approx(variance, rel=1e-4)
    assert found["bias"] == pytest.approx(clouds * 0.02**2 / scale - variance / repeats, rel=1e-4)


def test_estimators_ratio_is_the_mean_of_variances_over_samples(monkeypatch):
    values = iter(range(1, 100))

    def known(system, sigma, n, clouds, repeats, generator):
        k = next(values)
        # Another seed for every noise level and seed of the experiment.
        assert generator.initial_seed() == 7000 + (k - 1) // 2
        return {loss: {"bias": 0.1 * k, "variance": v * k**e} for loss, v, e in (("mse", 2.0, 1), ("energy", 3.0, 2))}

    monkeypatch.setattr(score, "estimates", known)
    found = score.estimator_errors(score.SETTINGS["smoke"], 0.1, 7)
    assert found["sigma"] == [0.01, 1.0]
    assert found["n"] == [1, 2]
    assert found["ratio"] == pytest.approx([1.5 * (1 + 2) / 2, 1.5 * (3 + 4) / 2])
    assert found["bias_mse"][1] == pytest.approx([0.3, 0.4])
    assert found["variance_energy"][1] == pytest.approx([27, 48])


def test_training_minimises_the_mean_over_clouds(monkeypatch):
    monkeypatch.setattr(score, "fit", lambda *args, **kwargs: args)
    settings = score.SETTINGS["smoke"]
    _, mean_loss, batches, _ = score.train(settings, "energy", 2)
    batch = batches(0)
    system, answers = score.isomers(settings.trained_blur, dtype=torch.float32), []

    def model(x_t, t):
        answers.append(0.9 * x_t)
        return answers[-1]

    assert batch.shape == (settings.batch_size, 3, 2)
    drawn = system.sample(settings.examples, torch.Generator().manual_seed(2))
    assert all((cloud == drawn).all((1, 2)).any() for cloud in batch)
    found = float(mean_loss(model, batch, torch.Generator().manual_seed(7)))
    t = score.PATH.draw(len(batch), torch.Generator().manual_seed(7))
    stretched = (pair_distances(answers[0]) - pair_distances(batch)).square().sum(1) / 3
    assert found == pytest.approx(float((stretched / t.square()).mean()), rel=1e-4)


@pytest.mark.parametrize("part", ["score", "estimator", "sampling", "flow"])
def test_every_part_runs_and_its_result_is_json(part, tmp_path):
    settings = score.SETTINGS["smoke"]
    cells = [cell for cell in score.cells(settings, 1) if cell["part"] == part]
    first, second = (score.run_cell(settings, cells[-1], tmp_path / str(i), ()) for i in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    rows = [{"cell": cells[-1], "result": first, "seconds": 0.0}]
    assert score.EXPERIMENT.summarise(rows)[0]["n"] == 1


def test_the_table_has_rates_of_part_score_and_samples_of_the_others():
    mean = {"mean": 0.5, "std": 0.0}
    rates = {f"rate_{kind}": mean for kind in score.SPRINGS}
    samples = dict.fromkeys(("w1", "first", "wrong_hand", "broken"), mean)
    summary = [{"part": "score", "case": "0.1", "n": 1, **rates}]
    summary += [{"part": part, "case": "mse", "n": 1, **samples} for part in ("sampling", "flow")]
    first, second = score.table({"summary": summary}).split("\n\n")
    assert first.splitlines()[0].split()[1::2] == ["blur", *score.SPRINGS]
    assert [line.split()[1] for line in second.splitlines()[2:]] == ["sampling", "flow"]
