"""Time and memory of tensors against size, over decades, with exponents of power laws; two processes against one."""

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import elf
from benchmarks.timing import rounded, samples, step
from elf.data import qm9
from elf.data.batching import bucketed_batches
from elf.data.spin_glass import sample_couplings
from elf.geometry.graphs import random_regular_edges
from elf.spins import ground_state
from experiments.cost.points import PeakMemory

POINTS = (30, 100, 300, 1_000, 3_000, 10_000, 30_000)
SPARSE = (300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
STREAMED = (100, 1_000, 10_000, 100_000)
SIDES = (4, 8, 16, 32, 64)
CARDS = (5, 10, 20)
DEGREE = 6
SECONDS = 0.3
"""Processor seconds for which a size is repeated; what takes longer runs once after the first."""


def measure(tiny: bool = False) -> dict[str, Any]:
    """For each quantity its rows and exponent; where sparse springs overtake dense ones; two processes' efficiency."""
    kinds = {
        "dense energy": (_dense, POINTS[:2] if tiny else POINTS),
        "sparse energy": (_sparse, SPARSE[:2] if tiny else SPARSE),
        "QM9 streaming": (_streaming, STREAMED[:2] if tiny else STREAMED),
        "ground state": (_lattice, SIDES[:2] if tiny else SIDES),
        "report card": (_card, CARDS[:1] if tiny else CARDS),
    }
    curves = {name: _curve(make, sizes, 0.0 if tiny else SECONDS) for name, (make, sizes) in kinds.items()}
    return {
        "curves": curves,
        "sparse_from_points": crossing(curves["dense energy"]["rows"], curves["sparse energy"]["rows"]),
        "processes": _processes(3 if tiny else 40),
    }


def exponent(rows: Sequence[dict[str, Any]]) -> float | None:
    """Of a power law through the upper half of the sizes, where overhead counts least; None of fewer than two."""
    upper = rows[len(rows) // 2 :] if len(rows) > 2 else rows
    if len(upper) < 2:
        return None
    sizes, times = ([math.log(row[key]) for row in upper] for key in ("size", "seconds"))
    return rounded(statistics.linear_regression(sizes, times).slope, 3)


def crossing(dense: Sequence[dict[str, Any]], sparse: Sequence[dict[str, Any]]) -> int | None:
    """The smallest size measured for both from which on sparse springs take less time; None if there is none."""
    other = {row["size"]: row["seconds"] for row in sparse}
    both = [row["size"] for row in dense if row["size"] in other]
    slower = [row["size"] for row in dense if row["size"] in other and other[row["size"]] >= row["seconds"]]
    return next((size for size in both if size > max(slower, default=0)), None)


def _curve(make: Callable[[int], tuple[int, Callable[[], object]]], sizes: Sequence[int], seconds: float) -> Any:
    rows = []
    make(sizes[0])[1]()  # what is loaded on first use
    for size in sizes:
        counted, function = make(size)
        with PeakMemory() as memory:
            function()
        times = [_timed(function)]
        while sum(times) < seconds or len(times) < 2:
            times.append(_timed(function))
        rows.append(
            {
                "size": counted,
                "seconds": rounded(statistics.median(times[1:])),
                "megabytes": round(memory.peak / 1e6, 3),
            }
        )
    return {"rows": rows, "exponent": exponent(rows)}


def _timed(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return max(time.process_time() - begin, 1e-6)


def _dense(points: int) -> tuple[int, Callable[[], object]]:
    return points, step(elf.PairEnergy(), *samples(1, points))


def _sparse(points: int) -> tuple[int, Callable[[], object]]:
    edges = random_regular_edges(points, DEGREE, 0, method="switching")
    return points, step(elf.PairEnergy(edges=edges), *samples(1, points))


def _streaming(molecules: int) -> tuple[int, Callable[[], object]]:
    """All of them once, in bucketed batches of 32."""
    data = qm9.load(atoms=(3, 29), limit=molecules)
    order = bucketed_batches(data.counts, 32, 0)

    def epoch() -> None:
        for number in range(len(data) // 32):
            data[order(number)].trimmed()

    return molecules, epoch


def _lattice(side: int) -> tuple[int, Callable[[], object]]:
    couplings = sample_couplings(1, side, seed=7)
    return side * side, lambda: ground_state(couplings)


def _card(atoms: int) -> tuple[int, Callable[[], object]]:
    _, target = samples(1, atoms)
    return atoms, lambda: elf.report_card(elf.PairEnergy(), target)


def _processes(steps: int) -> dict[str, Any]:
    """Molecules a second by the clock, of one process and of two by gloo with a batch of 32 each."""
    rates = {count: _rate(count, steps) for count in (1, 2)}
    return {
        "molecules_a_second": {str(count): rounded(rate, 3) for count, rate in rates.items()},
        "efficiency": rounded(rates[2] / (2 * rates[1]), 3),
    }


def _rate(count: int, steps: int) -> float:
    command = [sys.executable, "-m", "benchmarks.scale", str(count), str(steps)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _train(count: int, steps: int) -> None:
    from elf.data.batching import process_rank
    from elf.energy import Energy
    from elf.training import fabric_options
    from experiments.molecules import small

    torch.set_num_threads(1)
    settings = small.Settings(steps=(steps,), samples=1, batch_size=32 * count)
    energy: Energy = elf.PairEnergy(normalize="atoms")
    with fabric_options(accelerator="cpu", devices=count, strategy="ddp" if count > 1 else "auto"):
        record = small.train(settings, energy, steps=steps, seed=0)
    first = steps // 3
    seconds = record.history[-1]["seconds"] - record.history[first]["seconds"]
    if process_rank()[0] == 0:
        print((steps - 1 - first) * settings.batch_size / seconds)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _train(int(sys.argv[1]), int(sys.argv[2]))
