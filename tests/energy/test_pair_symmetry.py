"""Prop. 4.2 and Cor. 4.3 of arXiv:2511.02087, and what breaks where their conditions do not hold."""

import math

import pytest
import torch
from torch import Tensor

from elf import AlignedHarmonic, Harmonic, PairEnergy, springs
from elf.geometry import pairwise_distances, random_rotations
from elf.geometry.symmetry import assert_invariant, automorphisms

SQUARE = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
TETRAHEDRON = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
CHIRAL = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=torch.float64)
EVERY = [
    springs.Constant(),
    springs.Inverse(),
    springs.InverseSquare(),
    springs.Exponential(),
    springs.LennardJones(),
    springs.BondAware(),
]


@pytest.mark.parametrize("spring", EVERY, ids=str)
def test_prop_4_2(spring: springs.Spring, dtype: torch.dtype, generator: torch.Generator) -> None:
    for points in (SQUARE, TETRAHEDRON):
        target = points[None].to(dtype)
        prediction = torch.randn(target.shape, dtype=dtype, generator=generator)
        group = automorphisms(pairwise_distances(points))
        assert_invariant(PairEnergy(spring), prediction, target, permutations=group, generator=generator)


def test_a_permutation_that_is_no_automorphism_changes_the_value(generator: torch.Generator) -> None:
    prediction = torch.randn(1, 4, 2, dtype=torch.float64, generator=generator)
    swap = [1, 0, 2, 3]  # makes a side of the square a diagonal
    assert swap not in automorphisms(pairwise_distances(SQUARE)).tolist()
    before = PairEnergy()(prediction, SQUARE[None])
    assert not torch.isclose(PairEnergy()(prediction[:, swap], SQUARE[None]), before, rtol=0.01)
    assert not torch.isclose(PairEnergy()(prediction, SQUARE[None, swap]), before, rtol=0.01)


def test_relabelling_both_sides_is_always_free(generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 3, 6, 3, dtype=torch.float64, generator=generator)
    order = torch.randperm(6, generator=generator)
    energy = PairEnergy()
    torch.testing.assert_close(energy(prediction[:, order], target[:, order]), energy(prediction, target))


def test_mean_squared_error_is_not_invariant(generator: torch.Generator) -> None:
    target = torch.randn(2, 5, 3, generator=generator)
    rotated = target @ random_rotations(1, 3, generator).mT
    assert (Harmonic()(rotated, target) > 0.1).all()
    assert (PairEnergy()(rotated, target) < 1e-10).all()
    with pytest.raises(AssertionError, match="the rotation"):
        assert_invariant(Harmonic(), torch.randn(2, 5, 3, generator=generator), target)


def test_mirror_images_cost_nothing() -> None:
    mirror = CHIRAL * torch.tensor([-1, 1, 1])
    assert float(AlignedHarmonic()(mirror[None], CHIRAL[None])) > 1
    assert float(PairEnergy()(mirror[None], CHIRAL[None])) == 0


def relax(energy: PairEnergy, start: Tensor, target: Tensor) -> Tensor:
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = energy(x, target).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return x.detach()


def test_cor_4_3_minimisers_of_the_complete_graph_are_the_orbit(generator: torch.Generator) -> None:
    target = torch.randn(1, 5, 3, dtype=torch.float64, generator=generator)
    energy = PairEnergy(springs.Constant())
    found = []
    for _ in range(12):
        x = relax(energy, torch.randn(1, 5, 3, dtype=torch.float64, generator=generator), target)
        if float(energy(x, target)) < 1e-18:  # a global minimum, not a local one
            found.append(x)
            assert float(AlignedHarmonic(allow_reflection=True)(x, target)) < 1e-15
    handed = [float(AlignedHarmonic()(x, target)) < 1e-15 for x in found]
    assert True in handed
    assert False in handed


def test_an_incomplete_graph_has_minimisers_outside_the_orbit() -> None:
    sides = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    angle = math.pi / 3
    rhombus = torch.tensor([[0, 0], [1, 0], [1 + math.cos(angle), math.sin(angle)], [math.cos(angle), math.sin(angle)]])
    rhombus = rhombus.double()[None]
    flexible = PairEnergy(springs.Constant(), edges=sides)
    assert float(flexible(rhombus, SQUARE[None])) == pytest.approx(0, abs=1e-12)
    assert float(PairEnergy(springs.Constant())(rhombus, SQUARE[None])) > 0.1
    assert float(AlignedHarmonic(allow_reflection=True)(rhombus, SQUARE[None])) > 0.1
    # One diagonal makes it rigid, but a triangle still folds over: not globally rigid.
    braced = PairEnergy(springs.Constant(), edges=torch.cat([sides, torch.tensor([[0], [2]])], 1))
    folded = torch.stack([SQUARE[0], SQUARE[1], SQUARE[2], SQUARE[1]])[None]
    assert float(braced(rhombus, SQUARE[None])) > 0.01
    assert float(braced(folded, SQUARE[None])) == 0
    assert float(PairEnergy(springs.Constant())(folded, SQUARE[None])) > 1
