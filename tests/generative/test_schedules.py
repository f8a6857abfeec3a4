"""One interface, three schedules: against EDM's discrete table and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from elf.energy import Harmonic, PairEnergy
from elf.generative.schedules import (
    PREDICTIONS,
    Karras,
    Polynomial,
    Schedule,
    Straight,
    add_noise,
    energy_weight,
    noise_of,
    x_hat_of,
)

ALL = (Karras(), Polynomial(), Straight())


def edm_table(levels: int, power: float, precision: float) -> np.ndarray:
    """alpha^2 as EDM tabulates it, ratios clipped at 0.001 included (arXiv:2203.17003, Appendix B)."""
    x = np.linspace(0, levels + 1, levels + 1)
    squared = (1 - (x / (levels + 1)) ** power) ** 2
    ratios = np.clip(np.concatenate([[1.0], squared])[1:] / np.concatenate([[1.0], squared])[:-1], 0.001, 1)
    return (1 - 2 * precision) * np.cumprod(ratios) + precision


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_polynomial_is_edms_table(power):
    schedule = Polynomial(power=power)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    table = torch.from_numpy(edm_table(1000, power, 1e-5))
    assert (schedule.alpha(t).square() - table).abs().max() < 1e-8
    assert (schedule.sigma(t).square() - (1 - table)).abs().max() < 1e-8


def test_polynomial_ends_at_its_precision_in_both_dtypes(dtype):
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    schedule = Polynomial(precision=1e-5)
    assert schedule.sigma(ends)[0].square().item() == pytest.approx(1e-5, rel=1e-4)
    assert schedule.alpha(ends)[1].square().item() == pytest.approx(1e-5, rel=1e-4)
    t = torch.linspace(0, 1, 201, dtype=dtype)
    torch.testing.assert_close(schedule.alpha(t).square() + schedule.sigma(t).square(), torch.ones_like(t))
    # The subtraction that sigma avoids does lose digits in float32.
    naive = (1 - schedule.alpha(ends.float())[0].square()).item()
    assert abs(naive / 1e-5 - 1) > 1e-4


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_every_schedule_has_the_interface(schedule, generator):
    assert isinstance(schedule, Schedule)
    assert not isinstance(object(), Schedule)
    grid = schedule.grid(10)
    assert len(grid) == 11
    noise_to_signal = schedule.sigma(grid) / schedule.alpha(grid)
    assert (noise_to_signal.diff() < 0).all()
    t = schedule.draw(1000, generator)
    assert t.shape == (1000,)
    t = t[schedule.sigma(t) > 0]
    assert (schedule.weight(t) > 0).all()
    again = schedule.draw(1000, torch.Generator().manual_seed(7))
    torch.testing.assert_close(schedule.draw(1000, torch.Generator().manual_seed(7)), again)
    with pytest.raises(ValueError, match="steps"):
        schedule.grid(0)


def test_karras_time_is_its_noise():
    t = torch.tensor([0.01, 1.0, 15.0])
    assert torch.equal(Karras().sigma(t), t)
    assert torch.equal(Karras().alpha(t), torch.ones(3))


def test_straight_noise_by_hand():
    """Eq. 2 with alpha = 1 - t and sigma = t, and the noise that a denoised sample implies."""
    x, noise = torch.tensor([[[2.0, -4.0]]]), torch.tensor([[[1.0, 8.0]]])
    t = torch.tensor([0.25])
    assert Straight().alpha(t).item() == 0.75
    x_t = add_noise(x, noise, t, Straight())
    assert x_t.flatten().tolist() == [1.75, -1.0]
    assert noise_of(x_t, x, t, Straight()).flatten().tolist() == [1.0, 8.0]


def test_karras_grid_and_weight():
    grid = Karras().grid(40)
    assert grid[0].item() == pytest.approx(15.0)
    assert grid[-2].item() == pytest.approx(0.01, rel=1e-4)
    assert grid[-1] == 0
    assert (grid[:-1] ** (1 / 7)).diff().std() < 1e-6  # even steps in sigma^(1 / rho)
    # The paper's alpha^2 / sigma^2 where the noise is small, 1 / sigma_data^2 where it is large.
    sigma = torch.tensor([1e-3, 1e-2])
    torch.testing.assert_close(Karras().weight(sigma) * sigma**2, torch.ones(2), rtol=1e-4, atol=0)
    assert Karras().weight(torch.tensor([1e6])).item() == pytest.approx(1 / 1.5**2)
    assert Karras(sigma_data=2.0).weight(torch.tensor([2.0])).item() == pytest.approx(8 / 16)


def test_karras_draws_are_log_normal():
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    drawn = Karras(log_mean=-1.0, log_std=0.5).draw(20_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, torch.exp(-1 + 0.5 * normal))
    assert drawn.log().mean().item() == pytest.approx(-1, abs=0.02)
    # As they come, levels lie about 0.67 angstrom, half of a bond.
    assert Karras().draw(20_000, torch.Generator().manual_seed(1)).median().item() == pytest.approx(0.67, rel=0.05)


def test_draws_cover_what_they_should():
    g = torch.Generator().manual_seed(0)
    t = Polynomial(levels=4).draw(5000, g)
    values, counts = t.unique(return_counts=True)
    assert values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert counts.min() > 900
    t = Straight(t_min=0.2).draw(5000, g)
    assert 0.2 <= t.min() < 0.21
    assert t.mean().item() == pytest.approx(0.6, abs=4 * 0.8 / math.sqrt(12 * 5000))


# What each name means, as a function of the clean sample and the noise.
MEANING = {
    "epsilon": lambda x, eps, alpha, sigma: eps,
    "sample": lambda x, eps, alpha, sigma: x,
    "v_prediction": lambda x, eps, alpha, sigma: alpha * eps - sigma * x,
    "flow_prediction": lambda x, eps, alpha, sigma: eps - x,
}
LEVELS = torch.tensor([[0.999, 0.02], [0.6, 0.8], [0.3, 0.7], [1.0, 12.0], [0.05, 0.9987]], dtype=torch.float64)
"""alpha and sigma: of what is preserving, of what is not, of straight paths."""


def predicted(predicts, dtype, generator, missed=0.1):
    """alpha, sigma, clean samples, noisy ones, and a prediction that missed."""
    alpha, sigma = LEVELS.to(dtype).unbind(1)
    x, eps, error = torch.randn(3, len(LEVELS), 6, 3, generator=generator, dtype=torch.float64).to(dtype)
    a, s = alpha[:, None, None], sigma[:, None, None]
    return alpha, sigma, x, a * x + s * eps, MEANING[predicts](x, eps, a, s) + missed * error, missed * error


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_a_perfect_prediction_gives_back_the_sample(predicts, dtype, generator):
    alpha, sigma, x, x_t, right, _ = predicted(predicts, dtype, generator, missed=0.0)
    found = x_hat_of(predicts, right, x_t, alpha, sigma)
    torch.testing.assert_close(found, x, rtol=0, atol={torch.float32: 2e-4, torch.float64: 1e-12}[dtype])


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_the_weight_makes_the_squared_error_that_of_the_prediction(predicts, dtype, generator):
    alpha, sigma, x, x_t, wrong, error = predicted(predicts, dtype, generator)
    x_hat = x_hat_of(predicts, wrong, x_t, alpha, sigma)
    weighted = energy_weight(predicts, alpha, sigma) * (x_hat - x).square().sum((1, 2))
    tolerance = {torch.float32: 2e-3, torch.float64: 1e-10}[dtype]
    torch.testing.assert_close(weighted, error.square().sum((1, 2)), rtol=tolerance, atol=0)


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_the_weight_is_the_slope_of_the_prediction_in_the_sample(predicts, dtype):
    """By autograd: at a given x_t the noise is (x_t - alpha x) / sigma, and the prediction a function of x alone."""
    for alpha, sigma in LEVELS.to(dtype):
        x = torch.tensor(0.3, dtype=dtype, requires_grad=True)
        prediction = MEANING[predicts](x, (0.7 - alpha * x) / sigma, alpha, sigma)
        (slope,) = torch.autograd.grad(prediction, x)
        torch.testing.assert_close(energy_weight(predicts, alpha, sigma), slope.square())


def test_weights_are_the_schedules_own():
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    for schedule, predicts in ((Polynomial(), "epsilon"), (Straight(), "flow_prediction")):
        torch.testing.assert_close(energy_weight(predicts, schedule.alpha(t), schedule.sigma(t)), schedule.weight(t))
    karras = Karras(sigma_data=1e6)
    torch.testing.assert_close(energy_weight("epsilon", karras.alpha(t), t), karras.weight(t))


@pytest.mark.parametrize("alpha", [1e-2, 1e-4, 1e-8])
def test_a_weighted_energy_of_predicted_noise_is_bounded_where_nothing_of_the_sample_is_left(alpha, dtype, generator):
    """Unweighted it grows as 1 / alpha^2, and so does its gradient as 1 / alpha."""
    x, eps, missed = torch.randn(3, 4, 6, 3, generator=generator, dtype=torch.float64).to(dtype)
    level = torch.full((4,), alpha, dtype=dtype)
    sigma = (1 - level.square()).sqrt()
    noise = (eps + missed).requires_grad_()
    x_hat = x_hat_of("epsilon", noise, add_levels(x, eps, level, sigma), level, sigma)
    for energy in (Harmonic(), PairEnergy()):
        bare = energy(x_hat, x)
        weighted = energy_weight("epsilon", level, sigma) * bare
        (slope,) = torch.autograd.grad(weighted.sum(), noise, retain_graph=True)
        assert 0.1 < weighted.min() < weighted.max() < 1e3
        assert 0.1 < slope.abs().max() < 1e3
        assert bare.min() > 0.1 / alpha**2


def add_levels(x, eps, alpha, sigma):
    return alpha[:, None, None] * x + sigma[:, None, None] * eps


def test_weights_at_the_ends_of_the_noise(dtype):
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    found = {predicts: energy_weight(predicts, ends, 1 - ends).tolist() for predicts in PREDICTIONS}
    assert found == {
        "epsilon": [0, math.inf],
        "sample": [1, 1],
        "v_prediction": [1, math.inf],
        "flow_prediction": [1, math.inf],
    }
    assert energy_weight("epsilon", ends, 1 - ends, most=5).tolist() == [0, 5]
    with pytest.raises(ValueError, match="alpha is 0 at 1 levels, where epsilon says nothing of the sample"):
        x_hat_of("epsilon", torch.ones(2, 1, 1, dtype=dtype), torch.ones(2, 1, 1, dtype=dtype), ends, 1 - ends)
    for predicts in PREDICTIONS[1:]:
        prediction = torch.ones(2, 1, 1, dtype=dtype)
        assert x_hat_of(predicts, prediction, prediction, ends, 1 - ends).isfinite().all()


def test_truncated_weights_are_min_snr(dtype):
    """Hang et al. 2023, Sec. 3.4: the weights of the errors of x, eps and v, written for each of them."""
    alpha, sigma = LEVELS[[0, 1, 4]].to(dtype).unbind(1)
    sigma = (1 - alpha.square()).sqrt()
    snr = (alpha / sigma).square()
    theirs = {
        "sample": snr.clamp(max=5),
        "epsilon": snr.clamp(max=5) / snr,
        "v_prediction": snr.clamp(max=5) / (snr + 1),
    }
    for predicts, weight in theirs.items():
        ours = energy_weight("epsilon", alpha, sigma, most=5) / energy_weight(predicts, alpha, sigma)
        torch.testing.assert_close(ours, weight)


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_torchs_defaults_change_nothing(schedule, default):
    def times():
        return schedule.draw(5, torch.Generator("cpu").manual_seed(0)), schedule.grid(5)

    before = times()
    torch.set_default_dtype(default)
    try:
        with torch.device("meta"):
            after = times()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Polynomial(precision=0.5), "Polynomial.precision is 0.5"),
        (lambda: Polynomial(power=0.0), "Polynomial.power is 0.0"),
        (lambda: Polynomial(levels=0), "Polynomial.levels is 0"),
        (lambda: Straight(t_min=1.0), "Straight.t_min is 1.0"),
        (lambda: Karras(sigma_min=20.0), r"Karras.sigma_min is 20.0; it should be below sigma_max=15.0"),
        (lambda: Karras(rho=-1), "Karras.rho is -1; it should be finite and greater than zero"),
        (lambda: Karras(sigma_data=math.nan), "Karras.sigma_data is nan"),
        (lambda: Karras(log_mean=math.inf), "Karras.log_mean is inf; it should be finite"),
        (lambda: Polynomial().alpha(torch.tensor([0.5, 1.5])), "t ranges from 0.5 to 1.5"),
        (lambda: Straight().sigma(torch.tensor([-0.1])), "t ranges from -0.1"),
        (lambda: Straight().weight(torch.tensor([math.nan])), "t ranges"),
        (lambda: energy_weight("noise", torch.ones(1), torch.ones(1)), "predicts is 'noise'; it should be one of"),
        (lambda: energy_weight("sample", torch.ones(1), torch.ones(1), most=0), "most is 0; it should be finite and"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
