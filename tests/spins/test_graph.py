"""Ising and Potts spins on any graph, against sums over bonds and over all configurations."""

import itertools
import math

import pytest
import torch

from elf.spins import (
    AlignedCrossEntropy,
    Couplings,
    CrossEntropy,
    FreeEnergy,
    Graph,
    Ising,
    LocalField,
    Margin,
    Mattis,
    SpinEnergy,
    anneal,
    descend,
    flip_energies,
    frustrated_plaquettes,
    gauge_transform,
    graph_ground_state,
    ground_state,
    ising_energy,
    local_fields,
    unsatisfied_bonds,
)

# A triangle with a tail, and a bond written from the larger number to the smaller.
EDGES = torch.tensor([[0, 2, 0, 2, 3], [1, 1, 2, 3, 4]])
SPINS = 5
MULTILINEAR = [Ising(), LocalField(0.5), Mattis(0.3)]
ENERGIES = [*MULTILINEAR, CrossEntropy(), AlignedCrossEntropy(), FreeEnergy(Ising(), 0.2)]


def named(energy: SpinEnergy) -> str:
    return repr(energy).replace("\n", "")


@pytest.fixture
def graph(generator, dtype) -> Graph:
    return Graph(EDGES, torch.randn(3, 5, generator=generator, dtype=dtype))


@pytest.fixture(params=[2, 3, 4])
def potts(request, generator, graph) -> tuple[torch.Tensor, torch.Tensor, Graph]:
    """(probabilities, target, graph) with q states."""
    logits = torch.randn(3, SPINS, request.param, generator=generator, dtype=graph.values.dtype)
    return logits.softmax(-1), torch.randint(request.param, (3, SPINS), generator=generator), graph


def by_hand(energy: SpinEnergy, p: torch.Tensor, y: torch.Tensor, graph: Graph, sample: int) -> float:
    """Loops over bonds, sites and states, in Python's numbers."""
    q, J = p.shape[-1], graph.values[sample].tolist()
    p, y = p[sample].tolist(), y[sample].tolist()
    bonds = list(zip(*graph.edges.tolist(), strict=True))
    total = 0.0
    if isinstance(energy, FreeEnergy):
        alone = (torch.tensor([p], dtype=torch.float64), torch.tensor([y]), graph[[sample]])
        return by_hand(energy.energy, *alone, 0) + energy.temperature * sum(x * math.log(x) for site in p for x in site)
    if isinstance(energy, CrossEntropy):
        return -sum(math.log(site[state]) for site, state in zip(p, y, strict=True))
    if isinstance(energy, AlignedCrossEntropy):
        return min(
            -sum(math.log(site[new[state]]) for site, state in zip(p, y, strict=True))
            for new in itertools.permutations(range(q))
        )
    for (i, j), coupling in zip(bonds, J, strict=True):
        alike = sum(p[i][a] * p[j][a] for a in range(q))
        if isinstance(energy, Ising):
            total -= coupling * (alike - (y[i] == y[j]))
        if isinstance(energy, Mattis):
            total += (abs(coupling) + energy.offset) * ((1 - alike) if y[i] == y[j] else alike)
        if isinstance(energy, LocalField):
            total -= coupling * (p[i][y[j]] - (y[i] == y[j])) + coupling * (p[j][y[i]] - (y[i] == y[j]))
    if isinstance(energy, LocalField):
        total += energy.offset * sum(1 - p[i][y[i]] for i in range(SPINS))
    return total


@pytest.mark.parametrize("energy", ENERGIES, ids=named)
def test_potts_energies_against_loops(potts, rtol, energy):
    p, y, graph = potts
    value = energy(p, y, graph)
    assert value.dtype == p.dtype
    for sample in range(3):
        assert float(value[sample]) == pytest.approx(by_hand(energy, p, y, graph, sample), rel=10 * rtol, abs=50 * rtol)


@pytest.mark.parametrize("energy", MULTILINEAR, ids=named)
def test_potts_energies_are_means_over_all_configurations(potts, energy):
    p, y, graph = potts
    p, q, graph = p.double() / p.double().sum(-1, keepdim=True), p.shape[-1], graph.to(torch.float64)
    every = torch.tensor(list(itertools.product(range(q), repeat=SPINS)))
    certain = torch.nn.functional.one_hot(every, q).double()
    for sample in range(3):
        weights = p[sample][torch.arange(SPINS), every].prod(1)
        # Couplings of one sample hold for all configurations.
        values = energy(certain, y[[sample]].expand(len(every), -1), graph[[sample]])
        torch.testing.assert_close(energy(p, y, graph)[sample], (weights * values).sum())
        if isinstance(energy, Mattis):
            assert values.min() > -1e-9
    free, T = FreeEnergy(energy, 0.7)(p, y, graph), 0.7
    log_q = weights.log()
    log_z = (-values / T).logsumexp(0)
    divergence = (weights * (log_q + values / T + log_z)).sum()  # sum q log q / p
    torch.testing.assert_close(free[2] / T + log_z, divergence)


@pytest.mark.parametrize("energy", ENERGIES, ids=named)
def test_gradients_of_potts_spins(potts, energy):
    p, y, graph = potts
    z = p.double().log().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: energy(z.softmax(-1), y, graph.to(torch.float64)), z)


@pytest.mark.parametrize("energy", ENERGIES, ids=named)
def test_two_states_are_ising_spins_with_half_the_coupling(graph, rtol, generator, energy):
    z = torch.randn(3, SPINS, generator=generator, dtype=graph.values.dtype)
    y = torch.randint(2, (3, SPINS), generator=generator)
    p = torch.stack([torch.sigmoid(-2 * z), torch.sigmoid(2 * z)], -1)
    # J m_i m_j = 2 J (P(alike) - 1/2); offsets are doubled with the couplings.
    twice = energy
    for doubled in (LocalField, Mattis):
        twice = doubled(2 * energy.offset) if isinstance(energy, doubled) else twice
    potts = twice(p, y, graph.with_values(2 * graph.values))
    torch.testing.assert_close(potts, energy(z, 2 * y - 1, graph), rtol=20 * rtol, atol=50 * rtol)


@pytest.mark.parametrize("energy", ENERGIES, ids=named)
def test_relabelled_states(potts, rtol, generator, energy):
    p, y, graph = potts
    order = torch.randperm(p.shape[-1], generator=generator).roll(1)
    relabelled = torch.argsort(order)[y]
    close = {"rtol": 10 * rtol, "atol": 50 * rtol}
    torch.testing.assert_close(energy(p[..., order], relabelled, graph), energy(p, y, graph), **close)
    inner = energy.energy if isinstance(energy, FreeEnergy) else energy
    shifted = (y + 1) % p.shape[-1]
    same = torch.allclose(energy(p, shifted, graph), energy(p, y, graph), rtol=1e-4, atol=1e-4)
    assert same == isinstance(inner, Ising | Mattis | AlignedCrossEntropy)


@pytest.mark.parametrize("energy", MULTILINEAR, ids=named)
def test_gauges_of_a_graph(graph, rtol, generator, energy):
    z = torch.randn(3, SPINS, generator=generator, dtype=graph.values.dtype)
    y, g = (2 * torch.randint(2, (3, SPINS), generator=generator) - 1 for _ in range(2))
    other = gauge_transform(graph, g)
    torch.testing.assert_close(energy(z * g, y * g, other), energy(z, y, graph), rtol=10 * rtol, atol=20 * rtol)
    torch.testing.assert_close(ising_energy(y * g, other), ising_energy(y, graph), rtol=10 * rtol, atol=20 * rtol)


@pytest.mark.parametrize("energy", [*ENERGIES, Margin()], ids=named)
@pytest.mark.parametrize("periodic", [False, True])
def test_a_square_lattice_is_a_graph(make, random_spins, generator, periodic, energy):
    couplings = make(3, 3, 4, periodic)
    graph = Graph(couplings.edges, couplings.values)
    y, z = random_spins(couplings), torch.randn(couplings.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(energy(z.flatten(1), y.flatten(1), graph), energy(z, y, couplings))
    for function in (local_fields, flip_energies):
        torch.testing.assert_close(function(y.flatten(1), graph), function(y, couplings).flatten(1))
    broken = torch.cat([part.flatten(1) for part in unsatisfied_bonds(y, couplings)], 1)
    assert torch.equal(unsatisfied_bonds(y.flatten(1), graph)[0], broken)
    if not isinstance(energy, Margin):
        p, states = torch.rand(3, 3, 4, 3, generator=generator, dtype=torch.float64).softmax(-1), (y + 1) // 2
        torch.testing.assert_close(energy(p.flatten(1, 2), states.flatten(1), graph), energy(p, states, couplings))


@pytest.mark.parametrize("energy", ENERGIES, ids=named)
def test_neighbours_in_the_batch_change_nothing(potts, energy):
    p, y, graph = potts
    alone = [energy(p[[k]], y[[k]], graph[[k]]) for k in range(3)]
    assert torch.equal(torch.cat(alone), energy(p, y, graph))
    shared = Graph(EDGES, graph.values[0])
    assert torch.equal(energy(p, y, shared), energy(p, y, graph[[0, 0, 0]]))
    assert energy(p[:0], y[:0], graph[:0]).shape == (0,)


def test_no_minimiser_goes_below_the_ground_state(generator):
    """Gradient descent of the true energy from random magnetisations, on a graph of 12 spins that are all coupled."""
    edges = torch.triu_indices(12, 12, 1)
    graph = Graph(edges, torch.randn(66, generator=generator, dtype=torch.float64))
    dense = torch.zeros(12, 12, dtype=torch.float64)
    dense[edges[0], edges[1]] = graph.values[0]
    exact = graph_ground_state(dense + dense.T)
    assert exact.optimal
    z = torch.randn(40, 12, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer, truth = torch.optim.Adam([z], lr=0.1), exact.spins.expand(40, -1)
    for _ in range(200):
        (z.grad,) = torch.autograd.grad(Ising()(z, truth, graph).sum(), z)
        optimizer.step()
    above = Ising()(z.detach(), truth, graph)
    assert -1e-9 <= float(above.min()) < 0.1
    for method in ("auto", "exhaustive"):
        found = ground_state(graph, method)
        assert found.optimal.all()
        assert torch.equal(found.spins[0], exact.spins)
    for spins in (anneal(graph), descend(torch.where(z.detach() < 0, -1, 1), graph)):
        assert (ising_energy(spins, graph) >= exact.energy - 1e-9).all()
        assert (flip_energies(spins, graph) >= -1e-9).all()
    assert float(ising_energy(anneal(graph), graph)) == pytest.approx(exact.energy)


def test_probabilities_at_the_ends_of_their_range():
    graph = Graph(torch.tensor([[0], [1]]), torch.ones(1))
    for energy in ENERGIES:
        z = torch.tensor([[[200.0, 0.0, -200.0], [-200.0, 0.0, 200.0]]], requires_grad=True)
        (gradient,) = torch.autograd.grad(energy(z.softmax(-1), torch.tensor([[1, 0]]), graph).sum(), z)
        assert gradient.isfinite().all()
    bfloat16 = torch.tensor([[[0.3, 0.3, 0.4], [0.1, 0.2, 0.7]]], dtype=torch.bfloat16)
    assert Ising()(bfloat16, torch.tensor([[1, 0]]), graph).dtype == torch.float32


def test_bad_graphs_and_probabilities_are_named():
    J, p, y = torch.ones(5), torch.full((2, 5, 3), 1 / 3), torch.zeros(2, 5, dtype=torch.long)
    graph = Graph(EDGES, J)
    for edges, words in (
        (EDGES[:1], r"edges has shape \(1, 5\)"),
        (EDGES[None], r"edges has shape \(1, 2, 5\)"),
        (EDGES.clamp_max(0), "edges joins node 0 to itself"),
        (EDGES[:, [0, 0, 1, 2, 3]], "edges holds the pair"),
    ):
        with pytest.raises(ValueError, match=words):
            Graph(edges, J)
    with pytest.raises(TypeError, match="edges has dtype"):
        Graph(EDGES.float(), J)
    with pytest.raises(ValueError, match="edges mentions node 4"):
        Graph(EDGES, J, spins=4)
    with pytest.raises(ValueError, match=r"couplings has shape \(4,\); it should be \(E,\) or \(B, E\) with E = 5"):
        Graph(EDGES, J[:4])
    with pytest.raises(ValueError, match=r"couplings is nan at \(0, 0\)"):
        Graph(EDGES, J * torch.nan)
    with pytest.raises(TypeError, match="couplings has dtype"):
        Graph(EDGES, J.long())
    energy = Ising()
    for wrong, words in (
        (p[:, :4], r"probabilities has shape \(2, 4, 3\)"),
        (p * 1.1, "probabilities of 3 states add up to 1.1"),
        (p - torch.tensor([1.0, -1.0, 0.0]), "the least is -0.6667"),
        (torch.ones(2, 5, 1), "probabilities of 1 states"),
        (p * torch.inf, "probabilities is inf"),
    ):
        with pytest.raises(ValueError, match=words):
            energy(wrong, y, graph)
    with pytest.raises(ValueError, match=r"target holds states 3 \.\.\. 3; they should be 0 \.\.\. 2"):
        energy(p, y + 3, graph)
    with pytest.raises(ValueError, match=r"target has shape \(1, 5\); probabilities has 2 samples"):
        energy(p, y[:1], graph)
    with pytest.raises(TypeError, match=r"target has dtype torch\.float32"):
        energy(p, y.float(), graph)
    with pytest.raises(TypeError, match="probabilities has dtype"):
        energy(p.long(), y, graph)
    with pytest.raises(ValueError, match="the margin is one of logits"):
        Margin()(p, y, graph)
    with pytest.raises(ValueError, match="method is 'matching', which needs a planar lattice"):
        ground_state(graph, "matching")
    with pytest.raises(ValueError, match="graph 0 leave its 6 spins in 2 disconnected parts"):
        ground_state(Graph(EDGES, J, spins=6))
    with pytest.raises(TypeError, match="Couplings"):
        frustrated_plaquettes(graph)
    assert isinstance(Couplings(torch.ones(1, 1, 1), torch.ones(1, 0, 2)), Graph)
