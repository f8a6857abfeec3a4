"""What notebook 06 claims of the score at small noise, of rotation in molecules and of its four figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reading import notebook, printed, prose
from torch import Tensor

from elf.data import qm9
from experiments import load_result
from experiments.clouds import exact
from experiments.clouds import score as lab
from experiments.molecules import committed

BOOK = notebook("06_diffusion_and_flow")
ANGLES = np.exp(2j * np.pi * np.arange(720) / 720)


def the_triangle() -> np.ndarray:
    """Sides 1, 1.2 and 1.4 in complex numbers, centred: the third corner by the law of cosines."""
    angle = math.acos((1 + 1.44 - 1.96) / 2.4)
    corners = np.array([0, 1, 1.2 * np.exp(1j * angle)])
    return corners - corners.mean()


def by_angles(x: np.ndarray, sigma: float, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """log p(x_t) up to a constant and E[x | x_t] of clouds (n, 3), as plain sums over a grid of angles."""
    turned = ANGLES[:, None] * the_triangle()
    variance = sigma**2 + blur**2
    log = -(abs(x[:, None] - turned) ** 2).sum(-1) / (2 * variance)
    weight = np.exp(log - log.max(1, keepdims=True))
    mean = (weight / weight.sum(1, keepdims=True)) @ turned
    return np.log(weight.mean(1)) + log.max(1), (sigma**2 * mean + blur**2 * x) / variance


def clouds(sigma: float, n: int, blur: float = 0.1) -> np.ndarray:
    draw = np.random.default_rng(3)
    noise = draw.normal(size=(n, 3, 2)) @ [1, 1j] * math.hypot(sigma, blur)
    x = ANGLES[draw.integers(720, size=n)][:, None] * the_triangle() + noise
    return x - x.mean(1, keepdims=True)


def sides(x: np.ndarray) -> np.ndarray:
    return abs(x - np.roll(x, 1, axis=-1))


def relative_error(blur: float, level: float, stiffness: Callable[[Tensor], Tensor] | None = None) -> float:
    """|s_hat - s| / |s| of the energy's minimiser in the pose nearest to x_t."""
    world = lab.isomers(blur, shapes=1)
    state = lab.noisy_clouds(world, level, 40, torch.Generator().manual_seed(1))
    gap = exact.energy_minimiser(world, *state, stiffness) - world.posterior_mean(*state)
    return float(gap.norm() / level**2 / world.score(*state).norm())


def test_at_small_noise_the_score_is_right_to_leading_order_in_the_blur_only():
    of_noise = [relative_error(0.1, level) for level in (0.003, 0.006, 0.012)]
    assert all(0.045 < error < 0.065 for error in of_noise)
    of_blur = [relative_error(blur, 0.001) / blur for blur in (0.01, 0.02, 0.1)]
    assert max(of_blur) < 1.2 * min(of_blur)
    assert relative_error(0.1, 0.003, lambda d: d**-0.5) < 1e-3
    assert 0.04 < relative_error(0.1, 0.003, lambda d: 1 / d) < 0.08  # right in space, not in the plane


def expected_length(power: float, blur: float, dim: int) -> float:
    """E[k d] / E[k] - 1 for k = d^power and d = |e_1 + noise|, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    grid = np.meshgrid(*[blur * nodes] * dim, indexing="ij")
    weight = math.prod(np.meshgrid(*[weights] * dim, indexing="ij"))
    d = np.sqrt((1 + grid[0]) ** 2 + sum(other**2 for other in grid[1:]))
    return float((weight * d ** (power + 1)).sum() / (weight * d**power).sum() - 1)


@pytest.mark.parametrize(("dim", "balanced"), [(2, -0.5), (3, -1.0)])
def test_one_power_has_no_bias_of_second_order(dim, balanced):
    s = 0.03
    for power in (0.0, -0.5, -1.0, -2.0):
        bias = expected_length(power, s, dim) / s**2
        assert bias == pytest.approx((dim - 1) / 2 + power, abs=0.01)
        assert (abs(bias) < 0.01) == (power == balanced)
    if dim == 3:  # harmonic: no bias of any order
        assert abs(expected_length(-1, 0.1, 3)) < 1e-8
        assert abs(expected_length(-0.5, 0.1, 2)) > 1e-6


def rotations(x: Tensor) -> Tensor:
    """Orthonormal infinitesimal rotations of each molecule, (B, 3 n, 3)."""
    axes = torch.eye(3, dtype=x.dtype)[None, :, None].expand(len(x), 3, x.shape[1], 3)
    return torch.linalg.qr(torch.linalg.cross(axes, x[:, None].expand_as(axes)).flatten(2).mT).Q


def test_of_a_molecules_error_a_good_third_is_rotation_at_small_noise_and_a_tenth_at_large():
    """By projection; the notebook turns each answer onto the truth."""
    molecules = qm9.load(heavy_atoms=(1, 7), split="test")[::4]
    denoiser, mask = committed.trained("mse").eval(), molecules.mask
    clean = denoiser.encode(molecules.positions.float(), molecules.numbers.long())
    truth = clean[..., :3].double()
    share = {}
    for level in (0.05, 0.1, 1.0):
        t = torch.full((len(clean),), level)
        x_t, _ = denoiser.add_noise(clean, t, mask, torch.Generator().manual_seed(0))
        with torch.no_grad():
            error = ((denoiser.denoise(x_t, t, mask)[..., :3].double() - truth) * mask[..., None]).flatten(1)
        turned = (rotations(truth).mT @ error[..., None]).square().sum()
        share[level] = float(turned / error.square().sum())
    assert 0.3 < share[0.05] < 0.42
    assert 0.3 < share[0.1] < 0.45
    assert 0.04 < share[1.0] < 0.14


def test_true_triangles_tell_what_the_figures_of_quality_are_without_any_model():
    world = lab.isomers(0.05)
    drawn = lab.quality(world.sample(2000, torch.Generator().manual_seed(3)), world)
    assert drawn["w1"] == pytest.approx(drawn["floor"], abs=0.006)
    assert drawn["w1"] < 0.01
    assert drawn["first"] == pytest.approx(0.7, abs=0.03)
    assert drawn["wrong_hand"] == 0
    assert drawn["broken"] == pytest.approx(3 * math.erfc(3 / math.sqrt(2)), abs=0.005)  # three sides at 3 sigma


def test_mse_of_differences_is_mse_again_times_the_number_of_points():
    """sum over pairs of |d_i - d_j|^2 = N sum |d_i|^2 for a centred d; the page prints 3 for triangles."""
    draw = np.random.default_rng(0)
    for n in (3, 7):
        d = draw.normal(size=(n, 2))
        d = d - d.mean(0)
        pairs = sum(((d[i] - d[j]) ** 2).sum() for i in range(n) for j in range(i))
        assert pairs == pytest.approx(n * (d**2).sum())
    assert "E(x - x_hat) over MSE:          [3. 3. 3. 3. 3.]" in printed(BOOK)


def test_an_error_of_noise_is_a_weighted_error_of_positions():
    draw = np.random.default_rng(1)
    x, x_hat, noise = draw.normal(size=(3, 5, 3))
    for alpha in (0.2, 0.7, 0.99):
        sigma = math.sqrt(1 - alpha**2)
        noise_hat = (alpha * x + sigma * noise - alpha * x_hat) / sigma
        assert ((noise - noise_hat) ** 2).sum() == pytest.approx(alpha**2 / sigma**2 * ((x - x_hat) ** 2).sum())
    assert "noise error / weighted error: [1. 1. 1. 1. 1.]" in printed(BOOK)


def test_scores_are_slopes_of_a_sum_over_angles_and_the_misprint_is_off_by_one_over_the_variance():
    sigma, h = 0.3, 1e-5
    x = clouds(sigma, 20)
    _, mean = by_angles(x, sigma, 0.1)
    score = (mean - x) / sigma**2
    step = np.array([1, -0.5 - 0.2j, -0.5 + 0.2j]) * h  # stays centred
    slope = (by_angles(x + step, sigma, 0.1)[0] - by_angles(x - step, sigma, 0.1)[0]) / 2
    np.testing.assert_allclose(slope, (score.conj() * step).sum(1).real, rtol=1e-5, atol=1e-12)
    of_page = np.sort(torch.pdist(lab.isomers(0.1, shapes=1).shapes[0]).numpy())
    np.testing.assert_allclose(of_page, np.sort(sides(the_triangle())), atol=1e-12)  # the same triangle
    assert f"(-score / sigma (Eq. 44 as printed))| / |E[eps]| = {1 / sigma**2 - 1:.2f}"[:-1] in printed(BOOK)


@pytest.mark.parametrize(("sigma", "said"), [(0.05, 1.20), (0.2, 1.19), (0.8, 0.88), (3.2, 0.28)])
def test_the_mean_of_the_possible_triangles_shrinks_and_their_mean_sides_do_not(sigma, said):
    x = clouds(sigma, 1000)
    _, mean = by_angles(x, sigma, 0.1)
    assert sides(mean).mean() == pytest.approx(said, abs=0.05 * said + 0.01)
    whole = sides(clouds(0.0, 20_000)).mean()  # the mean over x_t of E[d | x_t] is E[d], whatever the noise
    assert f"{sigma:5.2f} {said:18.2f} {whole:24.2f}" in printed(BOOK)


def test_one_over_the_distance_is_harmonic():
    """The density of |r| for a blurred pair of atoms at 1 angstrom, integrated; the page has it by error functions."""
    table = printed(BOOK).split("inverse springs\n")[1].splitlines()[:4]
    found = {s: (constant, inverse) for s, constant, inverse in (map(float, line.split()) for line in table)}
    assert list(found) == [0.05, 0.1, 0.2, 0.3]
    for blur, (constant, inverse) in found.items():
        w = math.sqrt(2) * blur
        r = np.linspace(1e-6, 1 + 12 * w, 200_001)
        density = (
            r
            / (w * math.sqrt(2 * math.pi))
            * (np.exp(-((r - 1) ** 2) / (2 * w**2)) - np.exp(-((r + 1) ** 2) / (2 * w**2)))
        )
        mass = np.trapezoid(density, r)
        assert mass == pytest.approx(1, abs=1e-6)
        assert np.trapezoid(r * density, r) - 1 == pytest.approx(constant, abs=6e-5)
        assert 1 / np.trapezoid(density / r, r) - 1 == pytest.approx(inverse, abs=6e-5)


def test_the_variance_ratio_counts_the_coordinates_that_change_a_distance():
    """The trace of the projector P = J^+ J, J the Jacobian of all distances, over the centred coordinates."""
    draw = np.random.default_rng(2)
    for n, dim, said in ((3, 2, 3 / 4), (18, 3, 48 / 51)):
        x = draw.normal(size=(n, dim))
        rows = []
        for i in range(n):
            for j in range(i):
                row = np.zeros((n, dim))
                row[i] = (x[i] - x[j]) / np.linalg.norm(x[i] - x[j])
                row[j] = -row[i]
                rows.append(row.ravel())
        jacobian = np.array(rows)
        trace = np.trace(np.linalg.pinv(jacobian, rcond=1e-10) @ jacobian)
        assert trace / (dim * (n - 1)) == pytest.approx(said)
        assert trace / (dim * (n - 1)) == pytest.approx(1 - dim * (dim - 1) / 2 / (dim * (n - 1)))
    assert "triangle in the plane: 0.75; 18 atoms in space: 0.94" in printed(BOOK)
    ratios = [max(c["result"]["ratio"]) for c in load_result("score")["cells"] if c["cell"]["part"] == "estimator"]
    assert max(ratios) <= 0.765
    assert "Never above 0.76" in prose(BOOK)


def test_what_perfect_and_trained_networks_sample_is_in_the_file():
    rows = {(row["part"], row["case"]): row for row in load_result("score")["summary"]}
    share = {name: 100 * rows["sampling", name]["first"]["mean"] for name in ("mse", "energy", "one_hand")}
    assert f"{share['energy']:.0f} % of the first isomer" in prose(BOOK)
    assert f"{share['one_hand']:.0f} % if it is told which hand to use" in prose(BOOK)
    assert rows["sampling", "energy"]["wrong_hand"]["mean"] == pytest.approx(0.5, abs=0.03)
    trained = rows["flow", "energy"]
    assert f"{100 * trained['first']['mean']:.0f} ± {100 * trained['first']['std']:.0f} % are first isomers" in prose(
        BOOK
    )
    assert trained["w1"]["mean"] / rows["flow", "mse"]["w1"]["mean"] == pytest.approx(2, abs=0.25)


def test_rates_of_the_error_are_one_nothing_and_two():
    rows = {row["case"]: row for row in load_result("score")["summary"] if row["part"] == "score"}
    kinds = ("constant", "exponential", "inverse", "balanced")
    assert all(rows["0"][f"rate_{kind}"]["mean"] == pytest.approx(1, abs=0.05) for kind in kinds)
    assert rows["0.1"]["rate_constant"]["mean"] == pytest.approx(0, abs=0.05)
    assert rows["0.1"]["rate_balanced"]["mean"] == pytest.approx(2, abs=0.05)


def test_squared_means_of_lengths_are_corrected_by_variances():
    """(E d)^2 + Var d - tr Cov r = |E r|^2, for any blob: the identity of exercise 4."""
    r = np.random.default_rng(5).normal(size=(50_000, 3)) * [0.5, 1, 2] + [1, -2, 0.5]
    d = np.linalg.norm(r, axis=1)
    assert d.mean() ** 2 + d.var() - r.var(0).sum() == pytest.approx((r.mean(0) ** 2).sum())
    gap, left = map(float, re.search(r"gap ([\d.]+) Å², left after the correction ([\d.]+)", printed(BOOK)).groups())
    assert left < 0.02 * gap
