"""Bucketed batches: the contract of shuffled_batches, with less padding."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

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


def test_integers_may_be_numpys() -> None:
    sizes = sizes_of(20)
    for mine, numpys in (
        (shuffled_batches(20, 4, 3), shuffled_batches(np.int64(20), np.int32(4), np.uint8(3))),
        (bucketed_batches(sizes, 4, 3, pool=2), bucketed_batches(sizes, np.int64(4), np.int64(3), pool=np.int64(2))),
    ):
        assert all(torch.equal(mine(step), numpys(np.int64(step))) for step in range(12))


@pytest.mark.parametrize("value", [4.0, True, "4", None, torch.tensor(4)])
def test_what_is_no_integer_is_refused(value: object) -> None:
    calls = {
        "n": lambda: shuffled_batches(value, 4, 0),
        "batch_size": lambda: bucketed_batches(sizes_of(9), value, 0),
        "seed": lambda: shuffled_batches(9, 4, value),
        "pool": lambda: bucketed_batches(sizes_of(9), 4, 0, pool=value),
        "step": lambda: shuffled_batches(9, 4, 0)(value),
    }
    for name, call in calls.items():
        # The checker of annotations, on in tests, may speak before the function does.
        with pytest.raises((TypeError, TypeCheckError), match=f"(?s){name}"):
            call()


def test_empty_data_and_negative_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="n is 0; it should be at least 1"):
        bucketed_batches(torch.zeros(0, dtype=torch.int64), 1, 0)
    with pytest.raises(ValueError, match="step is -1"):
        shuffled_batches(9, 4, 0)(-1)
    with pytest.raises(ValueError, match=r"batch_size is 9; .*n=8"):
        bucketed_batches(sizes_of(8), 9, 0)


def test_the_order_is_that_of_every_committed_result() -> None:
    sizes = torch.tensor([3, 1, 2, 5, 4, 6, 8, 7])
    bucketed, shuffled = bucketed_batches(sizes, 2, 0, pool=2), shuffled_batches(8, 2, 0)
    assert [bucketed(step).tolist() for step in range(4)] == [[3, 6], [1, 0], [2, 4], [5, 7]]
    assert [shuffled(step).tolist() for step in range(4)] == [[2, 4], [3, 6], [5, 0], [1, 7]]
