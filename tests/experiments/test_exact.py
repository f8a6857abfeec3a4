"""The exact score against autograd, brute-force integrals over rotations and Monte Carlo; Prop. 4.4 and 4.5."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest, vonmises

from elf.energy import PairEnergy
from elf.generative.points import gaussian
from elf.generative.samplers import heun
from elf.generative.schedules import Karras, noise_of
from elf.geometry.alignment import center
from experiments.clouds.exact import (
    RotationAveraged,
    energy_denoiser,
    energy_minimiser,
    exact_denoiser,
    rice_mean,
    turn,
    von_mises,
)
from experiments.clouds.minimiser import (
    SpringNetwork,
    distance_jacobian,
    mean_network,
    minimise,
    nearest_pose,
    network_energy,
    pair_distances,
    remove_rigid,
)

F64 = torch.float64
SHAPES = torch.tensor([[[0, 0], [1.0, 0], [0.2, 1.2]], [[0, 0], [1.0, 0], [-0.9, 0.7]]], dtype=F64)


def system(blur, shapes=2, dtype=F64):
    return RotationAveraged(SHAPES[:shapes].to(dtype), torch.tensor([0.6, 0.4], dtype=dtype)[:shapes], blur)


def noisy(found, sigma, n, alpha=1.0, seed=1):
    g = torch.Generator().manual_seed(seed)
    x, dtype = found.sample(n, g), found.shapes.dtype
    a, s = torch.full((n,), alpha, dtype=dtype), torch.full((n,), sigma, dtype=dtype)
    return alpha * x + sigma * gaussian((n, x.shape[1], 2), g, dtype), a, s


def brute(found, x_t, alpha, sigma, angles=4000):
    """log p(x_t), and for each shape and angle, the posterior's weight and mean: by a plain sum over angles."""
    v = alpha**2 * found.blur**2 + sigma**2
    theta = torch.arange(angles, dtype=F64) * (2 * math.pi / angles)
    turned = torch.stack([turn(shape.expand(angles, -1, -1), theta) for shape in found.shapes])
    logs = -(x_t[:, None, None] - alpha * turned).square().sum((-2, -1)) / (2 * v)
    logs = logs + found.weights.log()[:, None] - math.log(angles) - (x_t.shape[1] - 1) * math.log(2 * math.pi * v)
    middle = (alpha * found.blur**2 * x_t[:, None, None] + sigma**2 * turned) / v
    weight = logs.flatten(1).softmax(1).view_as(logs)[..., None, None]
    return logs.flatten(1).logsumexp(1), weight, middle


@pytest.mark.parametrize(
    ("blur", "sigma", "alpha"), [(0.0, 0.1, 1.0), (0.1, 0.05, 0.8), (0.05, 1.0, 1.0), (0.1, 20.0, 0.5)]
)
def test_density_and_mean_are_the_sums_over_angles(blur, sigma, alpha):
    found = system(blur)
    x_t, a, s = noisy(found, sigma, 20, alpha)
    density, weight, middle = brute(found, x_t, alpha, sigma)
    torch.testing.assert_close(found.log_density(x_t, a, s), density, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.posterior_mean(x_t, a, s), (weight * middle).sum((1, 2)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.02, 0.2, 2.0])
def test_expected_distances_are_the_sums_over_angles(sigma):
    """The blur that is left has the precision 1 / tau^2 of the blur plus alpha^2 / sigma^2 of what was seen."""
    found = system(0.1)
    x_t, a, s = noisy(found, sigma, 3, 0.8)
    _, weight, middle = brute(found, x_t, 0.8, sigma)
    left = math.sqrt(2 / (1 / 0.1**2 + 0.8**2 / sigma**2))
    length = pair_distances(middle.flatten(0, 2)).view(*middle.shape[:3], 3)
    rest = (weight[..., 0] * rice_mean(length, torch.tensor(left, dtype=F64))).sum((1, 2))
    torch.testing.assert_close(found.expected_distances(x_t, a, s).rest, rest, rtol=1e-8, atol=0)


@pytest.mark.parametrize(("blur", "sigma"), [(0.0, 0.02), (0.1, 0.02), (0.1, 1.0)])
def test_score_is_the_gradient_and_tweedies(blur, sigma, dtype):
    found = system(blur, dtype=dtype)
    x_t, a, s = noisy(found, sigma, 50, 0.9)
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(found.log_density(x_t, a, s).sum(), x_t)
    score = found.score(x_t, a, s)
    tolerance = {torch.float32: 2e-3, torch.float64: 1e-9}[dtype]
    scale = score.detach().abs().max().item()
    torch.testing.assert_close(score, center(gradient), rtol=0, atol=tolerance * scale)
    by_tweedie = (0.9 * found.posterior_mean(x_t, a, s) - x_t) / sigma**2
    torch.testing.assert_close(score, by_tweedie, rtol=0, atol=tolerance * scale)


def test_score_is_orthogonal_to_rigid_motions():
    """The density is invariant, so its gradient has no part along a rotation: what Prop. 4.4 rests on."""
    found = system(0.1)
    x_t, a, s = noisy(found, 0.3, 50)
    score = found.score(x_t, a, s)
    torch.testing.assert_close(remove_rigid(score, x_t), score, rtol=1e-9, atol=1e-9)
    assert (remove_rigid(x_t - found.shapes[0], x_t) - (x_t - found.shapes[0])).abs().max() > 0.1


def test_posterior_samples_have_the_posterior_mean_and_distances():
    found, n = system(0.15), 40_000
    x_t, a, s = noisy(found, 0.4, 3)
    x = found.posterior_sample(x_t, a, s, n, torch.Generator().manual_seed(3))
    torch.testing.assert_close(x.mean(1), found.posterior_mean(x_t, a, s), rtol=0, atol=5 / math.sqrt(n))
    for springs in (None, lambda d: torch.exp(-d)):
        exact, sampled = found.expected_distances(x_t, a, s, springs, nodes=24), mean_network(x, springs)
        torch.testing.assert_close(exact.rest, sampled.rest, rtol=0, atol=5 / math.sqrt(n))
        torch.testing.assert_close(exact.stiffness, sampled.stiffness, rtol=0, atol=5 / math.sqrt(n))


def test_draws_are_a_turned_shape_plus_blur():
    """From the same draws of the generator: the sign of a symmetric noise is seen in no distribution."""
    found, g = system(0.2), torch.Generator().manual_seed(5)
    pick = torch.multinomial(found.weights, 6, replacement=True, generator=g)
    angle = 2 * math.pi * torch.rand(6, generator=g, dtype=F64)
    wanted = turn(found.shapes[pick], angle) + 0.2 * gaussian((6, 3, 2), g, F64)
    assert torch.equal(found.sample(6, torch.Generator().manual_seed(5)), wanted)
    x_t, a, s = noisy(found, 0.3, 2)
    p, g = found.posterior(x_t, a, s), torch.Generator().manual_seed(6)
    pick = torch.multinomial(p.probabilities, 3, replacement=True, generator=g)
    angle = p.angle.gather(1, pick) + von_mises(p.concentration.gather(1, pick), g)
    turned = torch.stack([turn(found.shapes[pick[b]], angle[b]) for b in range(2)])
    blur = p.variance.sqrt()[:, None, None, None] * gaussian((6, 3, 2), g, F64).view(2, 3, 3, 2)
    wanted = p.own[:, None, None, None] * x_t[:, None] + p.template[:, None, None, None] * turned + blur
    torch.testing.assert_close(found.posterior_sample(x_t, a, s, 3, torch.Generator().manual_seed(6)), wanted)


def test_the_two_integrals_over_a_pair_agree():
    """Rice's closed form against Gauss-Hermite quadrature with k = 1."""
    found = system(0.1)
    for sigma in (0.02, 0.2, 1.0):
        x_t, a, s = noisy(found, sigma, 10)
        closed, summed = found.expected_distances(x_t, a, s), found.expected_distances(x_t, a, s, torch.ones_like)
        torch.testing.assert_close(closed.rest, summed.rest, rtol=1e-7, atol=0)


def test_rice_mean(generator):
    length, width = torch.tensor([0.0, 0.5, 3.0, 2.0], dtype=F64), torch.tensor([1.0, 1.0, 0.2, 0.0], dtype=F64)
    draws = torch.randn(200_000, 4, 2, generator=generator, dtype=F64) * width[:, None]
    sampled = (draws + torch.stack([length, torch.zeros_like(length)], -1)).norm(dim=-1).mean(0)
    torch.testing.assert_close(rice_mean(length, width), sampled, rtol=0, atol=5e-3)
    assert rice_mean(length, width)[3] == 2
    # Large against small: continuous where the series takes over.
    seam = torch.tensor([1e-3 * 0.999, 1e-3 * 1.001], dtype=F64) / math.sqrt(4e5) / 1e-3
    found = rice_mean(torch.ones(2, dtype=F64), seam)
    torch.testing.assert_close(found, 1 + seam**2 / 2, rtol=1e-9, atol=0)
    assert float(found[0] - (1 + seam[0] ** 2 / 2)) == pytest.approx(float(seam[0] ** 4 / 8), rel=1e-2)


@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0, 1e6])
def test_von_mises(kappa, generator):
    n = 40_000
    angle = von_mises(torch.full((n,), kappa, dtype=F64), generator)
    k = torch.tensor(kappa, dtype=F64)
    shrink = (torch.special.i1e(k) / torch.special.i0e(k)).item()
    spread = angle.cos().std().item()
    assert angle.cos().mean().item() == pytest.approx(shrink, abs=5 * spread / math.sqrt(n))
    assert abs(angle.sin().mean().item()) < 5 * angle.sin().std().item() / math.sqrt(n)
    assert kstest(angle.numpy(), vonmises(kappa).cdf).pvalue > 1e-3


@pytest.mark.parametrize("dim", [2, 3])
def test_minimiser_finds_the_minimum_of_the_mean_energy(dim, generator):
    """Against gradient descent on elf.PairEnergy itself, over explicit targets; an overdetermined network (N = 6)."""
    base = torch.randn(1, 6, dim, generator=generator, dtype=F64)
    targets = base + 0.3 * torch.randn(40, 6, dim, generator=generator, dtype=F64)
    energy = PairEnergy(lambda d: torch.exp(-d))

    def mean(x):
        return energy(x.expand_as(targets), targets).mean()

    network = mean_network(targets[None], lambda d: torch.exp(-d))
    found = minimise(network, center(base))
    guess = center(base).clone().requires_grad_()
    optimiser = torch.optim.LBFGS([guess], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimiser.zero_grad()
        value = mean(guess)
        value.backward()
        return value

    optimiser.step(closure)
    torch.testing.assert_close(mean(found), mean(guess.detach()), rtol=1e-9, atol=0)
    torch.testing.assert_close(pair_distances(found), pair_distances(guess.detach()), rtol=1e-4, atol=1e-5)
    # The reduction to a network: same value up to a constant, so the same differences.
    other = center(base) * 1.1
    difference = network_energy(network, other) - network_energy(network, found)
    torch.testing.assert_close(difference[0], mean(other) - mean(found))


def test_steps_of_the_minimiser_by_hand(generator):
    """Damped Gauss-Newton from a start whose first steps are refused: the system from autograd, one cloud at a time."""
    start = torch.tensor([[[1.2, -0.3], [-1.5, 1.4], [-1.1, 1.2]], [[-1, -1.2], [-1.1, 1.3], [-0.4, 3.9]]], dtype=F64)
    network = SpringNetwork(
        torch.tensor([[1.0, 3.0, 2.0]] * 2, dtype=F64), torch.tensor([[1, 1.2, 2.0]] * 2, dtype=F64)
    )
    refused = 0
    for b in range(2):
        k, x, damping = network.stiffness[b], start[b], 1e-3

        def miss(flat, b=b):
            x = flat.view(3, 2)
            return torch.stack([(x[i] - x[j]).norm() for i, j in ((0, 1), (0, 2), (1, 2))]) - network.rest[b]

        for step in range(1, 9):
            slopes = torch.autograd.functional.jacobian(miss, x.flatten())
            bend = slopes.T @ torch.diag(k) @ slopes
            system = bend + damping * bend.trace() / 6 * torch.eye(6, dtype=F64)
            trial = x - torch.linalg.solve(system, slopes.T @ (k * miss(x.flatten()))).view(3, 2)
            better = (k * miss(trial.flatten()) ** 2).sum() <= (k * miss(x.flatten()) ** 2).sum()
            x, damping, refused = (trial, damping / 10, refused) if better else (x, damping * 10, refused + 1)
            torch.testing.assert_close(minimise(network, start, step)[b], x, rtol=1e-6, atol=1e-8)
    assert refused >= 3


def test_distance_jacobian_is_autograds(generator):
    x = torch.randn(2, 5, 3, generator=generator, dtype=F64)
    both = torch.autograd.functional.jacobian(pair_distances, x)
    expected = torch.stack([both[b, :, b].flatten(1) for b in range(2)])
    torch.testing.assert_close(distance_jacobian(x), expected)
    assert torch.linalg.matrix_rank(expected).tolist() == [9, 9]  # 15 coordinates less 6 rigid motions


def test_nearest_pose_has_the_least_noise():
    found = system(0.0)
    x_t, a, s = noisy(found, 0.2, 20)
    x_hat = energy_minimiser(found, x_t, a, s)
    for angle in (0.05, 1.0, -2.0):
        turned = turn(x_hat, torch.full((20,), angle, dtype=F64))
        assert ((turned - x_t).square().sum((1, 2)) > (x_hat - x_t).square().sum((1, 2))).all()
        torch.testing.assert_close(nearest_pose(turned, x_t), x_hat, rtol=0, atol=1e-6)


def relative_error(blur, sigma, springs=None, shapes=1, n=100):
    """Root mean square error of the energy's score over that of the true score."""
    found = system(blur, shapes)
    x_t, a, s = noisy(found, sigma, n)
    true = found.score(x_t, a, s)
    got = (energy_minimiser(found, x_t, a, s, springs) - x_t) / sigma**2
    return ((got - true).square().sum() / true.square().sum()).sqrt().item()


def rate(blur, springs=None, sigmas=(0.005, 0.02)):
    errors = [relative_error(blur, sigma, springs) for sigma in sigmas]
    return math.log(errors[1] / errors[0]) / math.log(sigmas[1] / sigmas[0])


def balanced(d):
    return d**-0.5


def test_prop_44_holds_for_a_rigid_shape():
    """Relative error sigma / (2 sqrt(3) |y|): from the angle's variance 1 / kappa and three noisy distances."""
    size = center(SHAPES[0]).norm().item()
    assert rate(0.0) == pytest.approx(1, abs=0.02)
    assert relative_error(0.0, 0.005) == pytest.approx(0.005 / (2 * math.sqrt(3) * size), rel=0.1)


def test_prop_44_counter_examples():
    """A shape that is not rigid: with constant springs the relative error stops falling once sigma is below the blur.
    Springs d^(-(D-1)/2) make up for it; other springs do not."""
    assert abs(rate(0.1)) < 0.05
    assert relative_error(0.1, 0.005) > 0.03
    assert rate(0.1, balanced) == pytest.approx(2, abs=0.15)
    assert relative_error(0.1, 0.005, balanced) < 2e-4
    assert abs(rate(0.1, lambda d: torch.exp(-d))) < 0.1
    assert relative_error(0.1, 0.005, lambda d: torch.exp(-d)) > relative_error(0.1, 0.005)


def test_in_units_of_noise_the_error_goes_to_zero_for_every_spring():
    """eps_hat = -sigma score + O(sigma): the sense in which Prop. 4.4 holds for blurred shapes too."""
    for springs in (None, lambda d: torch.exp(-d)):
        found, errors = system(0.1, 1), []
        for sigma in (0.001, 0.01):
            x_t, a, s = noisy(found, sigma, 100)
            got = (x_t - energy_minimiser(found, x_t, a, s, springs)) / sigma
            errors.append((got + sigma * found.score(x_t, a, s)).square().mean().sqrt().item())
        assert math.log10(errors[1] / errors[0]) == pytest.approx(1, abs=0.1)


def test_at_large_noise_the_two_answers_part():
    """The mean of rotated triangles is a small triangle; the mean of their distances is not small."""
    found = system(0.0, 1)
    x_t, a, s = noisy(found, 3.0, 100)
    mean, best = found.posterior_mean(x_t, a, s), energy_minimiser(found, x_t, a, s)
    torch.testing.assert_close(pair_distances(best), pair_distances(found.shapes[:1]).expand(100, -1))
    assert pair_distances(mean).mean() < 0.5 * pair_distances(best).mean()
    assert relative_error(0.0, 1.0) > 0.2


def test_distances_of_a_rigid_shape_are_known_at_any_noise():
    found = system(0.0, 1)
    for sigma in (0.003, 3.0):
        x_t, a, s = noisy(found, sigma, 3)
        own = pair_distances(found.shapes).expand(3, -1)
        torch.testing.assert_close(found.expected_distances(x_t, a, s).rest, own, rtol=1e-6, atol=0)


def test_three_dimensions_inverse_springs_make_no_error():
    """Gaussian posterior N(m, s^2) in 3D: E[1 / d] is the potential of a ball of charge, so that E[d k] / E[k] is
    |m_i - m_j| up to erfc (Newton's shell theorem); constant springs are off by 2 s^2 / |m_i - m_j|."""
    g = torch.Generator().manual_seed(0)
    mean = torch.tensor([[[0, 0, 0], [1.0, 0, 0], [0.3, 1.1, 0], [0.2, 0.4, 0.9]]], dtype=F64)
    x = mean[:, None] + 0.1 * torch.randn(1, 100_000, 4, 3, generator=g, dtype=F64)
    d = pair_distances(mean)
    constant, inverse = mean_network(x).rest - d, mean_network(x, torch.reciprocal).rest - d
    noise = 5 * 0.1 * math.sqrt(2 / 100_000)
    assert inverse.abs().max() < noise
    torch.testing.assert_close(constant, 2 * 0.01 / d, rtol=0.03, atol=noise)


def estimates(found, sigma, n, springs=None, repeats=400, clouds=8):
    x_t, a, s = noisy(found, sigma, clouds)
    many, a_many, s_many = x_t.repeat_interleave(repeats, 0), a.repeat_interleave(repeats), s.repeat_interleave(repeats)
    x = found.posterior_sample(many, a_many, s_many, n, torch.Generator().manual_seed(9))
    best = nearest_pose(minimise(mean_network(x, springs), x[:, 0], 15), many)
    return [(e.unflatten(0, (clouds, repeats)) - x_t[:, None]) / sigma**2 for e in (x.mean(1), best)]


def test_prop_45_variance():
    """Three of a triangle's four centred coordinates change distances: at sigma << blur the ratio is 3/4."""
    mse, energy = (e.var(1).sum() for e in estimates(system(0.1, 1), 0.01, 8))
    assert (energy / mse).item() == pytest.approx(0.75, abs=0.03)
    mse, energy = (e.var(1).sum() for e in estimates(system(0.02, 1), 0.2, 8))
    assert energy / mse < 0.25


def test_prop_45_projector():
    """Not the triangle's number by accident: five points in the plane have 7 of 8."""
    shape = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
    found = RotationAveraged(2 * shape, torch.ones(1, dtype=F64), 0.1)
    mse, energy = (e.var(1).sum() for e in estimates(found, 0.01, 8, repeats=200))
    assert (energy / mse).item() == pytest.approx(7 / 8, abs=0.03)


def test_prop_45_needs_the_pose_of_least_noise():
    """Without removing v, each estimate comes in the pose of its first sample, with more variance than MSE's."""
    found, n, repeats = system(0.02, 1), 8, 400
    x_t, a, s = (v.repeat_interleave(repeats, 0) for v in noisy(found, 0.4, 4))
    x = found.posterior_sample(x_t, a, s, n, torch.Generator().manual_seed(9))
    loose = minimise(mean_network(x), x[:, 0], 15)
    posed = nearest_pose(loose, x_t)
    mse, wild, calm = (e.unflatten(0, (4, repeats)).var(1).sum() for e in (x.mean(1), loose, posed))
    assert wild > 2 * mse
    assert calm < 0.1 * mse


def test_at_large_noise_bias_outweighs_the_smaller_variance():
    """Less variance, but around the wrong value: with enough samples MSE's estimate is the better one."""
    found = system(0.1, 1)
    x_t, a, s = noisy(found, 1.0, 8)
    true = found.score(x_t, a, s)[:, None]
    totals = {n: [(e - true).square().mean() for e in estimates(found, 1.0, n, repeats=100)] for n in (1, 32)}
    assert totals[1][1] < totals[1][0]
    assert totals[32][1] > 2 * totals[32][0]


def test_both_denoisers_sample_rigid_shapes():
    """The energy's wrong score at large noise still leads to the right shapes, where they are rigid and single."""
    found, schedule = system(0.0, 1), Karras(sigma_min=0.005, sigma_max=4.0)
    noise = gaussian((20, 3, 2), torch.Generator().manual_seed(0), F64)
    for denoiser in (exact_denoiser(found, schedule), energy_denoiser(found, schedule)):
        out = heun(denoiser, schedule, noise, 25)
        distances = pair_distances(found.shapes)
        torch.testing.assert_close(pair_distances(out), distances.expand(20, -1), rtol=0, atol=5e-3)


def test_score_of_the_exact_denoiser_is_the_score():
    found, schedule = system(0.1), Karras()
    x_t, a, s = noisy(found, 0.5, 5)
    by_noise = -noise_of(x_t, exact_denoiser(found, schedule)(x_t, s), s, schedule) / s[:, None, None]
    torch.testing.assert_close(by_noise, found.score(x_t, a, s))


def test_weights_are_normalised():
    found = RotationAveraged(SHAPES, torch.tensor([3.0, 2.0], dtype=F64))
    torch.testing.assert_close(found.weights, torch.tensor([0.6, 0.4], dtype=F64))


def test_bad_input():
    weights = torch.ones(2, dtype=F64)
    with pytest.raises(ValueError, match="weights should be positive"):
        RotationAveraged(SHAPES, torch.tensor([1.0, 0.0], dtype=F64))
    with pytest.raises(ValueError, match=r"blur is -0\.1"):
        RotationAveraged(SHAPES, weights, -0.1)
    with pytest.raises(ValueError, match="at least 2 points"):
        RotationAveraged(SHAPES[:, :1], weights)
    x_t, a, s = noisy(system(0.0), 0.1, 2)
    with pytest.raises(ValueError, match="without blur it should be positive"):
        system(0.0).score(x_t, a, 0 * s)
    with pytest.raises(ValueError, match="iterations is 0"):
        minimise(SpringNetwork(torch.ones(2, 3, dtype=F64), torch.ones(2, 3, dtype=F64)), x_t, 0)
