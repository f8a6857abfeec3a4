"""Which samples make the batch of a step: a function of the step alone, for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from elf.checks import require_count, require_seed

Order = Int[np.ndarray, " used"]
"""An epoch's samples in the order in which they are shown, batch after batch."""


def process_rank() -> tuple[int, int]:
    """(rank, world size) of this process; (0, 1) when training is not distributed."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)


def shuffled_batches(
    n: SupportsIndex,
    batch_size: SupportsIndex,
    seed: SupportsIndex,
    rank: int | None = None,
    world_size: int | None = None,
) -> Callable[[SupportsIndex], Int[Tensor, " batch"]]:
    """Indices of the batch of each step: one random permutation of range(n) an epoch.

    The answer depends on the step alone, so that a resumed run sees the same batches. The n % batch_size samples left
    at the end of an epoch are dropped; the next epoch has another permutation. `batch_size` counts all processes:
    rank r of w takes every w-th index of the batch, so that the mean of the processes' mean losses is the mean over
    the batch.

    Args:
        n: number of samples.
        batch_size: samples a step, over all processes.
        seed: seed of the permutations.
        rank, world_size: of this process; None takes them from the running process group.

    Returns:
        A function of the step that returns a long tensor (batch_size // world_size,) on the CPU.

    Raises:
        ValueError: batch_size not in 1..n, or not a multiple of the world size; a negative seed or step.
        TypeError: something that is no integer.
    """
    return _batches(n, batch_size, seed, rank, world_size, lambda order, random: order)


def _batches(
    n: SupportsIndex,
    batch_size: SupportsIndex,
    seed: SupportsIndex,
    rank: int | None,
    world_size: int | None,
    arrange: Callable[[Order, np.random.Generator], Order],
) -> Callable[[SupportsIndex], Int[Tensor, " batch"]]:
    """Cuts what `arrange` makes of an epoch's random order into batches, and gives each process its share of them."""
    n, size, seed = require_count("n", n), require_count("batch_size", batch_size), require_seed("seed", seed)
    if size > n:
        raise ValueError(f"batch_size is {size}; it should be between 1 and the number of samples n={n}")
    per_epoch = n // size
    latest: tuple[int, Tensor] | None = None

    def batch(step: SupportsIndex) -> Tensor:
        nonlocal latest
        here, world = process_rank()
        here, world = (here if rank is None else rank), (world if world_size is None else world_size)
        if size % world or not 0 <= here < world:
            raise ValueError(
                f"batch_size={size}, rank={here}, world_size={world}: the batch should be a multiple of world_size, "
                "and rank in 0..world_size-1"
            )
        epoch, place = divmod(require_seed("step", step), per_epoch)
        if latest is None or latest[0] != epoch:
            random = np.random.default_rng([seed, epoch])
            order = random.permutation(n)[: per_epoch * size]
            latest = epoch, torch.from_numpy(arrange(order, random)).view(per_epoch, size)
        return latest[1][place][here::world]

    return batch


def bucketed_batches(
    sizes: Tensor,
    batch_size: SupportsIndex,
    seed: SupportsIndex,
    rank: int | None = None,
    world_size: int | None = None,
    *,
    pool: SupportsIndex = 50,
) -> Callable[[SupportsIndex], Int[Tensor, " batch"]]:
    """Indices of the batch of each step, each batch from samples of similar size (`padding_share`: what it saves).

    The contract and the arguments are those of `shuffled_batches`; here each process also gets batches of about the
    same width, and the samples left over at the end of an epoch are random ones.

    An epoch's random order is cut into pools of `pool` batches; each pool is sorted by size (equal sizes stay in random
    order) and cut into batches, which come in random order. A batch is therefore no independent draw: the sizes in it
    are correlated, the samples of one size are not. Larger pools mean less padding and more of that correlation.

    Args:
        sizes: atoms of each sample, (n,) integers.
        pool: batches that are sorted together; 1 sorts nothing across batches, and saves nothing.

    Raises:
        ValueError: as in `shuffled_batches`; a size below 1.
    """
    if sizes.ndim != 1 or sizes.is_floating_point():
        raise ValueError(f"sizes is {sizes.dtype} {tuple(sizes.shape)}; it should be one integer a sample, (n,)")
    size, together, atoms = require_count("batch_size", batch_size), require_count("pool", pool), sizes.cpu().numpy()
    if atoms.size and atoms.min() < 1:
        raise ValueError(f"sizes holds {atoms.min()} at sample {atoms.argmin()}; every sample should have an atom")

    def arrange(order: Order, random: np.random.Generator) -> Order:
        # Sorting by (pool, size) at once: the pool's number is the leading digit of the key.
        pools = np.arange(order.size) // (together * size)
        rows = order[np.lexsort((atoms[order], pools))].reshape(-1, size)
        return rows[random.permutation(len(rows))].reshape(-1)

    return _batches(len(sizes), size, seed, rank, world_size, arrange)


def padding_share(sizes: Int[Tensor, " n"], batches: Iterable[Int[Tensor, " batch"]]) -> float:
    """The share of slots that hold no atom when each batch is padded to its largest sample: 0 is none.

    Args:
        sizes: atoms of each sample.
        batches: indices of the samples of each batch, such as `map(bucketed_batches(...), range(steps))`.
    """
    slots = filled = 0
    for indices in batches:
        chosen = sizes[indices]
        slots += len(indices) * int(chosen.max())
        filled += int(chosen.sum())
    if not slots:
        raise ValueError("batches is empty; it should hold at least one batch")
    return 1 - filled / slots
