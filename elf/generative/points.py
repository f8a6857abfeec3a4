"""Noising and denoising of point clouds, for any schedule and any energy (Sec. 2.2, 4.2 and A.7 of arXiv:2511.02087).

Everything here speaks of a *denoiser*, a function x_hat(x_t, t). What a network predicts (noise, velocity, the clean
sample) is a linear change of variables away from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elf.energy import Energy
from elf.generative.schedules import Schedule
from elf.geometry.alignment import center

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> x_hat: (batch, points, dim) and (batch,) to (batch, points, dim)."""


class NoisyPoints(NamedTuple):
    """Clouds with noise, and the noise that was added."""

    points: Float[Tensor, "batch points dim"]
    noise: Float[Tensor, "batch points dim"]


def gaussian(
    shape: tuple[int, int, int], generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch points dim"]:
    """Standard Gaussian noise without a net displacement, with (points - 1) dim degrees of freedom.

    On the generator's device. Where a cloud lies says nothing about its shape: translations are left out throughout.
    """
    return center(torch.randn(*shape, generator=generator, device=generator.device, dtype=dtype))


def add_noise(
    x: Float[Tensor, "batch points dim"], t: Float[Tensor, " batch"], schedule: Schedule, generator: torch.Generator
) -> NoisyPoints:
    """x_t = alpha_t x + sigma_t eps (Eq. 2), of centred clouds."""
    noise = gaussian((x.shape[0], x.shape[1], x.shape[2]), generator, x.dtype)
    return NoisyPoints(_wide(schedule.alpha(t)) * center(x) + _wide(schedule.sigma(t)) * noise, noise)


def noise_of(
    x_t: Float[Tensor, "batch points dim"],
    x_hat: Float[Tensor, "batch points dim"],
    t: Float[Tensor, " batch"],
    schedule: Schedule,
) -> Float[Tensor, "batch points dim"]:
    """eps_hat = (x_t - alpha_t x_hat) / sigma_t: the noise that a denoiser implies (Sec. 4.2)."""
    return (x_t - _wide(schedule.alpha(t)) * x_hat) / _wide(schedule.sigma(t))


def denoised_of(
    x_t: Float[Tensor, "batch points dim"],
    noise: Float[Tensor, "batch points dim"],
    t: Float[Tensor, " batch"],
    schedule: Schedule,
) -> Float[Tensor, "batch points dim"]:
    """x_hat = (x_t - sigma_t eps_hat) / alpha_t: the clean cloud that a predicted noise implies (Sec. 4.2)."""
    return (x_t - _wide(schedule.sigma(t)) * noise) / _wide(schedule.alpha(t))


def score_of(
    x_t: Float[Tensor, "batch points dim"],
    x_hat: Float[Tensor, "batch points dim"],
    t: Float[Tensor, " batch"],
    schedule: Schedule,
) -> Float[Tensor, "batch points dim"]:
    """(alpha_t x_hat - x_t) / sigma_t^2 = -eps_hat / sigma_t: the score that a denoiser implies.

    It is grad log p(x_t) exactly if x_hat is the posterior mean E[x | x_t] (Tweedie's formula).
    """
    return -noise_of(x_t, x_hat, t, schedule) / _wide(schedule.sigma(t))


def denoising_loss(
    denoiser: Denoiser,
    energy: Energy,
    x: Float[Tensor, "batch points dim"],
    schedule: Schedule,
    generator: torch.Generator,
) -> Float[Tensor, " batch"]:
    """weight(t) E(x_hat(x_t, t), x) for one time and one noise a sample (Sec. 4.2; for `Straight`, the one of A.7).

    With `Harmonic` and the weight alpha^2 / sigma^2 it is the usual squared error of the noise (Sec. 2.2), with
    `Straight`'s 1 / t^2 that of the velocity.
    """
    t = schedule.draw(len(x), generator).to(x.dtype)
    x = center(x)
    return schedule.weight(t) * energy(denoiser(add_noise(x, t, schedule, generator).points, t), x)


def _wide(value: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1"]:
    return value[:, None, None]
