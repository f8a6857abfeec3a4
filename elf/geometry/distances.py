"""Distances between atoms, with derivatives of every order that stay finite where atoms coincide."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elf.checks import require_tensor, values_are_known


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
    rows: Float[Tensor, "*batch rows dim"], columns: Float[Tensor, "*batch columns dim"], cell: Tensor | None = None
) -> Float[Tensor, "*batch rows columns"]:
    """Distances |a_i - b_j| between two sets of points, in the unit of the coordinates; `cell`: see `nearest_image`."""
    return norm(nearest_image(rows.unsqueeze(-2) - columns.unsqueeze(-3), cell))


def nearest_image(displacements: Float[Tensor, "*shape dim"], cell: Tensor | None) -> Float[Tensor, "*shape dim"]:
    """The shortest displacement that differs by a vector of the lattice; None is no lattice.

    Args:
        cell: (D,) lengths of a box; or (D, D), vectors as rows, reduced: see `checked_cell`.
    """
    if cell is None:
        return displacements
    if cell.ndim == 1:
        return displacements - cell * (displacements / cell).round()
    near = displacements - (displacements @ torch.linalg.inv(cell)).round() @ cell
    steps = torch.tensor([-1.0, 0.0, 1.0], dtype=cell.dtype, device=cell.device)
    images = near.unsqueeze(-2) + torch.cartesian_prod(*[steps] * len(cell)).view(-1, len(cell)) @ cell
    nearest = images.square().sum(-1).argmin(-1, keepdim=True).unsqueeze(-1)
    return images.gather(-2, nearest.expand(*nearest.shape[:-1], len(cell))).squeeze(-2)


def checked_cell(cell: object, like: Float[Tensor, "*nodes dim"]) -> Float[Tensor, "*dim dim"]:
    """The cell in the precision of the coordinates.

    Raises:
        TypeError, ValueError: it is neither (D,), positive lengths, nor (D, D), vectors of a lattice as rows, or on
            another device; or a vector gets shorter by adding or subtracting others, so that nearest images may be
            farther away than `nearest_image` looks.
    """
    cell, dim = require_tensor("cell", cell), like.shape[-1]
    if cell.shape not in ((dim,), (dim, dim)) or not cell.is_floating_point():
        raise ValueError(f"cell is {cell.dtype} {tuple(cell.shape)}; it should be floating, ({dim},) or ({dim}, {dim})")
    if cell.device != like.device:
        raise ValueError(f"cell is on {cell.device}; it should be on {like.device}, where the coordinates are")
    cell = cell.to(like.dtype)
    if not values_are_known(cell):
        return cell
    vectors = cell.detach().to("cpu").double()
    if cell.ndim == 1:
        if not bool(((vectors > 0) & vectors.isfinite()).all()):
            raise ValueError(f"cell is {vectors.tolist()}; lengths should be finite and greater than zero")
        return cell
    if not float(torch.linalg.det(vectors).abs()) > 1e-6 * float(vectors.norm(dim=1).prod()):
        raise ValueError(f"cell is {vectors.tolist()}; its rows should span space")
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 0, 1], dtype=vectors.dtype, device="cpu")] * dim).view(-1, dim)
    longest = (signs.abs() * vectors.norm(dim=1)).amax(1)  # of the vectors in each combination
    if bool(((signs @ vectors).norm(dim=1) < (1 - 1e-6) * longest).any()):
        raise ValueError(
            f"cell is {vectors.tolist()}; it should be reduced: some combination of rows is shorter than they are"
        )
    return cell


def pairwise_distances(x: Float[Tensor, "*batch atoms dim"]) -> Float[Tensor, "*batch atoms atoms"]:
    """The distance matrix r_ij = |x_i - x_j| (the paper's Delta y), symmetric with a zero diagonal.

    Gradient and higher derivatives are finite everywhere; at coincident atoms (the diagonal among them) they are zero.
    Masked atoms are the caller's business.
    """
    return cross_distances(x, x)


def edge_distances(
    x: Float[Tensor, "*batch atoms dim"], edges: Int[Tensor, "*edge_batch 2 edges"], cell: Tensor | None = None
) -> Float[Tensor, "*batch edges"]:
    """Distances |x_i - x_j| along edges (i, j), in O(edges) time and memory.

    Args:
        x: coordinates, (..., N, D).
        edges: integer node indices, (2, E) for all samples, or (B, 2, E), one list per sample of x of shape (B, N, D).
        cell: see `nearest_image`.

    Raises:
        ValueError: `edges` is neither (2, E) nor (B, 2, E).
    """
    if edges.ndim == 2:
        return norm(nearest_image(x[..., edges[0], :] - x[..., edges[1], :], cell))
    if edges.ndim != 3 or x.ndim != 3 or edges.shape[0] != x.shape[0]:
        raise ValueError(
            f"edges has shape {tuple(edges.shape)}; it should be (2, E), or (B, 2, E) for x of shape (B, N, D); "
            f"x has shape {tuple(x.shape)}"
        )
    first, second = (edges[:, end, :, None].expand(-1, -1, x.shape[-1]).long() for end in (0, 1))
    return norm(nearest_image(x.gather(-2, first) - x.gather(-2, second), cell))
