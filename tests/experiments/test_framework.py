"""Cells are run once, survive a kill, and end as one JSON that says how it was made."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_experiment

import experiments
from experiments import EXPERIMENTS, format_mean, load_result, mean_spread, reproduce, summarise_by, text_table
from experiments.framework.experiment import cell_slug, device_name, write_json

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "toy", "toy_experiment")
    for name in ("TOY_STEPS", "TOY_FAIL", "TOY_HANG", "ELF_RESULTS", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def calls(workdir: Path) -> list[list[str]]:
    return [line.split() for line in (workdir / "toy.smoke" / "calls.txt").read_text().splitlines()]


def run(tmp_path: Path, seeds: int = 2, **kwargs) -> dict:
    path = reproduce("toy", scale="smoke", seeds=seeds, workdir=tmp_path, output=tmp_path / "toy.json", **kwargs)
    return json.loads(path.read_text())


def test_result_record(tmp_path, capsys):
    threads = torch.get_num_threads()
    result = run(tmp_path, threads=1)
    assert torch.get_num_threads() == threads
    assert set(result) == {
        *("name", "scale", "command", "settings", "seeds", "versions"),
        *("device", "threads", "seconds", "date", "cells", "summary"),
    }
    assert result["command"] == "elf reproduce toy --scale smoke --seeds 2"
    assert result["settings"] == {"losses": ["mse", "mae"], "steps": 10}
    assert (result["name"], result["scale"], result["seeds"], result["threads"]) == ("toy", "smoke", 2, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert result["versions"]["torch"] == torch.__version__
    assert [row["cell"] for row in result["cells"]] == toy_experiment.cells(toy_experiment.Settings(), 2)
    assert result["seconds"] == pytest.approx(sum(row["seconds"] for row in result["cells"]), abs=0.06)
    errors = [row["result"]["error"] for row in result["cells"]]
    assert result["summary"][1]["error"]["mean"] == pytest.approx((errors[2] + errors[3]) / 2, rel=1e-5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A line is fitted (toy, smoke): 4 cells, 0 of them finished before"
    assert re.fullmatch(r"\[1/4\] loss=mse,seed=0: [\d.]+ s, about \d+ s left", lines[1])
    assert lines[-4:] == experiments.find("toy").table(result).splitlines()
    assert "±" in lines[-1]


def test_json_is_stable(tmp_path):
    run(tmp_path)
    text = (tmp_path / "toy.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert str(tmp_path) not in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_finished_cells_are_not_run_again(tmp_path):
    first = run(tmp_path)
    second = run(tmp_path)
    assert len(calls(tmp_path)) == 4
    assert second["cells"] == first["cells"]
    assert len(run(tmp_path, seeds=3)["cells"]) == 6
    assert [call[:2] for call in calls(tmp_path)[4:]] == [["mse", "2"], ["mae", "2"]]


def test_changed_settings_start_anew_and_keep_the_old(tmp_path, monkeypatch, capsys):
    first = run(tmp_path)
    monkeypatch.setenv("TOY_STEPS", "12")
    capsys.readouterr()
    second = run(tmp_path)
    assert "settings changed (steps: 10 -> 12): cells start anew" in capsys.readouterr().out
    assert second["settings"]["steps"] == 12
    assert len(calls(tmp_path)) == 4
    (aside,) = [path for path in tmp_path.iterdir() if path.name.startswith("toy.smoke.")]
    assert json.loads((aside / "loss=mse,seed=0.json").read_text())["result"] == first["cells"][0]["result"]
    run(tmp_path, fabric={"precision": "bf16-mixed"})
    assert "precision: None -> 'bf16-mixed'" in capsys.readouterr().out


def test_fabric_options_reach_the_training_and_the_command(tmp_path):
    result = run(tmp_path, fabric={"accelerator": "cpu", "precision": "bf16-mixed"})
    assert result["command"] == "elf reproduce toy --scale smoke --seeds 2 --accelerator cpu --precision bf16-mixed"
    saved = (tmp_path / "toy.smoke" / "loss=mse,seed=0" / "run.safetensors").read_bytes()
    assert b'\\"precision\\": \\"bf16-mixed\\"' in saved
    with pytest.raises(ValueError, match=r"\['gpus'\] are unknown"):
        run(tmp_path / "other", fabric={"gpus": 1})


def test_only(tmp_path, capsys):
    path = reproduce(
        "toy", scale="smoke", seeds=2, workdir=tmp_path, output=tmp_path / "toy.json", only={"loss": "mae"}
    )
    assert path == tmp_path / "toy.smoke" / "partial.json"
    assert not (tmp_path / "toy.json").exists()
    assert "2 of 4 cells are missing" in capsys.readouterr().out
    assert [row["loss"] for row in json.loads(path.read_text())["summary"]] == ["mae"]
    assert len(run(tmp_path, only={"loss": ["mse"], "seed": [0, 1]})["cells"]) == 4
    assert len(calls(tmp_path)) == 4
    with pytest.raises(ValueError, match="leaves no cell; the cells are"):
        run(tmp_path, only={"loss": "energy"})


def test_parallel_jobs(tmp_path):
    serial = run(tmp_path / "serial", threads=1)
    parallel = run(tmp_path / "parallel", jobs=2, threads=1)
    assert [(row["cell"], row["result"]) for row in parallel["cells"]] == [
        (row["cell"], row["result"]) for row in serial["cells"]
    ]
    pids = {call[3] for call in calls(tmp_path / "parallel")}
    assert str(os.getpid()) not in pids
    assert {call[2] for call in calls(tmp_path / "parallel")} == {"1"}
    with pytest.raises(ValueError, match="should be 1 when a training has several processes"):
        run(tmp_path, jobs=2, fabric={"devices": 2})


def test_a_failing_cell_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAIL", "mae")
    with pytest.raises(ArithmeticError, match="asked to fail") as caught:
        run(tmp_path)
    assert caught.value.__notes__ == ["in cell loss=mae,seed=0 of toy (smoke)"]
    monkeypatch.delenv("TOY_FAIL")
    run(tmp_path)
    assert [call[:2] for call in calls(tmp_path)] == [
        ["mse", "0"],
        ["mse", "1"],
        ["mae", "0"],
        ["mae", "0"],
        ["mae", "1"],
    ]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_a_cell_and_resumed(tmp_path, how):
    output = tmp_path / "toy.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1]), "TOY_HANG": "1"}
    command = [sys.executable, "-W", "error", str(HERE / "toy_experiment.py"), str(tmp_path), str(output)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        while process.stdout.readline().strip() != "hanging":
            assert process.poll() is None
        process.send_signal(how)
        assert process.wait() != 0
    assert not output.exists()
    assert not (tmp_path / "toy.smoke" / "loss=mae,seed=0.json").exists()
    resumed = run(tmp_path, threads=1)
    # The last checkpoint before the kill was at step 5; an interrupt writes one of its own, at step 6.
    assert [row["result"]["first_step"] for row in resumed["cells"]] == [1, 1, 6 if how == signal.SIGKILL else 7, 1]
    whole = run(tmp_path / "whole", threads=1)
    assert resumed["summary"][0]["error"] == whole["summary"][0]["error"]
    assert resumed["summary"][1]["error"] == whole["summary"][1]["error"]
    assert len(calls(tmp_path)) == 5


def test_every_experiment_is_where_the_index_says():
    for name, address in EXPERIMENTS.items():
        assert experiments.find(name).name == name, address


def test_a_module_may_hold_several(tmp_path, monkeypatch):
    several = {"line": dataclasses.replace(toy_experiment.EXPERIMENT, name="line")}
    monkeypatch.setattr(toy_experiment, "EXPERIMENTS", several)
    monkeypatch.setitem(EXPERIMENTS, "line", "toy_experiment:line")
    assert experiments.find("line") is several["line"]
    path = reproduce("line", scale="smoke", seeds=1, workdir=tmp_path, output=tmp_path / "line.json", threads=1)
    assert json.loads(path.read_text())["name"] == "line"


def test_results_folder_and_load_result(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_RESULTS", str(tmp_path / "results"))
    with pytest.raises(FileNotFoundError, match="make it with: elf reproduce toy --scale smoke"):
        load_result("toy", "smoke")
    path = reproduce("toy", scale="smoke", seeds=1, workdir=tmp_path)
    assert path == tmp_path / "results" / "toy.smoke.json"
    assert load_result("toy", "smoke")["seeds"] == 1
    monkeypatch.delenv("ELF_RESULTS")
    assert experiments.results_folder() == HERE.parents[1] / "results"


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"experiment is 'toys'; it should be one of .*toy"):
        reproduce("toys", scale="smoke", seeds=1)
    with pytest.raises(ValueError, match="scale is 'huge'; it should be one of 'smoke'"):
        reproduce("toy", scale="huge", seeds=1)
    for name in ("seeds", "jobs", "threads"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            reproduce("toy", **{"scale": "smoke", "seeds": 1, name: -1})


def test_cells_with_one_name(tmp_path, monkeypatch):
    twice = dataclasses.replace(toy_experiment.EXPERIMENT, cells=lambda settings, seeds: [{"a": 1}, {"a": 1}])
    monkeypatch.setattr(toy_experiment, "EXPERIMENT", twice)
    with pytest.raises(ValueError, match="share a name"):
        run(tmp_path)


def test_slug():
    assert cell_slug({"loss": "energy", "seed": 0}) == "loss=energy,seed=0"
    assert cell_slug({"path": "a/b c", "rate": 1e-3}) == "path=a_b_c,rate=0.001"


def test_device_name_is_of_this_machine_without_its_host_name():
    import platform

    assert re.search(r", \d+ cores$", device_name("cpu"))
    assert platform.node() not in device_name("cpu")


def test_importing_the_framework_is_light():
    code = "import sys, experiments; assert not {'torch', 'lightning_fabric', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(HERE.parents[1])})


class TestTables:
    def test_mean_spread(self):
        assert mean_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7**0.5))
        assert mean_spread([4.0]) == (4.0, 0.0)
        with pytest.raises(ValueError, match="values is empty"):
            mean_spread([])

    def test_groups(self):
        rows = [
            {"cell": {"loss": loss, "seed": seed}, "result": {"x": seed + bias, "ok": True, "curve": [1]}}
            for loss, bias in (("b", 1.0), ("a", 0.0))
            for seed in range(3)
        ]
        assert summarise_by(rows, "loss") == [
            {"loss": "b", "n": 3, "x": {"mean": 2.0, "std": 1.0}},
            {"loss": "a", "n": 3, "x": {"mean": 1.0, "std": 1.0}},
        ]
        assert [row["n"] for row in summarise_by(rows, "loss", "seed")] == [1] * 6

    def test_format(self):
        row = {"n": 3, "x": {"mean": 0.12345, "std": 0.01}}
        assert format_mean(row, "x") == "0.123 ± 0.010 (3)"
        assert format_mean(row, "x", digits=1, scale=100) == "12.3 ± 1.0 (3)"
        assert format_mean({**row, "n": 1}, "x") == "0.123 (1)"

    def test_text(self):
        lines = text_table([{"loss": "mse", "e": 1}, {"loss": "energy", "e": 22}]).splitlines()
        assert lines == ["| loss   | e  |", "|--------|----|", "| mse    | 1  |", "| energy | 22 |"]
        with pytest.raises(ValueError, match="rows is empty"):
            text_table([])
