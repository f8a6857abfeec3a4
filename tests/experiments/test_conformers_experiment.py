"""The conformer task: its measures on known answers, and a smoke run."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import shortest_path

from elf.chemistry.stereo import StereoCentres
from elf.energy import Harmonic
from elf.geometry import center, random_rotations
from elf.metrics.molecules import stability
from experiments import reproduce
from experiments.molecules import conformers
from experiments.molecules.losses import LOSSES

TINY = conformers.SETTINGS["smoke"]


@pytest.fixture(scope="module")
def data():
    return conformers.held_out_set(conformers.SETTINGS["laptop"])


@pytest.fixture(scope="module")
def stereo(data):
    return StereoCentres.of(data.molecules)


def test_the_truth_has_no_error_and_its_mirror_image_only_wrong_hands(data, stereo):
    x = data.molecules.positions
    stable = stability(x, data.molecules.numbers).molecule_stable
    assert 0.9 < stable.double().mean() < 1
    assert conformers.evaluate(x, data, stereo) == pytest.approx(
        {f"error_{k}": 0 for k in (1, 2, 3)}
        | {"distance_error": 0, "radius": 1, "hands_wrong": 0, "relative_wrong": 0}
        | {"stable": stable.double().mean().item()}
    )
    mirrored = conformers.evaluate(x * torch.tensor([1.0, 1.0, -1.0]), data, stereo)
    assert mirrored["hands_wrong"] == 1
    assert mirrored["relative_wrong"] == 0
    assert mirrored["distance_error"] < 1e-6


def test_a_molecule_stretched_by_a_tenth_has_errors_of_a_tenth(data, stereo):
    x = data.molecules.positions
    measured = conformers.evaluate(1.1 * x, data, stereo)
    assert measured["radius"] == pytest.approx(1.1, rel=1e-5)
    i, j = data.orders.bool().triu().nonzero()[:, 0], data.orders.bool().triu().nonzero()[:, 1:]
    lengths = (x[i, j[:, 0]] - x[i, j[:, 1]]).norm(dim=-1)
    assert measured["error_1"] == pytest.approx(0.1 * lengths.mean().item(), rel=1e-4)
    apart: dict[float, list[float]] = {1: [], 2: [], 3: []}
    for orders, one in zip(data.orders.numpy(), x.double(), strict=True):
        steps = shortest_path(orders > 0, unweighted=True)
        for kind, found in apart.items():
            first, second = np.nonzero(np.triu(steps == kind))
            found += (one[first] - one[second]).norm(dim=-1).tolist()
    for kind, found in apart.items():
        assert measured[f"error_{kind}"] == pytest.approx(0.1 * np.mean(found), rel=1e-4)
    assert measured["distance_error"] == pytest.approx(0.1 * np.mean(list(chain(*apart.values()))), rel=1e-4)


def test_radius_of_gyration():
    dumbbell = torch.tensor([[[0.0, 0.0, 5.0], [0.0, 0.0, 9.0], [7.0, 7.0, 7.0]]])
    assert conformers.radius(dumbbell, torch.tensor([[True, True, False]])).item() == pytest.approx(2)


def test_another_isomer_has_some_hands_wrong_and_some_right(data):
    """Of two molecules with two centres, one turned half way round and one whole; a third has a single centre."""

    class Centres:
        molecule = torch.tensor([0, 0, 1, 1, 2])

        def hands(self, positions):
            true = torch.tensor([1, -1, 1, 1, -1])
            return true if positions is data.molecules.positions else true * torch.tensor([1, -1, -1, -1, -1])

    measured = conformers.evaluate(data.molecules.positions.clone(), data, Centres())
    assert measured["hands_wrong"] == pytest.approx(4 / 5)
    assert measured["relative_wrong"] == pytest.approx(1 / 2)


def test_what_a_training_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(conformers, "fit", lambda *args, **kwargs: asked.append(args[3]))
    settings = replace(conformers.SETTINGS["laptop"], heavy_atoms=(1, 5))
    for steps in (40, None):
        conformers.train(settings, Harmonic(), seed=6, steps=steps)
    assert [(s.steps, s.warmup_steps, s.seed) for s in asked] == [(40, 40, 6), (600, 100, 6)]


def test_points_have_no_hands_but_a_radius_of_zero(data, stereo):
    measured = conformers.evaluate(torch.zeros_like(data.molecules.positions), data, stereo)
    assert measured["radius"] == 0
    assert measured["error_1"] > 1


def test_the_best_answer_in_mse_is_a_point(data, generator):
    """Over uniformly turned targets the mean squared error is smallest at the centre, and the energy is not."""
    x = center(data.molecules.positions[:1, :9].double())
    turned = x @ random_rotations(4000, 3, generator=generator, dtype=torch.float64).mT
    mse = Harmonic(normalize="atoms")

    def mean_loss(answer, loss):
        return loss(answer.expand_as(turned), turned).mean().item()

    values = {scale: mean_loss(scale * x, mse) for scale in (0.0, 0.1, 1.0)}
    assert values[0.0] < values[0.1] < values[1.0]
    assert turned.mean(0).abs().max() < 5 * x.abs().max() / 4000**0.5
    energy = LOSSES["energy"]()
    assert mean_loss(x, energy) < 1e-12 < mean_loss(0.9 * x, energy) < mean_loss(0 * x, energy)


def test_training_and_test_molecules_are_different_ones():
    settings = conformers.SETTINGS["laptop"]
    train, test = conformers.training_set(settings), conformers.held_out_set(settings)
    assert not set(train.molecules.index.tolist()) & set(test.molecules.index.tolist())
    assert len(train) > 2900


@pytest.mark.parametrize(("name", "only"), [("conformers", {"mse"}), ("conformers_told", set())])
def test_smoke_run_writes_a_whole_table(name, only, tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setitem(conformers.SETTINGS, "smoke", replace(TINY, heavy_atoms=(1, 6), test_molecules=60))
    path = reproduce(name, scale="smoke", seeds=2, workdir=tmp_path / "runs", threads=1)
    result = json.loads(path.read_text())
    rows = {row["loss"]: row for row in result["summary"]}
    assert rows.keys() == {"kabsch", "energy", "heights_1", "data", "etkdg"} | only
    assert rows["data"]["error_1"]["mean"] == 0
    assert rows["etkdg"]["error_1"]["mean"] < 0.05
    assert (rows["etkdg"]["hands_wrong"]["mean"] > 0.1) == (name == "conformers")
    # Three steps of training undo no hand that noise has told.
    assert (rows["energy"]["hands_wrong"]["mean"] < 0.1) == (name == "conformers_told")
    assert "radius" in conformers.table(result)


def test_same_seed_same_conformers():
    network, data = conformers.make_network(TINY, 0), conformers.held_out_set(TINY)
    first, again, other = (conformers.predict(network, data, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    # Padding stays at the centre of each molecule, which is that of its real atoms.
    assert not first[~data.molecules.mask].any()
    assert first.sum(1).abs().max() < 1e-4
    assert first[data.molecules.mask].abs().min() > 0
    assert not torch.equal(first, other)
