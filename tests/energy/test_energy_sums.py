"""Energies add and scale: the sum is an energy like any other, and each part keeps its own normalisation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import elf
from elf.energy.base import Sum


def samples(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    prediction, target = torch.randn(2, 3, 6, 3, dtype=torch.float64, generator=generator)
    return prediction.requires_grad_(), target, torch.arange(6) < torch.tensor([[6], [5], [4]])


def parts() -> list[elf.Energy]:
    return [elf.PairEnergy(normalize="atoms"), elf.HeightEnergy(), elf.Harmonic(normalize="pairs")]


def test_a_sum_is_the_sum_of_its_parts(generator: torch.Generator) -> None:
    x, y, mask = samples(generator)
    pair, height, trap = parts()
    energy = pair + 0.1 * height + trap * 3
    batch = torch.arange(3).repeat_interleave(torch.tensor([6, 5, 4]))
    for arguments, options in (((x, y), {}), ((x, y, mask), {}), ((x[mask], y[mask]), {"batch": batch})):
        values = [part(*arguments, **options) for part in (pair, height, trap)]
        expected = values[0] + 0.1 * values[1] + 3 * values[2]
        value = energy(*arguments, **options)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        gradients = [torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in (value, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)
    assert energy.state_dict() == {}
    assert list(energy.parameters()) == []


def test_sums_of_sums_are_flat(generator: torch.Generator) -> None:
    x, y, _ = samples(generator)
    pair, height, trap = parts()
    energy = 2 * (pair + 0.5 * (height + 4 * trap)) + pair
    assert isinstance(energy, Sum)
    assert energy.weights == (2, 1, 4, 1)
    torch.testing.assert_close(energy(x, y), 3 * pair(x, y) + height(x, y) + 4 * trap(x, y))
    torch.testing.assert_close(sum(parts())(x, y), pair(x, y) + height(x, y) + trap(x, y))
    assert sum([pair]) is pair
    assert isinstance(np.float64(0.5) * pair, Sum)
    energy.normalize = "atoms"  # of the whole: it is then one term of a further sum
    torch.testing.assert_close((energy + trap)(x, y), energy(x, y) + trap(x, y))


def test_repr_reads() -> None:
    assert repr(elf.Harmonic() + 0.1 * elf.Absolute("atoms")) == (
        "Harmonic(normalize='sum') + 0.1 * Absolute(normalize='atoms')"
    )


def test_derivatives_and_transforms(generator: torch.Generator) -> None:
    x, y, _ = samples(generator)
    pair, height, _ = parts()
    energy = pair + 0.1 * height
    each = torch.func.vmap(torch.func.grad(lambda p, t: energy(p[None], t[None])[0]))(x.detach(), y)
    (gradient,) = torch.autograd.grad(energy(x, y).sum(), x)
    torch.testing.assert_close(each, gradient)
    hessians = [
        torch.autograd.functional.hessian(lambda p, e=e: e(p, y).sum(), x.detach()) for e in (energy, pair, height)
    ]
    torch.testing.assert_close(hessians[0], hessians[1] + 0.1 * hessians[2])


def test_options_go_to_the_parts_that_use_them(generator: torch.Generator) -> None:
    x, y, mask = samples(generator)
    pair, height, trap = parts()
    k = torch.ones(6, 6, dtype=torch.float64)
    torch.testing.assert_close((pair + height)(x, y, mask, k=k), pair(x, y, mask, k=k) + height(x, y, mask))
    with pytest.raises(ValueError, match="k is given; HeightEnergy has no spring constants"):
        (height + trap)(x, y, k=k)
    # A cell that some parts do not see would be no periodic energy.
    with pytest.raises(ValueError, match="cell is given; HeightEnergy has no periodic distances"):
        (pair + height)(x, y, cell=torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda e: e + 1, TypeError, "an energy is added to 1; it should be another energy"),
        (lambda e: "x" + e, TypeError, "an energy is added to 'x'"),
        (lambda e: e * "x", TypeError, "weight"),
        (lambda e: torch.ones(()) * e, TypeError, "weight"),
        (lambda e: e * e, TypeError, "weight"),
        (lambda e: -1 * e, ValueError, "weight is -1; it should be finite and not negative"),
        (lambda e: math.nan * e, ValueError, "weight is nan"),
        (lambda e: e + elf.PairEnergy(nonfinite="nan"), ValueError, "nonfinite is 'error' in one part and 'nan'"),
    ],
)
def test_bad_operands(make: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make(elf.Harmonic())
