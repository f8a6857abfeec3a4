"""What the machine allows: memory bandwidth, rates of arithmetic, and the time of a pair that follows from them."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import interleaved, rounded
from elf.energy.one_pass import CACHE_ELEMENTS

CACHED, STREAMED = CACHE_ELEMENTS, 2**26
"""Numbers in an array as large as a tile of the pair energy, and in one far larger than any cache."""
PLAIN_BYTES = 2 * 2 * 52
"""Bytes that the plain formula moves for a pair: 52 for (i, j) and as many for (j, i), written, and read again."""


def measure(tiny: bool = False) -> dict[str, Any]:
    """Rates on one thread, float32, and bounds for the pair energy."""
    streamed = 2**12 if tiny else STREAMED
    source, sink = torch.rand(streamed), torch.empty(streamed)
    a, b, out = torch.rand(CACHED), torch.rand(CACHED), torch.empty(CACHED)
    table, places = torch.rand(3_000), torch.randint(3_000, (CACHED,), generator=torch.Generator().manual_seed(0))
    functions: dict[str, Callable[[], object]] = {
        "copy": lambda: sink.copy_(source),
        "multiply": lambda: torch.mul(a, b, out=out),
        "exp": lambda: torch.exp(a, out=out),
        "sqrt": lambda: torch.sqrt(a, out=out),
        "rsqrt": lambda: torch.rsqrt(a, out=out),
        "gather": lambda: torch.index_select(table, 0, places, out=out),
    }
    times = {name: found["seconds"] for name, found in interleaved(functions, 0.05 if tiny else 5.0).items()}
    bandwidth = 2 * 4 * streamed / times["copy"]
    each = {name: 1e9 * times[name] / CACHED for name in ("multiply", "exp", "sqrt", "rsqrt", "gather")}
    transcendental = each["exp"] + 2 * each["rsqrt"]
    # Passes over a tile for a pair in 3D, prediction and target: 6 differences, 6 squares added up, 2 lower bounds,
    # 2 distances; 4 for stretch, force and energy, 1 before exp; 4 to weigh the force, 6 to sum it up.
    passes = 31
    return {
        "bytes_a_second_from_memory": rounded(bandwidth, 3),
        "nanoseconds_each_in_cache": {name: rounded(value, 3) for name, value in each.items()},
        "pair_nanoseconds_for_exp_and_rsqrt": rounded(transcendental, 3),
        "pair_nanoseconds_in_passes": rounded(transcendental + passes * each["multiply"], 3),
        "plain_nanoseconds_for_memory": rounded(1e9 * PLAIN_BYTES / bandwidth, 3),
    }
