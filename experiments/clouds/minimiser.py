"""What the pair energy learns from noisy data: the minimiser of its mean over targets (Prop. 4.4 of arXiv:2511.02087).

Over targets y with springs k(y), the mean of Eq. 7 is, pair by pair,

    E[k (d - d_hat)^2] = E[k] (d_hat - E[k d] / E[k])^2 + what does not depend on d_hat,

so that targets enter through two numbers a pair: the mean stiffness and the (weighted) mean distance. Whatever the
distribution of targets, the minimiser is the equilibrium of one spring network. Its distances are means of distances,
which are not the distances of the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elf.checks import require_count
from elf.generative.schedules import Points
from elf.geometry.alignment import align
from elf.geometry.distances import edge_distances
from elf.geometry.rigidity import rigidity_matrix


class SpringNetwork(NamedTuple):
    """Springs between all pairs i < j, in the order of `torch.triu_indices`."""

    stiffness: Float[Tensor, "batch pairs"]
    rest: Float[Tensor, "batch pairs"]
    """Rest lengths, in the unit of the coordinates."""


def pairs(points: int, device: torch.device | None = None) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """First and second index of each pair i < j."""
    first, second = torch.triu_indices(points, points, 1, device=device)
    return first, second


def pair_distances(x: Float[Tensor, "*batch points dim"]) -> Float[Tensor, "*batch pairs"]:
    """Distances of all pairs i < j."""
    return edge_distances(x, torch.stack(pairs(x.shape[-2], x.device)))


def mean_network(
    targets: Float[Tensor, "batch samples points dim"], springs: Callable[[Tensor], Tensor] | None = None
) -> SpringNetwork:
    """The network whose energy is the mean pair energy around each row of sample targets, up to a constant.

    Args:
        targets: samples of x given x_t, for each x_t.
        springs: k(d) of the targets' distances; None is constant.
    """
    distances = pair_distances(targets)
    k = torch.ones_like(distances) if springs is None else springs(distances)
    stiffness = k.mean(1)
    return SpringNetwork(stiffness, (k * distances).mean(1) / stiffness)


def network_energy(network: SpringNetwork, x: Points) -> Float[Tensor, " batch"]:
    """sum over pairs of stiffness (|x_i - x_j| - rest)^2."""
    return (network.stiffness * (pair_distances(x) - network.rest).square()).sum(-1)


def distance_jacobian(x: Points) -> Float[Tensor, "batch pairs coordinates"]:
    """d |x_i - x_j| / d x, flattened; its kernel at generic x holds exactly the rigid motions.

    Zero in the rows of coincident points.
    """
    edges = torch.stack(pairs(x.shape[-2], x.device))
    lengths = edge_distances(x, edges)[..., None]
    return rigidity_matrix(x, edges) / lengths.where(lengths > 0, 1)


@torch.no_grad()
def minimise(network: SpringNetwork, start: Points, iterations: int = 40) -> Points:
    """A minimum of `network_energy`, by damped Gauss-Newton steps (Levenberg-Marquardt), without moving the centroid.

    The minimum nearest to `start` in practice; mirror images and rotations are equally low, see `nearest_pose`.

    Args:
        network: stiffness and rest lengths.
        start: where to begin; not all points on a line, from where no force would ever lead away.
        iterations: steps; ten are plenty from a start with the right topology.

    Raises:
        ValueError: iterations is less than 1.
    """
    require_count("iterations", iterations)
    x, value = start, network_energy(network, start)
    damping = torch.full_like(value, 1e-3)
    identity = torch.eye(start[0].numel(), dtype=start.dtype, device=start.device)
    floor = 1e-12 if start.dtype == torch.float64 else 1e-6
    for _ in range(iterations):
        jacobian = distance_jacobian(x)
        forces = (network.stiffness * (network.rest - pair_distances(x)))[:, None] @ jacobian
        curvature = (jacobian * network.stiffness[..., None]).mT @ jacobian
        scale = curvature.diagonal(dim1=1, dim2=2).mean(-1)
        system = curvature + (damping * scale)[:, None, None] * identity
        step = torch.linalg.solve(system, forces[:, 0]).view_as(x)
        trial = network_energy(network, x + step)
        better = trial <= value
        x = torch.where(better[:, None, None], x + step, x)
        value = torch.where(better, trial, value)
        damping = torch.where(better, damping / 10, damping * 10).clamp(floor, 1e6)
    return x


def nearest_pose(x_hat: Points, x_t: Points, *, allow_reflection: bool = False) -> Points:
    """x_hat moved rigidly as close to x_t as it gets: of all equivalent minimisers, the one with the least noise.

    Prop. 4.4 leaves a rigid motion v open; |eps_hat| = |x_t - alpha x_hat| / sigma is smallest at this pose. Mirror
    images cost nothing either: with `allow_reflection` the nearer hand is taken, else x_hat's own.
    """
    return align(x_t, x_hat, allow_reflection=allow_reflection)


def remove_rigid(vectors: Points, x: Points) -> Points:
    """The part of `vectors` (say, of a noise) that changes distances at x: P = J^+ J, J the distance Jacobian at x."""
    jacobian = distance_jacobian(x)
    return (torch.linalg.pinv(jacobian) @ (jacobian @ vectors.flatten(1)[..., None])).view_as(vectors)
