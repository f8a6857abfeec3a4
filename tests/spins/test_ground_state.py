import itertools

import networkx
import numpy as np
import pytest
import torch

from elf.spins import Couplings, anneal, graph_ground_state, ground_state, ising_energy, matching
from elf.spins.graph import flip_energies


def lowest(couplings: Couplings) -> torch.Tensor:
    """Brute force, one configuration after the other, for lattices of few spins."""
    _, height, width = couplings.shape
    configurations = torch.tensor(list(itertools.product([1, -1], repeat=height * width))).view(-1, height, width)
    return torch.stack(
        [ising_energy(configurations, couplings[[k] * len(configurations)]).min() for k in range(len(couplings))]
    )


@pytest.mark.parametrize(("height", "width", "periodic"), [(3, 3, False), (2, 4, False), (1, 6, False), (3, 3, True)])
def test_exhaustive_search_against_a_loop(make, height, width, periodic):
    couplings = make(5, height, width, periodic)
    found = ground_state(couplings, "exhaustive")
    torch.testing.assert_close(found.energy, lowest(couplings))
    assert found.optimal.all()


@pytest.mark.parametrize(("height", "width"), [(4, 5), (5, 4), (2, 2), (2, 7), (3, 3), (1, 8), (6, 1), (1, 1)])
@pytest.mark.parametrize("bimodal", [False, True], ids=["uniform", "+-J"])
def test_matching_is_exact(make, height, width, bimodal):
    couplings = make(200 if (height, width) == (4, 5) else 25, height, width, bimodal=bimodal)
    found, exact = ground_state(couplings), ground_state(couplings, "exhaustive")
    assert found.method == "matching"
    assert found.optimal.all()
    torch.testing.assert_close(found.energy, exact.energy, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.energy, ising_energy(found.spins, couplings))
    assert (found.spins[:, 0, 0] == 1).all()


def test_matching_with_gaussian_couplings_in_float32(generator):
    couplings = Couplings(torch.randn(20, 4, 4, generator=generator), torch.randn(20, 3, 5, generator=generator))
    torch.testing.assert_close(
        ground_state(couplings).energy, ground_state(couplings, "exhaustive").energy, rtol=0, atol=1e-5
    )


def test_matching_against_another_matching(make):
    """The same duality by hand, with networkx: shortest paths between frustrated plaquettes, then Edmonds."""
    couplings = make(3, 6, 6)
    right, down = couplings.right.abs(), couplings.down.abs()
    for k in range(3):
        dual = networkx.MultiGraph()
        for r in range(6):
            for c in range(5):
                above, below = (r - 1, c) if r > 0 else "out", (r, c) if r < 5 else "out"
                dual.add_edge(above, below, weight=float(right[k, r, c]))
                before, behind = (c, r - 1) if r > 0 else "out", (c, r) if r < 5 else "out"
                dual.add_edge(before, behind, weight=float(down[k, c, r]))
        negative_right, negative_down = couplings.right[k] < 0, couplings.down[k] < 0
        odd = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if negative_right[r, c] ^ negative_right[r + 1, c] ^ negative_down[r, c] ^ negative_down[r, c + 1]
        ]
        odd += ["out"] * (len(odd) % 2)
        complete = networkx.Graph()
        for a, b in itertools.combinations(odd, 2):
            complete.add_edge(a, b, weight=networkx.shortest_path_length(dual, a, b, "weight"))
        length = sum(complete[a][b]["weight"] for a, b in networkx.min_weight_matching(complete))
        energy = 2 * length - float(right[k].sum() + down[k].sum())
        assert float(ground_state(couplings).energy[k]) == pytest.approx(energy, abs=1e-6)


@pytest.mark.parametrize("bimodal", [False, True], ids=["uniform", "+-J"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (2, 3), (3, 5)])
def test_periodic_lattices_are_exact(make, height, width, bimodal):
    couplings = make(200 if (height, width, bimodal) == (4, 4, False) else 10, height, width, True, bimodal=bimodal)
    found = ground_state(couplings)
    assert found.method == "milp"
    assert found.optimal.all()
    torch.testing.assert_close(found.energy, ground_state(couplings, "exhaustive").energy, rtol=0, atol=1e-6)


def test_matching_agrees_with_highs_on_10_by_10(make):
    couplings = make(50, 10, 10)
    found, other = ground_state(couplings), ground_state(couplings, "milp")
    assert other.optimal.all()
    torch.testing.assert_close(found.energy, other.energy, rtol=0, atol=1e-6)


def test_any_graph(make, generator):
    values = torch.randn(9, 9, generator=generator, dtype=torch.float64).triu(1)
    matrix = values + values.T
    spins = torch.tensor(list(itertools.product([1.0, -1.0], repeat=9)), dtype=torch.float64)
    found = graph_ground_state(matrix)
    assert found.optimal
    assert found.energy == pytest.approx(float((-0.5 * (spins @ matrix * spins).sum(1)).min()), abs=1e-9)
    assert found.bound == pytest.approx(found.energy, abs=1e-6)
    y = found.spins.double()
    assert found.energy == pytest.approx(float(-0.5 * y @ matrix @ y))


def test_annealing_is_a_local_minimum_above_the_ground_state(make, dtype):
    couplings = make(10, 8, 8, dtype=dtype)
    exact, found = ground_state(couplings), ground_state(couplings, "annealing", seed=3)
    assert found.method == "annealing"
    assert not found.optimal.any()
    assert (found.energy >= exact.energy - 1e-4).all()
    assert ((found.energy - exact.energy) / exact.energy.abs()).mean() < 0.02
    assert (flip_energies(found.spins, couplings) > -1e-5).all()
    assert torch.equal(found.spins, ground_state(couplings, "annealing", seed=3).spins)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 3), (3, 4)])
def test_annealing_solves_small_periodic_lattices(make, height, width):
    couplings = make(20, height, width, True)
    exact, found = ground_state(couplings, "exhaustive"), ground_state(couplings, "annealing")
    torch.testing.assert_close(found.energy, exact.energy)


def test_large_periodic_lattices_are_annealed_and_say_so(make):
    found = ground_state(make(1, 13, 13, True))
    assert found.method == "annealing"
    assert not found.optimal.any()


def test_a_time_out_returns_the_best_found_and_says_so(make):
    couplings = make(1, 12, 12, True)
    found = ground_state(couplings, "milp", time_limit=1e-3)
    assert not found.optimal.any()
    exact = ground_state(couplings, "milp")
    assert exact.optimal.all()
    assert exact.energy - 1e-6 <= found.energy < 0.9 * exact.energy


def test_a_time_out_of_a_graph_returns_a_local_minimum_and_a_bound(generator):
    values = torch.randn(60, 60, generator=generator, dtype=torch.float64).triu(1)
    matrix = values + values.T
    found = graph_ground_state(matrix, time_limit=0.3)
    assert not found.optimal
    assert -float(matrix.triu().abs().sum()) <= found.bound < found.energy - 1
    y = found.spins.double()
    assert found.energy == pytest.approx(float(-0.5 * y @ matrix @ y))
    assert (y * (matrix @ y) >= -1e-9).all()


@pytest.mark.parametrize(
    ("mine", "others", "proven"), [(4.5, 5.5, True), (5.0, 5.5, False), (4.5, 5.0, False), (4.5, 5.5 + 2e-6, True)]
)
def test_a_pairing_is_proven_where_lengths_are_known_well_enough(mine, others, proven):
    """Of one frustrated square: lengths are off by a millionth themselves, so that 5 may be 6 rounded up, or 4 down."""
    lengths, broken = np.array([[mine, others, others, others]]), np.array([[True, False, False, False]])
    found = np.array([False])
    matching._prove(matching._plaquette_bonds(2, 2), np.array([[1]], np.uint8), lengths, broken, found)
    assert found.tolist() == [proven]
    assert broken.tolist() == [[True, False, False, False]]


def test_a_shorter_pairing_is_taken_and_proven_and_a_longer_one_is_not(monkeypatch):
    lengths, broken = np.array([[5.0, 3.0, 9.0, 9.0]]), np.array([[True, False, False, False]])
    found = np.array([False])
    matching._prove(matching._plaquette_bonds(2, 2), np.array([[1]], np.uint8), lengths, broken, found)
    assert broken.tolist() == [[False, True, False, False]]
    assert found.tolist() == [True]
    monkeypatch.setattr(matching, "ROUNDS", 1)
    mine, found = np.array([[True, False, False, False]]), np.array([False])
    lengths = np.array([[5.0, 5.5, 5.5, 5.5]])
    matching._prove(matching._plaquette_bonds(2, 2), np.array([[1]], np.uint8), lengths, mine, found)
    assert mine.tolist() == [[True, False, False, False]]


def test_bad_input_is_named(make):
    couplings = make(2, 3, 3)
    with pytest.raises(TypeError, match="couplings"):
        ground_state(couplings.right)
    with pytest.raises(ValueError, match="method is 'magic'"):
        ground_state(couplings, "magic")
    with pytest.raises(ValueError, match="method is 'matching', which needs a planar lattice"):
        ground_state(make(1, 3, 3, True), "matching")
    with pytest.raises(ValueError, match="'exhaustive' for 25 spins"):
        ground_state(make(1, 5, 5), "exhaustive")
    with pytest.raises(ValueError, match="time_limit is 0"):
        ground_state(couplings, "milp", time_limit=0)
    with pytest.raises(ValueError, match="sweeps is 0"):
        anneal(couplings, sweeps=0)
    with pytest.raises(ValueError, match=r"cold is 3\.0, hot is 2\.0"):
        anneal(couplings, cold=3.0)


@pytest.mark.parametrize("method", ["matching", "milp", "annealing", "exhaustive"])
def test_disconnected_lattices_are_refused(make, method):
    couplings = make(2, 3, 3)
    diluted = Couplings(couplings.right.clone(), couplings.down)
    diluted.right[1, 0, 0] = 0
    assert ground_state(diluted, method).energy.isfinite().all()
    diluted.right[1, :, 0] = 0
    with pytest.raises(ValueError, match="lattice 1 leave its 9 spins in 2 disconnected parts"):
        ground_state(diluted, method)
    with pytest.raises(ValueError, match="lattice 0 leave its 9 spins in 9 disconnected parts"):
        ground_state(Couplings(0 * couplings.right, 0 * couplings.down), method)


def test_bad_graphs_are_named():
    with pytest.raises(ValueError, match=r"shape \(2, 3\); it should be square"):
        graph_ground_state(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        graph_ground_state(torch.tensor([[0, torch.nan], [0, 0]]))
    with pytest.raises(ValueError, match="not symmetric"):
        graph_ground_state(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(ValueError, match="not symmetric with a zero diagonal"):
        graph_ground_state(torch.eye(2))
    with pytest.raises(ValueError, match="3 spins in 2 disconnected parts"):
        graph_ground_state(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_annealing_cools_geometrically_from_hot_to_cold(make, monkeypatch):
    """With a field of three times the spin every flip costs 6: exp(-6 / T) tells the temperature of each sweep."""
    seen, true = [], torch.exp

    def exp(x):
        seen.append(-6 / float(x.min()))
        return true(x)

    monkeypatch.setattr("elf.spins.annealing.neighbour_sum", lambda _, values: 3 * values)
    monkeypatch.setattr("elf.spins.annealing.descend", lambda spins, _: spins)
    monkeypatch.setattr(torch, "exp", exp)
    anneal(make(1, 2, 2), sweeps=5, copies=1, hot=2.0, cold=0.5)
    assert seen[::2] == seen[1::2] == pytest.approx([2, 2**0.5, 1, 0.5**0.5, 0.5])
    # Where no flip is taken, the answer is the start: random, the first spin made +1.
    monkeypatch.setattr("elf.spins.annealing.neighbour_sum", lambda _, values: 1e9 * values)
    start = anneal(make(1, 16, 16), sweeps=1, copies=1)
    assert start[0, 0, 0] == 1
    assert abs(float(start.mean())) < 0.3
