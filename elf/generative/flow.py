"""Flow matching with the clean cloud as the prediction, so that any energy can be the loss (A.7 of arXiv:2511.02087).

The path is x_t = (1 - t) x + t eps (`elf.generative.schedules.Straight`) and its velocity u = eps - x = (x_t - x) / t.
The objective (1 / t^2) E(x_hat, x) is `elf.generative.points.denoising_loss`. The paper prints E(x - x_hat); the energy
is a function of two clouds, not of their difference, and sum_{i<j} |d_i - d_j|^2 of a centred difference d would be MSE
again, times the number of points.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elf.generative.schedules import Straight
from elf.geometry.alignment import center
from elf.models.mlp import MLP

PATH = Straight()


def velocity_of(
    x_t: Float[Tensor, "batch points dim"], x_hat: Float[Tensor, "batch points dim"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch points dim"]:
    """u = (x_t - x_hat) / t."""
    return (x_t - x_hat) / t[:, None, None]


def denoised_of_velocity(
    x_t: Float[Tensor, "batch points dim"], velocity: Float[Tensor, "batch points dim"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch points dim"]:
    """x_hat = x_t - t u."""
    return x_t - t[:, None, None] * velocity


def score_of_velocity(
    x_t: Float[Tensor, "batch points dim"], velocity: Float[Tensor, "batch points dim"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch points dim"]:
    """-((1 - t) u + x_t) / t: the score of p(x_t) where u is the mean velocity."""
    time = t[:, None, None]
    return -((1 - time) * velocity + x_t) / time


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
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(3), persistent=False)
        self.network = MLP(points * dim + 7, (points, dim), hidden, nn.SiLU, seed=seed)

    def velocity(
        self, x_t: Float[Tensor, "batch points dim"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch points dim"]:
        """u(x_t, t), without a net displacement."""
        phase = t[:, None] * self.frequencies
        return center(self.network(torch.cat([x_t.flatten(1), t[:, None], phase.sin(), phase.cos()], 1)))

    def forward(
        self, x_t: Float[Tensor, "batch points dim"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch points dim"]:
        """The denoised cloud x_hat."""
        return denoised_of_velocity(x_t, self.velocity(x_t, t), t)
