"""Notebook 07c's sentences, from the networks one by one."""

from __future__ import annotations

import re
from statistics import mean, stdev

import pytest
import torch
from reading import notebook, printed, prose
from scipy.stats import binomtest

from experiments import load_result
from experiments.molecules.jodo import committed
from experiments.molecules.jodo.data import Graphs, saturated
from experiments.molecules.jodo.metrics import jodo_stable

BOOK = notebook("07c_graph_and_geometry")
TEXT = prose(BOOK)
RESULT = load_result("table3")
TRAINED = ("mse", "kabsch", "inverse_even", "exponential_even")


def networks(name: str, loss: str, key: str, factor: float = 100) -> list[float]:
    values = [factor * c["result"][key] for c in load_result(name)["cells"] if c["cell"]["loss"] == loss]
    assert len(values) == 3
    return values


def said(values: list[float], digits: int = 1) -> str:
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def test_settings_are_those_of_the_networks():
    settings = RESULT["settings"]
    assert f"`{RESULT['command']}`" in TEXT
    assert f"{settings['steps']:,} steps of {settings['batch_size']}, {settings['samples']} molecules" in TEXT
    assert f"with {settings['sampler_steps']} of JODO's ancestral steps" in TEXT
    assert RESULT["seeds"] == 3
    assert set(settings["losses"]) == set(TRAINED)
    parameters = sum(p.numel() for p in committed.trained("kabsch").parameters())
    assert f"Ours has {parameters / 1e6:.1f} million parameters" in TEXT


@pytest.mark.parametrize("loss", TRAINED)
@pytest.mark.parametrize("key", ["atom_stability", "molecule_stability", "graph_agreement"])
def test_numbers_are_those_of_three_networks(loss, key):
    if (loss, key) != ("mse", "molecule_stability"):
        assert said(networks("table3", loss, key)) in TEXT


@pytest.mark.parametrize("key", ["graph_stable_atoms", "graph_stable", "graph_right"])
def test_numbers_of_the_graphs_are_those_of_three_networks(key):
    for loss in ("kabsch", "exponential_even"):
        assert said(networks("table3", loss, key)) in TEXT


def pairs(loss: str, key: str, than: str = "kabsch") -> list[float]:
    return [a - b for a, b in zip(networks("table3", loss, key), networks("table3", than, key), strict=True)]


def test_what_is_said_of_pairs():
    """Seeds are paired: cells come in the order of their seeds for every loss."""
    seeds = [[c["cell"]["seed"] for c in RESULT["cells"] if c["cell"]["loss"] == loss] for loss in TRAINED]
    assert seeds == [[0, 1, 2]] * 4
    lead = pairs("exponential_even", "atom_stability")
    assert f"in all three pairs, by {min(lead):.0f} to {max(lead):.0f} points" in TEXT
    assert min(lead) > 0
    assert sum(gain > 0 for gain in pairs("inverse_even", "atom_stability")) == 1
    assert min(pairs("exponential_even", "molecule_stability")) > 0
    assert min(networks("table3", "exponential_even", "atom_stability")) < max(
        networks("table3", "kabsch", "atom_stability")
    )
    for loss in TRAINED[1:]:
        assert min(pairs(loss, "graph_agreement", than="mse")) > 0


def test_the_price_in_dihedrals_and_what_is_better_than_in_the_paper():
    def means(key):
        return {loss: mean(networks("table3", loss, key, 1)) for loss in TRAINED}

    assert max(means("mmd_dihedral"), key=means("mmd_dihedral").get) == "exponential_even"
    for key in ("mmd_angle", "fcd"):
        assert min(means(key), key=means(key).get) == "exponential_even"
    for loss in ("exponential_even", "kabsch"):
        assert said(networks("table3", loss, "mmd_dihedral", 1), 4) in TEXT


def test_the_samplers_two_switches_do_not_help():
    for switch, most in (("closed_shell", 0), ("turned", 0.5)):
        gains = [
            after - before
            for loss in TRAINED
            for after, before in zip(
                networks("table3", loss, f"{switch}:molecule_stability"),
                networks("table3", loss, "molecule_stability"),
                strict=True,
            )
        ]
        assert mean(gains) < most


def test_the_rate_suits_no_loss_best():
    """The last part of the training curve, on the seed of the rates."""
    cells = load_result("jodo_rates")["cells"]
    for loss in TRAINED:
        ends = {c["cell"]["learning_rate"]: c["result"]["loss_curve"][-1] for c in cells if c["cell"]["loss"] == loss}
        assert min(ends, key=ends.get) == 0.004
        assert list(ends.values()) == sorted(ends.values(), reverse=True)


def test_the_price_is_that_of_the_clock():
    own = mean(mean(networks("table3", loss, "seconds", 1)) for loss in TRAINED)
    other = mean(mean(networks("molecule_checkpoints", loss, "seconds", 1)) for loss in ("mse", "energy"))
    (factor,) = re.findall(r"JODO's step costs ([0-9.]+) times as much", TEXT)
    assert float(factor) == pytest.approx(own / RESULT["settings"]["steps"] / (other / 12_000), abs=0.06)
    (times,) = re.findall(r"In ([0-9.]+) times JODO's time", TEXT)
    assert float(times) == pytest.approx(other / own, abs=0.06)
    for name in ("molecules", "molecule_checkpoints"):
        for loss in ("mse", "energy"):
            assert said(networks(name, loss, "molecule_stability")) in TEXT


def test_turning_does_nothing_to_the_energy():
    assert "MSE: more than a tenth of the gradient changes: True" in printed(BOOK)
    assert "pair energy: less than a ten-thousandth: True" in printed(BOOK)
    for loss in ("inverse_even", "exponential_even"):
        assert max(networks("table3", loss, "turning_changes", 1)) < 1e-4


def test_methyl_passes_the_rule_and_has_an_unpaired_electron():
    orders = torch.zeros(1, 4, 4, dtype=torch.long)
    orders[0, 0, 1:] = orders[0, 1:, 0] = 1
    methyl = Graphs(torch.zeros(1, 4, 3), torch.tensor([[6, 1, 1, 1]]), orders, torch.zeros(1, 4, dtype=torch.long))
    assert jodo_stable(methyl).all()
    assert not saturated(methyl).all()
    assert sum([6, 1, 1, 1]) % 2 == 1


def test_every_number_of_the_evidence_names_its_networks():
    for cell in BOOK.cells:
        if cell.cell_type == "markdown" and "±" in cell.source:
            assert "three networks each" in cell.source.lower()


def test_the_molecules_of_the_page_agree_as_often_as_the_networks_did():
    """25 of 32 live ones against the share of the three networks of JODO's own loss, by a binomial test."""
    agree, drawn = map(int, re.search(r"the two agree in (\d+) of (\d+) molecules", printed(BOOK)).groups())
    share = mean(networks("table3", "kabsch", "graph_agreement", 1))
    assert binomtest(agree, drawn, share).pvalue > 0.05
    assert binomtest(agree, drawn, share - 0.4).pvalue < 0.001


def test_streams_are_noised_so_that_their_variance_stays():
    """alpha^2 + sigma^2 = 1: data of unit variance keep it at every time."""
    assert "\\alpha_t^2 + \\sigma_t^2 = 1" in TEXT
    draw = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 200_000, generator=draw)
    for alpha in (0.1, 0.6, 0.95):
        mixed = alpha * x + (1 - alpha**2) ** 0.5 * noise
        assert float(mixed.var()) == pytest.approx(1, abs=0.02)
