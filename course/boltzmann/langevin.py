"""Overdamped Langevin dynamics: the heat bath behind Eq. 4."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course.boltzmann.distribution import EnergyFunction
from elf.checks import require_count, require_positive


class Trajectory(NamedTuple):
    """Particles over time."""

    positions: Float[Tensor, "frames particles dim"]
    times: Float[Tensor, " frames"]


def langevin(
    energy: EnergyFunction,
    start: Tensor,
    temperature: float,
    *,
    step: float,
    steps: int,
    generator: torch.Generator,
    keep_every: int = 1,
) -> Trajectory:
    """Euler-Maruyama steps y <- y - h grad E(y) + sqrt(2 T h) xi of dy = -grad E dt + sqrt(2T) dW (A.2).

    The dynamics in continuous time has the Boltzmann distribution of E at T as its steady state (Fokker-Planck). The
    discrete steps have another one, off by O(h): in a trap E = kappa y^2 / 2 its variance is T / kappa / (1 - h kappa /
    2), and beyond h = 2 / kappa there is none.

    Args:
        energy: maps (particles, dim) to (particles,), each particle's energy by itself.
        start: where the particles begin, (particles, dim), in the dtype and on the device of the whole run.
        temperature: T > 0, in the energy's units.
        step: h > 0, time of a step (length^2 / energy).
        steps: number of steps.
        generator: source of the noise; the same seed gives the same trajectory.
        keep_every: frames are kept at step 0, keep_every, 2 keep_every, ...; it divides `steps`.

    Raises:
        ValueError: T or step not positive, start not finite, keep_every does not divide steps, or particles that run
            away to infinity, which means that `step` is too large for the energy's curvature.
    """
    temperature, step = require_positive("temperature", temperature), require_positive("step", step)
    steps, keep_every = require_count("steps", steps), require_count("keep_every", keep_every)
    if steps % keep_every:
        raise ValueError(f"keep_every is {keep_every}; it should divide steps = {steps}")
    if start.ndim != 2 or not bool(start.isfinite().all()):
        raise ValueError(f"start has shape {tuple(start.shape)}; it should be (particles, dim), all finite")
    y, kick = start.detach().clone(), (2 * temperature * step) ** 0.5
    frames = [y]
    for count in range(1, steps + 1):
        noise = torch.randn(y.shape, generator=generator, device=generator.device, dtype=y.dtype).to(y.device)
        y = y - step * _gradient(energy, y) + kick * noise
        if count % keep_every == 0:
            if not bool(y.isfinite().all()):
                raise ValueError(f"step is {step}, and particles ran away by step {count}; it should be smaller")
            frames.append(y)
    times = step * keep_every * torch.arange(len(frames), dtype=y.dtype, device=y.device)
    return Trajectory(torch.stack(frames), times)


def _gradient(energy: EnergyFunction, y: Tensor) -> Tensor:
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(y).sum(), y)
    return gradient
