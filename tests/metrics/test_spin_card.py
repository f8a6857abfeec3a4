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


def test_the_worst_of_the_targets_says_whether_the_energy_is_zero_there(lattice):
    y, couplings = lattice
    both = torch.cat([y[:1], -y[:1]])
    card = elf.report_card(lambda z, t, J: CrossEntropy()(z, t, J) + (t[:, 0, 0] > 0), both, couplings[[0, 0]])
    assert card.at_target > 1e-3


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


RING = torch.tensor([[0, 1, 2, 3, 4, 0, 1], [1, 2, 3, 4, 0, 2, 3]])
"""Five sites in a ring with two chords."""


def potts_energies(couplings: Graph, states: torch.Tensor) -> torch.Tensor:
    """- sum J delta(s_i, s_j), bond by bond."""
    bonds = zip(couplings.edges.T.tolist(), couplings.values[0].tolist(), strict=True)
    return -sum(J * (states[:, i] == states[:, j]).double() for (i, j), J in bonds)


@pytest.fixture(scope="module")
def potts():
    """Couplings of both signs, and all configurations of three states: the first lowest is the target."""
    values = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    couplings, every = Graph(RING, values), torch.cartesian_prod(*[torch.arange(3)] * 5)
    value = potts_energies(couplings, every)
    return every[value.argmin()][None], couplings, every, value


@pytest.fixture(scope="module")
def potts_cards(potts) -> dict[str, SpinCard]:
    y, couplings, _, _ = potts
    energies = {"cross-entropy": CrossEntropy(), "aligned": AlignedCrossEntropy(), "true": Ising()}
    energies |= {"field": LocalField(0.5), "pair": Mattis(0.5)}
    return {name: elf.report_card(energy, y, couplings, states=3) for name, energy in energies.items()}


def test_potts_energies_and_the_names_of_states(potts_cards):
    sees = {name: card.ignores["relabelling"] > 1e-6 for name, card in potts_cards.items()}
    assert sees == {"cross-entropy": True, "aligned": False, "true": False, "field": True, "pair": False}
    for card in potts_cards.values():
        assert set(card.ignores) == {"relabelling", "renaming"}
        assert card.ignores["renaming"] < 1e-9
        assert card.at_target < 1e-6
        assert card.states == 3


def test_an_energy_that_prefers_a_state_sees_the_renaming(potts):
    y, couplings, _, _ = potts
    card = elf.report_card(lambda p, y, J: (p[..., 0] - (y == 0).to(p)).square().sum(1), y, couplings, states=3)
    assert card.ignores["renaming"] > 1e-3


def changes_of_one(state: torch.Tensor) -> torch.Tensor:
    """The ten neighbours of a configuration of five spins with three states."""
    near = [state.clone() for _ in range(10)]
    for i, one in enumerate(near):
        one[i // 2] = (state[i // 2] + 1 + i % 2) % 3
    return torch.stack(near)


def test_potts_states_that_no_change_improves(potts, potts_cards):
    _, couplings, every, value = potts
    near = torch.cat([changes_of_one(state) for state in every])
    stable = (potts_energies(couplings, near).view(-1, 10) >= value[:, None] - 1e-12).all(1)
    assert potts_cards["true"].stable_states == int(stable.sum())
    assert potts_cards["true"].below_target == pytest.approx(0, abs=1e-12)
    assert potts_cards["cross-entropy"].stable_states == potts_cards["field"].stable_states == 1
    # One for each of the 3! relabellings. From one of them to another, more than one spin changes.
    assert potts_cards["aligned"].stable_states == 6


def test_a_potts_target_that_is_no_ground_state(potts):
    _, couplings, every, value = potts
    highest = every[value.argmax()][None]
    card = elf.report_card(Ising(), highest, couplings, states=3)
    z = torch.randn(1, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale = float(Ising()(z.softmax(-1), highest, couplings).abs())
    assert card.below_target == pytest.approx(float(value.max() - value.min()) / scale)


def test_potts_curvature_is_that_of_the_coupling_matrix(potts, potts_cards):
    """Near equal probabilities p = 1/q + (z - mean z) / q, so that the Hessian is that of J over q^2."""
    _, couplings, _, _ = potts
    J = torch.zeros(5, 5, dtype=torch.float64)
    J[couplings.edges[0], couplings.edges[1]] = couplings.values[0]
    waves = torch.linalg.eigvalsh(-(J + J.T)) / 9
    assert potts_cards["true"].curvature == pytest.approx((float(waves[0]), float(waves[-1])), rel=1e-5)
    # d2/dz2 of - log softmax is p (1 - p) in these directions, 1/q: adding a number to all logits is none of them.
    assert potts_cards["cross-entropy"].curvature == pytest.approx((1 / 3, 1 / 3), rel=1e-5)
    for name in ("true", "pair"):
        assert potts_cards[name].dead_start < 1e-9
    assert potts_cards["cross-entropy"].dead_start > 0.1


def test_two_potts_states_are_ising_spins(lattice):
    """With couplings 2 J: the same landscape; logits of two states are 1 / sqrt 2 of the way from each other."""
    y, couplings = lattice
    ising = elf.report_card(Ising(), y, couplings)
    double = couplings.with_values(2 * couplings.values)
    potts = elf.report_card(Ising(), ((1 - y) / 2).long(), double, states=2)
    assert potts.stable_states == ising.stable_states
    assert potts.curvature == pytest.approx([x / 2 for x in ising.curvature], rel=1e-5)
    assert potts.ignores["symmetry of the square"] < 1e-9
    assert potts.ignores["relabelling"] < 1e-9


def test_potts_arrivals_count_relabellings_and_nothing_else(potts, potts_cards):
    y, couplings, _, _ = potts
    assert potts_cards["cross-entropy"].arrivals == potts_cards["field"].arrivals == 1
    assert 0 < potts_cards["true"].arrivals <= 1
    other = (y + 1) % 3
    relabelled = elf.report_card(lambda p, _, J: CrossEntropy()(p, other.expand(len(p), -1), J), y, couplings, states=3)
    assert relabelled.arrivals == 1
    wrong = y.clone()
    wrong[0, 0] = (wrong[0, 0] + 1) % 3
    missed = elf.report_card(lambda p, _, J: CrossEntropy()(p, wrong.expand(len(p), -1), J), y, couplings, states=3)
    assert missed.arrivals == 0


def test_the_look_of_a_potts_card_and_what_it_refuses(potts, potts_cards):
    y, couplings, _, _ = potts
    questions = [question for question, _, _ in potts_cards["true"].rows()]
    for question in ("sees a relabelling", "all probabilities 1/3", "random starts that arrive at y, relabelled"):
        assert question in questions
    assert json.loads(json.dumps(potts_cards["true"].as_dict()))["states"] == 3
    many = Graph(torch.stack((torch.arange(11), torch.arange(1, 12))), torch.ones(11))
    far = elf.report_card(Ising(), torch.zeros(1, 12, dtype=torch.long), many, states=3)
    assert far.stable_states is far.below_target is None
    with pytest.raises(ValueError, match=r"targets holds states 0 \.\.\. 2; they should be 0 \.\.\. 1"):
        elf.report_card(Ising(), torch.tensor([[0, 1, 2, 0, 1]]), couplings, states=2)
    with pytest.raises(TypeError, match=r"targets has dtype torch\.float64; it should be an integer type"):
        elf.report_card(Ising(), y.double(), couplings, states=3)
    with pytest.raises(ValueError, match="states is 1; it should be at least 2"):
        elf.report_card(Ising(), 0 * y, couplings, states=1)
    with pytest.raises(ValueError, match="cell is given; an energy of spins has no use for it"):
        elf.report_card(Ising(), y, couplings, states=3, cell=torch.ones(2))
    with pytest.raises(ValueError, match="states is 3; it should be given together with couplings"):
        elf.report_card(elf.Harmonic(), torch.zeros(1, 4, 3), states=3)


def test_arrivals_do_not_depend_on_the_unit(lattice) -> None:
    cards = [elf.report_card(lambda z, y, J, k=k: k * CrossEntropy()(z, y, J), *lattice) for k in (1e-12, 1.0, 1e12)]
    assert [card.arrivals for card in cards] == [1, 1, 1]
