import cmath
import math

import numpy as np
import pytest
import torch

from experiments.clouds.polygons import mean_shrinkage, regular_polygon, sample
from experiments.clouds.regularity import quality, regularity


@pytest.mark.parametrize("sides", [3, 4, 7])
def test_vertices_are_scaled_and_turned_roots_of_unity(sides, dtype, rtol):
    radius, angle = torch.tensor([0.5, 3.0], dtype=dtype), torch.tensor([0.0, -2.0], dtype=dtype)
    found = regular_polygon(radius, angle, sides)
    for i in range(2):
        roots = [radius[i].item() * cmath.exp(1j * (angle[i].item() + 2 * math.pi * k / sides)) for k in range(sides)]
        wanted = torch.tensor([[z.real, z.imag] for z in roots], dtype=dtype)
        torch.testing.assert_close(found[i], wanted, rtol=rtol, atol=rtol * 3)
    # All sides have the chord's length 2 r sin(pi / sides).
    lengths = (found - found.roll(1, 1)).square().sum(-1).sqrt()
    torch.testing.assert_close(
        lengths, (2 * radius * math.sin(math.pi / sides))[:, None].expand_as(lengths), rtol=4 * rtol, atol=0
    )


def test_samples_follow_their_distribution(generator):
    data = sample(20_000, 3, math.pi / 2, generator, radii=(1.0, 3.0))
    for value, low, high in ((data.radius, 1.0, 3.0), (data.angle, -math.pi / 2, math.pi / 2)):
        assert low <= value.min()
        assert value.max() <= high
        ranks = (value.sort().values - low) / (high - low)
        # Kolmogorov's distance to the uniform distribution; 1.95 / sqrt(n) is the 0.1 % level.
        assert (ranks - torch.linspace(0, 1, len(ranks))).abs().max() < 1.95 / math.sqrt(len(ranks))
    assert torch.corrcoef(torch.stack([data.radius, data.angle]))[0, 1].abs() < 0.03
    torch.testing.assert_close(data.vertices, regular_polygon(data.radius, data.angle, 3))


def test_same_seed_same_polygons_and_theta_zero_is_upright():
    def draw(seed, theta=1.0):
        return sample(5, 4, theta, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3).vertices, draw(3).vertices)
    assert not torch.equal(draw(3).vertices, draw(4).vertices)
    assert torch.equal(draw(3).radius, draw(3, theta=2.0).radius)
    assert not draw(3, theta=0.0).angle.any()


@pytest.mark.parametrize("theta", [0.0, 0.3, math.pi / 2, 2.5, math.pi])
def test_mean_of_turned_polygons_is_smaller_by_the_sinc_factor(theta, generator):
    phi = torch.linspace(-theta, theta, 10_001, dtype=torch.float64)
    turned = regular_polygon(torch.ones_like(phi), phi, 5)
    mean = torch.trapezoid(turned, dx=1 / 10_000, dim=0)
    upright = regular_polygon(mean.new_ones(1), mean.new_zeros(1), 5)[0]
    torch.testing.assert_close(mean, mean_shrinkage(theta) * upright, rtol=0, atol=1e-6)
    drawn = sample(40_000, 5, theta, generator, radii=(1.0, 1.0), dtype=torch.float64)
    torch.testing.assert_close(drawn.vertices.mean(0), mean_shrinkage(theta) * upright, rtol=0, atol=0.02)


def test_any_average_of_turned_regular_polygons_is_regular(generator):
    drawn = sample(7, 9, math.pi, generator, dtype=torch.float64)
    weights = torch.rand(7, 1, 1, generator=generator, dtype=torch.float64)
    mean = (weights * drawn.vertices).mean(0, keepdim=True)
    assert quality(mean) > 25
    assert regularity(mean).mean_radius < drawn.radius.max()
    # The counter-example: relabelling vertices is no common rotation, and the average is no regular polygon.
    drawn.vertices[0] = drawn.vertices[0][torch.randperm(9, generator=generator)]
    assert quality(drawn.vertices.mean(0, keepdim=True)) < 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 2, 0.0), "sides is 2"),
        ((-1, 3, 0.0), "n is -1"),
        ((1, 3, -0.1), "max_angle is -0.1"),
        ((1, 3, 4.0), "max_angle is 4.0"),
        ((1, 3, math.nan), "max_angle is nan"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        sample(*arguments)


@pytest.mark.parametrize(
    ("radii", "words"), [((0.0, 1.0), r"radii\[0\]"), ((2.0, 1.0), "radii is"), ((1.0, math.inf), r"radii\[1\]")]
)
def test_bad_radii_are_named(radii, words):
    with pytest.raises(ValueError, match=words):
        sample(1, 3, 0.0, radii=radii)


def test_numbers_of_any_kind_and_nothing_else():
    a = sample(3, 5, 0.5, torch.Generator().manual_seed(1))
    b = sample(np.int64(3), np.uint8(5), np.float64(0.5), torch.Generator().manual_seed(1))
    assert torch.equal(a.vertices, b.vertices)
    for arguments, name in (
        ((2.5, 3, 0.0), "n"),
        ((1, 3.0, 0.0), "sides"),
        ((1, 3, "0"), "max_angle"),
        ((True, 3, 0), "n"),
    ):
        with pytest.raises(TypeError, match=name):
            sample(*arguments)
    with pytest.raises(TypeError, match=r"dtype is torch\.int64"):
        sample(1, 3, 0.0, dtype=torch.int64)
    with pytest.raises(TypeError, match="radius has dtype"):
        regular_polygon(torch.ones(2, dtype=torch.int64), torch.zeros(2), 3)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\); both should be \(n,\)"):
        regular_polygon(torch.ones(2), torch.zeros(1), 3)
