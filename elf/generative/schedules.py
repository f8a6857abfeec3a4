"""Noise schedules: how much noise at which time, one interface for all.

A noisy sample is x_t = alpha_t x + sigma_t eps (Eq. 2 of arXiv:2511.02087).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Karras:
    """Variance-exploding noise, alpha = 1 and time = sigma (Karras et al. 2022, arXiv:2206.00364, Table 1).

    Args:
        sigma_data: root-mean-square coordinate of clean data (1.5 angstrom for molecules of 5 to 15 atoms).
        log_mean, log_std: noise levels in training are exp(N(log_mean, log_std^2)).
        sigma_min, sigma_max, rho: the sampler's grid; most of its points lie at small noise.

    Lengths in angstrom where the data are molecules.
    """

    sigma_data: float = 1.5
    log_mean: float = -0.4
    log_std: float = 1.4
    sigma_min: float = 0.01
    sigma_max: float = 15.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        for name in ("sigma_data", "log_std", "sigma_min", "sigma_max", "rho"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"Karras.{name} is {value!r}; it should be positive")
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"Karras.sigma_min is {self.sigma_min!r}; it should be below sigma_max={self.sigma_max!r}")

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Noise levels of n training samples, on the generator's device."""
        return (self.log_mean + self.log_std * torch.randn(n, generator=generator, device=generator.device)).exp()

    def grid(self, steps: int, device: torch.device | None = None) -> Float[Tensor, " levels"]:
        """The steps + 1 levels a sampler visits, from sigma_max down to sigma_min and then 0."""
        if steps < 1:
            raise ValueError(f"steps is {steps!r}; it should be at least 1")
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        levels = torch.linspace(*ends, steps, device=device) ** self.rho
        return torch.cat([levels, levels.new_zeros(1)])

    def weight(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2, in 1 / length^2: equal shares of the loss for all levels.

        Where sigma is small it is the paper's alpha^2 / sigma^2 (Sec. 4.2); it stays finite where sigma is large.
        """
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
