"""The molecule experiment: fair, repeatable, and its published weights checked."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from elf.metrics.molecules import summary
from elf.training import load_weights
from experiments import find, load_result, reproduce
from experiments.framework.experiment import results_folder
from experiments.framework.tables import heading
from experiments.molecules import committed
from experiments.molecules import small as molecules
from experiments.molecules.committed import publish, trained

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
    own = molecules.training_molecules(TINY)
    assert int(own.heavy_counts.max()) == 7
    assert sizes.min() >= 5
    assert sizes.max() <= 23
    assert abs(sizes.float().mean() - own.counts.float().mean()) < 1


def test_a_share_of_the_data_is_part_of_it_and_always_the_same():
    whole, half, again = (molecules.training_molecules(TINY, share) for share in (1.0, 0.5, 0.5))
    assert len(half) == round(len(whole) / 2)
    assert set(half.index.tolist()) < set(whole.index.tolist())
    assert torch.equal(half.index, again.index)
    assert molecules.training_smiles(TINY, 0.5) < molecules.training_smiles(TINY)


def test_smoke_run_writes_a_whole_table(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    path = reproduce("molecules", scale="smoke", seeds=2, workdir=tmp_path / "runs", threads=1)
    result = json.loads(path.read_text())
    assert {row["loss"] for row in result["summary"]} == {"mse", "kabsch", "energy", "sparse"}
    assert all(row["n"] == 2 for row in result["summary"])
    assert "energy" in molecules.table(result)


def test_learning_rate_sweep_is_the_same_experiment_at_several_rates():
    sweep, plain = (find(name) for name in ("molecule_rates", "molecules"))
    assert sweep.run_cell is plain.run_cell
    rates = {cell["learning_rate"] for cell in sweep.cells(sweep.settings("laptop"), 1)}
    assert set(molecules.SETTINGS["laptop"].learning_rates) < rates


def test_what_a_training_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(molecules, "fit", lambda *args, **kwargs: asked.append(args[3]))
    settings = dataclasses.replace(molecules.SETTINGS["laptop"], learning_rates=(3e-3, 5e-3))
    for steps, rate in ((40, 1e-3), (400, None)):
        molecules.train(settings, molecules.LOSSES["mse"](), steps=steps, seed=6, learning_rate=rate)
    assert [(s.steps, s.learning_rate, s.warmup_steps, s.seed) for s in asked] == [
        (40, 1e-3, 40, 6),
        (400, 3e-3, 100, 6),
    ]


def test_loss_curve_has_blocks_of_fifty():
    assert molecules.loss_curve([0.5, 0.25, 2.0]) == [0.5, 0.25, 2.0]
    assert molecules.loss_curve([1.0] * 25 + [2.0] * 25 + [4.0] * 50 + [9.0] * 7) == [1.5, 4.0]


def test_a_column_for_what_varies_alone():
    summary = load_result("molecules")["summary"]
    swept = [{**row, "learning_rate": rate} for row in summary for rate in (1e-3, 2e-3)]
    for rows, expected in ((summary, ["loss"]), (swept, ["loss", "learning rate"])):
        head = [text.strip() for text in molecules.table({"summary": rows}).splitlines()[0].split("|")]
        assert [name for name in head if name in map(heading, molecules.KEYS)] == expected


@pytest.mark.parametrize(
    "name", ["molecule_checkpoints", "molecule_noise", "molecule_shares", "molecule_springs", "molecule_step"]
)
def test_experiments_made_from_it_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path))
    path = reproduce(name, scale="smoke", seeds=1, workdir=tmp_path / "runs", threads=1)
    result = json.loads(path.read_text())
    assert len(result["summary"]) == len(result["cells"])
    assert result["command"] in path.read_text()
    assert find(name).table(result).count("\n") == len(result["summary"]) + 1


def test_paper_scale_builds_the_model_and_steps():
    settings = dataclasses.replace(molecules.SETTINGS["paper"], batch_size=2, atoms=(5, 7))
    record = molecules.train(settings, molecules.LOSSES["energy"](), steps=2, seed=0)
    assert sum(p.numel() for p in record.model.parameters()) > 5_000_000


def test_published_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setitem(molecules.SETTINGS, "laptop", TINY)
    (tmp_path / "results").mkdir()
    with pytest.raises(FileNotFoundError, match="elf reproduce molecule_checkpoints"):
        trained("energy")
    with pytest.raises(ValueError, match="holds 0 runs of loss='energy'"):
        publish(tmp_path)
    for loss in committed.LOSSES:
        folder = tmp_path / f"molecule_checkpoints.laptop/loss={loss},steps=3,share=1.0,learning_rate=0.002,seed=0"
        folder.mkdir(parents=True)
        molecules.save_weights(folder / "weights.safetensors", molecules.make_denoiser(TINY, 5), {})
    publish(tmp_path)
    loaded, original = trained("energy"), molecules.make_denoiser(TINY, 5)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    with pytest.raises(ValueError, match="loss is 'hinge'; it should be one of 'energy', 'mse', 'kabsch'"):
        trained("hinge")
    file = tmp_path / "results" / "molecules.energy.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="has SHA-256"):
        trained("energy")


def test_weights_of_another_network_are_refused(tmp_path):
    wider = molecules.make_denoiser(dataclasses.replace(TINY, channels=32), 0)
    molecules.save_weights(tmp_path / "wider.safetensors", wider, {})
    with pytest.raises(
        ValueError, match=r"wider\.safetensors holds weights of another KarrasDenoiser.*\(32, 5\) in the file"
    ):
        load_weights(tmp_path / "wider.safetensors", molecules.make_denoiser(TINY, 0))
    (tmp_path / "noise.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"noise\.safetensors is damaged or not a safetensors file"):
        load_weights(tmp_path / "noise.safetensors", molecules.make_denoiser(TINY, 0))


@pytest.mark.parametrize("loss", committed.LOSSES)
def test_committed_networks_draw_molecules(loss):
    """The files in results/ are small, those of their hash, and better than anything an untrained network makes."""
    settings = committed.training_settings()
    file = results_folder() / f"molecules.{loss}.safetensors"
    assert file.stat().st_size < 3_000_000
    drawn = molecules.sample(trained(loss), dataclasses.replace(settings, sampler_steps=20), n=24, seed=1)
    assert summary(drawn.positions, drawn.numbers)["atom_stability"] > 0.6


def test_the_committed_runs_say_what_the_notebook_says():
    """Stable atoms: a lead of the energy at both lengths, made at small noise. Stable molecules: spreads overlap."""
    short, long, halves = (
        {row["loss"]: row for row in load_result(name)["summary"]}
        for name in ("molecules", "molecule_checkpoints", "molecule_noise")
    )
    for rows, lead in ((short, 0.04), (long, 0.02)):
        for loss in ("mse", "kabsch"):
            ours, theirs = rows["energy"], rows[loss]
            assert ours["atom_stability"]["mean"] - theirs["atom_stability"]["mean"] > lead
            apart = abs(ours["molecule_stability"]["mean"] - theirs["molecule_stability"]["mean"])
            assert apart < ours["molecule_stability"]["std"] + theirs["molecule_stability"]["std"]
            assert ours["n"] == theirs["n"] == 3
    assert all(
        long["energy"]["connected"]["mean"] - long[loss]["connected"]["mean"] > 0.04 for loss in ("mse", "kabsch")
    )
    atoms = {loss: row["atom_stability"]["mean"] for loss, row in (short | halves).items()}
    assert abs(atoms["near"] - atoms["energy"]) < 0.015 < atoms["near"] - atoms["far"]
