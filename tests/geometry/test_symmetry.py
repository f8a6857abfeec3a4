import ast
import math
import re
from itertools import permutations

import pytest
import torch
from torch import Tensor

import elf
from elf.geometry import pairwise_distances
from elf.geometry.symmetry import _short_pairs, assert_invariant, automorphisms


def polygon(n: int) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return torch.stack([angle.cos(), angle.sin()], -1)


TETRAHEDRON = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
CUBE = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=torch.float64)
OCTAHEDRON = torch.cat([torch.eye(3), -torch.eye(3)]).double()
WATER = torch.tensor([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]], dtype=torch.float64)
BENZENE = torch.cat([1.39 * polygon(6), 2.48 * polygon(6)])
BIPYRAMID = torch.cat([torch.nn.functional.pad(polygon(3), (0, 1)), torch.tensor([[0, 0, 1.7], [0, 0, -1.7]])])
METHANE = torch.cat([torch.zeros(1, 3, dtype=torch.float64), TETRAHEDRON])
SCALENE = torch.tensor([[0, 0], [1, 0], [0.3, 2]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("points", "order"),
    [
        (torch.zeros(1, 3, dtype=torch.float64), 1),
        (torch.eye(2, dtype=torch.float64), 2),
        (SCALENE, 1),
        (polygon(3), 6),
        (polygon(4), 8),
        (polygon(4) * torch.tensor([1, 2]), 4),  # a rhombus
        (polygon(7), 14),
        (TETRAHEDRON, 24),
        (OCTAHEDRON, 48),
        (CUBE, 48),
        (WATER, 2),
        (BIPYRAMID, 12),
        (METHANE, 24),
        # D6h has 24 elements; reflection in the molecule's plane moves no atom, so they make 24 / 2 permutations.
        (BENZENE, 12),
        (torch.zeros(4, 3, dtype=torch.float64), 24),  # coincident atoms: all of S_4
    ],
)
def test_orders_from_group_theory(points: Tensor, order: int) -> None:
    distances = pairwise_distances(points)
    group = automorphisms(distances)
    assert group.shape == (order, len(points))
    assert group[0].tolist() == list(range(len(points)))
    for p in group:
        torch.testing.assert_close(distances[p][:, p], distances, rtol=0, atol=1e-3)


@pytest.mark.parametrize("points", [SCALENE, polygon(6), OCTAHEDRON, BIPYRAMID, WATER, METHANE])
def test_matches_brute_force(points: Tensor) -> None:
    distances = pairwise_distances(points)
    n = len(points)
    expected = [
        p
        for p in permutations(range(n))
        if all(abs(distances[p[i], p[j]] - distances[i, j]) < 1e-9 for i in range(n) for j in range(i))
    ]
    assert automorphisms(distances).tolist() == [list(p) for p in expected]


def test_labels_tell_atoms_apart() -> None:
    distances = pairwise_distances(METHANE)
    assert len(automorphisms(distances, labels=["C", "H", "H", "H", "H"])) == 24
    assert len(automorphisms(distances, labels=torch.tensor([6, 9, 1, 1, 1]))) == 6  # CH3F: C3v
    assert len(automorphisms(pairwise_distances(polygon(4)), labels=[0, 1, 0, 1])) == 4


def test_tolerance_is_about_distances(generator: torch.Generator) -> None:
    noisy = polygon(5) + 1e-4 * torch.randn(5, 2, dtype=torch.float64, generator=generator)
    assert len(automorphisms(pairwise_distances(noisy))) == 10
    assert len(automorphisms(pairwise_distances(noisy), tolerance=1e-7)) == 1
    assert len(automorphisms(pairwise_distances(noisy.float()))) == 10


def test_what_is_not_a_group_is_refused() -> None:
    # Sides 1, 1 + 0.8 t, 1 + 1.6 t: neighbours in this list look equal, the ends do not.
    sides = torch.tensor([[0, 1, 1.0008], [1, 0, 1.0016], [1.0008, 1.0016, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"at tolerance 0.001.*not a group"):
        automorphisms(sides, tolerance=1e-3)


def test_the_limit_is_an_error() -> None:
    distances = pairwise_distances(polygon(4))
    assert len(automorphisms(distances, limit=8)) == 8
    with pytest.raises(ValueError, match="more than 7 automorphisms"):
        automorphisms(distances, limit=7)


def test_bad_arguments() -> None:
    distances = pairwise_distances(polygon(4))
    with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
        automorphisms(distances[:2])
    with pytest.raises(ValueError, match="finite and symmetric"):
        automorphisms(distances.triu())
    with pytest.raises(ValueError, match=r"labels has shape \(3,\)"):
        automorphisms(distances, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="tolerance is 0"):
        automorphisms(distances, tolerance=0)


def samples(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, 3, 6, 3, dtype=dtype, generator=generator))


@pytest.mark.parametrize(
    ("energy", "group", "what"),
    [
        (elf.Harmonic(), ("rotations",), "the rotation .* of the prediction changes the value of sample"),
        (elf.Harmonic(), ("reflections",), "the reflection .* of the prediction"),
        (elf.Harmonic(), ("translations",), "the translation .* of the prediction"),
        (elf.Absolute(), ("rotations",), "the rotation"),
        (elf.AlignedHarmonic(), ("reflections",), "the reflection"),
        (lambda p, t, m: elf.PairEnergy()(p, t, m) + t[:, 0, 0], ("translations",), "the translation .* of the target"),
        (lambda p, t, m: elf.PairEnergy()(p, t, m) * math.nan, ("translations",), "to nan"),
    ],
)
def test_says_what_broke_invariance(energy: object, group: tuple[str], what: str, generator: torch.Generator) -> None:
    with pytest.raises(AssertionError, match=f"not invariant: .*{what}"):
        assert_invariant(energy, *samples(generator), group=group)


def test_the_worst_sample_and_the_shift_are_those_that_are_told(generator: torch.Generator) -> None:
    prediction, target = samples(generator)

    def energy(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        return a[:, 0, 0] * torch.tensor([0.0, 0.0, 1.0], dtype=a.dtype)

    with pytest.raises(AssertionError, match="of sample 2 from") as told:
        assert_invariant(energy, prediction, target, group=("translations",))
    shift, before, after = re.search(r"translation (\[.*\]) of .* from (\S+) to (\S+),", str(told.value)).groups()
    assert float(after) - float(before) == pytest.approx(ast.literal_eval(shift)[0], abs=1e-6)


def test_few_short_pairs_connect_a_row() -> None:
    row = torch.tensor([[0.0], [1.0], [2.5], [4.5]], dtype=torch.float64)
    assert _short_pairs(pairwise_distances(row).numpy(), 1e-3) == [(1, 0), (2, 1), (3, 2)]


def test_invariant_energies_pass(dtype: torch.dtype, generator: torch.Generator) -> None:
    prediction, target = samples(generator, dtype)
    mask = torch.rand(3, 6, generator=generator) < 0.8
    mask[:, 0] = True
    for energy in (elf.PairEnergy(), elf.PairEnergy(elf.springs.Inverse()), elf.AlignedHarmonic(allow_reflection=True)):
        assert_invariant(energy, prediction, target)
        assert_invariant(energy, prediction, target, mask)
    assert_invariant(elf.AlignedHarmonic(), prediction, target, group=("rotations", "translations"))


def test_given_permutations(generator: torch.Generator) -> None:
    target = polygon(4)[None]
    prediction = torch.randn(1, 4, 2, dtype=torch.float64, generator=generator)
    group = automorphisms(pairwise_distances(target[0]))
    assert_invariant(elf.PairEnergy(), prediction, target, permutations=group)
    with pytest.raises(AssertionError, match=r"the permutation \[1, 0, 2, 3\] of the prediction"):
        assert_invariant(elf.PairEnergy(), prediction, target, permutations=torch.tensor([[1, 0, 2, 3]]))


def test_unknown_group_elements(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="group is 'boosts'"):
        assert_invariant(elf.PairEnergy(), *samples(generator), group=("boosts",))


def test_changes_are_relative_to_the_value() -> None:
    x = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def large(a: torch.Tensor, b: torch.Tensor, mask: object = None) -> torch.Tensor:
        return 1e6 + a[:, 0, 0] - b[:, 0, 0]

    assert_invariant(large, x, x.flip(0), group=("translations",), tolerance=1e-4)
    with pytest.raises(AssertionError, match="not invariant: the translation"):
        assert_invariant(large, x, x.flip(0), group=("translations",), tolerance=1e-9)


def test_elements_turn_about_the_centroid_and_shift_by_the_size_of_the_target() -> None:
    x = 100 * torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = x.flip(0) + 300
    middle = target.mean(1, keepdim=True)
    seen: list[torch.Tensor] = []

    def about_the_middle(a: torch.Tensor, b: torch.Tensor, mask: object = None) -> torch.Tensor:
        seen.append(a)
        return (a - middle).square().sum((1, 2)) + (b - middle).square().sum((1, 2))

    assert_invariant(about_the_middle, x, target, group=("rotations", "reflections"))
    seen.clear()
    assert_invariant(about_the_middle, x, target, group=("translations",), samples=50, tolerance=1e9)
    shift = torch.stack([(a - x)[0, 0] for a in seen[1::2]]).square().mean().sqrt()
    size = (target - middle).square().sum(-1).mean().sqrt()
    assert float(shift) == pytest.approx(float(size), rel=0.25)
