"""Distances between atoms, with derivatives of every order that stay finite where atoms coincide."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def norm(displacements: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape"]:
    """Euclidean length over the last axis; its gradient at the zero vector is zero, to every order.

    |x| has no gradient at 0, and autograd of `x.norm()` or of `sqrt` gives NaN in the second derivative or already in
    the first. Zero is the subgradient that treats all directions alike. No epsilon is added: lengths are exact.
    """
    squared = displacements.square().sum(-1)
    vanishing = squared == 0
    # Filled twice: first to keep sqrt away from 0, so that the backward pass never forms inf * 0.
    return squared.masked_fill(vanishing, 1).sqrt().masked_fill(vanishing, 0)


def cross_distances(
    rows: Float[Tensor, "*batch rows dim"], columns: Float[Tensor, "*batch columns dim"]
) -> Float[Tensor, "*batch rows columns"]:
    """Distances |a_i - b_j| between two sets of points, in the unit of the coordinates."""
    return norm(rows.unsqueeze(-2) - columns.unsqueeze(-3))


def pairwise_distances(x: Float[Tensor, "*batch atoms dim"]) -> Float[Tensor, "*batch atoms atoms"]:
    """The distance matrix r_ij = |x_i - x_j| (the paper's Delta y), symmetric with a zero diagonal.

    Gradient and higher derivatives are finite everywhere; at coincident atoms (the diagonal among them) they are zero.
    Masked atoms are the caller's business.
    """
    return cross_distances(x, x)


def edge_distances(
    x: Float[Tensor, "*batch atoms dim"], edges: Int[Tensor, "*edge_batch 2 edges"]
) -> Float[Tensor, "*batch edges"]:
    """Distances |x_i - x_j| along edges (i, j), in O(edges) time and memory.

    Args:
        x: coordinates, (..., N, D).
        edges: integer node indices, (2, E) for all samples, or (B, 2, E), one list per sample of x of shape (B, N, D).

    Raises:
        ValueError: `edges` is neither (2, E) nor (B, 2, E).
    """
    if edges.ndim == 2:
        return norm(x[..., edges[0], :] - x[..., edges[1], :])
    if edges.ndim != 3 or x.ndim != 3 or edges.shape[0] != x.shape[0]:
        raise ValueError(
            f"edges has shape {tuple(edges.shape)}; it should be (2, E), or (B, 2, E) for x of shape (B, N, D); "
            f"x has shape {tuple(x.shape)}"
        )
    first, second = (edges[:, end, :, None].expand(-1, -1, x.shape[-1]).long() for end in (0, 1))
    return norm(x.gather(-2, first) - x.gather(-2, second))
