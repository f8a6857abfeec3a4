"""Squared MMD against its definition, summed pair by pair."""

from __future__ import annotations

import math

import pytest
import torch

from elf.metrics.mmd import compare, squared_mmd


def by_definition(first: list[float], second: list[float]) -> float:
    pooled = first + second
    pairs = [(a - b) ** 2 for i, a in enumerate(pooled) for j, b in enumerate(pooled) if i != j]
    h = sum(pairs) / len(pairs) / 4

    def mean(xs, ys):
        return sum(math.exp(-((x - y) ** 2) / (2**i * h)) for i in range(5) for x in xs for y in ys) / (
            len(xs) * len(ys)
        )

    return mean(first, first) + mean(second, second) - 2 * mean(first, second)


def test_equals_the_definition(generator, dtype):
    first = torch.randn(17, generator=generator, dtype=dtype)
    second = 1.5 * torch.randn(9, generator=generator, dtype=dtype) + 0.3
    wanted = by_definition(first.tolist(), second.tolist())
    assert squared_mmd(first, second) == pytest.approx(wanted, rel=1e-6)
    assert squared_mmd(first, second, chunk_size=4) == pytest.approx(wanted, rel=1e-6)
    assert squared_mmd(second, first) == pytest.approx(wanted, rel=1e-6)


def test_does_not_depend_on_the_unit(generator):
    first, second = torch.randn(40, generator=generator), torch.randn(30, generator=generator) + 1
    assert squared_mmd(180 * first + 7, 180 * second + 7) == pytest.approx(squared_mmd(first, second), rel=1e-4)


def test_zero_for_equal_sets_and_growing_with_the_shift(generator):
    sample = torch.randn(300, generator=generator)
    assert squared_mmd(sample, sample.flip(0)) == pytest.approx(0, abs=1e-12)
    assert squared_mmd(torch.ones(4), torch.ones(3)) == 0
    shifts = [squared_mmd(sample, sample + shift) for shift in (0.1, 0.5, 2.0, 10.0)]
    assert shifts == sorted(shifts)
    assert 0 < shifts[0] < 0.02
    assert shifts[-1] < 10


def test_the_bias_of_equal_distributions_falls_as_one_over_n(generator):
    def mean_of(n):
        draws = torch.randn(60, 2, n, generator=generator)
        return sum(squared_mmd(a, b) for a, b in draws) / 60

    assert mean_of(400) / mean_of(100) == pytest.approx(1 / 4, rel=0.35)


def test_compare_types(generator):
    first = {"a": torch.randn(50, generator=generator), "b": torch.ones(3), "c": torch.ones(2)}
    second = {"a": first["a"].clone(), "b": torch.zeros(3)}
    result = compare(first, second, ("a", "b", "c", "d"))
    assert (result["a"], result["c"], result["d"], result["missing"]) == (pytest.approx(0, abs=1e-12), None, None, 2)
    assert result["mean"] == pytest.approx(result["b"] / 2)
    assert compare({}, second, ("a",))["mean"] is None
    thin = [
        compare({"a": torch.arange(500.0)}, {"a": torch.arange(9.0)}, ("a",), limit=5, seed=s)["a"] for s in (1, 1, 2)
    ]
    assert thin[0] == thin[1] != thin[2]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (torch.ones(2, 2), r"first has shape \(2, 2\)"),
        (torch.ones(0), r"first has shape \(0,\)"),
        (torch.tensor([1.0, torch.nan]), "first holds 1 values that are not finite"),
    ],
)
def test_errors(first, message):
    with pytest.raises(ValueError, match=message):
        squared_mmd(first, torch.ones(2))


def test_compare_errors():
    with pytest.raises(TypeError, match=r"types holds tensor\(True\); it should hold strings"):
        getattr(compare, "__wrapped__", compare)({}, {}, torch.tensor([True, False]))  # without the tests' type checks
    with pytest.raises(ValueError, match="types is empty"):
        compare({}, {}, ())
    with pytest.raises(ValueError, match="limit is 0"):
        compare({}, {}, ("a",), limit=0)
