"""How regular a predicted polygon is, and how large: the scores of the shapes experiment (Sec. 6.1, C.1)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_alike, require_coordinates, require_finite, require_positive, require_tensor, widen
from elf.geometry.alignment import center
from elf.geometry.distances import norm


class Regularity(NamedTuple):
    """What the vertices of a polygon look like from their centroid."""

    step_spread: Float[Tensor, " batch"]
    """sigma_dangle: standard deviation over k of the angle from vertex k to vertex k + 1, in radians."""
    radius_spread: Float[Tensor, " batch"]
    """sigma_radius: standard deviation over k of the distance from the centroid."""
    mean_radius: Float[Tensor, " batch"]
    """Mean over k of the distance from the centroid."""


def regularity(vertices: Float[Tensor, "batch sides 2"]) -> Regularity:
    """Spread of the angular steps and of the radii, and the mean radius, about the centroid of the vertices.

    Steps go round the polygon in the order of the vertices, the last one back to the first, each in (-pi, pi]. A
    polygon walked clockwise is as regular as one walked counter-clockwise. Standard deviations divide by the number of
    sides.

    Raises:
        ValueError: fewer than three vertices, or coordinates that are not finite.
    """
    require_coordinates("vertices", vertices, 3)
    if vertices.shape[1] < 3 or vertices.shape[2] != 2:
        raise ValueError(f"vertices has shape {tuple(vertices.shape)}; it should be (batch, at least 3 vertices, 2)")
    require_finite("vertices", vertices, None)
    around = center(widen(vertices))
    radii = norm(around)
    angles = torch.atan2(around[..., 1], around[..., 0])
    steps = angles.roll(-1, -1) - angles
    steps = steps - 2 * math.pi * ((steps - math.pi) / (2 * math.pi)).ceil()
    return Regularity(steps.std(-1, correction=0), radii.std(-1, correction=0), radii.mean(-1))


def quality(
    vertices: Float[Tensor, "batch sides 2"], radius: Float[Tensor, " batch"] | None = None
) -> Float[Tensor, " batch"]:
    """-ln(sigma_dangle / (2 pi) + sigma_radius / r) (Sec. 6.1): above 5 looks perfect, below 2 is disorder.

    r is the polygon's own mean radius, so that the score is scale-free: a tiny regular polygon is perfect, whatever
    size was asked for. No epsilon is added: an exactly regular polygon has quality +inf (in floating point, about 15 in
    float32), and one whose vertices all coincide -inf.

    Args:
        vertices: predicted polygons.
        radius: the radii asked for. If given, sigma_radius becomes the root mean square of (radius of vertex k - r)
            with r the radius asked for, so that a polygon of the wrong size scores low; this variant is ours.

    Raises:
        ValueError: see `regularity`; a radius is not positive.
    """
    found = regularity(vertices)
    if radius is None:
        relative = found.radius_spread / found.mean_radius
    else:
        _require_radius(radius, found)
        relative = (found.radius_spread.square() + (found.mean_radius - radius).square()).sqrt() / radius
    score = -(found.step_spread / (2 * math.pi) + relative).log()
    return score.masked_fill(found.mean_radius == 0, -math.inf)


def radius_error(vertices: Float[Tensor, "batch sides 2"], radius: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """|mean radius - r| / r, with r the radius asked for: what the scale-free quality leaves out.

    Raises:
        ValueError: see `regularity`; a radius is not positive.
    """
    found = regularity(vertices)
    _require_radius(radius, found)
    return (found.mean_radius - radius).abs() / radius


def _require_radius(radius: Tensor, found: Regularity) -> None:
    require_alike("radius", require_tensor("radius", radius), "the batch", found.mean_radius)
    require_positive("radius", float(radius.min()))
