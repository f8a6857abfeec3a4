"""The published spin networks: checked files, and the claims made of them and of the committed tables."""

import itertools

import pytest
import torch

from elf.data import spin_glass
from elf.training import save_weights
from experiments import load_result
from experiments.spins import table5, table5_settings
from experiments.spins.table5_settings import publish, trained


def test_published_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setitem(table5_settings.SETTINGS, "laptop", table5_settings.SETTINGS["smoke"])
    (tmp_path / "results").mkdir()
    with pytest.raises(FileNotFoundError, match="elf reproduce table5_settings"):
        trained("pair")
    with pytest.raises(ValueError, match="holds 0 runs of loss='pair'"):
        publish(tmp_path)
    original = table5.build(table5_settings.SETTINGS["smoke"].best, 5)
    for loss in ("pair", "ising"):
        folder = tmp_path / f"table5_settings.laptop/part=best,loss={loss},seed=0"
        folder.mkdir(parents=True)
        save_weights(folder / "weights.safetensors", original, {})
    publish(tmp_path)
    loaded = trained("ising")
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    with pytest.raises(ValueError, match="loss is 'hinge'; it should be one of 'pair', 'ising'"):
        trained("hinge")
    file = tmp_path / "results" / "spins.pair.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="has SHA-256"):
        trained("pair")


def test_the_committed_networks_are_below_the_paper_and_give_the_recorded_numbers(tmp_path):
    test = spin_glass.load(1000, 16, seed=table5.TEST_SEED, cache_dir=tmp_path)[:200]
    rows = {r["loss"]: r for r in load_result("table5_settings")["summary"] if r["part"] == "best"}
    for loss, row in rows.items():
        energy = table5.scores(trained(loss), test)["energy"]
        assert energy < 14.6
        assert energy == pytest.approx(row["energy"]["mean"], rel=0.1)
    assert len(rows) == 2


def test_the_committed_table_separates_the_losses():
    """Means over three seeds that differ by more than their spreads, and the pair energy as good as the true one."""
    rows = {row["loss"]: row["energy"] for row in load_result("table5")["summary"]}
    order = ["cross_entropy", "margin", "local_field", "ising"]
    for worse, better in itertools.pairwise(order):
        assert rows[worse]["mean"] - rows[worse]["std"] > rows[better]["mean"] + rows[better]["std"]
    assert rows["pair"]["mean"] + rows["pair"]["std"] <= 1.15 * rows["ising"]["mean"]
    assert 3 * rows["pair"]["mean"] < rows["local_field"]["mean"]
