"""Time and memory of a loss against the number of points: pair energies dense and sparse, MSE, Kabsch (Table 11).

The dense pair energy comes twice: as the formula is usually written, by broadcasting ("plain"), and as this package
computes it ("dense", see `elf.energy.one_pass`): the same time law with a smaller factor, and memory that does not
grow as the square.

Value and gradient with respect to the prediction, one sample in three dimensions, float32. Time is the processor time
of one thread, so that other work on the machine does not count; memory is the peak of tensors alive beyond the inputs
(scratch space inside single operations and what the allocator holds back come on top).
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from elf.energy import AlignedHarmonic, Energy, Harmonic, PairEnergy
from elf.geometry.graphs import random_regular_edges
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment, grid
from experiments.framework.tables import text_table


@final
class BroadcastPairEnergy(Energy):
    """Eq. 7 with exponential springs as published code tends to have it, for comparison: everything at once.

    Differences of prediction and target, and their squares, are (B, N, N, D); masks are dense, (B, N, N); the sum runs
    over ordered pairs, with a factor 1/2; a small constant keeps the square root's gradient finite.
    """

    def _energy(
        self,
        prediction: Float[Tensor, "batch atoms dim"],
        target: Float[Tensor, "batch atoms dim"],
        mask: Bool[Tensor, "batch atoms"] | None,
    ) -> Float[Tensor, " batch"]:
        mask = torch.ones_like(prediction[..., 0], dtype=torch.bool) if mask is None else mask
        return broadcast_pair_energy(prediction, target, mask)


def broadcast_pair_energy(
    prediction: Float[Tensor, "batch atoms dim"],
    target: Float[Tensor, "batch atoms dim"],
    mask: Bool[Tensor, "batch atoms"],
) -> Float[Tensor, " batch"]:
    """See `BroadcastPairEnergy`; this is the bare formula, without any check of arguments."""
    pairs = (mask[:, :, None] & mask[:, None, :]).to(prediction.dtype)
    difference = prediction[:, :, None] - prediction[:, None]
    rest_difference = target[:, :, None] - target[:, None]
    distance = (difference.square().sum(-1) + 1e-12).sqrt()
    rest = (rest_difference.square().sum(-1) + 1e-12).sqrt()
    return 0.5 * ((-rest).exp() * (rest - distance).square() * pairs).sum((1, 2))


LOSSES: dict[str, Callable[[int, int], Energy]] = {
    "mse": lambda points, seed: Harmonic(),
    "kabsch": lambda points, seed: AlignedHarmonic(),
    "plain": lambda points, seed: BroadcastPairEnergy(),
    "dense": lambda points, seed: PairEnergy(),
    "sparse": lambda points, seed: PairEnergy(edges=random_regular_edges(points, 6, seed, method="switching")),
}
PROBE = {"plain": 300, "dense": 3_000}
"""For the losses whose time is quadratic, the number of points that tells what more of them will take."""


@dataclass(frozen=True)
class Settings:
    """Sizes, and the bounds beyond which a quadratic loss is not run: bytes for its tensors, seconds for one step."""

    points: tuple[int, ...]
    losses: tuple[str, ...] = ("mse", "kabsch", "sparse", "dense", "plain")
    repeats: int = 15
    bytes_bound: float = 4e9
    seconds_bound: float = 10.0


SETTINGS = {
    "smoke": Settings(points=(30, 100), repeats=1),
    "live": Settings(points=(30, 300, 3000), repeats=3, seconds_bound=2.0),
    "laptop": Settings(points=(30, 300, 3_000, 30_000, 300_000)),
    "paper": Settings(points=(30, 300, 3_000, 30_000, 300_000), repeats=100, bytes_bound=48e9),
}


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors created inside the context, the backward pass included: `peak`, the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, then count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(result):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage._cdata
            if key in self._sizes or key in known:
                continue
            self._sizes[key] = storage.nbytes()
            self.live += self._sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)
        return result

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def median_seconds(run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """Median over repeats of the time of one call, after one to warm up: of this process's processor, by default."""
    run()
    times = []
    for _ in range(repeats):
        begin = clock()
        run()
        times.append(clock() - begin)
    return statistics.median(times)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, so that processor time is what a clock on the wall shows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def measure(energy: Energy, points: int, repeats: int, seed: int = 0) -> dict[str, float]:
    """Median milliseconds of one value and gradient on this thread's processor time, and peak bytes."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(1, points, 3, generator=generator)
    prediction = (target + 0.1 * torch.randn(1, points, 3, generator=generator)).requires_grad_()

    def step() -> None:
        torch.autograd.grad(energy(prediction, target).sum(), prediction)

    with one_thread():
        with PeakMemory() as memory:
            step()
        seconds = median_seconds(step, repeats)
    return {"milliseconds": significant(1e3 * seconds), "bytes": memory.peak}


def cells(settings: Settings, seeds: int) -> list[Cell]:
    """One for each loss, size and seed."""
    return grid(loss=settings.losses, points=settings.points, seed=range(seeds))


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """The measurement, or why there is none: what few points take says what all of them would."""
    loss, points, seed = cell["loss"], cell["points"], cell["seed"]
    if points > PROBE.get(loss, points):
        few = PROBE[loss]
        probe, ratio = measure(LOSSES[loss](few, seed), few, 3, seed), points / few
        milliseconds = probe["milliseconds"] * ratio**2
        # In tiles of a fixed size, memory grows with the points, not with their square.
        needed = probe["bytes"] * (ratio**2 if loss == "plain" else ratio)
        if needed > settings.bytes_bound or milliseconds > 1e3 * settings.seconds_bound:
            return {"expected_bytes": significant(needed, 3), "expected_milliseconds": significant(milliseconds, 3)}
    return measure(LOSSES[loss](points, seed), points, settings.repeats if points < 3000 else 3, seed)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["cell"]["loss"], row["cell"]["points"]), []).append(row["result"])
    summary = []
    for (loss, points), group in groups.items():
        # A slow moment can stop one seed at the bound; what was measured counts before what was expected.
        results = [result for result in group if "milliseconds" in result] or group
        names = set.intersection(*(set(result) for result in results))
        medians = {name: statistics.median(result[name] for result in results) for name in sorted(names)}
        summary.append({"loss": loss, "points": points, **medians})
    return summary


def _plain(value: float, digits: int) -> str:
    """So many significant digits and no power of ten: 4,700 and not 4.7e+03."""
    return f"{float(f'{value:.{digits}g}'):,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def table(result: dict[str, Any]) -> str:
    """Milliseconds and megabytes; "not run" with what was expected."""

    def describe(row: dict[str, Any]) -> str:
        if "milliseconds" in row:
            return f"{_plain(row['milliseconds'], 3)} ms, {_plain(row['bytes'] / 1e6, 3)} MB"
        expected = _plain(row["expected_milliseconds"] / 1e3, 2), _plain(row["expected_bytes"] / 1e9, 2)
        return "not run: {} s, {} GB expected".format(*expected)

    lines: dict[int, dict[str, object]] = {}
    for row in result["summary"]:
        lines.setdefault(row["points"], {"points": row["points"]})[row["loss"]] = describe(row)
    return text_table(list(lines.values()))


EXPERIMENT = Experiment(
    name="loss_cost",
    title="Time and memory of a loss against the number of points (Table 11)",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=summarise,
    table=table,
)
