"""What notebook 06 claims of the score at small noise, of rotation in molecules and of its four figures."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from elf.data import qm9
from experiments.clouds import exact
from experiments.clouds import score as lab
from experiments.molecules import committed


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
