"""Kullback-Leibler divergences: between densities on a grid, and of a cloud of particles from a density."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from course.boltzmann.distribution import Boltzmann
from course.boltzmann.quadrature import Grid
from elf.checks import require_count


def kl_divergence(log_p: Tensor, log_q: Tensor, grid: Grid, *, tolerance: float = 1e-3) -> Float[Tensor, ""]:
    """D_KL(p || q) = integral of p (log p - log q), in nats, by quadrature; differentiable in both arguments.

    With p the data's Boltzmann distribution and q the model, kl_divergence(log_p, log_q, grid) is the forward KL, which
    covers mass, and kl_divergence(log_q, log_p, grid) the reverse KL of Eq. 1 of arXiv:2511.02087, which seeks modes.

    Args:
        log_p: log density of the distribution that averages, (points,); -inf is p = 0 and contributes nothing.
        log_q: log density of the other one; -inf where p > 0 gives an infinite divergence.
        grid: where both are given. p should integrate to one on it, q to one or less.
        tolerance: how far the two integrals may be from that.

    Raises:
        ValueError: shapes that are not the grid's, NaN, or densities that are not normalised on the grid.
    """
    for name, values in (("log_p", log_p), ("log_q", log_q)):
        if values.shape != grid.log_weights.shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}; it should be {tuple(grid.log_weights.shape)}")
        if bool(values.isnan().any()):
            raise ValueError(f"{name} holds NaN; it should be a log density, -inf where the density is zero")
        mass = float(torch.logsumexp(values.detach() + grid.log_weights, 0).exp())
        if mass > 1 + tolerance or (name == "log_p" and mass < 1 - tolerance):
            raise ValueError(
                f"{name} integrates to {mass:.4g} on the grid; it should be one (within {tolerance:.2g}): widen the "
                "window, refine the grid, or normalise"
            )
    # Where p = 0, the difference of logarithms may be infinite and its gradient NaN.
    log_ratio = torch.where(log_p.isneginf(), 0.0, log_p - log_q)
    return ((log_p + grid.log_weights).exp() * log_ratio).sum()


def bin_probabilities(found: Boltzmann, every: int) -> tuple[Float[Tensor, " edges"], Float[Tensor, " bins"]]:
    """Edges and probabilities of bins that are `every` grid intervals wide, on the line.

    Raises:
        ValueError: a plane's distribution, or `every` does not divide the number of grid intervals.
    """
    every = require_count("every", every)
    if len(found.grid.axes) != 1:
        raise ValueError(f"found lives in {len(found.grid.axes)} dimensions; bins are for one")
    intervals = len(found.grid.axes[0]) - 1
    if intervals % every:
        raise ValueError(f"every is {every}; it should divide the grid's {intervals} intervals")
    density = found.density
    masses = (density[1:] + density[:-1]) / 2 * found.grid.spacings[0]
    return found.grid.axes[0][::every], masses.reshape(-1, every).sum(1)


def histogram_kl(samples: Tensor, found: Boltzmann, every: int = 10) -> Float[Tensor, ""]:
    """D_KL(histogram || p) of particles on the line, in nats.

    The outermost bins are open, so that no particle is lost. Even for perfect samples the expected value is not zero
    but about (bins - 1) / (2 samples): the noise of counting, and the floor of every such measurement.

    Args:
        samples: particles, (samples, 1).
        found: the distribution p.
        every: width of a bin in grid intervals.

    Raises:
        ValueError: samples of another shape, none, or not finite, and see `bin_probabilities`.
    """
    edges, probabilities = bin_probabilities(found, every)
    if samples.ndim != 2 or samples.shape[1] != 1 or len(samples) == 0:
        raise ValueError(f"samples has shape {tuple(samples.shape)}; it should be (samples, 1), at least one")
    if not bool(samples.isfinite().all()):
        raise ValueError(f"samples holds {int((~samples.isfinite()).sum())} NaN or infinite values; none is allowed")
    counts = torch.bucketize(samples[:, 0].contiguous(), edges[1:-1].contiguous()).bincount(minlength=len(edges) - 1)
    filled = counts > 0
    frequencies = counts[filled].to(probabilities) / len(samples)
    return (frequencies * (frequencies.log() - probabilities[filled].log())).sum()
