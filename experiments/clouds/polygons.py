"""Regular polygons at random radii and angles: the targets of the paper's shapes experiment (Sec. 6.1, C.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_integer, require_number, require_positive, require_tensor

RADII = (0.3, 5.0)
"""The range that the paper draws radii from, uniformly; the unit of length of this experiment is arbitrary."""


@dataclass(frozen=True, eq=False)
class Polygons:
    """n regular polygons with the same number of sides, centred at the origin.

    Vertex k of polygon i is radius_i (cos(2 pi k / sides + angle_i), sin(2 pi k / sides + angle_i)).
    """

    vertices: Float[Tensor, "n sides 2"]
    radius: Float[Tensor, " n"]
    """Distance of the vertices from the centre: all that a model of Sec. 6.1 is told."""
    angle: Float[Tensor, " n"]
    """By how much the polygon is turned, in radians: what the model is not told."""


def regular_polygon(radius: Tensor, angle: Tensor, sides: SupportsIndex) -> Float[Tensor, "n sides 2"]:
    """Vertices of regular polygons, counter-clockwise from the one at `angle`.

    Raises:
        TypeError, ValueError: radii and angles that are not floating-point tensors of one shape (n,), fewer than three
            sides.
    """
    sides = require_integer("sides", sides, least=3)
    for name, value in (("radius", radius), ("angle", angle)):
        if not require_tensor(name, value).is_floating_point():
            raise TypeError(f"{name} has dtype {value.dtype}; it should be a floating-point type")
    if radius.ndim != 1 or radius.shape != angle.shape:
        shapes = f"{tuple(radius.shape)} and {tuple(angle.shape)}"
        raise ValueError(f"radius and angle have shapes {shapes}; both should be (n,)")
    steps = torch.arange(sides, dtype=radius.dtype, device=radius.device) * (2 * math.pi / sides)
    turned = angle[:, None] + steps
    return radius[:, None, None] * torch.stack([turned.cos(), turned.sin()], -1)


def sample(
    n: SupportsIndex,
    sides: SupportsIndex,
    max_angle: float,
    generator: torch.Generator | None = None,
    *,
    radii: tuple[float, float] = RADII,
    dtype: torch.dtype = torch.float32,
) -> Polygons:
    """Draw radius ~ U[radii] and angle ~ U[-max_angle, max_angle], on the generator's device.

    Args:
        n: number of polygons.
        sides: vertices of each, at least 3.
        max_angle: theta of Fig. 3b, in radians, from 0 (always the same way up) to pi (any way up).
        generator: the source of randomness.
        radii: smallest and largest radius.

    Raises:
        TypeError, ValueError: an argument of another type or out of range; the message names it.
    """
    n, sides = require_integer("n", n, least=0), require_integer("sides", sides, least=3)
    max_angle = _require_angle(max_angle)
    low, high = (require_positive(f"radii[{i}]", radius) for i, radius in enumerate(radii))
    if not dtype.is_floating_point:
        raise TypeError(f"dtype is {dtype}; it should be a floating-point type")
    if low > high:
        raise ValueError(f"radii is {radii}; it should be (smallest, largest)")
    device = torch.device("cpu") if generator is None else generator.device
    uniform = torch.rand(2, n, generator=generator, dtype=dtype, device=device)
    radius = low + (high - low) * uniform[0]
    angle = max_angle * (2 * uniform[1] - 1)
    return Polygons(regular_polygon(radius, angle, sides), radius, angle)


def mean_shrinkage(max_angle: float) -> float:
    """sin(theta) / theta: the radius of the mean of a polygon's rotations by U[-theta, theta], relative to its own.

    With phi uniform, E[R_phi] = (sin theta / theta) 1, as the sines average to zero. The minimiser of MSE is the mean
    of the targets, so this is the size of the polygon that MSE learns: all of it at theta = 0, nothing at theta = pi.
    """
    max_angle = _require_angle(max_angle)
    return math.sin(max_angle) / max_angle if max_angle > 0 else 1.0


def _require_angle(max_angle: float) -> float:
    angle = require_number("max_angle", max_angle)
    if not 0 <= angle <= math.pi + 1e-6:  # a little more than pi, so that float32's pi passes
        raise ValueError(f"max_angle is {max_angle}; it should be between 0 and pi (radians)")
    return angle
