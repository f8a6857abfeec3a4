"""Noise, samplers and flow matching on Gaussian data, where everything has a closed form."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from elf.energy import Harmonic, PairEnergy
from elf.generative.points import VelocityNetwork, denoising_loss, gaussian
from elf.generative.samplers import ancestral, euler, heun, multistep
from elf.generative.schedules import Karras, Polynomial, Straight, add_noise, noise_of
from elf.geometry.alignment import center

SIZE = 0.7
# The last step, from sigma_min to 0, is Euler's: its error sigma_min^2 stays, so it is made small.
ALL = (Karras(sigma_max=5.0, sigma_min=1e-4), Polynomial(), Straight())
ids = [type(schedule).__name__ for schedule in ALL]


def oracle(schedule, size=SIZE):
    """E[x | x_t] where every coordinate of x is N(0, size^2)."""

    def denoise(x_t, t):
        a, s = schedule.alpha(t)[:, None, None], schedule.sigma(t)[:, None, None]
        return a * size**2 / (a.square() * size**2 + s.square()) * x_t

    return denoise


def flow_ratio(schedule, start, end):
    """The probability flow of Gaussian data only rescales: x_end / x_start is the ratio of the standard deviations."""
    a, s = schedule.alpha(torch.stack([start, end])), schedule.sigma(torch.stack([start, end]))
    spread = (a.square() * SIZE**2 + s.square()).sqrt()
    return spread[1] / spread[0]


@pytest.mark.parametrize("schedule", ALL, ids=ids)
@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (multistep, 2)])
def test_deterministic_samplers_converge_to_the_flow(schedule, sampler, order):
    noise = gaussian((4, 3, 2), torch.Generator().manual_seed(1), torch.float64)
    errors = []
    for steps in (80, 160, 320):
        ends = schedule.grid(steps).double()[[0, -1]]
        exact = schedule.sigma(ends[0]) * flow_ratio(schedule, *ends) * noise
        if schedule.sigma(ends[1]) > 0:  # the samplers then answer with x_hat
            exact = oracle(schedule)(exact, ends[1].expand(4))
        errors.append((sampler(oracle(schedule), schedule, noise, steps) - exact).abs().max().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert abs(orders[-1] - order) < 0.35, (orders, errors)


def test_euler_is_not_heun():
    """The order test can fail: Euler's error at 320 steps is far above Heun's."""
    schedule, noise = Straight(), gaussian((4, 3, 2), torch.Generator().manual_seed(1), torch.float64)
    exact = SIZE * noise
    rough, fine = (s(oracle(schedule), schedule, noise, 320).sub(exact).abs().max() for s in (euler, heun))
    assert rough > 30 * fine


def ancestral_variance(schedule, steps):
    """Each step is x_s = c x_t + b kick, so that the variance obeys V_s = c^2 V_t + b^2."""
    times = schedule.grid(steps).double()
    alphas, sigmas = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    variance = sigmas[0] ** 2
    for (a, s), (a_next, s_next) in pairwise(zip(alphas, sigmas, strict=True)):
        # x_s given x_t, with x fixed at x_hat: condition two jointly Gaussian variables.
        gain = a / a_next * s_next**2 / s**2
        shrink = a * SIZE**2 / (a**2 * SIZE**2 + s**2)
        variance = (gain + (a_next - gain * a) * shrink) ** 2 * variance + s_next**2 - gain**2 * s**2
    if sigmas[-1] > 0:
        variance *= (alphas[-1] * SIZE**2 / (alphas[-1] ** 2 * SIZE**2 + sigmas[-1] ** 2)) ** 2
    return variance


@pytest.mark.parametrize("schedule", [Karras(sigma_max=5.0), Polynomial()], ids=["Karras", "Polynomial"])
def test_ancestral_variance_is_the_recursions(schedule):
    n = 20_000
    noise = gaussian((n, 2, 2), torch.Generator().manual_seed(2), torch.float64)
    draw = partial(gaussian, noise.shape, torch.Generator().manual_seed(3), torch.float64)
    out = ancestral(oracle(schedule), schedule, noise, 30, draw)
    measured = (out.square().sum() / (2 * n)).item()
    assert measured == pytest.approx(ancestral_variance(schedule, 30), rel=4 / math.sqrt(n))
    # With few steps the data come out too narrow; the error falls in proportion to their number.
    lacking = [1 - ancestral_variance(schedule, steps) / SIZE**2 for steps in (300, 600)]
    assert 0 < lacking[1] < 0.02
    assert lacking[0] / lacking[1] == pytest.approx(2, rel=0.1)


def test_ancestral_is_exact_where_the_answer_is_certain():
    """With one possible x, x_t ~ N(alpha_t x, sigma_t^2) holds after every step, whatever their number."""
    schedule, n = Polynomial(), 20_000
    x = center(torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    seen = []
    # Standard noise at t = 1 misses alpha_1 x, which is 0.003 x.
    noise = gaussian((n, 3, 2), torch.Generator().manual_seed(1), torch.float64)
    draw = partial(gaussian, noise.shape, torch.Generator().manual_seed(2), torch.float64)
    out = ancestral(
        lambda x_t, t: x.expand_as(x_t), schedule, noise, 5, draw,
        watch=lambda t, x_t, _: seen.append((t, x_t)),
    )  # fmt: skip
    torch.testing.assert_close(out, x.expand_as(out))
    for t, x_t in seen[1:]:
        a, s = schedule.alpha(t), schedule.sigma(t)
        rest = x_t - a * x
        assert rest.mean(0).abs().max() < 5 * s / math.sqrt(n) + 0.004
        assert (rest.square().sum() / (4 * n)).sqrt().item() == pytest.approx(s.item(), rel=0.02)


def test_an_ancestral_step_by_hand():
    """From sigma 2 to 1 with x_hat = c: v = 4 - 1, the mean (x + 3 c) / 4, the noise sqrt(3) / 2 of what is drawn."""
    c, noise, kick = 5.0, torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), -1.0)
    seen = []
    end = ancestral(
        lambda x_t, t: torch.full_like(x_t, c), Karras(sigma_max=2.0, sigma_min=1.0), noise, 2, lambda: kick,
        watch=lambda t, x_t, x_hat: seen.append((float(t), x_t.flatten()[0].item())),
    )  # fmt: skip
    assert [value for level in seen for value in level] == pytest.approx([2, 6, 1, (6 + 15) / 4 - 0.75**0.5], rel=1e-5)
    assert end.flatten().tolist() == [c] * 4


@pytest.mark.parametrize("schedule", ALL, ids=ids)
def test_noise_is_what_was_added(schedule, dtype, generator):
    t = schedule.grid(4).to(dtype)[[1, 2, 3]]
    x, eps = center(torch.randn(2, 3, 5, 3, generator=generator, dtype=dtype))
    tolerance = {"rtol": 1e-3 if dtype == torch.float32 else 1e-9, "atol": 1e-3 if dtype == torch.float32 else 1e-9}
    torch.testing.assert_close(noise_of(add_noise(x, eps, t, schedule), x, t, schedule), eps, **tolerance)


def test_noise_by_hand():
    """Eq. 2 in numbers: 0.75 x + 0.25 eps at t = 1/4 of the straight path."""
    x, eps, t = torch.full((1, 1, 2), 2.0), torch.full((1, 1, 2), -1.0), torch.tensor([0.25])
    assert add_noise(x, eps, t, Straight()).tolist() == [[[1.25, 1.25]]]
    assert noise_of(torch.full((1, 1, 2), 1.25), x, t, Straight()).tolist() == [[[-1.0, -1.0]]]


def test_noise_error_is_the_weighted_denoising_error(generator):
    """|eps - eps_hat|^2 = alpha^2 / sigma^2 |x - x_hat|^2 (Sec. 4.2), for any x_hat."""
    schedule, t = Polynomial(), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    x, x_hat = center(torch.randn(2, 50, 4, 3, generator=generator, dtype=torch.float64))
    eps = gaussian(x.shape, generator, x.dtype)
    of_noise = (eps - noise_of(add_noise(x, eps, t, schedule), x_hat, t, schedule)).square().sum((1, 2))
    torch.testing.assert_close(of_noise, schedule.weight(t) * Harmonic()(x_hat, x))
    assert not torch.allclose(of_noise, Straight().weight(t) * Harmonic()(x_hat, x), rtol=0.1)


@pytest.mark.parametrize("schedule", ALL, ids=ids)
def test_tweedie_on_gaussian_data(schedule):
    """The score by autograd; and the printed Eq. 44 with its 1 / sigma fails."""
    t = schedule.grid(5).double()[1:4]
    x_t = gaussian((3, 3, 2), torch.Generator().manual_seed(4), torch.float64).requires_grad_()
    variance = (schedule.alpha(t).square() * SIZE**2 + schedule.sigma(t).square())[:, None, None]
    (true,) = torch.autograd.grad((-x_t.square() / (2 * variance)).sum(), x_t)
    x_hat = oracle(schedule)(x_t, t)
    eps, sigma = noise_of(x_t, x_hat, t, schedule), schedule.sigma(t)[:, None, None]
    torch.testing.assert_close(eps, -sigma * true)
    assert ((eps + true / sigma).abs() > 0.1 * eps.abs()).any()


def test_flow_variables_agree_with_the_general_ones(generator):
    """u = eps - x = (x_t - x) / t, and the score of A.7, -((1 - t) u + x_t) / t, is Tweedie's."""
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x, eps = center(torch.randn(2, 3, 4, 2, generator=generator, dtype=torch.float64))
    x_t, time = add_noise(x, eps, t, Straight()), t[:, None, None]
    u = (x_t - x) / time
    torch.testing.assert_close(u, eps - x)
    by_velocity = -((1 - time) * u + x_t) / time
    torch.testing.assert_close(by_velocity, -noise_of(x_t, x, t, Straight()) / time)


def test_denoising_loss_is_the_weighted_energy(generator):
    x = torch.randn(6, 4, 2, generator=generator, dtype=torch.float64)
    for schedule in ALL:
        for energy in (Harmonic(), PairEnergy()):
            got = denoising_loss(lambda x_t, t: 0.5 * x_t, energy, x, schedule, torch.Generator().manual_seed(5))
            g = torch.Generator().manual_seed(5)
            t = schedule.draw(6, g).double()
            eps = torch.randn(6, 4, 2, generator=g, dtype=torch.float64)
            clean, eps = x - x.mean(1, keepdim=True), eps - eps.mean(1, keepdim=True)
            x_t = schedule.alpha(t)[:, None, None] * clean + schedule.sigma(t)[:, None, None] * eps
            torch.testing.assert_close(got, schedule.weight(t) * energy(0.5 * x_t, clean))


def test_mse_flow_loss_is_the_velocity_error(generator):
    network = VelocityNetwork(4, 2, (16,))
    x = torch.randn(8, 4, 2, generator=generator)
    loss = denoising_loss(network, Harmonic(), x, Straight(t_min=0.1), torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(1)
    t = Straight(t_min=0.1).draw(8, g)
    eps = gaussian(x.shape, g)
    expected = (network.velocity(add_noise(center(x), eps, t, Straight()), t) - (eps - center(x))).square().sum((1, 2))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_an_energy_of_the_difference_is_mse_again(generator):
    """Erratum 5: read as a function of x - x_hat, Eq. 7 with constant springs is N |x - x_hat|^2: no invariance."""
    x = center(torch.randn(5, 4, 2, generator=generator, dtype=torch.float64))
    turned = x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    springs = torch.ones_like
    read = PairEnergy(springs)(turned - x, torch.zeros_like(x))
    torch.testing.assert_close(read, 4 * Harmonic()(turned, x))
    assert PairEnergy(springs)(turned, x).max() < 1e-20
    assert read.min() > 0.1


def test_velocity_network_is_seeded_and_centred(generator):
    x, t = torch.randn(3, 3, 2, generator=generator), torch.tensor([0.1, 0.5, 1.0])
    a, b, c = (VelocityNetwork(3, hidden=(8,), seed=s)(x, t) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    torch.testing.assert_close(a.mean(1), x.mean(1), atol=1e-6, rtol=0)


def test_velocity_network_sees_time_as_it_is_and_in_waves(generator):
    """t, then sin and cos of pi t, 2 pi t and 4 pi t; the answer is x_t - t u."""
    network, seen = VelocityNetwork(3, hidden=(8,)), []
    network.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x, t = torch.randn(2, 3, 2, generator=generator), torch.tensor([0.1, 0.6])
    found = network(x, t)
    for sample, time in enumerate(t.tolist()):
        waves = [wave(math.pi * 2**octave * time) for wave in (math.sin, math.cos) for octave in range(3)]
        assert seen[0][sample].tolist() == pytest.approx([*x[sample].flatten().tolist(), time, *waves], abs=1e-6)
    torch.testing.assert_close(found, x - t[:, None, None] * network.velocity(x, t))


def multistep_variance(schedule, steps):
    """x and the last x_hat as two jointly Gaussian variables: their covariance, step by step (Alg. 2, SDE version)."""
    times = schedule.grid(steps).double()
    alphas, sigmas = schedule.alpha(times), schedule.sigma(times)
    covariance, h_before = torch.zeros(2, 2, dtype=torch.float64), None
    covariance[0, 0] = sigmas[0] ** 2
    for (a, s), (a_next, s_next) in pairwise(zip(alphas, sigmas, strict=True)):
        h = torch.log(a_next * s / (a * s_next))
        gain, last = a * SIZE**2 / (a**2 * SIZE**2 + s**2), s_next == 0
        r = 0.0 if h_before is None or last else float(h / h_before / 2)
        decay = 0.0 if last else float((-2 * h).exp())
        kept = s_next / s * math.sqrt(decay)
        told = a_next * (1 - decay)
        move = torch.tensor([[kept + told * (1 + r) * gain, -told * r], [gain, 0.0]], dtype=torch.float64)
        covariance = move @ covariance @ move.T
        covariance[0, 0] += s_next**2 * (1 - decay)
        h_before = h
    return float(covariance[0, 0])


def test_multistep_with_fresh_noise_has_the_variance_of_its_formula():
    schedule, steps, n = Karras(sigma_max=5.0), 12, 40_000
    draw = partial(torch.randn, n, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = multistep(oracle(schedule), schedule, draw(), steps, draw=draw)
    expected = multistep_variance(schedule, steps)
    assert float(x.square().mean()) == pytest.approx(expected, rel=4 * math.sqrt(2 / n))
    # Its point: at equal evaluations it is nearer to the data than the ancestral sampler.
    assert abs(expected / SIZE**2 - 1) < abs(ancestral_variance(schedule, steps) / SIZE**2 - 1) / 2


def test_multistep_asks_once_a_step_and_begins_anew_where_the_state_is_changed():
    schedule, noise, asked = Karras(), torch.ones(1, 1, 1, dtype=torch.float64), []

    def denoiser(x, t):
        asked.append(float(t))
        return x / (1 + t[:, None, None].square())

    plain = multistep(denoiser, schedule, noise, 6)
    assert len(asked) == 6
    always = multistep(denoiser, schedule, noise, 6, prepare=lambda x, now: x.clone())
    assert torch.equal(always, euler(denoiser, schedule, noise, 6))
    assert not torch.allclose(always, plain)
    assert torch.equal(multistep(denoiser, schedule, noise, 6, prepare=lambda x, now: x), plain)
