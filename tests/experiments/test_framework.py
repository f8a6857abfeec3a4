"""Cells are run once, survive a kill, and end as one JSON that says how it was made."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy_experiment

import experiments
from elf.files import is_running
from experiments import EXPERIMENTS, format_mean, load_result, mean_spread, reproduce, summarise_by, text_table
from experiments.framework import experiment as recording
from experiments.framework import reproduce as reproducing
from experiments.framework.experiment import cell_slug, device_name, write_json

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "toy", "toy_experiment")
    for name in ("TOY_STEPS", "TOY_FAIL", "TOY_HANG", "TOY_DIE", "ELF_RESULTS", *recording.RANKS):
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
    assert lines[0] == "A line is fitted (toy, smoke, 32-true): 4 cells, 0 of them finished before"
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


def test_cells_set_aside_come_back_with_their_settings(tmp_path, capsys, monkeypatch):
    first = run(tmp_path)
    monkeypatch.setenv("TOY_STEPS", "12")
    run(tmp_path)
    monkeypatch.delenv("TOY_STEPS")
    capsys.readouterr()
    again = run(tmp_path)
    out = capsys.readouterr().out
    assert "cells of the present settings had been set aside; they are back" in out
    assert "4 cells, 4 of them finished before" in out
    assert again["cells"] == first["cells"]
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("toy.smoke.")]) == 1


@pytest.mark.parametrize(
    "fabric", [{"precision": "12"}, {"strategy": "foo"}, {"accelerator": "mps"}, {"devices": 0}], ids=str
)
def test_a_mistyped_option_moves_no_finished_cell(tmp_path, fabric):
    run(tmp_path)
    with pytest.raises(ValueError, match=next(iter(fabric))):
        run(tmp_path, fabric=fabric)
    assert len(calls(tmp_path)) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("toy.smoke.")] == []


def test_the_output_may_not_be_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "toy.json")
    with pytest.raises(OSError, match=r"toy\.json: it is a device or a pipe"):
        run(tmp_path)
    assert not (tmp_path / "toy.smoke" / "calls.txt").exists()


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


def toy_process(tmp_path, *arguments, **environment) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1]), **environment}
    command = [sys.executable, str(HERE / "toy_cli.py"), "reproduce", "toy", "--scale", "smoke", "--seeds", "2"]
    command += ["--workdir", str(tmp_path), "--output", str(tmp_path / "toy.json"), *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(what, seconds=120):
    """A hang should fail, so the limit is generous; it is no measure of speed."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_second_run_of_the_same_experiment_says_who_holds_the_folder(tmp_path):
    with toy_process(tmp_path, TOY_HANG="1") as first:
        while first.stdout.readline().strip() != "hanging":
            assert first.poll() is None
        before = sorted((tmp_path / "toy.smoke").rglob("*"))
        with toy_process(tmp_path) as second:
            out, err = second.communicate(timeout=120)
        assert second.returncode == 1
        assert out == ""
        (line,) = err.splitlines()
        assert f"is held by process {first.pid} on" in line
        assert "elf reproduce toy --scale smoke" in line
        assert sorted((tmp_path / "toy.smoke").rglob("*")) == before
        first.kill()
    assert len(run(tmp_path, threads=1)["cells"]) == 4


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_command(tmp_path, how):
    with toy_process(tmp_path, "--jobs", "2", TOY_HANG="1") as process:
        wait_until(lambda: (tmp_path / "toy.smoke" / "calls.txt").exists() and len(calls(tmp_path)) > 2)
        workers = [int(call[3]) for call in calls(tmp_path)]
        assert process.pid not in workers
        process.send_signal(how)
        process.wait()
    wait_until(lambda: not any(map(is_running, workers)))
    assert len(run(tmp_path, threads=1)["cells"]) == 4


def test_threads_are_the_experiments_own_and_another_number_is_said(tmp_path, monkeypatch, capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run(tmp_path / "own")["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {call[2] for call in calls(tmp_path / "own")} == {"1"}
    assert "threads is" not in capsys.readouterr().out
    two = run(tmp_path / "two", threads=2)
    assert (two["threads"], two["command"].endswith("--threads 2")) == (2, True)
    assert "threads is 2, the experiment's own number 1" in capsys.readouterr().out
    more = dataclasses.replace(toy_experiment.EXPERIMENT, threads=2)
    monkeypatch.setattr(toy_experiment, "EXPERIMENT", more)
    result = run(tmp_path / "own", seeds=3)
    assert "begun with 1 threads, goes on with 2" in capsys.readouterr().out
    assert result["threads"] == [1, 2]
    assert result["command"] == "elf reproduce toy --scale smoke --seeds 3"


@pytest.mark.parametrize("place", ["output", "workdir"])
def test_a_folder_that_cannot_be_written_is_said_before_any_work(tmp_path, place):
    file = tmp_path / "file"
    file.touch()
    where = {"workdir": tmp_path, "output": tmp_path / "toy.json", place: file / "below"}
    with pytest.raises(OSError, match=r"cannot write .*: (not a directory|file exists)"):
        reproduce("toy", scale="smoke", seeds=1, **where)
    assert not (tmp_path / "toy.smoke" / "calls.txt").exists()
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: it is a folder"):
        reproduce("toy", scale="smoke", seeds=1, workdir=tmp_path, output=tmp_path)
    assert not (tmp_path / "toy.smoke" / "calls.txt").exists()


def test_a_part_needs_no_output(tmp_path):
    (tmp_path / "file").touch()
    only = {"seed": 0, "loss": "mse"}
    path = reproduce("toy", scale="smoke", seeds=2, workdir=tmp_path, output=tmp_path / "file" / "x", only=only)
    assert path.name == "partial.json"


def test_without_semaphores_several_jobs_are_refused_in_words(tmp_path, monkeypatch):
    def no_semaphores(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(reproducing, "ProcessPoolExecutor", no_semaphores)
    with pytest.raises(OSError, match="is /dev/shm there"):
        run(tmp_path, jobs=2)


def test_a_worker_that_is_killed_is_named_and_finished_cells_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_DIE", "mae")
    with pytest.raises(ChildProcessError, match="a process was killed"):
        run(tmp_path, jobs=2)
    monkeypatch.delenv("TOY_DIE")
    assert len(run(tmp_path)["cells"]) == 4


def test_runs_lie_in_the_cache_folder_and_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ELF_CACHE", "~/cache")
    monkeypatch.setenv("ELF_RESULTS", "~/results")
    path = reproduce("toy", scale="smoke", seeds=1)
    assert path == tmp_path / "home" / "results" / "toy.smoke.json"
    assert (tmp_path / "home" / "cache" / "runs" / "toy.smoke" / "settings.json").is_file()
    reproduce("toy", scale="smoke", seeds=1, workdir="~/work", output="~/toy.json")
    assert (tmp_path / "home" / "work" / "toy.smoke").is_dir()
    assert (tmp_path / "home" / "toy.json").is_file()
    assert not (tmp_path / "~").exists()


def test_outside_a_checkout_results_have_no_place_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is no checkout with results/; name a file \(--output\)"):
        reproduce("toy", scale="smoke", seeds=1, workdir=tmp_path)
    assert not (tmp_path / "toy.smoke").exists()
    reproduce("toy", scale="smoke", seeds=1, workdir=tmp_path, output=tmp_path / "toy.json")


def test_a_rank_in_the_environment_of_a_single_process_is_refused(tmp_path, monkeypatch):
    """Otherwise this process would compute everything and write nothing."""
    monkeypatch.setenv("SLURM_PROCID", "3")
    with pytest.raises(ValueError, match=r"devices is 1 with {'SLURM_PROCID': '3'} in the environment"):
        run(tmp_path)


def test_a_move_that_was_killed_half_way_mixes_nothing(tmp_path, monkeypatch):
    """The settings go last: a folder that lost a few cells is still one of the old settings."""
    first = run(tmp_path)
    rename = Path.rename
    moved = []

    def killed(path, to):
        moved.append(path.name)
        if len(moved) > 2:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setenv("TOY_STEPS", "12")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    second = run(tmp_path)
    assert second["settings"]["steps"] == 12
    assert len(calls(tmp_path)) == 4
    asides = [path for path in tmp_path.iterdir() if path.name.startswith("toy.smoke.")]
    kept = {path.name for aside in asides for path in aside.iterdir()}
    assert {f"{cell_slug(row['cell'])}.json" for row in first["cells"]} <= kept


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


def test_a_grid_has_every_combination_and_the_last_axis_changes_fastest():
    cells = recording.grid(loss=("mse", "energy"), seed=range(2))
    assert cells == [{"loss": loss, "seed": seed} for loss in ("mse", "energy") for seed in (0, 1)]
    assert list(cells[0]) == ["loss", "seed"]
