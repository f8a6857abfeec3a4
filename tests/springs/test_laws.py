import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from elf.springs import BondAware, Constant, Exponential, Inverse, InverseSquare, LennardJones, Morse, Spring, laws

FORMULAS: list[tuple[Spring, Callable[[float], float]]] = [
    (Constant(k=2.5), lambda r: 2.5),
    (Inverse(k=3), lambda r: 3 / r),
    (InverseSquare(k=3), lambda r: 3 / r**2),
    (Exponential(), lambda r: math.exp(-r)),
    (Exponential(k=42, length=2), lambda r: 42 * math.exp(-r / 2)),
    (Morse(depth=3, a=0.5), lambda r: 2 * 3 * 0.5**2),
    (LennardJones(eps=0.25), lambda r: 72 * 0.25 / r**2),
    (BondAware(k_bond=9, k_pair=4, cutoff=1.6), lambda r: 9 if r <= 1.6 else 4 / r**2),
]


@pytest.mark.parametrize(("spring", "formula"), FORMULAS, ids=[str(spring) for spring, _ in FORMULAS])
def test_formula(spring: Spring, formula: Callable[[float], float], dtype: torch.dtype, rtol: float) -> None:
    r = torch.tensor([[0.02, 0.7, 1.1], [1.59, 1.7, 30.0]], dtype=dtype)
    expected = torch.tensor([[formula(x) for x in row] for row in r.tolist()], dtype=dtype)
    torch.testing.assert_close(spring(r), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("spring", [spring for spring, _ in FORMULAS], ids=str)
def test_finite_with_finite_gradient_at_zero(spring: Spring, dtype: torch.dtype) -> None:
    r = torch.tensor([0.0, 1e-30], dtype=dtype, requires_grad=True)
    constants = spring(r)
    assert constants.isfinite().all()
    assert (constants > 0).all()
    if constants.requires_grad:
        assert torch.autograd.grad(constants.sum(), r)[0].isfinite().all()


def test_softening_starts_at_r_min() -> None:
    r = torch.tensor([0.0, 0.05, 0.1, 0.2])
    torch.testing.assert_close(Inverse(r_min=0.1)(r), torch.tensor([10.0, 10.0, 10.0, 5.0]))
    torch.testing.assert_close(InverseSquare(r_min=0.1)(r), torch.tensor([100.0, 100.0, 100.0, 25.0]))
    torch.testing.assert_close(LennardJones(r_min=0.1)(r), 72 * InverseSquare(r_min=0.1)(r))


def test_a_bond_ends_at_the_cutoff(dtype: torch.dtype) -> None:
    r = torch.tensor([1.0, 1.6, 1.625, 2.0], dtype=dtype)
    expected = torch.tensor([9.0, 9.0, 4 / 1.625**2, 1.0], dtype=dtype)
    torch.testing.assert_close(BondAware(k_bond=9, k_pair=4, cutoff=1.6)(r), expected)


def curvature(potential: Callable[[torch.Tensor], torch.Tensor], at: float) -> float:
    r_hat = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(potential(r_hat), r_hat, create_graph=True)
    assert slope.item() == pytest.approx(0, abs=1e-12)
    return float(torch.autograd.grad(slope, r_hat)[0])


@pytest.mark.parametrize("r", [0.9, 1.5, 4.0])
def test_app_a3_springs_are_curvatures_at_the_minimum(r: float) -> None:
    at = torch.tensor([r], dtype=torch.float64)
    morse = curvature(lambda r_hat: 3 * (1 - (-0.7 * (r_hat - r)).exp()) ** 2, r)
    assert float(Morse(depth=3, a=0.7)(at)) == pytest.approx(morse)
    lennard_jones = curvature(lambda r_hat: 0.4 * ((r / r_hat) ** 12 - 2 * (r / r_hat) ** 6), r)
    assert float(LennardJones(eps=0.4)(at)) == pytest.approx(lennard_jones)


@pytest.mark.parametrize("kind", [Constant, Inverse, InverseSquare, Exponential])
@pytest.mark.parametrize("bad", [0, -1.0, math.inf, math.nan])
def test_parameters_are_positive_numbers(kind: type[Spring], bad: float) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(k\) is .*greater than zero"):
        kind(k=bad)


def test_other_parameters_are_checked_too() -> None:
    for build in (
        lambda: Exponential(length=0),
        lambda: Morse(depth=-1),
        lambda: Morse(a=0),
        lambda: LennardJones(eps=0),
        lambda: BondAware(cutoff=-1.7),
        lambda: Inverse(r_min=0),
    ):
        with pytest.raises(ValueError, match="should be finite and greater than zero"):
            build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: LennardJones(eps=1e308),
        lambda: LennardJones(eps=1e30),
        lambda: Constant(1e39),
        lambda: Morse(a=1e200),
        lambda: InverseSquare(r_min=1e-30),
        lambda: Inverse(k=1e-300, r_min=1e300),
        lambda: BondAware(k_bond=1e31),
        lambda: BondAware(k_pair=2e30, cutoff=1.2),  # beyond 1e30 just past the cutoff, and at no power of ten
        lambda: Exponential(length=1e-300),
    ],
)
def test_what_single_precision_does_not_hold_is_refused_at_once(build: Callable[[], Spring]) -> None:
    with pytest.raises(ValueError, match=r"spring constants beyond .* float32 .* at most 1e\+30"):
        build()


def test_numbers_of_numpy_are_numbers() -> None:
    assert Exponential(np.float32(2), np.int64(3)) == Exponential(2.0, 3.0)
    assert repr(Constant(np.float64(2))) == "Constant(k=2.0)"
    with pytest.raises(TypeError, match=r"Constant\(k\) is True; it should be a number"):
        Constant(True)


def test_trust_is_not_inherited() -> None:
    class Mine(Exponential):
        def __call__(self, distances: torch.Tensor) -> torch.Tensor:
            return -distances

    class Vouched(Mine, trusted=True):
        def __call__(self, distances: torch.Tensor) -> torch.Tensor:
            return distances + 1

    assert laws.is_trusted(Exponential())
    assert laws.is_trusted(Vouched())
    assert not laws.is_trusted(Mine())
    assert not laws.is_trusted(lambda r: r)
    with pytest.raises(ValueError, match=r"springs answers distance .* with -"):
        laws.spring_constants(Mine(), torch.ones(2))


def test_untrusted_springs_may_answer_with_zero_and_with_several_numbers_but_not_with_infinity() -> None:
    r = torch.tensor([2.0, 0.5, 0.0])
    torch.testing.assert_close(laws.spring_constants(lambda r: 3 * r, r), torch.tensor([6.0, 1.5, 0.0]))
    with pytest.raises(ValueError, match=r"springs answers distance 0\.0 with inf"):
        laws.spring_constants(lambda r: 1 / r, r)


def test_springs_are_values() -> None:
    assert Exponential() == Exponential(k=1.0, length=1.0)
    assert len({Constant(), Constant(1.0), Constant(2.0)}) == 2
    assert set(laws.__all__) == {"Spring", *(type(spring).__name__ for spring, _ in FORMULAS)}
