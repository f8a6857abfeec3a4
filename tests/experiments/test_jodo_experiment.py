"""The experiment "table3": runs, resumes its seeds' batches, prints the paper's rows beside ours."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from elf.training import save_weights
from experiments import find, reproduce
from experiments.framework.experiment import results_folder
from experiments.molecules.jodo import committed, experiment
from experiments.molecules.jodo.diffusion import POSITION_LOSSES, position_loss
from experiments.molecules.jodo.network import GraphTransformer
from experiments.molecules.paper_tables import TABLE_3

TINY = experiment.settings_of("table3", "smoke")


def test_it_runs_and_has_a_table(tmp_path):
    path = reproduce("table3", scale="smoke", seeds=1, workdir=tmp_path, threads=1, output=tmp_path / "out.json")
    result = json.loads(path.read_text())
    rows = {row["cell"]["loss"]: row["result"] for row in result["cells"]}
    assert set(rows) == {"kabsch", "inverse_even", "data"}
    assert rows["data"]["graph_right"] == rows["data"]["graph_completeness"] == 1
    assert rows["inverse_even"]["turning_changes"] < 1e-4
    assert rows["kabsch"]["molecules"] == TINY.samples
    assert rows["kabsch"]["placed@0.1"] >= rows["kabsch"]["turned@0.1"] > 0
    text = find("table3").table(result)
    assert "| paper: JODO + energy (exponential) | 99.6 | 96.6 |" in " ".join(text.split())
    assert text.count("\n") == 2 + 3 + len(TABLE_3) + 1 + 2 + 3 + 1
    assert "of its norm: energy, inverse springs" in text
    assert "ours, QM9, training molecules (1)" in text


def test_losses_of_a_seed_share_weights_molecules_times_and_noise(monkeypatch):
    seen = {}
    for name in ("mse", "kabsch"):
        kept, own = [], position_loss(name)

        def loss(x_hat, x, x_t, mask, own=own, kept=kept):
            kept.append((x.clone(), x_t.clone(), x_hat.detach().clone()))
            return own(x_hat, x, x_t, mask)

        monkeypatch.setitem(POSITION_LOSSES, name, loss)
        experiment.train(replace(TINY, steps=1), name, seed=4)
        seen[name] = kept[0]
    assert all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))


def test_training_repeats_and_lowers_the_loss():
    settings = replace(TINY, steps=30, batch_size=16, rates=(3e-3,), schedule="constant")
    first, again = (experiment.train(settings, "inverse_even", seed=0) for _ in range(2))
    losses = [[row["loss"] for row in record.history] for record in (first, again)]
    assert losses[0] == losses[1]
    assert sum(losses[0][-8:]) < 0.8 * sum(losses[0][:8])


def test_what_is_trained_on_is_the_sum_of_the_three_streams(monkeypatch):
    """A stream with the wrong sign would lower the loss all the more; the parts are worked out by hand elsewhere."""
    seen, true = [], experiment.joint_loss

    def spy(*args, **kwargs):
        seen.append(true(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(experiment, "joint_loss", spy)
    record = experiment.train(replace(TINY, steps=2), "mse", seed=1)
    sums = [sum(part.item() for part in parts) for parts in seen]
    assert [row["loss"] for row in record.history] == pytest.approx(sums, rel=1e-6)
    assert all(part.item() > 1e-3 for parts in seen for part in parts)


def test_what_a_training_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "fit", lambda *args, **kwargs: asked.append(args[3]))
    laptop = experiment.settings_of("table3", "laptop")
    epoch = len(experiment.training_set(laptop)[0]) // laptop.batch_size
    for steps, epochs in ((40, 0), (4000, 0), (10**6, 0), (7, 5)):
        experiment.train(replace(laptop, steps=steps, epochs=epochs, warmup_steps=100), "mse", seed=6)
    assert [(s.steps, s.warmup_steps, s.checkpoint_every) for s in asked] == [
        (40, 40, 100), (4000, 100, 200), (10**6, 100, 2000), (5 * epoch, 100, max(100, 5 * epoch // 20)),
    ]  # fmt: skip


def test_scales_and_their_sizes():
    laptop, paper = (experiment.settings_of("table3", scale) for scale in ("laptop", "paper"))
    small = experiment.make_model(laptop, 0)
    assert sum(p.numel() for p in small.parameters()) == pytest.approx(1e6, rel=0.1)
    assert (paper.channels, paper.layers, paper.heads, paper.dropout) == (256, 8, 16, 0.1)
    with torch.device("meta"):
        published = GraphTransformer()
    names = {name for name, _ in published.named_parameters()}
    assert {name for name, _ in small.network.named_parameters() if not name.startswith("blocks.")} < names
    assert set(paper.losses) == {"mse", "kabsch", "inverse", "exponential"}
    rates = experiment.settings_of("jodo_rates", "laptop")
    assert {cell["seed"] for cell in experiment.cells(rates, 1)} == {10}
    cells = experiment.cells(laptop, 2)
    assert [cell["seed"] for cell in cells] == [0] * 5 + [1] * 5  # whole seeds first: losses are compared in pairs
    assert {cell["loss"] for cell in cells[:5]} == {"data", *laptop.losses}
    assert laptop.rates[0] in rates.rates
    assert len({cell["learning_rate"] for cell in experiment.cells(rates, 1)} - {0.0}) >= 3


def test_committed_networks_are_the_trained_ones_to_half_precision(tmp_path, monkeypatch):
    """And a damaged file, another loss, or the weights of another network are refused in words."""
    for loss in committed.LOSSES:
        assert (results_folder() / f"table3.{loss}.safetensors").stat().st_size < 3e6
        weights = committed.trained(loss).state_dict().values()
        assert all(w.dtype == torch.float32 and torch.equal(w, w.half().float()) for w in weights)
    with pytest.raises(ValueError, match="loss is 'mse'; it should be one of 'kabsch', 'inverse_even'"):
        committed.trained("mse")
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(committed, "training_settings", lambda: TINY)
    for loss in committed.LOSSES:
        folder = tmp_path / f"table3.laptop/loss={loss},learning_rate=0.002,seed=0"
        folder.mkdir(parents=True)
        save_weights(folder / "weights.safetensors", experiment.make_model(TINY, 5), {})
    committed.publish(tmp_path)
    pairs = zip(committed.trained("kabsch").parameters(), experiment.make_model(TINY, 5).parameters(), strict=True)
    assert all(torch.equal(a, b.half().float()) for a, b in pairs)
    monkeypatch.setattr(committed, "training_settings", lambda: replace(TINY, channels=32))
    with pytest.raises(ValueError, match="weights of another JointDiffusion"):
        committed.trained("kabsch")
    file = tmp_path / "results" / "table3.kabsch.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="has SHA-256"):
        committed.trained("kabsch")
