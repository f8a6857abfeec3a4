"""Rigid motions: centring, optimal superposition (Kabsch), random rotations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from elf.checks import (
    require_alike,
    require_count,
    require_finite,
    require_mask,
    require_occupied,
    values_are_known,
    widen,
)


class RigidMotion(NamedTuple):
    """x -> R x + t, one for each sample."""

    rotation: Float[Tensor, "batch dim dim"]
    """R, orthogonal; det R = +1 unless reflections were allowed."""
    translation: Float[Tensor, "batch dim"]
    """t, in the unit of the coordinates."""

    def __call__(self, x: Float[Tensor, "batch atoms dim"]) -> Float[Tensor, "batch atoms dim"]:
        """Moves every atom of every sample."""
        return x @ self.rotation.mT + self.translation.unsqueeze(-2)


def centroid(
    x: Float[Tensor, "*batch atoms dim"], mask: Bool[Tensor, "*batch atoms"] | None = None
) -> Float[Tensor, "*batch dim"]:
    """The mean position of the real atoms."""
    if mask is None:
        return x.mean(-2)
    return x.masked_fill(~mask[..., None], 0).sum(-2) / mask.sum(-1, keepdim=True)


def center(
    x: Float[Tensor, "*batch atoms dim"], mask: Bool[Tensor, "*batch atoms"] | None = None
) -> Float[Tensor, "*batch atoms dim"]:
    """Moves the centroid of the real atoms to the origin; masked atoms become zero.

    Args:
        x: coordinates, (..., N, D).
        mask: bool, (..., N), True for a real atom; every sample should have at least one.
    """
    centered = x - centroid(x, mask).unsqueeze(-2)
    return centered if mask is None else centered.masked_fill(~mask[..., None], 0)


def kabsch(
    prediction: Float[Tensor, "batch atoms dim"],
    target: Float[Tensor, "batch atoms dim"],
    mask: Bool[Tensor, "batch atoms"] | None = None,
    *,
    allow_reflection: bool = False,
) -> RigidMotion:
    """The rigid motion of the TARGET that brings it closest to the prediction: argmin sum_i |y_hat_i - (R y_i + t)|^2.

    Kabsch's algorithm in any dimension D >= 1: with the covariance C = sum_i y_hat_i y_i^T of centred coordinates and
    its singular value decomposition C = U S V^T, R = U diag(1, ..., 1, det(U V^T)) V^T. Where the minimiser is not
    unique (collinear or coincident atoms, mirror images), R is one of the minimisers, always a proper rotation.

    The rotation carries no gradient (see `elf.AlignedHarmonic` for why none is needed); the translation is
    differentiable in the centroids. Half precision is widened to float32.

    Args:
        prediction, target: (B, N, D), same dtype.
        mask: bool, (B, N), True for a real atom.
        allow_reflection: let det R be -1 where that is closer.

    Raises:
        ValueError: shapes, dtypes or devices differ, a real atom has a NaN or infinite coordinate, or a sample has no
            real atom.

    Source: W. Kabsch, Acta Cryst. A32 (1976) 922; A34 (1978) 827.
    """
    require_alike("prediction", prediction, "target", target)
    if mask is not None:
        require_mask(mask, prediction)
    if values_are_known(prediction, target, mask):
        require_finite("prediction", prediction, mask)
        require_finite("target", target, mask)
        if mask is not None:
            require_occupied(mask)
    prediction, target = widen(prediction), widen(target)
    with torch.no_grad():
        covariance = (center(prediction, mask).unsqueeze(-1) * center(target, mask).unsqueeze(-2)).sum(-3)
        u, _, vh = torch.linalg.svd(covariance)
        rotation = _product(u, vh)
        if not allow_reflection:
            mirrored = torch.linalg.det(rotation) < 0
            # Of all directions, the one with the smallest singular value costs least to flip.
            u = torch.cat([u[..., :-1], u[..., -1:].where(~mirrored[:, None, None], -u[..., -1:])], -1)
            rotation = _product(u, vh)
    shift = centroid(prediction, mask) - (rotation * centroid(target, mask).unsqueeze(-2)).sum(-1)
    return RigidMotion(rotation, shift)


def align(
    prediction: Float[Tensor, "batch atoms dim"],
    target: Float[Tensor, "batch atoms dim"],
    mask: Bool[Tensor, "batch atoms"] | None = None,
    *,
    allow_reflection: bool = False,
) -> Float[Tensor, "batch atoms dim"]:
    """The target, rotated and translated onto the prediction (see `kabsch`); masked atoms become zero."""
    rotation, _ = kabsch(prediction, target, mask, allow_reflection=allow_reflection)
    # Centring first, rather than R y + t, keeps full precision far from the origin.
    turned = _product(center(widen(target), mask), rotation.mT) + centroid(widen(prediction), mask).unsqueeze(-2)
    return turned if mask is None else turned.masked_fill(~mask[..., None], 0)


def random_rotations(
    n: int,
    dim: int = 3,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "n dim dim"]:
    """n rotations, uniform (Haar measure) on SO(dim).

    The QR decomposition of a Gaussian matrix, with the signs of R's diagonal moved into Q, is uniform on O(dim);
    flipping one column where det Q = -1 makes it uniform on SO(dim). Source: F. Mezzadri, Notices AMS 54 (2007) 592.

    Args:
        generator: the source of randomness; its device is the default of `device`.
    """
    n, dim = require_count("n", n), require_count("dim", dim)
    device = generator.device if device is None and generator is not None else device
    gaussian = torch.randn(n, dim, dim, generator=generator, dtype=dtype, device=device)
    q, r = torch.linalg.qr(gaussian)
    q = q.where(r.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) >= 0, -q)
    proper = torch.linalg.det(q) > 0
    return torch.cat([q[..., :1].where(proper[:, None, None], -q[..., :1]), q[..., 1:]], -1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, out of reach of autocast (half precision) and of TF32; the inner axis is D, a handful."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)
