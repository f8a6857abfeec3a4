"""What the report card of spins finds out by itself, and that it prints."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import elf
from elf.data.spin_glass import sample_couplings
from elf.metrics import spin_card
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
    z = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = float(Ising()(z, other, couplings).abs().mean())
    assert card.below_target == pytest.approx(float(above.max()) / scale)
    assert card.below_target > 1e-3
    assert "NO: another state is lower" in str(card)


def test_figures_are_over_the_mean_energy_of_random_logits(lattice):
    """Cross-entropy and one: by hand; and in another unit of energy the same."""
    y, couplings = lattice
    card, other = (
        elf.report_card(lambda *x, unit=unit: unit * (CrossEntropy()(*x) + 1), y, couplings) for unit in (1.0, 7.0)
    )
    z = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    up, down = ((1 + torch.exp(-2 * sign * z * y)).log().sum((1, 2)) for sign in (1, -1))
    scale = float((up + 1).mean())
    assert card.at_target == pytest.approx(1 / scale)
    assert card.ignores["global flip"] == pytest.approx(float((up - down).abs().max()) / scale)
    # At z = 0 the gradient is y, at z it is 2 y sigmoid(-2 z y).
    start = y.double().norm() / (2 * torch.sigmoid(-2 * z * y)).norm()
    assert card.dead_start == pytest.approx(float(start))
    for name in ("at_target", "dead_start", "below_target"):
        assert getattr(other, name) == pytest.approx(getattr(card, name), abs=1e-12)
    assert other.ignores == pytest.approx(card.ignores, abs=1e-12)


def test_ties_count_as_stable():
    couplings = sample_couplings(2, 3, 4, kind="bimodal", seed=3).to(torch.float64)
    card = elf.report_card(Ising(), ground_state(couplings).spins, couplings)
    every = (1 - 2 * ((torch.arange(1 << 12)[:, None] >> torch.arange(12)) & 1)).view(-1, 3, 4)
    flips = [flip_energies(every, couplings[[k]]).flatten(1) for k in range(2)]
    assert any((cost == 0).any() for cost in flips)
    assert card.stable_states == pytest.approx(sum(int((cost >= 0).all(1).sum()) for cost in flips) / 2)


def test_cost_is_over_that_of_cross_entropy(lattice, monkeypatch):
    now = [0.0]

    def taking(seconds):
        def energy(z, y, couplings):
            now[0] += seconds
            return CrossEntropy()(z, y, couplings)

        return energy

    monkeypatch.setattr(spin_card, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(spin_card, "CrossEntropy", lambda: taking(2.0))
    assert elf.report_card(taking(3.0), *lattice).cost == 1.5


GOOD = SpinCard(0.0, {"flip": 1e-3, "gauge": 1e-9}, 1.0, (-199.0, 2.0), 0.5, 2.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "row", "remark"),
    [
        ({}, 0, "yes"),
        ({"at_target": 1e-3}, 0, "NO"),
        ({}, 1, "yes"),
        ({}, 2, "no"),
        ({}, 3, "alive"),
        ({"dead_start": 0.0}, 3, "dead: no gradient leads out"),
        ({}, 4, "a saddle: noise leads out"),
        ({"curvature": (-201.0, 2.0)}, 4, "a kink: noise leads out"),
        ({"curvature": (-201.0, -2.0)}, 4, "a kink: noise leads out"),
        ({"curvature": (1.0, 2.0)}, 4, "no way down"),
        ({}, 7, "yes"),
        ({"below_target": 1e-3}, 7, "NO: another state is lower"),
    ],
)
def test_remarks(change, row, remark):
    assert replace(GOOD, **change).rows()[row][2] == remark


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
