import networkx
import pytest
import torch

from elf.data.spin_glass import sample_couplings
from elf.metrics.spins import (
    bond_accuracy,
    domain_walls,
    excess_energy,
    overlap,
    round_logits,
    wall_distance,
)
from elf.spins import entropy, ground_state, ising_energy


@pytest.fixture(params=[False, True], ids=["free", "periodic"])
def lattice(request, generator):
    couplings = sample_couplings(3, 4, 5, periodic=request.param).to(torch.float64)
    return couplings, *(torch.randint(2, (3, 4, 5), generator=generator) * 2 - 1 for _ in range(2))


def test_scores_against_loops(lattice):
    couplings, spins, target = lattice
    first, second = couplings.edges
    s, t = spins.flatten(1), target.flatten(1)
    alike = ((s[:, first] == s[:, second]) == (t[:, first] == t[:, second])).double().mean(1)
    torch.testing.assert_close(bond_accuracy(spins, target, couplings), alike)
    q = torch.maximum((s == t).double().mean(1), (s == -t).double().mean(1)) * 2 - 1
    torch.testing.assert_close(overlap(spins, target, couplings), q)
    torch.testing.assert_close(
        excess_energy(spins, target, couplings), ising_energy(spins, couplings) - ising_energy(target, couplings)
    )


def test_flips_do_not_count(lattice):
    couplings, spins, target = lattice
    for score in (bond_accuracy, overlap, excess_energy):
        torch.testing.assert_close(score(-spins, target, couplings), score(spins, target, couplings))
        torch.testing.assert_close(score(spins, -target, couplings), score(spins, target, couplings))
    for score, best in ((bond_accuracy, 1.0), (overlap, 1.0), (excess_energy, 0.0)):
        torch.testing.assert_close(score(-target, target, couplings), torch.full((3,), best, dtype=torch.float64))


def test_excess_energy_above_a_ground_state_is_not_negative(lattice):
    couplings, spins, _ = lattice
    assert (excess_energy(spins, ground_state(couplings).spins, couplings) >= -1e-9).all()


def test_excess_energy_is_twice_the_walls(lattice):
    """At each bond of a domain wall the energy changes by 2 J y y."""
    couplings, spins, target = lattice
    right, down = domain_walls(spins, target, couplings)
    walls = torch.cat([right.flatten(1), down.flatten(1)], 1)
    first, second = couplings.edges
    t = target.flatten(1)
    cost = (2 * couplings.values * t[:, first] * t[:, second] * walls).sum(1)
    torch.testing.assert_close(excess_energy(spins, target, couplings), cost)


def test_distances_to_walls_against_a_graph(lattice):
    couplings, _, target = lattice
    spins = target.clone()
    spins[0, 0, 0] *= -1
    spins[1, 2:, 3:] *= -1
    found = wall_distance(spins, target, couplings)
    graph = networkx.Graph(couplings.edges.T.tolist())
    first, second = couplings.edges
    product = (spins * target).flatten(1)
    for k in range(2):
        wall = product[k, first] != product[k, second]
        near = set(torch.cat([first[wall], second[wall]]).tolist())
        expected = networkx.multi_source_dijkstra_path_length(graph, near)
        assert found[k].flatten().tolist() == [expected[site] for site in range(20)]
    assert (found[2] == -1).all()


def test_rounding():
    assert round_logits(torch.tensor([-0.5, 0.0, 2.0])).tolist() == [-1, 1, 1]


def test_bad_spins_are_named(lattice):
    couplings, spins, target = lattice
    for score in (bond_accuracy, overlap, domain_walls, wall_distance):
        with pytest.raises(ValueError, match=r"spins is 2 at \(0, 0, 0\)"):
            score(spins.abs() * 2, target, couplings)
        with pytest.raises(ValueError, match=r"target has shape \(2, 4, 5\)"):
            score(spins, target[:2], couplings)


def test_nan_is_no_spin():
    with pytest.raises(ValueError, match="logits holds 1 NaN"):
        round_logits(torch.tensor([0.5, torch.nan]))
    for function in (round_logits, entropy):
        with pytest.raises(TypeError, match=r"logits"):
            function(torch.ones(2, dtype=torch.bool))
