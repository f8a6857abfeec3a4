"""The molecule experiment: fair, repeatable, and its published weights checked."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from elf.experiments import find, molecules, reproduce
from elf.experiments.molecule_weights import publish, trained

TINY = molecules.SETTINGS["smoke"]


def weights(record) -> torch.Tensor:
    return torch.cat([p.flatten() for p in record.model.parameters()])


def test_same_seed_same_network_other_seed_another():
    runs = [molecules.train(TINY, molecules.LOSSES["energy"](), steps=2, seed=s) for s in (0, 0, 1)]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_losses_start_from_the_same_network_and_see_the_same_noise():
    """Equal compute is also equal luck: what differs between two losses is the loss."""
    seen = {}
    for name in ("mse", "energy"):
        energy = molecules.LOSSES[name]()
        inputs = []
        energy.register_forward_pre_hook(lambda module, args, kept=inputs: kept.append(args[1].detach().clone()))
        molecules.train(TINY, energy, steps=1, seed=4)
        seen[name] = inputs[0]
    assert torch.equal(seen["mse"], seen["energy"])
    first, second = molecules.make_denoiser(TINY, 4), molecules.make_denoiser(TINY, 4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_making_a_denoiser_leaves_global_randomness_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    molecules.make_denoiser(TINY, 7)
    assert torch.equal(torch.rand(1), expected)


def test_sampled_sizes_are_those_of_the_data():
    sizes = (molecules.sample(molecules.make_denoiser(TINY, 0), TINY, n=50).numbers > 0).sum(dim=1)
    assert sizes.min() >= 5
    assert sizes.max() <= 15
    assert abs(sizes.float().mean() - molecules.training_molecules((5, 15)).counts.float().mean()) < 1


def test_smoke_run_writes_a_whole_table(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    path = reproduce("molecules", scale="smoke", seeds=2, workdir=tmp_path / "runs", threads=1)
    result = json.loads(path.read_text())
    assert {row["loss"] for row in result["summary"]} == {"mse", "kabsch", "energy"}
    assert all(row["n"] == 2 for row in result["summary"])
    assert "energy" in molecules.table(result)


def test_learning_rate_sweep_is_the_same_experiment_at_several_rates():
    sweep, plain = (find(name) for name in ("molecule_rates", "molecules"))
    assert sweep.run_cell is plain.run_cell
    rates = {cell["learning_rate"] for cell in sweep.cells(sweep.settings("laptop"), 1)}
    assert set(molecules.SETTINGS["laptop"].learning_rates) < rates


def test_paper_scale_builds_the_model_and_steps():
    settings = dataclasses.replace(molecules.SETTINGS["paper"], batch_size=2, atoms=(5, 7))
    record = molecules.train(settings, molecules.LOSSES["energy"](), steps=2, seed=0)
    assert sum(p.numel() for p in record.model.parameters()) > 5_000_000


def test_published_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setitem(molecules.SETTINGS, "laptop", TINY)
    (tmp_path / "results").mkdir()
    with pytest.raises(FileNotFoundError, match="elf reproduce molecules"):
        trained("energy")
    with pytest.raises(ValueError, match="holds 0 runs of loss='mse'"):
        publish(tmp_path)
    for loss in molecules.LOSSES:
        folder = tmp_path / f"molecules.laptop/loss={loss},steps=3,learning_rate=0.002,seed=0"
        folder.mkdir(parents=True)
        molecules.save_weights(folder / "weights.safetensors", molecules.make_denoiser(TINY, 5), {})
    publish(tmp_path)
    loaded, original = trained("energy"), molecules.make_denoiser(TINY, 5)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    with pytest.raises(ValueError, match="loss is 'hinge'; it should be one of mse, kabsch, energy"):
        trained("hinge")
    file = tmp_path / "results" / "molecules.energy.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="has SHA-256"):
        trained("energy")
