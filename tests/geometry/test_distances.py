import math

import pytest
import torch

from elf.geometry import cross_distances, edge_distances, norm, pairwise_distances
from elf.geometry.distances import checked_cell, nearest_image


def test_matches_a_loop(dtype: torch.dtype, rtol: float, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 4, dtype=dtype, generator=generator)
    expected = [[[[math.dist(p, q) for q in s] for p in s] for s in row] for row in x.tolist()]
    torch.testing.assert_close(pairwise_distances(x), torch.tensor(expected, dtype=dtype), rtol=rtol, atol=0)


def test_small_distances_far_from_the_origin_are_exact(dtype: torch.dtype) -> None:
    # The |a|^2 + |b|^2 - 2 ab form of a distance would lose every digit here.
    x = torch.tensor([[1000.0, 0.0], [1000.5, 0.0], [1000.0, 0.25]], dtype=dtype)
    torch.testing.assert_close(pairwise_distances(x)[0], torch.tensor([0.0, 0.5, 0.25], dtype=dtype), rtol=0, atol=0)


def test_symmetric_with_zero_diagonal(dtype: torch.dtype, generator: torch.Generator) -> None:
    distances = pairwise_distances(torch.randn(6, 3, dtype=dtype, generator=generator))
    assert torch.equal(distances, distances.mT)
    assert not distances.diagonal().any()


def test_coincident_atoms_have_zero_gradient_of_every_order(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 2, dtype=dtype)
    x[2] = 1
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(pairwise_distances(x).sum(), x, create_graph=True)
    # Atoms 0 and 1 coincide: only the unit vectors to atom 2 remain, twice each, as the matrix is symmetric.
    unit = math.sqrt(0.5)
    expected = 2 * torch.tensor([[-unit, -unit], [-unit, -unit], [2 * unit, 2 * unit]], dtype=dtype)
    torch.testing.assert_close(gradient, expected)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.isfinite().all()
    torch.testing.assert_close(norm(x[:2]), x.new_zeros(2), rtol=0, atol=0)
    assert not torch.autograd.grad(norm(x[:2]).sum(), x)[0].any()


def test_derivatives_match_finite_differences(generator: torch.Generator) -> None:
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise_distances, x)
    assert torch.autograd.gradgradcheck(pairwise_distances, x)


def test_cross_distances(dtype: torch.dtype, generator: torch.Generator) -> None:
    x = torch.randn(2, 5, 3, dtype=dtype, generator=generator)
    assert torch.equal(cross_distances(x[:, :2], x[:, 1:]), pairwise_distances(x)[:, :2, 1:])


def test_edges_shared_and_per_sample(dtype: torch.dtype, generator: torch.Generator) -> None:
    x = torch.randn(2, 5, 3, dtype=dtype, generator=generator)
    matrix = pairwise_distances(x)
    shared = torch.tensor([[0, 1, 4], [3, 2, 0]])
    assert torch.equal(edge_distances(x, shared), matrix[:, shared[0], shared[1]])
    assert torch.equal(edge_distances(x[0], shared), matrix[0, shared[0], shared[1]])
    own = torch.stack([shared, shared.flip(1)])
    expected = torch.stack([matrix[b, own[b, 0], own[b, 1]] for b in range(2)])
    assert torch.equal(edge_distances(x, own), expected)
    with pytest.raises(ValueError, match=r"edges has shape \(3, 2, 3\)"):
        edge_distances(x, own[[0, 0, 0]])


def test_the_nearest_image_by_hand(dtype: torch.dtype, rtol: float) -> None:
    d = torch.tensor([[1.6, -2.0], [-0.9, 1.4], [4.1, 7.0]], dtype=dtype)
    box = torch.tensor([2.0, 3.0], dtype=dtype)
    near = torch.tensor([[-0.4, 1.0], [-0.9, 1.4], [0.1, 1.0]], dtype=dtype)
    torch.testing.assert_close(nearest_image(d, box), near, rtol=10 * rtol, atol=rtol)
    torch.testing.assert_close(nearest_image(d, box.diag()), near, rtol=10 * rtol, atol=rtol)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_whether_a_cell_will_do_depends_on_no_unit(unit: float) -> None:
    like = torch.zeros(2, 3, dtype=torch.float64)
    hexagonal = unit * torch.tensor([[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 1.7]], dtype=torch.float64)
    box = unit * torch.tensor([1, 2, 0.5], dtype=torch.float64)
    for good in (hexagonal, box):
        assert torch.equal(checked_cell(good, like), good)
    flat = unit * torch.tensor([[1, 0, 0], [0, 1, 0], [0.4, 0.4, 1e-7]], dtype=torch.float64)
    with pytest.raises(ValueError, match="its rows should span space"):
        checked_cell(flat, like)
    long = unit * torch.tensor([[1, 0, 0], [0.51, 1, 0], [0, 0, 1]], dtype=torch.float64)
    with pytest.raises(ValueError, match="it should be reduced"):
        checked_cell(long, like)
