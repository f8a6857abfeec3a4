"""How things are timed: interleaved, warm, on one thread, medians of processor time.

With one thread, processor time is what a clock on the wall shows on an idle machine; on a busy one it leaves out the
moments when another program runs instead.
"""

import gc
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

VISIT = 0.01
"""Seconds a function is called for before it is the next one's turn."""


def interleaved(
    functions: dict[str, Callable[[], object]], seconds: float, least: int = 5
) -> dict[str, dict[str, float]]:
    """Median processor seconds of one call of each function.

    The functions take turns, so that whatever else the machine does hits all of them alike. On each turn a function
    is called once to warm the caches and then, timed, until `VISIT` has passed. Turns go on for `seconds` in all, and
    until every function was timed `least` times.

    Returns:
        name -> {"seconds": median, "quartiles_apart": their distance over the median, "calls": how many}.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    gc.collect()
    gc.disable()
    try:
        begin = time.process_time()
        while time.process_time() - begin < seconds or min(map(len, times.values())) < least:
            for name, function in functions.items():
                before = time.process_time()
                function()
                # What takes long does not get faster by a call to warm up.
                if time.process_time() - before > 0.2:
                    times[name].append(time.process_time() - before)
                    continue
                until = time.process_time() + VISIT
                while True:
                    before = time.process_time()
                    function()
                    after = time.process_time()
                    times[name].append(after - before)
                    if after > until:
                        break
    finally:
        gc.enable()
    return {name: _summary(values) for name, values in times.items()}


def _summary(values: list[float]) -> dict[str, float]:
    median = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (median,) * 3
    return {"seconds": rounded(median), "quartiles_apart": rounded((high - low) / median, 2), "calls": len(values)}


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


def samples(batch: int, atoms: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Targets as spread out as a molecule of QM9 (1.5 angstrom in each direction), and predictions 0.3 away."""
    generator = torch.Generator().manual_seed(seed)
    target = 1.5 * torch.randn(batch, atoms, 3, generator=generator)
    prediction = target + 0.3 * torch.randn(batch, atoms, 3, generator=generator)
    return prediction.to(dtype).requires_grad_(), target.to(dtype)


def step(loss: Callable[..., Tensor], prediction: Tensor, *arguments: Tensor) -> Callable[[], Tensor]:
    """Forward and backward: the gradient of the summed loss with respect to the prediction."""
    return lambda: torch.autograd.grad(loss(prediction, *arguments).sum(), prediction)[0]
