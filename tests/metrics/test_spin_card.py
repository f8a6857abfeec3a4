"""What the report card of spins finds out by itself, and that it prints."""

import json

import pytest
import torch

import elf
from elf.data.spin_glass import sample_couplings
from elf.metrics.spin_card import SpinCard
from elf.spins import (
    AlignedCrossEntropy,
    CrossEntropy,
    FreeEnergy,
    Graph,
    Ising,
    LocalField,
    Mattis,
    flip_energies,
    ground_state,
    ising_energy,
)


@pytest.fixture(scope="module")
def lattice():
    couplings = sample_couplings(3, 3, 4, seed=2).to(torch.float64)
    return ground_state(couplings).spins, couplings


@pytest.fixture(scope="module")
def cards(lattice) -> dict[str, SpinCard]:
    energies = {
        "cross-entropy": CrossEntropy(),
        "aligned": AlignedCrossEntropy(),
        "field": LocalField(0.5),
        "pair": Mattis(0.5),
        "true": Ising(),
        "free": FreeEnergy(Mattis(0.5), 0.1),
    }
    return {name: elf.report_card(energy, *lattice) for name, energy in energies.items()}


def test_zero_at_the_ground_state(cards):
    for name, card in cards.items():
        assert card.at_target < 1e-6, name
        assert card.below_target == pytest.approx(0, abs=1e-9), name


def test_who_sees_a_flip(cards):
    sees = {name: card.ignores["global flip"] > 1e-6 for name, card in cards.items()}
    assert sees == {
        "cross-entropy": True,
        "aligned": False,
        "field": True,
        "pair": False,
        "true": False,
        "free": False,
    }
    for card in cards.values():
        assert card.ignores["gauge"] < 1e-9
        assert card.ignores["symmetry of the square"] < 1e-9


def test_quadratic_energies_are_dead_where_all_probabilities_are_one_half(cards):
    """The gradient of - sum J m m is zero at m = 0; there is a saddle, whose curvature is the largest coupling mode."""
    for name in ("pair", "true", "free"):
        assert cards[name].dead_start < 1e-9
        assert cards[name].curvature[0] < 0 < cards[name].curvature[1]
    for name in ("cross-entropy", "field"):
        assert cards[name].dead_start > 0.1
    assert cards["cross-entropy"].curvature == pytest.approx((1, 1), rel=1e-6)  # d2/dz2 log(1 + e^-2z) = 1 at 0


def test_curvature_is_that_of_the_coupling_matrix(lattice, cards):
    _, couplings = lattice
    waves = []
    for sample in range(3):
        J = torch.zeros(12, 12, dtype=torch.float64)
        J[couplings.edges[0], couplings.edges[1]] = couplings.values[sample]
        waves.append(torch.linalg.eigvalsh(-(J + J.T)))
    low, high = min(float(w[0]) for w in waves), max(float(w[-1]) for w in waves)
    assert cards["true"].curvature == pytest.approx((low, high), rel=1e-5)


def test_states_that_no_flip_improves(lattice, cards):
    _, couplings = lattice
    number = torch.arange(1 << 12)
    every = (1 - 2 * ((number[:, None] >> torch.arange(12)) & 1)).view(-1, 3, 4)
    stable = [int((flip_energies(every, couplings[[k]]) >= 0).flatten(1).all(1).sum()) for k in range(3)]
    assert cards["true"].stable_states == pytest.approx(sum(stable) / 3)
    assert cards["field"].stable_states == cards["cross-entropy"].stable_states == 1
    assert cards["aligned"].stable_states == 2
    assert cards["true"].stable_states > cards["pair"].stable_states >= 2


def test_arrivals(cards):
    """One minimum is always found; of the magnets' walls some random starts do not get rid."""
    assert cards["cross-entropy"].arrivals == cards["field"].arrivals == cards["aligned"].arrivals == 1
    assert 0 < cards["true"].arrivals <= cards["pair"].arrivals < 1


def test_a_target_that_is_no_ground_state_is_found_out(lattice):
    y, couplings = lattice
    other = y.clone()
    other[:, 1, 1] *= -1
    card = elf.report_card(Ising(), other, couplings)
    above = ising_energy(other, couplings) - ising_energy(y, couplings)
    assert card.below_target > 1e-3 < float(above.max())
    assert "NO: another state is lower" in str(card)


def test_a_graph_and_the_look(lattice):
    y, couplings = lattice
    graph = Graph(couplings.edges, couplings.values)
    card = elf.report_card(Mattis(0.5), y.flatten(1), graph)
    assert set(card.ignores) == {"global flip", "gauge"}
    assert "sees a global flip" in str(card)
    assert card._repr_markdown_().startswith("| | | |\n|---|---|---|\n| zero at the target |")
    assert json.loads(json.dumps(card.as_dict()))["stable_states"] == card.stable_states
    large = sample_couplings(1, 5, seed=1)
    assert elf.report_card(Ising(), ground_state(large).spins, large).stable_states is None
    with pytest.raises(ValueError, match="targets is 0"):
        elf.report_card(Ising(), 0 * y, couplings)
