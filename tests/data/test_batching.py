"""Bucketed batches: the contract of shuffled_batches, with less padding."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elf.data.batching import bucketed_batches, padding_share
from elf.training import shuffled_batches


def sizes_of(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 30, (n,), generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 9), st.integers(0, 99))
def test_an_epoch_shows_each_sample_at_most_once(n: int, batch_size: int, pool: int, seed: int) -> None:
    batch_size = min(batch_size, n)
    rows = bucketed_batches(sizes_of(n), batch_size, seed, pool=pool)
    steps = n // batch_size
    epoch = torch.stack([rows(step) for step in range(steps)])
    assert epoch.shape == (steps, batch_size)
    assert epoch.dtype == torch.int64
    assert len(epoch.unique()) == epoch.numel()
    assert 0 <= int(epoch.min()) <= int(epoch.max()) < n
    # The answer depends on the step alone, in whatever order it is asked for.
    again = bucketed_batches(sizes_of(n), batch_size, seed, pool=pool)
    later = again(steps)
    assert torch.equal(again(steps - 1), epoch[-1])
    assert torch.equal(rows(steps), later)


def test_batches_of_an_epoch_do_not_overlap_in_size() -> None:
    sizes = sizes_of(1000)
    rows = bucketed_batches(sizes, 50, 0, pool=20)
    ranges = sorted((int(sizes[rows(s)].min()), int(sizes[rows(s)].max())) for s in range(20))
    assert all(low[1] <= high[0] for low, high in pairwise(ranges))
    # ... while batches come in no order of size, and another epoch pairs other samples.
    widths = [int(sizes[rows(s)].max()) for s in range(20)]
    assert widths != sorted(widths)
    assert {tuple(sorted(rows(s).tolist())) for s in range(20)}.isdisjoint(
        tuple(sorted(rows(s).tolist())) for s in range(20, 40)
    )


def test_padding_shrinks_with_the_pool() -> None:
    sizes = sizes_of(5000)
    shares = [
        padding_share(sizes, map(bucketed_batches(sizes, 32, 0, pool=pool), range(156))) for pool in (1, 5, 20, 156)
    ]
    assert shares == sorted(shares, reverse=True)
    plain = padding_share(sizes, map(shuffled_batches(5000, 32, 0), range(156)))
    assert shares[0] == pytest.approx(plain, rel=0.05)
    assert shares[2] < 0.1 * plain


def test_padding_share_by_hand() -> None:
    sizes = torch.tensor([1, 2, 3, 4])
    batches = [torch.tensor([0, 3]), torch.tensor([1, 2])]
    assert padding_share(sizes, batches) == pytest.approx(4 / 14)
    with pytest.raises(ValueError, match="batches is empty"):
        padding_share(sizes, [])


def test_processes_share_a_batch_evenly() -> None:
    sizes = sizes_of(100)
    whole = bucketed_batches(sizes, 8, 3)
    parts = [bucketed_batches(sizes, 8, 3, rank, 4) for rank in range(4)]
    for step in (0, 5, 30):
        together = torch.stack([part(step) for part in parts], 1).flatten()
        assert torch.equal(together, whole(step))
    with pytest.raises(ValueError, match="batch_size=8, rank=3, world_size=3"):
        bucketed_batches(sizes, 8, 3, 3, 3)(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(4), 2, 0), r"sizes is torch.float32 \(4,\)"),
        ((torch.tensor([3, 0, 2]), 2, 0), "sizes holds 0 at sample 1"),
        ((torch.tensor([3, 1, 2]), 4, 0), "batch_size is 4"),
        ((torch.tensor([3, 1, 2]), 2, -1), "seed is -1"),
    ],
)
def test_bad_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bucketed_batches(*arguments)
    with pytest.raises(ValueError, match="pool is 0"):
        bucketed_batches(torch.tensor([3, 1]), 1, 0, pool=0)
