"""The losses against each other: forward and backward, one thread, at the sizes people have."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import elf
from benchmarks.timing import interleaved, rounded, samples, step
from experiments.cost.points import broadcast_pair_energy

SIZES = ((64, 29), (512, 29), (64, 180), (1, 3_000), (1, 30_000))
TINY = ((2, 5), (1, 40))
PLAIN_BYTES = 52
"""What the plain formula holds at once for each pair (i, j), in float32; `elf reproduce loss_cost` counts it."""
LARGEST_PLAIN = 2e9
"""Bytes beyond which the plain formula is not run."""


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    """One row a size; see README.md."""
    return [_row(batch, atoms, 0.05 if tiny else 6.0) for batch, atoms in (TINY if tiny else SIZES)]


def _row(batch: int, atoms: int, seconds: float) -> dict[str, Any]:
    prediction, target = samples(batch, atoms)
    pair, pairs = elf.PairEnergy(), batch * atoms * (atoms - 1) // 2
    everything = torch.ones(batch, atoms, dtype=torch.bool)
    sizes = torch.linspace(max(1, atoms // 2), atoms, batch).long()
    masked = torch.arange(atoms) < sizes[:, None]
    functions: dict[str, Callable[[], Tensor]] = {
        "pair": step(pair, prediction, target),
        "mse": step(elf.Harmonic(), prediction, target),
        "kabsch": step(elf.AlignedHarmonic(), prediction, target),
    }
    if batch > 1:
        functions["pair_masked"] = step(pair, prediction, target, masked)
        functions["height"] = step(elf.HeightEnergy(), prediction, target)
    plain_bytes = PLAIN_BYTES * batch * atoms**2
    if plain_bytes <= LARGEST_PLAIN:
        functions["plain"] = step(broadcast_pair_energy, prediction, target, everything)
    times = interleaved(functions, seconds)
    row: dict[str, Any] = {
        "batch": batch,
        "atoms": atoms,
        "milliseconds": {name: rounded(1e3 * found["seconds"]) for name, found in times.items()},
        "quartiles_apart": {name: found["quartiles_apart"] for name, found in times.items()},
        "pair_nanoseconds_a_pair": rounded(1e9 * times["pair"]["seconds"] / pairs, 3),
        "pair_over_mse": rounded(times["pair"]["seconds"] / times["mse"]["seconds"], 3),
        "pair_over_kabsch": rounded(times["pair"]["seconds"] / times["kabsch"]["seconds"], 3),
        "plain_bytes": plain_bytes,
        "error": _errors(pair, prediction, target),
    }
    if "height" in times:
        row["height_over_pair"] = rounded(times["height"]["seconds"] / times["pair"]["seconds"], 3)
    if "plain" in times:
        row["plain_over_pair"] = rounded(times["plain"]["seconds"] / times["pair"]["seconds"], 3)
        row["plain_nanoseconds_a_pair"] = rounded(1e9 * times["plain"]["seconds"] / pairs, 3)
    return row


def _errors(pair: elf.PairEnergy, prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Of float32 against float64 by the same code, which tests hold against the plain formula at 1e-12: largest
    relative error of a value, and of a force relative to the sample's largest."""
    exact = prediction.detach().double().requires_grad_()
    values = [pair(prediction, target).double(), pair(exact, target.double())]
    forces = [torch.autograd.grad(value.sum(), x)[0] for value, x in zip(values, (prediction, exact), strict=True)]
    largest = forces[1].abs().amax((1, 2))
    return {
        "value": rounded(float(((values[0] - values[1]) / values[1]).abs().max().detach()), 2),
        "gradient": rounded(float(((forces[0] - forces[1]).abs().amax((1, 2)) / largest).max()), 2),
    }
