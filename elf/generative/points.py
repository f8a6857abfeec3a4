"""Diffusion and flow matching of clouds, for any schedule and any energy (Sec. 2.2, 4.2, A.7 of arXiv:2511.02087).

Everything here speaks of a *denoiser*, a function x_hat(x_t, t). What a network predicts (noise, velocity, the clean
sample) is a linear change of variables away from it. Flow matching's path is x_t = (1 - t) x + t eps (`PATH`), and its
velocity is u = eps - x = (x_t - x) / t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elf.energy import Energy
from elf.generative.schedules import Points, Schedule, Straight, add_noise, wide
from elf.geometry.alignment import center
from elf.models.mlp import MLP

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> x_hat: (batch, points, dim) and (batch,) to (batch, points, dim)."""
PATH = Straight()


def gaussian(shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Points:
    """Standard Gaussian noise without a net displacement, with (points - 1) dim degrees of freedom.

    On the generator's device. Where a cloud lies says nothing about its shape: translations are left out throughout.
    """
    return center(torch.randn(*shape, generator=generator, device=generator.device, dtype=dtype))


def denoising_loss(
    denoiser: Denoiser, energy: Energy, x: Points, schedule: Schedule, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """weight(t) E(x_hat(x_t, t), x) for one time and one noise a sample (Sec. 4.2; for `Straight`, the one of A.7).

    With `Harmonic` and the weight alpha^2 / sigma^2 it is the usual squared error of the noise (Sec. 2.2), with
    `Straight`'s 1 / t^2 that of the velocity. A.7 prints E(x - x_hat); the energy is a function of two clouds, and
    sum_{i<j} |d_i - d_j|^2 of a centred difference d would be MSE again, times the number of points.
    """
    t = schedule.draw(len(x), generator).to(x.dtype)
    x = center(x)
    # Centred twice, which rounding can tell from once: so the committed trainings were, and so they repeat.
    x_t = add_noise(center(x), gaussian(x.shape, generator, x.dtype), t, schedule)
    return schedule.weight(t) * energy(denoiser(x_t, t), x)


class VelocityNetwork(nn.Module):
    """A denoiser for small clouds: an `MLP` sees x_t and features of t and answers with a velocity; x_hat = x_t - t u.

    No part of it knows of rotations. Where t is small, x_hat stays close to x_t whatever the network says, which keeps
    the orientation that an invariant loss leaves open.

    Args:
        points, dim: of the clouds.
        hidden: widths of the hidden layers.
        seed: of the initial weights.
    """

    frequencies: Tensor

    def __init__(self, points: int, dim: int = 2, hidden: tuple[int, ...] = (128, 128, 128), seed: int = 0) -> None:
        super().__init__()
        self.network = MLP(points * dim + 7, (points, dim), hidden, nn.SiLU, seed=seed)
        octaves = torch.arange(3, dtype=torch.get_default_dtype(), device=torch.get_default_device())
        self.register_buffer("frequencies", math.pi * 2.0**octaves, persistent=False)

    def velocity(self, x_t: Points, t: Float[Tensor, " batch"]) -> Points:
        """u(x_t, t), without a net displacement."""
        phase = t[:, None] * self.frequencies
        return center(self.network(torch.cat([x_t.flatten(1), t[:, None], phase.sin(), phase.cos()], 1)))

    def forward(self, x_t: Points, t: Float[Tensor, " batch"]) -> Points:
        """The denoised cloud x_hat."""
        return x_t - wide(t) * self.velocity(x_t, t)
