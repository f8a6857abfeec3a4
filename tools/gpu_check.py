"""What a GPU should be asked before it is trusted: `python -m tools.gpu_check --out gpu.json`, a few minutes.

Against the CPU in double precision: values and gradients of every loss, in float32 and, where the device has it,
float64, each taken twice (0 where the device repeats itself to the bit).
Then, for both molecule networks, the steps a second in float32 and bf16-mixed, as they are and compiled, the fastest
of the four (`--precision` and `--compile` of `elf reproduce`), and the loss' share of its step; and one short training
in each precision with its stable atoms. What fails in one of them stands there in words. `--accelerator cpu` asks a
machine without a GPU the same, but for bf16-mixed and compiling; so do the tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch

import elf
from elf.energy import Energy
from elf.metrics import molecules as metrics
from elf.training import TrainRecord, fabric_options
from experiments.framework.experiment import device_name, has_bfloat16, versions, write_json
from experiments.molecules import gifts, small
from experiments.molecules.losses import LOSSES

TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
"""Largest error relative to the largest value or force, for each precision."""

T = TypeVar("T")


def evaluated(energy: Energy, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """A loss' values and gradients on molecules under noise, taken there, in double precision on the CPU."""
    data = small.training_molecules(small.SETTINGS["smoke"])[:64]
    noise = torch.randn(data.positions.shape, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32)
    noisy = data.positions + 0.3 * noise * data.mask[..., None]
    x = noisy.to(device, dtype).requires_grad_()
    value = energy(x, data.positions.to(device, dtype), data.mask.to(device))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return [part.detach().cpu().double() for part in (value, gradient)]


def compared(energy: Energy, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Largest relative errors of values and gradients, and by how much these change when taken again ("again")."""

    def apart(some: list[torch.Tensor], others: list[torch.Tensor]) -> list[float]:
        return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(some, others, strict=True)]

    ours, again = (evaluated(energy, device, dtype) for _ in range(2))
    errors = apart(ours, evaluated(energy, torch.device("cpu"), torch.float64))
    return {**dict(zip(("value", "gradient"), errors, strict=True)), "again": max(apart(ours, again))}


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a call, with the device's queue empty before and after."""
    times = []
    for _ in range(repeats):
        _wait(device)
        begin = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def precisions(accelerator: str) -> list[str]:
    """Those that a training may run in, the second where the device computes in bfloat16 itself."""
    return ["32-true", "bf16-mixed"] if has_bfloat16(accelerator) else ["32-true"]


def ways(device: torch.device, accelerator: str) -> list[tuple[str, bool]]:
    """(precision, whether compiled) of the trainings whose speed is compared."""
    choices = (False, True) if device.type == "cuda" else (False,)
    return [(precision, choice) for precision in precisions(accelerator) for choice in choices]


def attempt(run: Callable[[], T]) -> T | str:
    """What a call returns or, as the rest is measured all the same, its error in words."""
    try:
        return run()
    except Exception as error:  # errors of compilers and drivers have no class in common
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def trained(recipe: small.Settings, loss: str, steps: int, **options: Any) -> TrainRecord:
    """A whole training with these `fabric_options`; Ctrl-C ends the program, not just this part of it."""
    with fabric_options(**options):
        record = small.train(recipe, LOSSES[loss](), steps=steps, seed=0)
    if record.interrupted:
        raise KeyboardInterrupt
    return record


def pace(recipe: small.Settings, warm: int, steps: int, **options: Any) -> dict[str, float]:
    """Steps a second after the first `warm`, in which kernels are chosen and compiled, and the mean loss of these."""
    history = trained(recipe, "energy", steps, **options).history
    begun, ended = history[warm - 1]["seconds"], history[-1]["seconds"]
    return {
        "steps_a_second": round((steps - warm) / (ended - begun), 2),
        "warm_after_seconds": round(begun, 2),
        "loss": round(fmean(row["loss"] for row in history[warm:]), 4),
    }


def speed(network: str, scale: str, device: torch.device, accelerator: str) -> dict[str, Any]:
    """The pace of a training with the pair energy in all `ways`, the fastest, and the loss' own share of its step."""
    recipe = gifts.recipe_of(gifts.settings_of("two_gifts", scale), network)
    # Multiples of 25, after which `fit` waits for the device: its clock is right there.
    warm, steps = (2, 4) if scale == "smoke" else (50, 150)
    found = {}
    for precision, choice in ways(device, accelerator):
        options = {"accelerator": accelerator, "precision": precision, "compile": choice}
        name = f"{precision}, {'compiled' if choice else 'eager'}"
        found[name] = attempt(partial(pace, recipe, warm, steps, **options))
    rates = {name: way["steps_a_second"] for name, way in found.items() if not isinstance(way, str)}
    fastest = max(rates, key=lambda name: rates[name], default=None)
    share = None if fastest is None else round(rates[fastest] * loss_seconds(recipe, device), 4)
    return {"ways": found, "fastest": fastest, "share_of_loss": share}


def loss_seconds(recipe: small.Settings, device: torch.device) -> float:
    """Seconds that the pair energy and its gradient take for one batch."""
    data = small.training_molecules(recipe)[: recipe.batch_size].trimmed()
    target, mask, energy = data.positions.to(device), data.mask.to(device), LOSSES["energy"]()

    def loss() -> None:
        x = (target + 0.1).requires_grad_()
        torch.autograd.grad(energy(x, target, mask).sum(), x)

    return seconds(loss, device, 20)


def short_run(scale: str, accelerator: str, precision: str) -> dict[str, float]:
    """Stable atoms after a short training of the plain network with MSE and with the pair energy."""
    recipe = gifts.recipe_of(gifts.settings_of("two_gifts", scale), "plain")
    steps, found = recipe.steps[0] if scale == "smoke" else 800, {}
    for loss in ("mse", "energy"):
        average = trained(recipe, loss, steps, accelerator=accelerator, precision=precision).ema_model
        assert average is not None
        drawn = small.sample(average, replace(recipe, samples=min(recipe.samples, 200)), seed=0)
        stable = metrics.summary(drawn.positions.cpu(), drawn.numbers.cpu())["atom_stability"]
        found[loss] = round(stable, 4)
    return found


def check(accelerator: str, scale: str) -> dict[str, Any]:
    """Everything, as one JSON-able record.

    "failed" names what is out of tolerance and what did not run, "not_compiled" what ran but not compiled: no fault of
    the device, perhaps there is no compiler.
    """
    from lightning_fabric import Fabric

    device = Fabric(accelerator=accelerator, devices=1).device
    dtypes = [torch.float32] if device.type == "mps" else [torch.float32, torch.float64]
    losses, failed = {}, []
    for name, make in LOSSES.items():
        for dtype in dtypes:
            kind = str(dtype).removeprefix("torch.")
            errors = compared(make(), device, dtype)
            losses[f"{name}, {kind}"] = errors
            failed += [f"{name}, {kind}: {part} {e:.1e}" for part, e in errors.items() if not e < TOLERANCE[kind]]
    paces = {name: speed(name, scale, device, accelerator) for name in gifts.NETWORKS}
    refused = [
        f"speed, {network}, {way}: {words}"
        for network, found in paces.items()
        for way, words in found["ways"].items()
        if isinstance(words, str)
    ]
    stable = {name: attempt(partial(short_run, scale, accelerator, name)) for name in precisions(accelerator)}
    failed += [line for line in refused if ", compiled: " not in line]
    failed += [f"short run, {name}: {words}" for name, words in stable.items() if isinstance(words, str)]
    return {
        "device": device_name(accelerator),
        "versions": versions(),
        "scale": scale,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "losses": losses,
        "failed": failed,
        "not_compiled": [line for line in refused if ", compiled: " in line],
        "speed": paces,
        "stable_atoms": stable,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--accelerator", default="auto", help="as in Fabric: auto, cuda, mps, cpu")
    parser.add_argument("--scale", choices=elf.scales.SCALES, default="laptop", help="size of the networks (laptop)")
    parser.add_argument("--out", type=Path, help="JSON file; without it, the record is printed")
    args = parser.parse_args(argv)
    record = check(args.accelerator, args.scale)
    if args.out is None:
        print(json.dumps(record, indent=1))
    else:
        write_json(args.out, record)
    for line in record["failed"]:
        print(f"FAILED {line}", file=sys.stderr)
    for line in record["not_compiled"]:
        print(f"NOT COMPILED {line}", file=sys.stderr)
    return int(bool(record["failed"]))


if __name__ == "__main__":
    sys.exit(main())
