"""Figures against steps: paired by seed, from the results that have them."""

from __future__ import annotations

import pytest

from experiments import load_result
from experiments.molecules import gifts, lengths


def cell(loss: str, steps: int, seed: int, value: float, network: str = "plain", valid: float = 1.0) -> dict:
    about = {"network": network, "loss": loss, "steps": steps, "seed": seed}
    return {"cell": about, "result": {"fcd": value, "strained": 50, "validity": valid, "molecules": 100}}


def test_only_seeds_that_all_losses_have_at_that_length(monkeypatch):
    results = {
        "a": [cell("mse", 10, seed, seed) for seed in (2, 0, 1)] + [cell("mse", 10, 0, 9.0, network="equivariant")],
        "b": [cell("energy", 10, seed, 10.0 + seed) for seed in (1, 2, 3)] + [cell("other", 10, 5, 0.0)],
        "c": [cell("mse", 50, 0, 7.0)],
    }
    monkeypatch.setattr(lengths, "RUNS", {"plain": ("a", "b", "c")})
    monkeypatch.setattr(lengths, "load_result", lambda name: {"cells": results[name]})
    found = lengths.against_steps("plain", "fcd", ("mse", "energy"))
    assert found == {"mse": {10: [1.0, 2.0], 50: [7.0]}, "energy": {10: [11.0, 12.0]}}
    results["b"][0] = cell("energy", 10, 1, 11.0, valid=0.2)  # 20 of 100 molecules: no figure, and none of its pair
    assert lengths.against_steps("plain", "fcd", ("mse", "energy"))["mse"][10] == [2.0]


@pytest.mark.parametrize("network", lengths.RUNS)
def test_the_committed_runs_of_a_network_differ_in_length_and_loss_alone(network):
    """One recipe: only what `against_steps` tells apart, the calm of the longer runs, and how many are drawn."""
    recipes = set()
    for name in lengths.RUNS[network]:
        settings = gifts.settings_of(name, "laptop")
        own = gifts.recipe_of(settings, network)
        recipes.add((own.batch_size, own.channels, own.layers, own.turned, own.ema_decay, *settings.rates[network]))
        used = load_result(name)["settings"]
        assert tuple(used["steps"]) == settings.steps
        assert used["recipe"]["calm"] == own.calm if "calm" in used["recipe"] else not own.calm
    assert len(recipes) == 1


def test_comparison_prints_every_figure_and_bold_leads(monkeypatch):
    cells = [cell("mse", 10, seed, 5.0 + seed) for seed in range(3)]
    cells += [cell("energy", 10, seed, 4.0 + seed - 0.1 * seed**2) for seed in range(3)]
    cells += [cell("mse", 50, 0, 3.0), cell("energy", 50, 0, 2.5), cell("mse", 90, 0, 1.0, valid=0.1)]
    monkeypatch.setattr(lengths, "RUNS", {"plain": ("a",)})
    monkeypatch.setattr(lengths, "load_result", lambda name: {"cells": cells})
    text = lengths.comparison({"fcd": ("FCD", 10.0)}, {"mse": "MSE", "energy": "pair energy"})
    assert "<summary>plain network, 10 steps</summary>\n\n|  | MSE | pair energy |\n| --- | --- | --- |" in text
    low, high = gifts.interval([-10.0, -11.0, -14.0])
    assert f"| FCD | 60.0 ± 10.0 | 48.3 ± 8.0<br>(**{low:+.1f} to {high:+.1f}**) |" in text
    assert "| FCD | 30.0 (one network) | 25.0 (one network) |" in text
    assert "90 steps" not in text  # of one molecule in ten: no figure


def test_a_lead_is_bold_where_all_pairs_agree_and_not_where_the_interval_alone_says_so():
    differ = [1.1, 4.2, 0.6, 1.7, -0.4]
    assert gifts.interval(differ)[0] > 0
    assert "**" not in lengths._entry(differ, [0.0] * 5, alone=False)
    assert "**" in lengths._entry(differ[:4], [0.0] * 4, alone=False)


def test_an_interval_needs_two_pairs_and_holds_zero_where_they_differ():
    assert gifts.interval([1.0, 2.0, 3.0])[0] > 0
    low, high = gifts.interval([-1.0, 1.0, 0.5])
    assert low < 0 < high
    with pytest.raises(ValueError, match=r"differences is \[1.0\]; it should have two numbers or more"):
        gifts.interval([1.0])
