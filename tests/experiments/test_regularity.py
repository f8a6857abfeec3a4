import cmath
import math
import statistics

import pytest
import torch

from elf.geometry.symmetry import assert_invariant
from experiments.clouds.polygons import regular_polygon
from experiments.clouds.regularity import quality, radius_error, regularity


def polygon(radii, angles, dtype=torch.float64):
    """One polygon from the polar coordinates of its vertices."""
    radii, angles = torch.as_tensor(radii, dtype=dtype), torch.as_tensor(angles, dtype=dtype)
    return (radii[:, None] * torch.stack([angles.cos(), angles.sin()], -1))[None]


def by_hand(vertices):
    """Sec. 6.1's quality with complex numbers and the standard library."""
    points = [complex(x, y) for x, y in vertices.tolist()]
    middle = sum(points) / len(points)
    points = [z - middle for z in points]
    steps = [cmath.phase(after / before) for before, after in zip(points, points[1:] + points[:1], strict=True)]
    radii = [abs(z) for z in points]
    spread = statistics.pstdev(steps) / (2 * math.pi) + statistics.pstdev(radii) / statistics.fmean(radii)
    return -math.log(spread)


def test_quality_agrees_with_complex_arithmetic(dtype, rtol, generator):
    noisy = regular_polygon(torch.tensor([1.0, 4.0], dtype=dtype), torch.tensor([0.1, 2.0], dtype=dtype), 9)
    for size in (0.01, 0.1, 1.0):
        vertices = noisy + size * torch.randn(noisy.shape, generator=generator, dtype=dtype)
        wanted = torch.tensor([by_hand(v) for v in vertices], dtype=dtype)
        torch.testing.assert_close(quality(vertices), wanted, rtol=100 * rtol, atol=100 * rtol)


def test_closed_forms(dtype, rtol):
    """Radii 1 ± d in turn: sigma_radius / r = d. Angles shifted by ± a in turn: sigma_dangle = 2 a."""
    regular = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    sign = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    breathing = polygon(1 + 0.03 * sign, regular, dtype)
    assert float(quality(breathing)) == pytest.approx(-math.log(0.03), rel=100 * rtol)
    swaying = polygon(2 + 0 * sign, regular + 0.05 * sign, dtype)
    assert float(quality(swaying)) == pytest.approx(-math.log(2 * 0.05 / (2 * math.pi)), rel=100 * rtol)


def test_quality_sees_neither_place_nor_size_nor_hand(generator):
    x = regular_polygon(torch.full((3,), 2.0), torch.zeros(3), 7).double()
    x += 0.2 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    shifts = torch.stack([torch.arange(7).roll(k) for k in range(7)])
    assert_invariant(lambda a, b, _=None: quality(a) + quality(b), x, x.flip(0), permutations=shifts)
    torch.testing.assert_close(quality(1e-3 * x), quality(x))
    torch.testing.assert_close(quality(x.flip(1)), quality(x))  # walked the other way round
    # The counter-example: vertices in another order are another polygon.
    assert not torch.allclose(quality(x[:, [1, 0, 2, 3, 4, 5, 6]]), quality(x), atol=0.1)


@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi, -3.0])
def test_steps_across_the_cut_of_atan2_are_small(angle):
    found = regularity(regular_polygon(torch.ones(1).double(), torch.tensor([angle]).double(), 12))
    assert found.step_spread < 1e-12
    assert found.radius_spread < 1e-12
    assert float(found.mean_radius) == pytest.approx(1)


def test_a_tiny_regular_polygon_is_perfect_until_it_is_asked_for_its_size():
    asked = torch.full((1,), 2.0, dtype=torch.float64)
    tiny = regular_polygon(asked * 0.01, asked * 0, 20)
    assert quality(tiny) > 25
    assert float(quality(tiny, asked)) == pytest.approx(-math.log(0.99))
    assert float(radius_error(tiny, asked)) == pytest.approx(0.99)
    assert float(radius_error(1.25 * tiny / 0.01, asked)) == pytest.approx(0.25)


def test_quality_at_a_radius_counts_what_each_vertex_misses():
    """sqrt(mean_k (r_k - r)^2) in the place of the spread: with radii 2 ± 0.3 and 1.5 asked for, sqrt(0.25 + 0.09)."""
    sign, steps = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64), torch.arange(8, dtype=torch.float64)
    breathing = polygon(2 + 0.3 * sign, 2 * math.pi * steps / 8)
    asked = torch.full((1,), 1.5, dtype=torch.float64)
    assert float(quality(breathing, asked)) == pytest.approx(-math.log(math.sqrt(0.34) / 1.5))


def test_perfect_disordered_and_collapsed(generator):
    assert quality(regular_polygon(torch.ones(1), torch.zeros(1), 20)) > 12
    assert float(quality(torch.randn(500, 20, 2, generator=generator)).mean()) < 1
    assert quality(torch.ones(1, 5, 2)) == -math.inf
    assert quality(torch.ones(1, 5, 2), torch.ones(1)) == -math.inf


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 3 vertices"):
        quality(torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="vertices holds 1 atoms with a NaN"):
        quality(torch.tensor([[[0.0, 1.0], [math.nan, 0.0], [1.0, 0.0]]]))
    for half in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="vertices holds 3 atoms with a NaN or infinite"):
            quality(torch.full((1, 3, 2), math.inf, dtype=half))
    large = quality(torch.tensor([[[6e4, -6e4], [-6e4, -6e4], [6e4, 6e4]]], dtype=torch.float16))
    assert large.isfinite().all()  # squares of which float16 has no room for
    for score in (quality, radius_error):
        with pytest.raises(ValueError, match=r"radius is 0\.0"):
            score(torch.randn(2, 3, 2), torch.tensor([1.0, 0.0]))
