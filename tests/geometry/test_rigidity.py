"""Rigidity against theorems, brute force and autograd."""

from __future__ import annotations

import time
from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

import elf
from elf.geometry import edge_distances, pairwise_distances
from elf.geometry.graphs import (
    complete_edges,
    is_connected,
    random_regular_edges,
    symmetrise_edges,
    undirected_pairs,
)
from elf.geometry.modular import PRIME, eliminate, inverse, random_null_vector, random_residues, residue
from elf.geometry.rigidity import (
    draw_rigid_graph,
    flexes,
    full_rank,
    generic_rank,
    is_globally_rigid,
    is_rigid,
    rigid_motions,
    rigidity_matrix,
    stress_matrix,
)
from elf.geometry.symmetry import assert_invariant, automorphisms


def edge_list(graph: nx.Graph) -> tuple[int, torch.Tensor]:
    graph = nx.convert_node_labels_to_integers(graph)
    return graph.number_of_nodes(), torch.tensor(list(graph.edges)).T


def double_banana() -> nx.Graph:
    """Two triangular bipyramids that share their tips 0 and 1, without the rod between these."""
    graph = nx.Graph()
    for a, b, c in ((2, 3, 4), (5, 6, 7)):
        graph.add_edges_from([(a, b), (b, c), (a, c)] + [(tip, node) for tip in (0, 1) for node in (a, b, c)])
    return graph


def complete_minus_edge(n: int) -> nx.Graph:
    graph = nx.complete_graph(n)
    graph.remove_edge(0, 1)
    return graph


KNOWN = {
    # name: (graph, D, generic rank, rigid, globally rigid)
    "square": (nx.cycle_graph(4), 2, 4, False, False),
    "braced square": (complete_minus_edge(4), 2, 5, True, False),
    "K4 in the plane": (nx.complete_graph(4), 2, 5, True, True),
    "K33 in the plane": (nx.complete_bipartite_graph(3, 3), 2, 9, True, False),
    "K44 in the plane": (nx.complete_bipartite_graph(4, 4), 2, 13, True, True),
    "prism in the plane": (nx.circular_ladder_graph(3), 2, 9, True, False),
    "wheel in the plane": (nx.wheel_graph(6), 2, 9, True, True),
    "triangle in space": (nx.complete_graph(3), 3, 3, True, True),
    "path of three in space": (nx.path_graph(3), 3, 2, False, False),
    "tetrahedron": (nx.complete_graph(4), 3, 6, True, True),
    "two tetrahedra face to face": (complete_minus_edge(5), 3, 9, True, False),
    "K5": (nx.complete_graph(5), 3, 9, True, True),
    "octahedron": (nx.octahedral_graph(), 3, 12, True, False),
    "cube": (nx.hypercube_graph(3), 3, 12, False, False),
    # Bolker and Roth 1980: K_{m,n} is rigid in space iff m, n >= 4 and m + n >= 10.
    "K44": (nx.complete_bipartite_graph(4, 4), 3, 16, False, False),
    "K45": (nx.complete_bipartite_graph(4, 5), 3, 20, False, False),
    "K46": (nx.complete_bipartite_graph(4, 6), 3, 24, True, False),
    # Connelly 1991: redundantly rigid and 5-connected, yet not globally rigid.
    "K55": (nx.complete_bipartite_graph(5, 5), 3, 24, True, False),
    "K56": (nx.complete_bipartite_graph(5, 6), 3, 27, True, True),
    # 18 edges, as many as a rigid framework of 8 nodes needs, but hinged about the line through its tips.
    "double banana": (double_banana(), 3, 17, False, False),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_graphs(name):
    graph, dim, rank, rigid, globally = KNOWN[name]
    n, edges = edge_list(graph)
    for seed in (0, 1):
        assert int(generic_rank(n, edges, dim, seed=seed)) == rank
        assert bool(is_rigid(n, edges, dim, seed=seed)) == rigid
        assert bool(is_globally_rigid(n, edges, dim, seed=seed)) == globally


def redundantly_rigid(n: int, edges: torch.Tensor, dim: int) -> bool:
    every = torch.arange(edges.shape[1])
    without_one = torch.stack([edges[:, every != e] for e in every])
    return bool((generic_rank(n, without_one, dim) == full_rank(n, dim)).all())


def random_graphs(n: int, count: int, fewest: int) -> list[nx.Graph]:
    rng = np.random.default_rng(0)
    graphs = []
    while len(graphs) < count:
        graph = nx.gnm_random_graph(n, int(rng.integers(fewest, n * (n - 1) // 2)), seed=int(rng.integers(2**31)))
        if nx.is_connected(graph):
            graphs.append(graph)
    return graphs


def test_on_the_line_globally_rigid_is_two_connected():
    answers = set()
    for graph in random_graphs(7, 25, 6):
        answer = bool(is_globally_rigid(*edge_list(graph), 1))
        assert answer == nx.is_biconnected(graph)
        answers.add(answer)
    assert answers == {True, False}


def test_in_the_plane_globally_rigid_is_three_connected_and_redundantly_rigid():
    """Jackson and Jordan, J. Combin. Theory B 94 (2005) 1: a criterion without any stress."""
    answers = set()
    for graph in random_graphs(7, 25, 11):
        n, edges = edge_list(graph)
        answer = bool(is_globally_rigid(n, edges, 2))
        assert answer == (nx.node_connectivity(graph) >= 3 and redundantly_rigid(n, edges, 2))
        answers.add(answer)
    assert answers == {True, False}


def test_in_space_hendricksons_conditions_are_necessary_and_not_sufficient():
    for graph in random_graphs(8, 10, 19):
        n, edges = edge_list(graph)
        if is_globally_rigid(n, edges, 3):
            assert nx.node_connectivity(graph) >= 4
            assert redundantly_rigid(n, edges, 3)
    k55 = nx.complete_bipartite_graph(5, 5)
    assert nx.node_connectivity(k55) == 5
    assert redundantly_rigid(*edge_list(k55), 3)
    assert not is_globally_rigid(*edge_list(k55), 3)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_exact_ranks_are_those_of_real_positions(dim):
    generator = torch.Generator().manual_seed(dim)
    for graph in random_graphs(9, 8, 9):
        n, edges = edge_list(graph)
        x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        matrix = rigidity_matrix(x, edges)
        assert int(generic_rank(n, edges, dim)) == int(torch.linalg.matrix_rank(matrix))
        kernel = torch.linalg.svd(matrix.mT)[2][int(torch.linalg.matrix_rank(matrix)) :]
        if bool(is_rigid(n, edges, dim)) and len(kernel):
            stress = torch.randn(len(kernel), generator=generator, dtype=torch.float64) @ kernel
            rank = int(torch.linalg.matrix_rank(stress_matrix(stress, edges, n), rtol=1e-9))
            assert bool(is_globally_rigid(n, edges, dim)) == (rank == n - dim - 1)


@pytest.mark.parametrize("name", ["braced square", "K4 in the plane", "K33 in the plane", "K44 in the plane"])
def test_global_rigidity_is_uniqueness_of_the_sparse_energy_s_minimum(name):
    """From many starts to energy zero: only where the graph is globally rigid is every such end congruent to y."""
    graph, dim, _, _, globally = KNOWN[name]
    n, edges = edge_list(graph)
    rng = np.random.default_rng(0)
    target = rng.standard_normal((n, dim))
    first, second = edges.numpy()

    def stretches(x: np.ndarray) -> np.ndarray:
        shape = x.reshape(n, dim)
        lengths = np.linalg.norm(shape[first] - shape[second], axis=1)
        return lengths - np.linalg.norm(target[first] - target[second], axis=1)

    rest = pairwise_distances(torch.from_numpy(target))
    sparse = elf.PairEnergy(elf.springs.Constant(), edges=edges)
    errors = []
    for _ in range(25):
        end = least_squares(stretches, rng.standard_normal(n * dim), xtol=1e-12, ftol=1e-12, gtol=1e-12).x
        x = torch.from_numpy(end.reshape(n, dim))
        if float(sparse(x[None], torch.from_numpy(target)[None])) < 1e-16:
            errors.append(float((pairwise_distances(x) - rest).abs().max()))
    assert len(errors) >= 3
    assert min(errors) < 1e-5
    assert (max(errors) < 1e-5) == globally


def test_rigidity_matrix_is_the_derivative_of_half_the_squared_lengths(dtype, rtol, generator):
    x = torch.randn(2, 5, 3, generator=generator, dtype=dtype)
    edges = complete_edges(5)[:, ::2]
    expected = torch.stack(
        [torch.autograd.functional.jacobian(lambda y: edge_distances(y, edges).square() / 2, s) for s in x]
    ).flatten(-2)
    torch.testing.assert_close(rigidity_matrix(x, edges), expected, rtol=rtol, atol=10 * rtol)


def test_it_makes_the_hessian_of_the_pair_energy(generator):
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    edges = random_regular_edges(6, 4, 0)
    spring = elf.springs.Exponential()
    energy = elf.PairEnergy(spring, edges=edges)
    hessian = torch.autograd.functional.hessian(lambda y: energy(y[None], x[None]).sum(), x).reshape(18, 18)
    r = edge_distances(x, edges)
    matrix = rigidity_matrix(x, edges)
    torch.testing.assert_close(hessian, 2 * matrix.mT @ (matrix * (spring(r) / r.square())[:, None]))


def test_a_stress_matrix_annihilates_coordinates_and_constants(dtype, rtol, generator):
    x = torch.randn(3, 5, 2, generator=generator, dtype=dtype)
    edges = complete_edges(5).expand(3, -1, -1)
    balanced = torch.linalg.svd(rigidity_matrix(x, edges[0]).mT)[2][:, -1]
    omega = stress_matrix(balanced, edges, 5)
    torch.testing.assert_close(omega, omega.mT)
    torch.testing.assert_close(omega @ x, torch.zeros_like(x), rtol=0, atol=100 * rtol)
    torch.testing.assert_close(omega.sum(-1), torch.zeros_like(omega[..., 0]), rtol=0, atol=100 * rtol)
    unbalanced = stress_matrix(torch.ones_like(balanced), edges, 5)
    assert (unbalanced @ x).abs().max() > 0.1


def test_prime_is_prime():
    assert PRIME < 2**25
    assert all(PRIME % divisor for divisor in range(2, int(PRIME**0.5) + 1))


def test_residues_agree_with_python_integers(generator):
    x = torch.randint(-(2**52), 2**52, (2000,), generator=generator)
    x[:1000] = PRIME * (x[:1000] // PRIME) + torch.randint(-1, 2, (1000,), generator=generator)
    reduced = residue(x.double()).long()
    assert bool((reduced.abs() <= PRIME // 2 + 1).all())
    assert [(int(a) - int(b)) % PRIME for a, b in zip(x, reduced, strict=True)] == [0] * 2000
    assert [int(b) == 0 for b in reduced] == [int(a) % PRIME == 0 for a in x]


def test_inverses_and_the_inverse_of_zero(generator):
    values = random_residues(50, generator=generator)
    assert -PRIME / 2 < float(values.min()) < 0 < float(values.max()) < PRIME / 2
    values[0] = 0
    product = residue(values * inverse(values))
    assert product.tolist() == [0.0] + [1.0] * 49


@pytest.mark.parametrize(("rows", "columns", "rank"), [(7, 5, 5), (20, 40, 11), (40, 33, 16), (50, 50, 50), (3, 20, 0)])
def test_elimination_finds_the_rank_of_a_product_and_its_kernel(rows, columns, rank, generator):
    left = random_residues(4, rows, rank, generator=generator)
    right = random_residues(4, rank, columns, generator=generator)
    matrix = sum((residue(left[:, :, r, None] * right[:, r, None]) for r in range(rank)), torch.zeros(4, rows, columns))
    matrix = residue(matrix.double())
    reduced = eliminate(matrix)
    assert reduced.rank.tolist() == [rank] * 4
    for form, pivots in zip(reduced.matrix, reduced.pivots, strict=True):
        for column in (pivots >= 0).nonzero()[:, 0]:
            assert form[:, column].nonzero()[:, 0].tolist() == [int(pivots[column])]
    w = random_null_vector(reduced, generator)
    assert residue(residue(matrix * w[:, None]).sum(-1)).abs().max() == 0
    assert bool((w != 0).any()) == (rank < columns)


def test_many_graphs_give_the_same_answers_as_one_at_a_time():
    graphs = [graph for graph in random_graphs(8, 200, 19) if graph.number_of_edges() == 21]
    edges = torch.stack([torch.tensor(list(graph.edges)).T for graph in graphs])
    together = is_globally_rigid(8, edges, 3)
    assert together.shape == edges.shape[:1]
    assert together.tolist() == [bool(is_globally_rigid(8, e, 3)) for e in edges]
    assert bool(together.any())
    assert not bool(together.all())
    grid = edges[:8].reshape(2, 4, 2, -1)
    assert torch.equal(is_globally_rigid(8, grid, 3).flatten(), together[:8])


def test_how_many_graphs_are_looked_at_together_changes_nothing(monkeypatch):
    edges = torch.stack([SQUARE, torch.tensor([[0, 0, 0, 1], [1, 2, 3, 2]])])
    expected = is_globally_rigid(4, edges, 1)
    assert expected.tolist() == [True, False]
    monkeypatch.setattr("elf.geometry.rigidity._ENTRIES_AT_A_TIME", 1)
    assert torch.equal(is_globally_rigid(4, edges, 1), expected)


@pytest.mark.parametrize(("n", "dim"), [(2, 2), (2, 3), (3, 3), (4, 3)])
def test_points_that_cannot_span_space_need_all_distances(n, dim):
    edges = complete_edges(n)
    assert bool(is_rigid(n, edges, dim))
    assert bool(is_globally_rigid(n, edges, dim))
    if n > 2:
        assert not bool(is_rigid(n, edges[:, 1:], dim))
        assert not bool(is_globally_rigid(n, edges[:, 1:], dim))


def test_a_square_bends_and_a_braced_one_does_not(dtype):
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=dtype)
    rods = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    (motion,) = flexes(square, rods)
    # The shear of a square: each corner moves along a diagonal, neighbours out of step; unique up to its sign.
    expected = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]], dtype=dtype) / 8**0.5
    assert torch.allclose((motion * expected).sum().abs(), torch.ones((), dtype=dtype), atol=1e-5)
    for size in (1e-3, 1.0, 1e3):
        assert flexes(size * square, rods).shape == (1, 4, 2)
        assert flexes(size * square, torch.cat([rods, torch.tensor([[0], [2]])], 1)).shape == (0, 4, 2)
    # Far from the origin, where coordinates are still exact.
    (far,) = flexes(square + (2.0**14 if dtype == torch.float32 else 2.0**30), rods)
    torch.testing.assert_close((far * motion).sum().abs(), torch.ones((), dtype=dtype), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_flexes_keep_lengths_and_are_no_rigid_motions(size, shift, generator):
    n, edges = edge_list(double_banana())
    x = size * (torch.randn(n, 3, generator=generator, dtype=torch.float64) + shift)
    (motion,) = flexes(x, edges)
    assert (rigidity_matrix(x, edges) @ motion.flatten()).abs().max() < 1e-9 * size
    centred = x - x.mean(0)
    torch.testing.assert_close(motion.sum(0), motion.new_zeros(3), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        torch.linalg.cross(centred, motion).sum(0), motion.new_zeros(3), atol=1e-8 * size, rtol=0
    )
    assert (rigidity_matrix(x, complete_edges(n)) @ motion.flatten()).abs().max() > 1e-2 * size


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_rigid_motions_are_weighted_by_the_root_of_mass_in_any_unit(unit, generator):
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    masses = unit * torch.tensor([1.0, 12.0, 16.0, 14.0], dtype=torch.float64)
    basis = rigid_motions(x, masses)
    assert len(basis) == 6
    axis = torch.randn(3, generator=generator, dtype=torch.float64)
    for velocity in (axis.expand(4, 3), torch.linalg.cross(axis.expand(4, 3), x)):
        weighted = (velocity * (masses / unit).sqrt()[:, None]).flatten()
        torch.testing.assert_close(basis.mT @ (basis @ weighted), weighted)


def test_special_positions_may_bend_where_generic_ones_do_not():
    flat = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    triangle = complete_edges(3)
    assert bool(is_rigid(3, triangle, 2))
    assert flexes(flat, triangle).shape[0] == 1


@pytest.mark.parametrize(("n", "degree"), [(5, 4), (20, 4), (33, 6), (64, 9)])
@pytest.mark.parametrize("method", ["pairing", "switching"])
def test_random_regular_graphs_are_regular_simple_and_repeatable(n, degree, method):
    draw = partial(random_regular_edges, method=method)
    edges = draw(n, degree, 0, count=3)
    assert edges.shape == (3, 2, n * degree // 2)
    for graph in edges:
        assert graph.flatten().bincount(minlength=n).tolist() == [degree] * n
        assert bool((graph[0] < graph[1]).all())
        assert len({tuple(pair) for pair in graph.T.tolist()}) == graph.shape[1]
    assert bool((graph[0, 1:] * n + graph[1, 1:] > graph[0, :-1] * n + graph[1, :-1]).all())
    assert torch.equal(edges, draw(n, degree, torch.Generator().manual_seed(0), count=3))
    if method == "pairing":
        assert torch.equal(edges[0], draw(n, degree, 0))
    # What is remembered is not what the caller may write to.
    draw(n, degree, 0, count=3).zero_()
    assert torch.equal(edges, draw(n, degree, 0, count=3))
    assert degree == n - 1 or not torch.equal(edges[0], edges[1])


def test_pairing_draws_one_of_very_many_graphs():
    graphs = random_regular_edges(20, 4, 0, count=100)
    assert len({tuple(graph.flatten().tolist()) for graph in graphs}) == 100


@pytest.mark.parametrize("method", ["pairing", "switching"])
def test_a_hundred_graphs_of_300_nodes_in_two_seconds(method):
    random_regular_edges(10, 4, 0, method=method)  # imports
    begin = time.process_time()
    assert random_regular_edges(300, 6, torch.Generator(), count=100, method=method).shape == (100, 2, 900)
    assert time.process_time() - begin < (2 if method == "pairing" else 0.5)


def test_switching_draws_as_uniformly_as_pairing():
    """Triangles of random 6-regular graphs: (d - 1)^3 / 6 = 20.8 of them, Poisson, as n grows (Bollobas, Wormald)."""
    triangles = []
    for edges in random_regular_edges(400, 6, 0, count=200, method="switching"):
        adjacency = torch.zeros(400, 400)
        adjacency[tuple(edges)] = adjacency[tuple(edges.flip(0))] = 1
        triangles.append(float((adjacency @ adjacency * adjacency).sum()) / 6)
    mean = sum(triangles) / 200
    variance = sum((found - mean) ** 2 for found in triangles) / 199
    assert mean == pytest.approx(125 / 6, abs=4 * (125 / 6 / 200) ** 0.5)
    assert variance == pytest.approx(125 / 6, rel=0.4)
    # Every pair of nodes is equally likely to be an edge: 12 nodes, degree 3, 3/11 each.
    edges = random_regular_edges(12, 3, 1, count=4000, method="switching")
    often = (edges[:, 0] * 12 + edges[:, 1]).flatten().bincount(minlength=144).view(12, 12).float() / 4000
    upper = often[torch.triu_indices(12, 12, 1).unbind()]
    assert float((upper - 3 / 11).abs().max()) < 5 * (3 / 11 * 8 / 11 / 4000) ** 0.5


def test_connectedness_as_networkx_sees_it():
    graphs = [nx.gnm_random_graph(9, 9, seed=seed) for seed in range(40)]
    edges = torch.stack([torch.tensor(list(graph.edges)).T for graph in graphs])
    answers = is_connected(9, edges)
    assert answers.tolist() == [nx.is_connected(graph) for graph in graphs]
    assert bool(answers.any())
    assert not bool(answers.all())


def test_drawn_graphs_are_globally_rigid_and_tries_are_counted():
    edges, tries = draw_rigid_graph(30, 1, 0, degree=2, count=5)
    assert bool(is_globally_rigid(30, edges, 1, seed=5).all())
    assert edges.shape == (5, 2, 30)
    # Degree 2 on the line: one cycle through all nodes, as opposed to several, is the exception.
    assert tries > 5
    single, few = draw_rigid_graph(30, 2, torch.Generator().manual_seed(1))
    assert single.shape == (2, 60)
    assert few >= 1
    # So few nodes need all pairs, and have no more.
    assert torch.equal(draw_rigid_graph(4, 3, 0, degree=3).edges, complete_edges(4))
    again = draw_rigid_graph(30, 2, 1)
    assert torch.equal(again.edges, single)


def test_tries_are_counted_a_graph(monkeypatch):
    monkeypatch.setattr(
        "elf.geometry.rigidity.is_globally_rigid", lambda n, edges, *_, **__: torch.zeros(len(edges)) > 0
    )
    with pytest.raises(ValueError, match="max_tries is 4: of 12 random graphs with n = 9 and degree 4, 0 were"):
        draw_rigid_graph(9, 2, 0, count=3, max_tries=4)


def test_what_fills_up_a_list_is_no_pair():
    lists = torch.tensor([[[0, 0, -1, -1], [1, 2, -1, -1]], [[0, 1, 2, 3], [1, 2, 3, 0]]])
    assert torch.equal(undirected_pairs(lists, 4, padded=True), lists)
    first = torch.tensor([[[-1, 0], [-1, 1]]])
    assert torch.equal(undirected_pairs(first, 4, padded=True), first)
    with pytest.raises(ValueError, match="mentions node -1"):
        undirected_pairs(lists, 4)


SQUARE = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_regular_edges(7, 3, 0), "n \\* degree = 7 \\* 3 is odd"),
        (lambda: random_regular_edges(6, 6, 0), "degree is 6 with n = 6"),
        (lambda: random_regular_edges(6, 0, 0), "degree is 0"),
        (lambda: random_regular_edges(6, 2, 0, count=0), "count is 0"),
        (lambda: random_regular_edges(6, 2, 0, method="luck"), "method is 'luck'"),
        (lambda: is_rigid(4, torch.tensor([[0, 2], [1, 2]]), 2), "joins node 2 to itself"),
        (lambda: is_rigid(4, torch.tensor([[0, 1, 2], [1, 0, 3]]), 2), "pair \\(0, 1\\) more than once"),
        (lambda: is_rigid(4, torch.tensor([[1, 0, 3], [3, 1, 1]]), 2), "pair \\(1, 3\\) more than once"),
        (lambda: is_rigid(4, torch.tensor([[0, 1], [1, 4]]), 2), "mentions node 4"),
        (lambda: is_rigid(4, torch.tensor([[0, -1], [1, 2]]), 2), "mentions node -1"),
        (lambda: is_rigid(4, torch.zeros(2, 0, dtype=torch.long), 2), "at least one edge"),
        (lambda: is_rigid(1, torch.zeros(2, 0, dtype=torch.long), 2), "n is 1; it should be at least 2"),
        (lambda: is_rigid(4, SQUARE, 0), "dim is 0"),
        (lambda: is_rigid(5, SQUARE, 2), "5 nodes in several pieces"),
        (lambda: is_globally_rigid(4, torch.tensor([[0, 2], [1, 3]]), 2), "should be connected"),
        (lambda: is_globally_rigid(5, torch.stack([SQUARE, SQUARE]), 2), "graph \\[0\\]"),
        (lambda: draw_rigid_graph(6, 3, 0), "degree is 6 with n = 6"),
        (lambda: draw_rigid_graph(40, 3, 0, degree=5), "100 edges, where global rigidity needs 115"),
        (lambda: draw_rigid_graph(6, 2, 0, degree=3), "9 edges, where global rigidity needs 10"),
        (lambda: draw_rigid_graph(4, 3, 0, degree=2), "4 edges, where global rigidity needs 6"),
        (lambda: draw_rigid_graph(20, 1, 0, degree=2, max_tries=0), "max_tries is 0"),
        (lambda: draw_rigid_graph(200, 1, 0, degree=2, max_tries=2), "of 2 random graphs with n = 200"),
        (lambda: flexes(torch.tensor([[0.0, torch.nan]] * 4), SQUARE), "NaN or infinite"),
        (lambda: flexes(torch.zeros(3, 2), SQUARE), "mentions node 3"),
        (lambda: symmetrise_edges(SQUARE, torch.tensor([[1, 2, 3, 0]])), "lacks the identity"),
        (lambda: symmetrise_edges(SQUARE, torch.tensor([[0, 1, 2, 2]])), "not a rearrangement"),
        (lambda: symmetrise_edges(SQUARE[:, :1], torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])), "not closed"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def ethane(dtype: torch.dtype) -> torch.Tensor:
    """Staggered, with the full symmetry D3d of order 12: C, H, H, H and their images under inversion."""
    angles = torch.arange(3, dtype=dtype) * 2 * torch.pi / 3
    hydrogens = torch.stack([1.02 * angles.cos(), 1.02 * angles.sin(), torch.full_like(angles, 1.16)], -1)
    half = torch.cat([torch.tensor([[0.0, 0.0, 0.765]], dtype=dtype), hydrogens])
    return torch.cat([half, -half])


def test_symmetrised_edges_give_symmetric_atoms_the_same_force(dtype, rtol):
    """Eq. 57: invariance to Aut(Delta y), which the sparse graph alone breaks and its symmetrisation restores."""
    target = ethane(dtype)
    elements = automorphisms(pairwise_distances(target), labels=[6, 1, 1, 1] * 2)
    assert len(elements) == 12
    sparse = draw_rigid_graph(8, 3, 0).edges[:, 3:]
    symmetric = symmetrise_edges(sparse, elements)
    assert sparse.shape[1] < symmetric.shape[1] <= 28
    noise = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    prediction = target + 0.3 * noise

    energy = elf.PairEnergy(edges=symmetric)
    assert_invariant(energy, prediction, target[None], permutations=elements)
    with pytest.raises(AssertionError, match="permutation"):
        assert_invariant(elf.PairEnergy(edges=sparse), prediction, target[None], permutations=elements)

    def forces(energy: elf.energy.Energy) -> torch.Tensor:
        swollen = (1.1 * target[None]).requires_grad_()
        return torch.autograd.grad(energy(swollen, target[None]).sum(), swollen)[0][0].norm(dim=-1)

    orbits = elements.amin(0)
    assert orbits.tolist() == [0, 1, 1, 1] * 2
    for orbit in (0, 1):
        sizes = forces(energy)[orbits == orbit]
        torch.testing.assert_close(sizes, sizes[:1].expand_as(sizes), rtol=100 * rtol, atol=100 * rtol)
    hydrogens = forces(elf.PairEnergy(edges=sparse))[orbits == 1]
    assert float(hydrogens.max() - hydrogens.min()) > 1e-3


def test_symmetrising_is_idempotent_adds_only_and_keeps_what_is_symmetric():
    target = ethane(torch.float64)
    elements = automorphisms(pairwise_distances(target))
    sparse = random_regular_edges(8, 2, 0)
    symmetric = symmetrise_edges(sparse, elements)
    assert torch.equal(symmetrise_edges(symmetric, elements), symmetric)
    assert {tuple(e) for e in sparse.T.tolist()} <= {tuple(e) for e in symmetric.T.tolist()}
    # By brute force: conjugating the adjacency matrix with each permutation matrix, and joining the results.
    adjacency = torch.zeros(8, 8)
    adjacency[sparse[0], sparse[1]] = 1
    adjacency += adjacency.mT.clone()
    union = torch.stack([torch.eye(8)[p].mT @ adjacency @ torch.eye(8)[p] for p in elements]).sum(0)
    assert torch.equal(union.triu(1).nonzero().T, symmetric)
    assert torch.equal(symmetrise_edges(sparse, torch.arange(8)[None]), sparse)
    assert torch.equal(symmetrise_edges(complete_edges(8), elements), complete_edges(8))
