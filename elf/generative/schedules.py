"""Noise schedules: how much noise at which time, one interface for all, and the noising itself.

A noisy sample is x_t = alpha_t x + sigma_t eps (Eq. 2 of arXiv:2511.02087). Time runs from clean to noisy; what it
measures is the schedule's business: `Karras` counts it in sigma, `Polynomial` and `Straight` from 0 to 1, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import (
    require_count,
    require_integer,
    require_number,
    require_one_of,
    require_positive,
    values_are_known,
)

Points = Float[Tensor, "batch points dim"]
"""Clouds of points, or whatever else has numbers (dim) at each of its points."""
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
"""What a network predicts, as diffusers calls it: eps, x, v = alpha eps - sigma x, or u = eps - x."""
Levels = Float[Tensor, "*levels"]


@runtime_checkable
class Schedule(Protocol):
    """What noising, losses and samplers ask of a schedule."""

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Factor of the clean sample in x_t."""

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Standard deviation of the noise in x_t, in the unit of x."""

    def weight(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Factor of E(x_hat, x) in the objective, in 1 / length^2."""

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Times of n training samples, on the generator's device."""

    def grid(self, steps: int) -> Float[Tensor, " levels"]:
        """The steps + 1 times that a sampler visits, on the CPU; from 1 to 0, unless a schedule says otherwise."""
        return torch.linspace(1, 0, require_count("steps", steps) + 1, device="cpu", dtype=torch.float32)


def add_noise(x: Points, noise: Points, t: Float[Tensor, " batch"], schedule: Schedule) -> Points:
    """x_t = alpha_t x + sigma_t eps (Eq. 2); the noise is standard normal and, for coordinates, centred as x is."""
    return wide(schedule.alpha(t)) * x + wide(schedule.sigma(t)) * noise


def noise_of(x_t: Points, x_hat: Points, t: Float[Tensor, " batch"], schedule: Schedule) -> Points:
    """eps_hat = (x_t - alpha_t x_hat) / sigma_t: the noise that a denoised sample implies (Sec. 4.2).

    The score -eps_hat / sigma_t is grad log p(x_t) if x_hat is the posterior mean E[x | x_t] (Tweedie's formula).
    """
    return (x_t - wide(schedule.alpha(t)) * x_hat) / wide(schedule.sigma(t))


def x_hat_of(predicts: str, predicted: Points, x_t: Points, alpha: Levels, sigma: Levels) -> Points:
    """The denoised sample that a prediction p = a x + b eps implies: (b x_t - sigma p) / (b alpha - a sigma).

    Raises:
        ValueError: unknown `predicts`; alpha is 0 where noise is predicted, as x_t is nothing but noise there.
    """
    b, factor = _form(predicts, alpha, sigma)
    if values_are_known(factor) and not bool(factor.all()):
        raise ValueError(
            f"alpha is 0 at {int((factor == 0).sum())} levels, where {predicts} says nothing of the sample"
        )
    return predicted if predicts == "sample" else (wide(b) * x_t - wide(sigma) * predicted) / wide(factor)


def energy_weight(predicts: str, alpha: Levels, sigma: Levels, most: float | None = None) -> Levels:
    """Factor of E(x_hat, x) that makes it the same function of the *prediction's* error at every level of noise.

    As x_t is given, p - p_hat = (b alpha - a sigma) / sigma (x_hat - x); an energy of degree 2 (MSE, Kabsch, pair
    energies) is to have the square: (alpha / sigma)^2 for "epsilon", 1 for "sample", (alpha^2 + sigma^2)^2 / sigma^2
    for "v_prediction", (alpha + sigma)^2 / sigma^2 for "flow_prediction". Without it the loss of predicted noise grows
    as 1 / alpha^2. It is finite at alpha = 0; at sigma = 0 it is infinite, but for "sample", unless `most` bounds it:
    energy_weight("epsilon", alpha, sigma, most=5) is min-SNR (arXiv:2303.09556), whatever is predicted.

    Raises:
        ValueError: unknown `predicts`; `most` is not finite and greater than zero.
    """
    _, factor = _form(predicts, alpha, sigma)
    weight = factor if predicts == "sample" else (factor / sigma).square()
    return weight if most is None else weight.clamp(max=require_positive("most", most))


def _form(predicts: str, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """b and b alpha - a sigma of a prediction p = a x + b eps; of the sample itself, that divided by -sigma."""
    require_one_of("predicts", predicts, PREDICTIONS)
    one, square = torch.ones_like(alpha), alpha.square() + sigma.square()
    forms = {"sample": (0 * one, one), "v_prediction": (alpha, square), "flow_prediction": (one, alpha + sigma)}
    return forms.get(predicts, (one, alpha))


def wide(value: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1"]:
    """One number a sample, ready to multiply its points."""
    return value[:, None, None]


@dataclass(frozen=True)
class Karras(Schedule):
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
        _check(self, require_positive, "sigma_data", "log_std", "sigma_min", "sigma_max", "rho")
        _check(self, require_number, "log_mean")
        if not isfinite(self.log_mean):
            raise ValueError(f"Karras.log_mean is {self.log_mean!r}; it should be finite")
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"Karras.sigma_min is {self.sigma_min!r}; it should be below sigma_max={self.sigma_max!r}")

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """1: noise is added to the sample as it is."""
        return torch.ones_like(t)

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """t itself: time is the noise level."""
        return t

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Noise levels of n training samples, on the generator's device."""
        n = require_integer("n", n, least=0)
        normal = torch.randn(n, generator=generator, device=generator.device, dtype=torch.float32)
        return (self.log_mean + self.log_std * normal).exp()

    def grid(self, steps: int) -> Float[Tensor, " levels"]:
        """The steps + 1 levels a sampler visits, from sigma_max down to sigma_min and then 0."""
        steps = require_count("steps", steps)
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        levels = torch.linspace(*ends, steps, device="cpu", dtype=torch.float32) ** self.rho
        return torch.cat([levels, levels.new_zeros(1)])

    def weight(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2, in 1 / length^2: equal shares of the loss for all levels.

        Where sigma is small it is the paper's alpha^2 / sigma^2 (Sec. 4.2); it stays finite where sigma is large.
        """
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


@dataclass(frozen=True)
class Polynomial(Schedule):
    """Variance-preserving noise of the paper's molecules (C.2): alpha^2 = (1 - 2 s)(1 - t^p)^2 + s = 1 - sigma^2.

    The "polynomial_2" schedule of EDM (Hoogeboom et al. 2022, arXiv:2203.17003, Appendix B), with precision s, for t
    from 0 to 1. EDM also keeps alpha_t^2 / alpha_{t-1}^2 above 0.001; that changes alpha^2 by less than 1e-8 (the tests
    compare).

    Args:
        precision: s, below 1/2: at t = 0 sigma^2 = s, at t = 1 alpha^2 = s.
        power: p.
        levels: T; times in training are 0, 1/T, ..., 1.
    """

    precision: float = 1e-5
    power: float = 2.0
    levels: int = 1000

    def __post_init__(self) -> None:
        _check(self, require_positive, "precision", "power")
        _check(self, require_count, "levels")
        if not self.precision < 0.5:
            raise ValueError(f"Polynomial.precision is {self.precision!r}; it should be below 0.5")

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """sqrt((1 - 2 s)(1 - t^p)^2 + s)."""
        _require_unit(t)
        return ((1 - 2 * self.precision) * (1 - t**self.power).square() + self.precision).sqrt()

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """sqrt(1 - alpha^2)."""
        _require_unit(t)
        gone = t**self.power
        # Not as 1 - alpha^2: in float32 that would lose the digits of s.
        return ((1 - 2 * self.precision) * gone * (2 - gone) + self.precision).sqrt()

    def weight(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """alpha^2 / sigma^2: with it, |x - x_hat|^2 is the noise's squared error (Sec. 4.2)."""
        return energy_weight("epsilon", self.alpha(t), self.sigma(t))

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Uniform over 0, 1/T, ..., 1, as in EDM."""
        n, place = require_integer("n", n, least=0), generator.device
        steps = torch.randint(self.levels + 1, (n,), generator=generator, device=place, dtype=torch.int64)
        return steps.to(torch.float32) / self.levels


@dataclass(frozen=True)
class Straight(Schedule):
    """Flow matching's straight path x_t = (1 - t) x + t eps (A.7), for t from 0 to 1.

    Args:
        t_min: training draws t from U[t_min, 1]: at t = 0 there is nothing left to learn, and 1 / t^2 diverges.
    """

    t_min: float = 1e-3

    def __post_init__(self) -> None:
        _check(self, require_positive, "t_min")
        if not self.t_min < 1:
            raise ValueError(f"Straight.t_min is {self.t_min!r}; it should be below 1")

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """1 - t."""
        _require_unit(t)
        return 1 - t

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The time t itself."""
        _require_unit(t)
        return t

    def weight(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """1 / t^2: with it, |x - x_hat|^2 is the velocity's squared error |u - u_hat|^2."""
        _require_unit(t)
        return t.square().reciprocal()

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Uniform on [t_min, 1]."""
        n = require_integer("n", n, least=0)
        uniform = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float32)
        return self.t_min + (1 - self.t_min) * uniform


def _check(schedule: Schedule, require: Callable[[str, object], float], *names: str) -> None:
    """Python numbers in the place of NumPy's, or an error that names the field."""
    for name in names:
        value = require(f"{type(schedule).__name__}.{name}", getattr(schedule, name))
        object.__setattr__(schedule, name, value)  # the dataclass is frozen


def _require_unit(t: Tensor) -> None:
    if t.numel() and values_are_known(t) and not bool(((t >= 0) & (t <= 1)).all()):
        low, high = map(float, t.detach().aminmax())
        raise ValueError(f"t ranges from {low} to {high}; times should be between 0 and 1")
