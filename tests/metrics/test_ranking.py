import math

import pytest
import torch
from scipy.stats import spearmanr

from elf.metrics.ranking import bootstrap_interval, rank_correlation


def test_scipys_spearman_with_and_without_ties(dtype, generator):
    first = torch.randn(4, 30, generator=generator, dtype=dtype)
    second = first + torch.randn(4, 30, generator=generator, dtype=dtype)
    for a, b in ((first, second), ((first * 2).round(), (second * 2).round())):
        expected = torch.tensor([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])
        torch.testing.assert_close(rank_correlation(a, b), expected.double())


def test_only_the_order_counts(dtype):
    x = torch.linspace(-2, 3, 12, dtype=dtype)
    assert float(rank_correlation(x, x.exp())) == pytest.approx(1)
    assert float(rank_correlation(x, -(x**3))) == pytest.approx(-1)
    assert float(rank_correlation(x, (x - 0.5).square())) < 0.9


def test_rounding_noise_is_not_a_ranking(generator):
    truth = torch.randn(50, generator=generator, dtype=torch.float64)
    flat = 3 + 1e-13 * truth
    assert float(rank_correlation(flat, truth)) == 0
    assert float(rank_correlation(flat, truth, tolerance=0.0)) > 0.9


def test_broadcasts(generator):
    first, second = torch.randn(3, 1, 9, generator=generator), torch.randn(4, 9, generator=generator)
    assert rank_correlation(first, second).shape == (3, 4)


def test_bootstrap_interval_is_the_normal_one_for_many_values(generator):
    values = 2 + torch.randn(400, generator=generator, dtype=torch.float64)
    low, high = bootstrap_interval(values, resamples=4000)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)
    narrow = bootstrap_interval(values, level=0.5, resamples=4000)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)


def test_bad_arguments():
    x = torch.arange(4.0)
    with pytest.raises(ValueError, match="1 items"):
        rank_correlation(x[:1], x[:1])
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation(x, x / 0)
    with pytest.raises(ValueError, match="level is 1"):
        bootstrap_interval(x, level=1.0)
    with pytest.raises(ValueError, match="empty"):
        bootstrap_interval(x[:0])
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval(x, resamples=0)
