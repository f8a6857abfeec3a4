"""Samplers of point clouds: Euler, Heun and ancestral, for any denoiser and any schedule.

The probability flow is dx = x_hat d alpha + eps_hat d sigma with eps_hat = (x - alpha x_hat) / sigma. In this form it
needs no derivative of the schedule and no division by alpha. Its Euler step is DDIM's alpha_s x_hat + sigma_s eps_hat
(Song et al. 2021, arXiv:2010.02502); for `Straight` that is x + (s - t) u, Euler's step of flow matching, and for
`Karras` Heun's step is the one of arXiv:2206.00364.

Every sampler starts from standard Gaussian noise times sigma at the schedule's first time and goes to its last time; if
noise is left there, it answers with x_hat.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elf.generative.points import Denoiser, gaussian
from elf.generative.schedules import Schedule

Watcher = Callable[[Tensor, Tensor, Tensor], object]
"""Called as watch(t, x_t, x_hat) at every time visited."""


class Level(NamedTuple):
    """One time of the sampler, with scalar tensors."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor


Step = Callable[[Tensor, Tensor, Level, Level], Tensor]


def euler(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "batch points dim"],
    steps: int,
    watch: Watcher | None = None,
) -> Float[Tensor, "batch points dim"]:
    """First-order steps of the probability flow, one evaluation each; deterministic, given the noise.

    Args:
        denoiser: x_hat(x_t, t).
        schedule: gives the times, alpha and sigma.
        noise: standard Gaussian start (`elf.generative.points.gaussian`), in the dtype and on the device of the run.
        steps: number of steps.
        watch: sees every state.

    Raises:
        ValueError: steps is less than 1.
    """

    def step(x: Tensor, x_hat: Tensor, now: Level, after: Level) -> Tensor:
        return after.alpha * x_hat + after.sigma * _noise(x, x_hat, now)

    return _run(step, denoiser, schedule, noise, steps, watch)


def heun(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "batch points dim"],
    steps: int,
    watch: Watcher | None = None,
) -> Float[Tensor, "batch points dim"]:
    """Second-order (trapezoidal) steps of the probability flow, two evaluations each; a step to sigma = 0 is Euler's.

    Arguments as for `euler`.
    """

    def step(x: Tensor, x_hat: Tensor, now: Level, after: Level) -> Tensor:
        eps = _noise(x, x_hat, now)
        trial = after.alpha * x_hat + after.sigma * eps
        if after.sigma == 0:
            return trial
        x_hat_after = denoiser(trial, after.t.expand(len(x)))
        eps_after = _noise(trial, x_hat_after, after)
        drift = (after.alpha - now.alpha) * (x_hat + x_hat_after) + (after.sigma - now.sigma) * (eps + eps_after)
        return x + drift / 2

    return _run(step, denoiser, schedule, noise, steps, watch)


def ancestral(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "batch points dim"],
    steps: int,
    generator: torch.Generator,
    watch: Watcher | None = None,
) -> Float[Tensor, "batch points dim"]:
    """Draws x_s from p(x_s | x_t, x = x_hat) (`posterior`), step by step: the sampler of DDPM (Ho et al. 2020) and EDM.

    Exact at any number of steps where x_hat is certain.

    Args:
        generator: of the noise that each step adds.

    The other arguments are `euler`'s.
    """

    def step(x: Tensor, x_hat: Tensor, now: Level, after: Level) -> Tensor:
        mean, spread = posterior(x, x_hat, now, after)
        if after.sigma == 0:
            return mean
        return mean + spread * gaussian((x.shape[0], x.shape[1], x.shape[2]), generator, x.dtype).to(x.device)

    return _run(step, denoiser, schedule, noise, steps, watch)


def posterior(x: Tensor, x_hat: Tensor, now: Level, after: Level) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x_s given x_t and x = x_hat, for s = `after` less noisy than t = `now`.

    With a = alpha_t / alpha_s and v = sigma_t^2 - a^2 sigma_s^2, the mean is (a sigma_s^2 x_t + alpha_s v x_hat) /
    sigma_t^2 and the variance v sigma_s^2 / sigma_t^2. The deviation is a scalar tensor.
    """
    ratio = now.alpha / after.alpha
    fresh = now.sigma.square() - (ratio * after.sigma).square()
    mean = (ratio * after.sigma.square() * x + after.alpha * fresh * x_hat) / now.sigma.square()
    return mean, fresh.sqrt() * after.sigma / now.sigma


def levels_of(schedule: Schedule, steps: int, device: torch.device, dtype: torch.dtype) -> list[Level]:
    """The steps + 1 levels of a sampler, noisiest first."""
    times = schedule.grid(steps, device).to(dtype)
    return [Level(*level) for level in zip(times, schedule.alpha(times), schedule.sigma(times), strict=True)]


@torch.no_grad()
def _run(
    step: Step, denoiser: Denoiser, schedule: Schedule, noise: Tensor, steps: int, watch: Watcher | None
) -> Tensor:
    levels = levels_of(schedule, steps, noise.device, noise.dtype)

    def ask(x: Tensor, level: Level) -> Tensor:
        x_hat = denoiser(x, level.t.expand(len(x)))
        if watch is not None:
            watch(level.t, x, x_hat)
        return x_hat

    x = levels[0].sigma * noise
    for now, after in pairwise(levels):
        x = step(x, ask(x, now), now, after)
    return ask(x, levels[-1]) if levels[-1].sigma > 0 else x


def _noise(x: Tensor, x_hat: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * x_hat) / level.sigma
