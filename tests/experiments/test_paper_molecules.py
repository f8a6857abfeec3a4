"""The paper's tables: their settings, their numbers beside ours, and tiny runs of each."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from elf.chemistry import bonds
from elf.data import qm9
from elf.generative.samplers import Samples
from elf.training import fabric_options
from experiments import find, load_result, reproduce
from experiments.framework.experiment import shared_folder
from experiments.molecules import paper as paper_molecules
from experiments.molecules.paper_settings import LOSSES, MODELS
from experiments.molecules.paper_tables import SETTINGS, TABLE_1, TABLE_3, TABLE_4, TABLE_8

TINY = SETTINGS["table2"]["smoke"]


@pytest.fixture(scope="module")
def data():
    return paper_molecules.TrainingSet(TINY)


def weights(record) -> torch.Tensor:
    return torch.cat([p.flatten() for p in record.model.parameters()])


def train(data, model="edm", loss="energy", seed=0, **changes):
    return paper_molecules.train(replace(TINY, **changes), model, loss, seed=seed, data=data)


def test_paper_scale_is_the_papers():
    settings = SETTINGS["table2"]["paper"]
    assert (settings.channels, settings.layers, settings.levels, settings.ema_decay) == (256, 9, 1000, 0.9999)
    assert settings.atoms == (3, 29)
    fit = paper_molecules.fit_settings(settings, "gdm-aug", "energy", 100_000, 0)
    assert (fit.steps, fit.learning_rate, fit.schedule) == (3000 * (100_000 // 512), 4e-4, "constant")
    fit = paper_molecules.fit_settings(settings, "edm", "mse", 100_000, 0)
    assert (fit.steps, fit.learning_rate) == (3000 * 250, 3e-4)
    predictor = paper_molecules.make_predictor(settings, "edm", 0)
    assert predictor.schedule.precision == 1e-5
    assert sum(p.numel() for p in predictor.parameters()) > 5e6
    assert {loss: spec.gdm for loss, spec in LOSSES.items() if loss in ("mse", "mae", "kabsch", "constant")} == {
        "mse": (1e-3, 1.5), "mae": (1e-3, 0.8), "kabsch": (8e-4, 0.8), "constant": (9e-4, 0.05),
    }  # fmt: skip
    assert LOSSES["inverse_square"].edm == (1e-4, 0.1)
    geom = SETTINGS["table1"]["paper"]
    assert (geom.layers, geom.epochs, geom.atoms[1], geom.data) == (4, 13, 181, "geom")
    assert (geom.batch_size, SETTINGS["table1"]["laptop"].batch_size, SETTINGS["table1"]["smoke"].batch_size) == (
        64,
        16,
        4,
    )


def test_checkpoints_are_twenty_a_run_within_bounds():
    for steps, every in ((1500, 100), (10_000, 500), (600_000, 2000)):
        settings = replace(SETTINGS["table2"]["laptop"], steps=steps)
        assert paper_molecules.fit_settings(settings, "gdm", "mse", 1000, 0).checkpoint_every == every


def test_small_scales_have_rates_of_their_own():
    """C.2's rates differ threefold between losses, for runs a thousand times as long: what is best here is swept."""
    tables = [SETTINGS[name] for name in ("table2", "paper_distributions", "table4", "figure4")]
    for laptop in (found["laptop"] for found in tables):
        for model in laptop.models:
            for loss in laptop.losses:
                rate = paper_molecules.fit_settings(laptop, model, loss, 3000, 0).learning_rate
                assert rate == laptop.learning_rates[model][loss]
    for name in ("edm_rates", "gdm_rates", "paper_spring_rates"):
        swept = paper_molecules.cells(SETTINGS[name]["laptop"], 1)
        assert {cell["seed"] for cell in swept} == {10}
        for found in tables:
            assert {cell["seed"] for cell in paper_molecules.cells(found["laptop"], 3)} == {0, 1, 2}
    assert paper_molecules.fit_settings(SETTINGS["table2"]["laptop"], "edm", "mse", 3000, 0, 7e-3).learning_rate == 7e-3


def test_every_loss_of_a_table_was_swept():
    swept = {
        (cell["model"], cell["loss"])
        for name in ("edm_rates", "gdm_rates", "paper_spring_rates")
        for cell in paper_molecules.cells(SETTINGS[name]["laptop"], 1)
    }
    for name in ("table2", "paper_distributions", "table4", "figure4"):
        runs = paper_molecules.cells(SETTINGS[name]["laptop"], 1)
        assert {(cell["model"], cell["loss"]) for cell in runs if cell["model"] != "data"} <= swept


@pytest.mark.parametrize("gone", [0, 1, 3, 4])
def test_molecules_that_a_network_sent_to_infinity_count_as_molecules_without_a_bond(gone):
    some = qm9.load(heavy_atoms=(5, 5), atoms=(10, 16), limit=4)
    positions, sizes = some.positions.clone(), some.counts
    known = paper_molecules.whole_figures(Samples(positions, some.numbers), None, bonds.QM9)
    assert known["atom_stability"] == known["validity"] == 1
    assert "broken" not in known
    for i in range(gone):
        positions[i, i, 1] = (torch.nan, torch.inf, -torch.inf)[i % 3]
    found = paper_molecules.whole_figures(Samples(positions, some.numbers), None, bonds.QM9)
    assert found["atom_stability"] == pytest.approx(int(sizes[gone:].sum()) / int(sizes.sum()))
    for share in ("molecule_stability", "validity", "connected", "stable_connected", "completeness"):
        assert found[share] == pytest.approx((4 - gone) / 4)
    assert (found["molecules"], found["atoms"], found.get("broken", 0)) == (4, int(sizes.sum()), gone / 4)


def test_cells_of_the_tables():
    def cells(name, scale="paper", seeds=1):
        experiment = find(name)
        return experiment.cells(experiment.settings(scale), seeds)

    assert len(cells("table2", seeds=3)) == 3 * (3 * 5 - 1 + 1)
    assert {(c["model"], c["loss"]) for c in cells("table2")} >= {("gdm", "sparse"), ("edm", "kabsch"), ("data", "-")}
    assert not [c for c in cells("table2") if c["model"] == "edm" and c["loss"] == "sparse"]
    assert {c["loss"] for c in cells("table4")} == {"energy", "inverse_square", "inverse", "constant", "-"}
    assert {c["share"] for c in cells("figure4")} == {1.0, 0.5, 0.25, 0.125}
    assert {c["share"] for c in cells("figure4", "smoke")} == {0.5, 1.0}  # the data are taken whole
    assert {c["loss"] for c in cells("figure4", "smoke")} == {"energy", "-"}
    assert {(c["model"], c["loss"]) for c in cells("table1")} >= {("gdm", "sparse_inverse"), ("gdm-aug", "energy")}
    for name in ("table1", "table2", "paper_distributions", "table4", "figure4"):
        for scale in ("smoke", "live", "laptop", "paper"):
            json.dumps(asdict(find(name).settings(scale)))
            assert all(c["model"] in (*MODELS, "data") and c["loss"] in (*LOSSES, "-") for c in cells(name, scale))


def test_the_papers_numbers():
    best = {model: max(rows, key=lambda loss: float(rows[loss][0].split("±")[0])) for model, rows in TABLE_8.items()}
    assert best == {"gdm": "energy", "gdm-aug": "energy", "edm": "energy"}
    assert TABLE_8["gdm-aug"]["energy"][0] == "89.8±2.8"
    assert TABLE_4["gdm-aug"]["constant"][0] == "83.6"
    assert TABLE_1["gdm-aug"]["energy"][:2] == ("24.6", "96.0")
    assert TABLE_3["JODO + energy (exponential)"][4] == "1.495"


def test_same_seed_same_weights_other_seed_or_loss_others(data):
    runs = [
        train(data, loss=loss, seed=seed) for loss, seed in (("energy", 0), ("energy", 0), ("energy", 1), ("mse", 0))
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))
    assert not torch.equal(weights(runs[0]), weights(runs[3]))


def test_only_aug_turns_the_molecules(data, monkeypatch):
    seen = []
    true = paper_molecules.denoising_loss

    def spy(module, energy, positions, *rest, **more):
        seen.append(positions.clone())
        return true(module, energy, positions, *rest, **more)

    monkeypatch.setattr(paper_molecules, "denoising_loss", spy)
    for model in ("gdm", "gdm-aug"):
        train(data, model, steps=1, warmup_steps=0)
    plain, turned = seen
    assert plain.shape == turned.shape
    assert (plain - turned).abs().max() > 0.1
    torch.testing.assert_close(torch.cdist(plain, plain), torch.cdist(turned, turned), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("model", ["gdm", "edm"])
@pytest.mark.parametrize("loss", ["mse", "mae", "kabsch", "energy"])
def test_every_loss_trains(data, model, loss):
    losses = [row["loss"] for row in train(data, model, loss).history]
    assert len(losses) == 2
    assert all(np.isfinite(losses))


def test_bf16_autocast_on_the_cpu(data):
    """Mixed precision changes digits, not the result: weights stay float32, and the losses agree to a few per cent."""
    whole = train(data, steps=6)
    with fabric_options(precision="bf16-mixed", accelerator="cpu"):
        mixed = train(data, steps=6)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in mixed.model.parameters())
    a, b = ([row["loss"] for row in record.history] for record in (whole, mixed))
    assert a != b
    assert b == pytest.approx(a, rel=0.05)


@pytest.mark.parametrize("model", list(MODELS))
def test_bf16_output_is_in_the_precision_of_the_input(model):
    predictor = paper_molecules.make_predictor(TINY, model, 0)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        noise = predictor(torch.randn(2, 3, 9), torch.tensor([0.1, 0.9]), mask)
    assert noise.dtype == torch.float32
    # Bodies in bfloat16 have sums that miss zero by far; the answer has none.
    assert noise[..., :3].sum(dim=1).abs().max() < 1e-5


def test_shares_are_nested_and_the_same_each_time(data):
    half, again, quarter = (paper_molecules.TrainingSet(TINY, share) for share in (0.5, 0.5, 0.25))
    assert len(half) == round(len(data) / 2)
    assert torch.equal(half.rows, again.rows)
    assert set(quarter.rows.tolist()) < set(half.rows.tolist())
    assert len(half.smiles()) < len(data.smiles())


def test_table2_at_smoke_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    reproduce("table2", scale="smoke", seeds=1, workdir=tmp_path / "runs", threads=1)
    result = load_result("table2", "smoke")
    rows = {(row["model"], row["loss"]): row for row in result["summary"]}
    assert set(rows) == {(m, loss) for m in ("gdm-aug", "edm") for loss in ("mse", "energy")} | {("data", "-")}
    assert rows["data", "-"]["atom_stability"]["mean"] > 0.8
    text = find("table2").table(result)
    assert "89.8±2.8" in text
    assert "paper: 9 layers x 256" in text
    weights_file = tmp_path / "runs/table2.smoke/model=edm,loss=energy,share=1.0,seed=0/weights.safetensors"
    from elf.training import load_weights

    predictor = paper_molecules.make_predictor(TINY, "edm", 1)
    assert "energy" in load_weights(weights_file, predictor)["cell"]
    with pytest.raises(ValueError, match=r"holds weights of another NoisePredictor: .* in the file, .* in the model"):
        load_weights(weights_file, paper_molecules.make_predictor(replace(TINY, channels=4), "edm", 0))
    with pytest.raises(ValueError, match="holds weights of another NoisePredictor"):
        load_weights(weights_file, paper_molecules.make_predictor(TINY, "gdm", 0))


def test_paper_distributions_at_smoke_scale(tmp_path):
    path = reproduce("paper_distributions", scale="smoke", seeds=1, workdir=tmp_path, threads=1, only={"model": "data"})
    result = json.loads(path.read_text())
    (row,) = result["cells"]
    figures = row["result"]
    assert figures["completeness"] == 1
    assert figures["fcd"] > 0
    assert figures["posebusters"] == 1
    assert 0 <= figures["strain"] < 60
    assert all(0 < figures[f"mmd_{kind}"] < 10 for kind in ("bond", "angle", "dihedral"))
    text = find("paper_distributions").table(result)
    assert "paper: JODO + energy (inverse)" in text
    assert "data (train against test)" in text


def test_table1_from_a_file_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_GEOM", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="To get GEOM-Drugs"):
        reproduce("table1", scale="smoke", seeds=1, workdir=tmp_path / "runs", threads=1)
    folder = tmp_path / "geom"
    folder.mkdir()
    random = np.random.default_rng(0)
    chloride = np.array(
        [[6, 0, 0, 0], [17, 1.77, 0, 0], [1, -0.4, 1.0, 0], [1, -0.4, -0.5, 0.9], [1, -0.4, -0.5, -0.9]]
    )
    rows = [np.column_stack([np.full(5, i), chloride + np.array([0, *random.normal(size=3)])]) for i in range(40)]
    np.save(folder / "geom_drugs_30.npy", np.vstack(rows))
    (folder / "geom_drugs_smiles.txt").write_text("CCl\n")
    monkeypatch.setenv("ELF_GEOM", str(folder))
    path = reproduce(
        "table1", scale="smoke", seeds=1, workdir=tmp_path / "runs", threads=1, output=tmp_path / "table1.json"
    )
    result = json.loads(path.read_text())
    by_loss = {row["cell"]["loss"]: row["result"] for row in result["cells"]}
    assert by_loss["-"]["molecule_stability"] == 1
    assert by_loss["-"]["novelty"] == 0
    assert by_loss["energy"]["atoms"] == 20
    assert "21.1" in find("table1").table(result)
    (folder / "geom_drugs_smiles.txt").unlink()
    data = paper_molecules.TrainingSet(SETTINGS["table1"]["smoke"])
    assert data.smiles() is None
    measured = paper_molecules.measure(data.settings, Samples(**data.batch(torch.arange(3))), None)
    assert measured["novelty"] is None


def test_evaluations_are_counted_right(monkeypatch, tmp_path):
    calls, made = [], paper_molecules.sample

    def counting(predictor, *args, **kwargs):
        predictor.register_forward_hook(lambda *_: calls.append(1))
        return made(predictor, *args, **kwargs)

    monkeypatch.setattr(paper_molecules, "sample", counting)
    cell = {"model": "gdm", "loss": "mse", "share": 1.0, "seed": 0}
    result = paper_molecules.run_cell(TINY, cell, tmp_path / "table2.smoke" / "cell", [])
    assert result["network_evaluations"] == len(calls) == TINY.levels + 1


def test_the_last_loss_is_the_mean_of_a_hundred_steps(monkeypatch, tmp_path, data):
    record = train(data, steps=1, warmup_steps=0)
    record.history[:] = [{"loss": float(step)} for step in range(150)]
    monkeypatch.setattr(paper_molecules, "train", lambda *args, **kwargs: record)
    cell = {"model": "gdm", "loss": "mse", "share": 1.0, "seed": 0}
    result = paper_molecules.run_cell(TINY, cell, tmp_path / "table2.smoke" / "cell", [])
    assert result["last_loss"] == (50 + 149) / 2


def test_a_batch_holds_every_atom(data):
    rows = torch.arange(0, len(data), 3)
    batch = data.batch(rows)
    assert (batch["numbers"] > 0).sum(1).tolist() == data.sizes[rows].tolist()
    assert batch["numbers"].shape[1] == int(data.sizes[rows].max())


def test_paper_distributions_shows_per_cent_and_distances():
    row = {"model": "edm", "loss": "mse", "atom_stability": {"mean": 0.5}, "fcd": {"mean": 12.25}}
    text = find("paper_distributions").table({"summary": [row], "scale": "laptop", "settings": {"samples": 7}})
    ours, published = (re.sub(" +", " ", text.splitlines()[i]) for i in (2, 3))
    assert ours == "| edm, mse | 50.0 | - | - | - | 12.2 | - | - | - |"
    assert published.startswith("| paper: JODO as published | 99.2 | 93.4 |")


def test_unknown_model():
    with pytest.raises(ValueError, match="model is 'vae'; it should be one of gdm, gdm-aug, edm"):
        paper_molecules.make_predictor(TINY, "vae", 0)


def test_tables_share_their_trainings(tmp_path, monkeypatch):
    """Table 4's exponential springs are Table 2's energy: the second table loads what the first one trained."""
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    shared = {"model": "gdm-aug", "loss": "energy"}
    plain = replace(TINY, models=("gdm-aug",), losses=("energy", "mse"))
    other = replace(plain, losses=("energy",), samples=3)
    for name, settings in (("table2", plain), ("table4", other)):
        monkeypatch.setitem(SETTINGS[name], "smoke", settings)
    reproduce("table2", scale="smoke", seeds=1, workdir=tmp_path, threads=1, only=shared)
    trainings = tmp_path / "paper_trainings"
    (folder,) = trainings.iterdir()
    before = (folder / "training.safetensors").stat().st_mtime_ns
    reproduce("table4", scale="smoke", seeds=1, workdir=tmp_path, threads=1, only=shared)
    assert [path.name for path in trainings.iterdir()] == [folder.name]
    assert (folder / "training.safetensors").stat().st_mtime_ns == before
    files = [next(tmp_path.glob(f"{table}.smoke/model=gdm-aug*/weights.safetensors")) for table in ("table2", "table4")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_training_in_use_is_not_trained_by_another(tmp_path):
    """Two tables at the same time would write one checkpoint by turns: the second one says who is there."""
    cell = {"model": "edm", "loss": "energy", "share": 1.0, "seed": 0}
    work = tmp_path / "table2.smoke" / "cell"
    name = paper_molecules.training_name(TINY, cell, len(paper_molecules.TrainingSet(TINY)))
    with (
        shared_folder(work, "paper_trainings", name) as folder,
        pytest.raises(BlockingIOError, match=rf"{name} is held by process {os.getpid()} .*cell cell"),
    ):
        paper_molecules.run_cell(TINY, cell, work, [])
    assert not list(folder.glob("*.safetensors"))


def test_other_trainings_have_other_folders():
    cell = {"model": "gdm", "loss": "mse", "share": 1.0, "seed": 0}

    def name(settings=TINY, molecules=100, **changes):
        return paper_molecules.training_name(settings, {**cell, **changes}, molecules)

    assert name(replace(TINY, samples=7, losses=("mse",), reference=5)) == name()
    others = [name(replace(TINY, steps=9)), name(seed=1), name(share=0.5), name(loss="mae"), name(model="edm")]
    with fabric_options(precision="bf16-mixed"):
        others.append(name())
    torch.set_num_threads(2)
    try:
        others.append(name())
    finally:
        torch.set_num_threads(1)
    assert len({name(), *others}) == 8


def test_the_committed_table_says_what_the_notebook_says():
    """Laptop scale: the energy first in both GDMs, within the spread, and last in EDM; next to no stable molecule."""
    rows = {(row["model"], row["loss"]): row for row in load_result("table2")["summary"]}
    assert all(row["n"] == 3 for row in rows.values())
    names = ("mse", "mae", "kabsch", "energy")
    for model in ("gdm", "gdm-aug"):
        assert max(names, key=lambda name: rows[model, name]["atom_stability"]["mean"]) == "energy"
        ours, theirs = rows[model, "energy"]["atom_stability"], rows[model, "mse"]["atom_stability"]
        assert ours["mean"] < theirs["mean"] + theirs["std"]
    assert min(names, key=lambda name: rows["edm", name]["atom_stability"]["mean"]) == "energy"
    assert all(row["molecule_stability"]["mean"] < 0.01 for (model, _), row in rows.items() if model != "data")


def test_the_share_of_the_data_is_a_column_where_it_varies():
    assert "| model | loss | share |" in re.sub(" +", " ", find("figure4").table(load_result("figure4")))
    assert "share" not in find("table2").table(load_result("table2"))
