"""Table 1's question at home: what is trained, drawn and measured on drug-like molecules."""

from __future__ import annotations

import pytest
import torch

from elf.chemistry import bonds
from elf.data import druglike as data
from elf.geometry import center
from elf.metrics import molecules as metrics
from experiments.framework.experiment import find
from experiments.molecules import druglike, small
from experiments.molecules.errors import probe_of

SMOKE = druglike.settings_of("druglike", "smoke")


def test_a_cell_trains_the_plain_network_on_turned_molecules_of_eight_elements(tmp_path):
    recipe = druglike.settings_of("druglike", "laptop").recipe
    assert (recipe.data, recipe.network, recipe.turned) == ("druglike", "plain", True)
    assert len(small.training_molecules(recipe)) == 8000
    denoiser = small.make_denoiser(recipe, 0)
    assert denoiser.featuriser.elements == tuple(data.load(limit=3000).numbers.unique()[1:].tolist())
    assert denoiser.schedule.sigma_data == recipe.schedule.sigma_data == 2.5
    *trained, known = druglike.cells(SMOKE, 1)
    result = druglike.run_cell(SMOKE, trained[0], tmp_path, ())
    assert result["bond@0.1"] > 0
    assert 0 <= result["atom_stability"] <= 1
    assert known["loss"] == "data"


def test_each_scale_has_its_own_recipe():
    live, laptop = (druglike.settings_of("druglike", scale) for scale in ("live", "laptop"))
    assert (SMOKE.recipe.steps, SMOKE.probed, SMOKE.losses) == ((3,), 10, ("energy",))
    assert (laptop.recipe.steps, laptop.probed, laptop.losses) == ((2400,), 100, ("mse", "kabsch", "energy"))
    # Molecules are twice as large as QM9's: two cores take half as many a step.
    assert [settings.recipe.batch_size for settings in (live, laptop)] == [32, 16]


def test_the_size_of_the_data_is_the_one_that_is_told():
    for name in ("qm9", "druglike"):
        own = small.DATA[name]
        molecules = own.load(split="train", heavy_atoms=(1, 7) if name == "qm9" else None, atoms=(5, 60))
        mask = molecules.numbers != 0
        rms = center(molecules.positions, mask).square().sum().div(3 * mask.sum()).sqrt()
        assert float(rms) == pytest.approx(own.size, rel=0.2)


def test_figures_are_those_of_the_data_s_own_bond_table():
    recipe = SMOKE.recipe
    some = data.load(split="test", limit=40)
    found = druglike.figures(recipe, some.positions, some.numbers)
    assert found["atom_stability"] == metrics.stability(some.positions, some.numbers, rules=bonds.GEOM).atom_fraction
    assert found["novelty"] is not None
    assert found["fcd"] is not None
    fewer = druglike.figures(recipe, some.positions[:5], some.numbers[:5])
    assert fewer["fcd"] is None


def test_flat_atoms_of_drug_like_molecules_are_probed():
    probe = probe_of("druglike", *druglike.ALL.values(), 10)
    assert len(probe.flat) > 50
    assert {len(pairs[0]) > 100 for pairs in probe.pairs.values()} == {True}


def test_the_table_has_the_paper_s_figures_beside_ours():
    row = {"loss": "energy", "steps": 1, "n": 1, "atom_stability": {"mean": 0.5, "std": 0.0}}
    text = find("druglike").table({"summary": [row]})
    assert "| energy | 50.0 (1)" in text
    assert "96.0" in text
    assert "24.6" in text


@pytest.mark.parametrize("loss", [loss for _, losses in druglike.VARIANTS.values() for loss in losses])
def test_every_loss_of_the_table_is_known(loss):
    x = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    assert (small.LOSSES[loss]()(x, 2 * x) > 0).all()
