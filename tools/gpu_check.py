"""What a GPU should be asked before it is trusted: `python -m tools.gpu_check --out gpu.json`, a few minutes.

Against the CPU in double precision: values and gradients of every loss, in the precisions that the device offers.
Then the steps a second of both molecule networks, the loss' share of a step, and one short training with its stable
atoms. `--accelerator cpu` asks a machine without a GPU the same, which is how the tests run it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import elf
from elf.energy import Energy
from elf.metrics import molecules as metrics
from elf.training import fabric_options
from experiments.framework.experiment import device_name, versions, write_json
from experiments.molecules import gifts, small
from experiments.molecules.losses import LOSSES

TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
"""Largest error relative to the largest value or force, for each precision."""


def compared(energy: Energy, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Largest relative errors of a loss' values and gradients on molecules under noise."""
    data = small.training_molecules(small.SETTINGS["smoke"])[:64]
    noise = torch.randn(data.positions.shape, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32)
    noisy = data.positions + 0.3 * noise * data.mask[..., None]
    found = []
    for place, precision in ((torch.device("cpu"), torch.float64), (device, dtype)):
        x = noisy.to(place, precision).requires_grad_()
        value = energy(x, data.positions.to(place, precision), data.mask.to(place))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        found.append([part.detach().cpu().double() for part in (value, gradient)])
    errors = [float((ours - right).abs().max() / right.abs().max()) for right, ours in zip(*found, strict=True)]
    return dict(zip(("value", "gradient"), errors, strict=True))


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


def speed(network: str, scale: str, device: torch.device, accelerator: str) -> dict[str, float]:
    """Steps a second of a training with the pair energy, and the share of a step that the loss itself takes."""
    recipe = gifts.recipe_of(gifts.settings_of("two_gifts", scale), network)
    steps = 4 if scale == "smoke" else 60
    with fabric_options(accelerator=accelerator):
        small.train(recipe, LOSSES["energy"](), steps=steps, seed=0)  # kernels are chosen in the first steps
        begin = time.perf_counter()
        small.train(recipe, LOSSES["energy"](), steps=steps, seed=0)
        step = (time.perf_counter() - begin) / steps
    data = small.training_molecules(recipe)[: recipe.batch_size].trimmed()
    target, mask, energy = data.positions.to(device), data.mask.to(device), LOSSES["energy"]()

    def loss() -> None:
        x = (target + 0.1).requires_grad_()
        torch.autograd.grad(energy(x, target, mask).sum(), x)

    alone = seconds(loss, device, 20)
    return {"steps_a_second": round(1 / step, 2), "share_of_loss": round(alone / step, 4)}


def short_run(scale: str, accelerator: str) -> dict[str, float]:
    """Stable atoms after a short training of the plain network with MSE and with the pair energy."""
    recipe = gifts.recipe_of(gifts.settings_of("two_gifts", scale), "plain")
    steps, found = recipe.steps[0] if scale == "smoke" else 800, {}
    for loss in ("mse", "energy"):
        with fabric_options(accelerator=accelerator):
            trained = small.train(recipe, LOSSES[loss](), steps=steps, seed=0).ema_model
        assert trained is not None
        drawn = small.sample(trained, replace(recipe, samples=min(recipe.samples, 200)), seed=0)
        stable = metrics.summary(drawn.positions.cpu(), drawn.numbers.cpu())["atom_stability"]
        found[loss] = round(stable, 4)
    return found


def check(accelerator: str, scale: str) -> dict[str, Any]:
    """Everything, as one JSON-able record; "failed" names what is out of tolerance."""
    from lightning_fabric import Fabric

    device = Fabric(accelerator=accelerator, devices=1).device
    precisions = [torch.float32] if device.type == "mps" else [torch.float32, torch.float64]
    losses, failed = {}, []
    for name, make in LOSSES.items():
        for dtype in precisions:
            kind = str(dtype).removeprefix("torch.")
            errors = compared(make(), device, dtype)
            losses[f"{name}, {kind}"] = errors
            failed += [f"{name}, {kind}: {part} {e:.1e}" for part, e in errors.items() if not e < TOLERANCE[kind]]
    return {
        "device": device_name(accelerator),
        "versions": versions(),
        "scale": scale,
        "losses": losses,
        "failed": failed,
        "speed": {name: speed(name, scale, device, accelerator) for name in gifts.NETWORKS},
        "stable_atoms": short_run(scale, accelerator),
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
    return int(bool(record["failed"]))


if __name__ == "__main__":
    sys.exit(main())
