"""Batches of samples of similar size: less padding, the same samples an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from elf.checks import require_count


def bucketed_batches(
    sizes: Tensor,
    batch_size: int,
    seed: int,
    rank: int | None = None,
    world_size: int | None = None,
    *,
    pool: int = 50,
) -> Callable[[int], Int[Tensor, " batch"]]:
    """Indices of the batch of each step, each batch from samples of similar size (`padding_share`: what it saves).

    The contract is that of `elf.training.shuffled_batches`: the answer depends on the step alone, an epoch shows every
    sample at most once, the n % batch_size samples left over (at random) are dropped, the next epoch is drawn anew, and
    rank r of w takes every w-th index of the batch, which also gives all processes batches of about the same width.

    An epoch's random order is cut into pools of `pool` batches; each pool is sorted by size (equal sizes stay in random
    order) and cut into batches, which come in random order. A batch is therefore no independent draw: the sizes in it
    are correlated, the samples of one size are not. Larger pools mean less padding and more of that correlation.

    Args:
        sizes: atoms of each sample, (n,) integers.
        batch_size: samples a step, over all processes.
        seed: seed of the epochs' orders.
        rank, world_size: of this process; None takes them from the running process group.
        pool: batches that are sorted together; 1 sorts nothing across batches, and saves nothing.

    Returns:
        A function of the step that returns a long tensor (batch_size // world_size,) on the CPU.

    Raises:
        ValueError: batch_size not in 1..n, or not a multiple of the world size; a negative seed; a size below 1.
    """
    if sizes.ndim != 1 or sizes.is_floating_point():
        raise ValueError(f"sizes is {sizes.dtype} {tuple(sizes.shape)}; it should be one integer a sample, (n,)")
    n = len(sizes)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size is {batch_size}; it should be between 1 and the number of samples n={n}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it should be a non-negative integer")
    require_count("pool", pool)
    atoms = sizes.cpu().numpy()
    if atoms.min() < 1:
        raise ValueError(f"sizes holds {atoms.min()} at sample {atoms.argmin()}; every sample should have an atom")
    per_epoch = n // batch_size
    latest: tuple[int, Tensor] | None = None

    def epoch_batches(epoch: int) -> Tensor:
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(n)[: per_epoch * batch_size]
        # Sorting by (pool, size) at once: the pool's number is the leading digit of the key.
        pools = np.arange(order.size) // (pool * batch_size)
        order = order[np.lexsort((atoms[order], pools))]
        return torch.from_numpy(order.reshape(per_epoch, batch_size)[random.permutation(per_epoch)])

    def batch(step: int) -> Tensor:
        nonlocal latest
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        here = rank if rank is not None else torch.distributed.get_rank() if running else 0
        world = world_size if world_size is not None else torch.distributed.get_world_size() if running else 1
        if batch_size % world or not 0 <= here < world:
            raise ValueError(
                f"batch_size={batch_size}, rank={here}, world_size={world}: the batch should be a multiple of "
                "world_size, and rank in 0..world_size-1"
            )
        epoch, place = divmod(step, per_epoch)
        if latest is None or latest[0] != epoch:
            latest = epoch, epoch_batches(epoch)
        return latest[1][place][here::world]

    return batch


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
