import math
from typing import Any

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from elf import AlignedHarmonic
from elf.geometry import align, center, centroid, kabsch, random_rotations

CHIRAL = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]


def pair(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, *shape, dtype=dtype, generator=generator))


def test_matches_scipy(dtype: torch.dtype, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 8, 6, 3, dtype=dtype)
    mask = torch.rand(8, 6, generator=generator) < 0.7
    mask[:, :3] = True
    values = AlignedHarmonic()(prediction, target, mask)
    motion = kabsch(prediction, target, mask)
    for b in range(8):
        p, t = (center(x[b][mask[b]].double()).numpy() for x in (prediction, target))
        rotation, root_sum = Rotation.align_vectors(p, t)
        expected = torch.tensor(rotation.as_matrix(), dtype=dtype)
        torch.testing.assert_close(motion.rotation[b], expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-11)
        assert float(values[b]) == pytest.approx(root_sum**2, rel=1e-5 if dtype == torch.float32 else 1e-11)


def test_matches_the_angle_in_two_dimensions(dtype: torch.dtype, rtol: float, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 5, 7, 2, dtype=dtype)
    p, t = center(prediction), center(target)
    angle = torch.atan2((t[..., 0] * p[..., 1] - t[..., 1] * p[..., 0]).sum(-1), (p * t).sum((-2, -1)))
    rotation = kabsch(prediction, target).rotation
    torch.testing.assert_close(rotation[:, 0, 0], angle.cos(), rtol=rtol, atol=10 * rtol)
    torch.testing.assert_close(rotation[:, 1, 0], angle.sin(), rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
def test_no_other_rigid_motion_is_closer(dim: int, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 1, 6, dim)
    best = AlignedHarmonic()(prediction, target)
    turned = target @ random_rotations(500, dim, generator, dtype=torch.float64).mT
    moved = turned - centroid(turned).unsqueeze(-2) + centroid(prediction).unsqueeze(-2)
    assert ((prediction - moved).square().sum((-2, -1)) >= best * (1 - 1e-12)).all()


def test_the_motion_recovers_a_moved_target(dtype: torch.dtype, rtol: float, generator: torch.Generator) -> None:
    target = torch.randn(4, 5, 3, dtype=dtype, generator=generator)
    rotation = random_rotations(4, 3, generator, dtype=dtype)
    shift = torch.randn(4, 1, 3, dtype=dtype, generator=generator)
    prediction = target @ rotation.mT + shift
    motion = kabsch(prediction, target)
    torch.testing.assert_close(motion.rotation, rotation, rtol=0, atol=10 * rtol)
    torch.testing.assert_close(motion(target), prediction, rtol=0, atol=10 * rtol)
    torch.testing.assert_close(align(prediction, target), prediction, rtol=0, atol=10 * rtol)
    assert (AlignedHarmonic()(prediction, target) < rtol**2 * 1000).all()


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_rotations_are_proper(dim: int, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 50, 5, dim)
    rotation = kabsch(prediction, target).rotation
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(dim, dtype=torch.float64).expand(50, -1, -1))
    improper = torch.linalg.det(kabsch(prediction, target, allow_reflection=True).rotation)
    assert (improper < 0).any()
    assert (improper > 0).any()


def test_mirror_images_cost_something_unless_allowed(dtype: torch.dtype, rtol: float) -> None:
    target = torch.tensor([CHIRAL], dtype=dtype)
    mirror = target * torch.tensor([-1, 1, 1])
    # Closed form: |p|^2 + |t|^2 - 2 (s_1 + s_2 - s_3), with s the eigenvalues of the target's inertia.
    spread = center(target)[0]
    s = torch.linalg.svdvals(spread).square()
    expected = 2 * s.sum() - 2 * (s[0] + s[1] - s[2])
    torch.testing.assert_close(AlignedHarmonic()(mirror, target)[0], expected, rtol=10 * rtol, atol=0)
    assert expected > 1
    assert float(AlignedHarmonic(allow_reflection=True)(mirror, target)) < 100 * rtol**2


DEGENERATE = {
    "one atom": [[1.0, 2.0, 3.0]],
    "two atoms": [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]],
    "collinear": [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [3.0, 6.0, 9.0], [-1.0, -2.0, -3.0]],
    "coplanar": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 1.0, 0.0]],
    "coincident": [[1.0, 1.0, 1.0]] * 4,
    "tetrahedron": [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]],
}


@pytest.mark.parametrize("points", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_samples(
    points: list[list[float]], dtype: torch.dtype, rtol: float, generator: torch.Generator
) -> None:
    target = torch.tensor([points], dtype=dtype)
    moved = target @ random_rotations(1, 3, generator, dtype=dtype).mT - 2
    assert float(AlignedHarmonic()(moved, target)) < 1e4 * rtol**2
    for prediction in (moved, target.clone(), torch.zeros_like(target), torch.randn(target.shape, dtype=dtype)):
        prediction.requires_grad_()
        motion = kabsch(prediction, target)
        assert float(torch.linalg.det(motion.rotation)) == pytest.approx(1, rel=1e-5)
        value = AlignedHarmonic()(prediction, target)
        (gradient,) = torch.autograd.grad(value.sum(), prediction)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_coplanar_mirror_images_are_rotations(dtype: torch.dtype, rtol: float) -> None:
    target = torch.tensor([DEGENERATE["coplanar"]], dtype=dtype)
    mirror = target * torch.tensor([-1, 1, 1])
    assert float(AlignedHarmonic()(mirror, target)) < 1e3 * rtol**2
    assert float(AlignedHarmonic()(mirror[..., :2], target[..., :2])) > 1


@pytest.mark.parametrize("allow_reflection", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_envelope_theorem_gives_the_gradient(dim: int, allow_reflection: bool, generator: torch.Generator) -> None:
    prediction, target = (x.requires_grad_() for x in pair(generator, 2, 5, dim))
    energy = AlignedHarmonic(allow_reflection=allow_reflection)
    assert torch.autograd.gradcheck(lambda p, t: energy(p, t), (prediction, target))


def test_the_rotation_is_a_constant_for_autograd(generator: torch.Generator) -> None:
    prediction, target = (x.requires_grad_() for x in pair(generator, 2, 5, 3))
    assert not kabsch(prediction, target).rotation.requires_grad


def test_masked_atoms_do_not_count(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 6, 3)
    mask = torch.tensor([[True, True, False, True, True, False]] * 2)
    expected = kabsch(prediction[:, mask[0]], target[:, mask[0]])
    prediction[~mask], target[~mask] = math.nan, math.inf
    torch.testing.assert_close(kabsch(prediction, target, mask), expected)
    assert not align(prediction, target, mask)[~mask].any()
    assert not center(target, mask)[~mask].any()
    torch.testing.assert_close(center(target, mask).sum(1), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(half: torch.dtype, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 6, 3, dtype=torch.float32)
    prediction, target = prediction.to(half), target.to(half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = kabsch(prediction, target)
    assert narrow.rotation.dtype == torch.float32
    torch.testing.assert_close(narrow, kabsch(prediction.float(), target.float()), rtol=0, atol=1e-6)


def test_bad_arguments() -> None:
    x = torch.randn(1, 3, 2)
    with pytest.raises(ValueError, match=r"dtype torch.float32, target has torch.float64"):
        kabsch(x, x.double())
    with pytest.raises(ValueError, match="target holds 1 atoms with a NaN"):
        kabsch(x, torch.tensor([[[0, 0], [0, math.nan], [1, 1]]]))
    with pytest.raises(ValueError, match="mask leaves sample 0 without a real atom"):
        kabsch(x, x, torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="n is 0"):
        random_rotations(0)
    with pytest.raises(ValueError, match="dim is -1"):
        random_rotations(3, -1)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_random_rotations_are_rotations(dim: int, dtype: torch.dtype, generator: torch.Generator) -> None:
    q = random_rotations(100, dim, generator, dtype=dtype)
    atol = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(q @ q.mT, torch.eye(dim, dtype=dtype).expand(100, -1, -1), rtol=0, atol=atol)
    torch.testing.assert_close(torch.linalg.det(q), torch.ones(100, dtype=dtype), rtol=0, atol=atol)
    again = random_rotations(100, dim, torch.Generator().manual_seed(0), dtype=dtype)
    assert torch.equal(q, again)


def test_random_rotations_are_uniform(generator: torch.Generator) -> None:
    n = 20_000
    q = random_rotations(n, 3, generator, dtype=torch.float64)
    trace = q.diagonal(dim1=1, dim2=2).sum(-1)
    # Haar measure on SO(3): the angle a has density (1 - cos a) / pi, hence <a> = pi/2 + 2/pi, <tr> = 0, <tr^2> = 1.
    angle = ((trace - 1) / 2).clamp(-1, 1).acos()
    assert float(angle.mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
    assert float(trace.mean()) == pytest.approx(0, abs=0.03)
    assert float(trace.square().mean()) == pytest.approx(1, abs=0.05)
    # Each entry is a coordinate of a point on the sphere: mean 0, mean square 1/3.
    torch.testing.assert_close(q.mean(0), torch.zeros(3, 3, dtype=torch.float64), rtol=0, atol=0.02)
    torch.testing.assert_close(q.square().mean(0), torch.full((3, 3), 1 / 3, dtype=torch.float64), rtol=0, atol=0.02)
    plane = random_rotations(n, 2, generator, dtype=torch.float64)
    turns = torch.atan2(plane[:, 1, 0], plane[:, 0, 0]).sort().values
    uniform = torch.linspace(-math.pi, math.pi, n, dtype=torch.float64)
    assert float((turns - uniform).abs().max()) < 0.08  # Kolmogorov-Smirnov, 2 pi * 1.8 / sqrt(n)


def test_samples_are_aligned_together_not_one_by_one(generator: torch.Generator) -> None:
    class Count(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for samples in (2, 200):
        prediction, target = torch.randn(2, samples, 5, 3, generator=generator)
        with Count() as count:
            AlignedHarmonic()(prediction.requires_grad_(), target).sum().backward()
        counts.append(count.operations)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_gradient_is_finite_where_the_best_rotation_is_not_unique(dim: int, dtype: torch.dtype) -> None:
    line = torch.zeros(1, 4, dim, dtype=dtype)
    line[0, :, 0] = torch.arange(4)
    mirrored = line.clone()
    mirrored[..., 0] *= -1
    cloud = torch.randn(1, 4, dim, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for prediction, target in ((line, line), (line, mirrored), (0 * line, line), (line, 0 * line), (cloud, -cloud)):
        prediction = prediction.clone().requires_grad_()
        value = AlignedHarmonic()(prediction, target)
        (gradient,) = torch.autograd.grad(value.sum(), prediction)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
