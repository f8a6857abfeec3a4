"""A distribution whose score is known exactly: a few planar shapes, in any orientation, slightly blurred.

x = R_theta y_m + tau xi, with a shape m drawn by weight, an angle theta drawn uniformly, and Gaussian xi without a net
displacement. With noise on top, p(x_t | m, theta) is Gaussian, and the average over theta is an integral of
exp(kappa cos theta): a Bessel function. So log p(x_t), the score, and the posterior p(x | x_t) have closed forms, and
the propositions of Sec. 4.2 of arXiv:2511.02087 can be checked against the truth rather than a trained network. Points
are treated as complex numbers: a rotation is multiplication by exp(i theta).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from elf.generative.points import Denoiser, gaussian
from elf.generative.schedules import Schedule, wide
from elf.geometry.alignment import center
from elf.geometry.distances import norm
from experiments.clouds.minimiser import SpringNetwork, minimise, nearest_pose, pairs

Clouds = Float[Tensor, "batch points 2"]
Levels = Float[Tensor, " batch"]
"""alpha or sigma of each noisy cloud."""
Springs = Callable[[Tensor], Tensor] | None
"""k(d); None is constant."""

ANGLES = 48
"""Nodes of the trapezoidal rule over rotations; it converges faster than any power."""


class Posterior(NamedTuple):
    """p(x | x_t): shape m with these probabilities, turned by a von Mises angle (its most probable value; kappa, about
    1 / variance where it is large), then a Gaussian around own x_t + template R_angle y_m, with this variance of each
    coordinate."""

    probabilities: Float[Tensor, "batch shapes"]
    angle: Float[Tensor, "batch shapes"]
    concentration: Float[Tensor, "batch shapes"]
    own: Levels
    template: Levels
    variance: Levels


@dataclass(frozen=True, eq=False)
class RotationAveraged:
    """Planar shapes at random angles with Gaussian blur; one hand only, unless mirror images are among the shapes.

    Args:
        shapes: (shapes, points, 2); they are centred here.
        weights: how often each occurs, positive; they are normalised here.
        blur: tau >= 0, standard deviation of each coordinate, in the unit of the shapes. At 0, a shape is rigid.

    Raises:
        ValueError: weights that are not positive, a negative blur, fewer than two points.
    """

    shapes: Float[Tensor, "shapes points 2"]
    weights: Float[Tensor, " shapes"]
    blur: float = 0.0

    def __post_init__(self) -> None:
        if self.shapes.shape[1] < 2:
            raise ValueError(f"shapes has shape {tuple(self.shapes.shape)}; a shape should have at least 2 points")
        if not bool((self.weights > 0).all()):
            raise ValueError(f"weights is {self.weights.tolist()}; weights should be positive")
        if not (math.isfinite(self.blur) and self.blur >= 0):
            raise ValueError(f"blur is {self.blur!r}; it should be finite and not negative")
        object.__setattr__(self, "shapes", center(self.shapes))
        object.__setattr__(self, "weights", self.weights / self.weights.sum())

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n points 2"]:
        """n independent clouds, centred."""
        pick = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=self.shapes.dtype, device=self.shapes.device)
        size = n, self.shapes.shape[1], 2
        return turn(self.shapes[pick], angle) + self.blur * gaussian(size, generator, self.shapes.dtype)

    def log_density(self, x_t: Clouds, alpha: Levels, sigma: Levels) -> Float[Tensor, " batch"]:
        """log p(x_t) of x_t = alpha x + sigma eps, over the 2 (points - 1) coordinates of centred clouds.

        Raises:
            ValueError: neither noise nor blur: a density then does not exist.
        """
        logs, variance, _ = self._log_terms(x_t, alpha, sigma)
        return logs.logsumexp(-1) - (x_t.shape[1] - 1) * (2 * math.pi * variance).log()

    def score(self, x_t: Clouds, alpha: Levels, sigma: Levels) -> Clouds:
        """grad log p(x_t), exactly: (alpha Y - x_t) / (alpha^2 tau^2 + sigma^2), Y the expected turned shape."""
        found = self.posterior(x_t, alpha, sigma)
        variance = wide((alpha * self.blur).square() + sigma.square())
        return (wide(alpha) * self._expected_shape(found) - x_t) / variance

    def posterior(self, x_t: Clouds, alpha: Levels, sigma: Levels) -> Posterior:
        """p(x | x_t)."""
        logs, variance, overlap = self._log_terms(x_t, alpha, sigma)
        return Posterior(
            logs.softmax(-1),
            overlap.angle(),
            alpha[:, None] * overlap.abs() / variance[:, None],
            alpha * self.blur**2 / variance,
            sigma.square() / variance,
            (self.blur * sigma).square() / variance,
        )

    def posterior_mean(self, x_t: Clouds, alpha: Levels, sigma: Levels) -> Clouds:
        """E[x | x_t], the minimiser of MSE."""
        found = self.posterior(x_t, alpha, sigma)
        return wide(found.own) * x_t + wide(found.template) * self._expected_shape(found)

    def posterior_sample(
        self, x_t: Clouds, alpha: Levels, sigma: Levels, n: int, generator: torch.Generator
    ) -> Float[Tensor, "batch {n} points 2"]:
        """n exact draws of x given each x_t."""
        found = self.posterior(x_t, alpha, sigma)
        pick = torch.multinomial(found.probabilities, n, replacement=True, generator=generator)
        angle = found.angle.gather(1, pick) + von_mises(found.concentration.gather(1, pick), generator)
        turned = turn(self.shapes[pick.flatten()], angle.flatten()).unflatten(0, (len(x_t), n))
        noise = gaussian((len(x_t) * n, x_t.shape[1], 2), generator, x_t.dtype).unflatten(0, (len(x_t), n))
        blur = found.variance.sqrt()[:, None, None, None] * noise
        return (wide(found.own) * x_t)[:, None] + found.template[:, None, None, None] * turned + blur

    def expected_distances(
        self, x_t: Clouds, alpha: Levels, sigma: Levels, springs: Springs = None, nodes: int = 8
    ) -> SpringNetwork:
        """The network whose minimum is the minimiser of E_{p(x|x_t)}[E(x_hat, x)]; see `experiments.clouds.minimiser`.

        Integrated over shape and angle, and over each pair's relative position: for constant springs (None) in closed
        form (a Rice distribution), else by Gauss-Hermite quadrature with `nodes`^2 points: eight are enough where
        the blur is small against distances.
        """
        found = self.posterior(x_t, alpha, sigma)
        width = (10 / found.concentration.clamp(min=1e-12).sqrt()).clamp(max=math.pi)
        grid = torch.linspace(-1, 1, ANGLES + 1, dtype=x_t.dtype, device=x_t.device)[:-1]
        away = width[..., None] * grid
        density = (found.concentration[..., None] * (away.cos() - 1)).exp()
        density = found.probabilities[..., None] * density / density.sum(-1, keepdim=True)  # (batch, shapes, angles)
        first, second = pairs(x_t.shape[1], x_t.device)
        rods, own = (z[:, first] - z[:, second] for z in (_complex(self.shapes), _complex(x_t)))
        shape = torch.polar(torch.ones_like(away), found.angle[..., None] + away)[..., None] * rods[:, None]
        middle = found.template[:, None, None, None] * shape + (found.own[:, None] * own)[:, None, None]
        length, width_of_pair = middle.abs(), (2 * found.variance).sqrt()[:, None, None, None]
        if springs is None:
            rest = rice_mean(length, width_of_pair)
            stiffness = torch.ones_like(rest)
        else:
            stiffness, rest = _quadrature(length, width_of_pair, springs, nodes)
        stiffness, pull = ((density[..., None] * value).sum((1, 2)) for value in (stiffness, stiffness * rest))
        return SpringNetwork(stiffness, pull / stiffness)

    def _expected_shape(self, found: Posterior) -> Clouds:
        shrink = torch.special.i1e(found.concentration) / torch.special.i0e(found.concentration)
        weight = torch.polar(found.probabilities * shrink, found.angle)
        return torch.view_as_real(weight @ _complex(self.shapes))

    def _log_terms(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log of weight_m times the exponential averaged over angles; a coordinate's variance; sum x_t y_m^*."""
        variance = (alpha * self.blur).square() + sigma.square()
        if not bool((variance > 0).all()):
            raise ValueError(f"sigma has the value {float(sigma.min())}; without blur it should be positive")
        overlap = _complex(x_t) @ _complex(self.shapes).conj().mT
        along = alpha[:, None] * overlap.abs()
        # i0e(k) is I_0(k) exp(-k): the exponent that it leaves out stands with the squares, where it cancels.
        sizes = x_t.square().sum((1, 2))[:, None] + alpha[:, None].square() * self.shapes.square().sum((1, 2))
        spread = variance[:, None]
        logs = self.weights.log() - (sizes / 2 - along) / spread + torch.special.i0e(along / spread).log()
        return logs, variance, overlap


def exact_denoiser(system: RotationAveraged, schedule: Schedule) -> Denoiser:
    """x_hat(x_t, t) = E[x | x_t]: what MSE would learn with endless data and a perfect network."""
    return lambda x_t, t: system.posterior_mean(x_t, schedule.alpha(t), schedule.sigma(t))


def energy_minimiser(
    system: RotationAveraged,
    x_t: Clouds,
    alpha: Levels,
    sigma: Levels,
    springs: Springs = None,
    *,
    allow_reflection: bool = False,
    iterations: int = 20,
) -> Clouds:
    """argmin over x_hat of E_{p(x|x_t)}[E(x_hat, x)] for Eq. 7, in the pose nearest to x_t (Prop. 4.4).

    Args:
        system: gives p(x | x_t).
        x_t, alpha, sigma: noisy clouds and how noisy they are.
        springs: k(d); None is constant.
        allow_reflection: mirror images cost nothing: take the nearer of the two hands, not the posterior mean's.
        iterations: Gauss-Newton steps.
    """
    network = system.expected_distances(x_t, alpha, sigma, springs)
    found = minimise(network, system.posterior_mean(x_t, alpha, sigma), iterations)
    return nearest_pose(found, x_t, allow_reflection=allow_reflection)


def energy_denoiser(
    system: RotationAveraged, schedule: Schedule, springs: Springs = None, *, allow_reflection: bool = False
) -> Denoiser:
    """x_hat(x_t, t) = `energy_minimiser`: what the pair energy would learn with endless data and a perfect network."""
    return lambda x_t, t: energy_minimiser(
        system, x_t, schedule.alpha(t), schedule.sigma(t), springs, allow_reflection=allow_reflection
    )


def turn(x: Clouds, angle: Float[Tensor, " batch"]) -> Clouds:
    """Each cloud turned counter-clockwise by its angle, in radians."""
    return torch.view_as_real(_complex(x) * torch.polar(torch.ones_like(angle), angle)[:, None])


def von_mises(concentration: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Angles with density proportional to exp(kappa cos theta), one for each kappa > 0.

    Rejection from a wrapped Cauchy distribution. Source: D. J. Best, N. I. Fisher, Appl. Statist. 28 (1979) 152.
    """
    kappa = concentration.flatten().clamp(min=1e-6)
    tau = 1 + (1 + 4 * kappa.square()).sqrt()
    rho = (tau - (2 * tau).sqrt()) / (2 * kappa)
    r = (1 + rho.square()) / (2 * rho)
    angle, missing = torch.zeros_like(kappa), torch.ones_like(kappa, dtype=torch.bool)
    while bool(missing.any()):
        u = torch.rand(3, len(kappa), generator=generator, dtype=kappa.dtype, device=kappa.device)
        z = (math.pi * u[0]).cos()
        f = (1 + r * z) / (r + z)
        c = kappa * (r - f)
        accepted = missing & ((c * (2 - c) > u[1]) | ((c / u[1].clamp(min=1e-300)).log() + 1 >= c))
        proposal = f.clamp(-1, 1).acos() * (u[2] - 0.5).sign()
        angle, missing = proposal.where(accepted, angle), missing & ~accepted
    return angle.view_as(concentration)


def rice_mean(length: Float[Tensor, "*shape"], width: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """E|nu + width xi| for a vector of the plane with |nu| = `length` and standard Gaussian xi (Rice's distribution).

    width sqrt(pi / 2) L(-nu^2 / (2 width^2)), L the Laguerre function of order 1/2; `length` where the width is zero.
    """
    z = length.square() / (4 * width.square().clamp(min=1e-300))
    laguerre = (1 + 2 * z) * torch.special.i0e(z) + 2 * z * torch.special.i1e(z)
    mean = math.sqrt(math.pi / 2) * width * laguerre
    # Beyond this the series is exact to rounding, and the product of a huge and a tiny number is not.
    series = length * (1 + 1 / (8 * z.clamp(min=1)) + 1 / (128 * z.clamp(min=1).square()))
    return series.where(z > 1e5, mean)


def _quadrature(
    length: Tensor, width: Tensor, springs: Callable[[Tensor], Tensor], nodes: int
) -> tuple[Tensor, Tensor]:
    """Mean of k(d) and mean of k(d) d over mean of k(d), for each pair."""
    points, weights = (length.new_tensor(a) for a in np.polynomial.hermite.hermgauss(nodes))
    stiffness, pull = torch.zeros_like(length), torch.zeros_like(length)
    for across, weight_across in zip(points, weights, strict=True):
        for along, weight_along in zip(points, weights, strict=True):
            step = math.sqrt(2) * width
            distance = norm(torch.stack([length + step * along, (step * across).expand_as(length)], -1))
            k = springs(distance) * (weight_across * weight_along / math.pi)
            stiffness, pull = stiffness + k, pull + k * distance
    return stiffness, pull / stiffness


def _complex(x: Float[Tensor, "*batch points 2"]) -> Complex[Tensor, "*batch points"]:
    return torch.view_as_complex(x.contiguous())
