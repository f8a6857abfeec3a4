from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

import course as course_package
from course import notebooks
from elf import cli
from experiments import EXPERIMENTS


def _error_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_info_names_versions_device_scale_and_cache(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ELF_SCALE", "smoke")
    monkeypatch.setenv("ELF_CACHE", str(tmp_path))
    assert cli.main(["info"]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"elf", "python", "packages", "device", "QM9", "results"} <= set(facts)
    assert facts["scale"] == "smoke"
    assert facts["cache"] == str(tmp_path)
    assert facts["runs"] == str(tmp_path / "runs")
    assert "torch 2." in facts["packages"]


def test_an_unknown_scale_in_the_environment_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.setenv("ELF_SCALE", "huge")
    assert cli.main(["info"]) == 2
    assert "ELF_SCALE is 'huge'; it should be one of smoke, live, laptop, gpu, paper" in _error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["dance"], "invalid choice: 'dance'"),
        (["info", "--loud"], "unrecognized arguments: --loud"),
        (["reproduce", "shapes", "--device", "2"], "unrecognized arguments: --device 2"),
        (["reproduce", "shapes", "--seed", "2"], "unrecognized arguments: --seed 2"),
        (["run", "--cell", "2"], "unrecognized arguments: --cell"),
        (["--vers"], "required"),
        (["run", "--scale", "huge"], "invalid choice: 'huge'"),
        (["reproduce", "shapes", "--seeds", "0"], "'0' should be a whole number above 0"),
        (["reproduce", "shapes", "--only", "loss"], "'loss' should be KEY=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def course(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("00_start_here", "02_gradient_fields"):
        (folder / f"{name}.ipynb").touch()
    monkeypatch.setattr(notebooks, "course_folder", lambda: folder)
    return folder


def test_run_with_an_unknown_notebook_lists_those_there_are(course, capsys):
    assert cli.main(["run", "99"]) == 2
    assert "no notebook is named '99'; there are 00_start_here, 02_gradient_fields" in _error_line(capsys)


@pytest.mark.parametrize("command", ["run", "lab"])
def test_without_the_repository_the_notebooks_are_missed_clearly(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "course", None)
    monkeypatch.setitem(sys.modules, "course.commands", None)
    assert cli.main([command]) == 1
    line = f"elf {command}: `course` is not there: it is part of the repository, not of the installed package; clone it"
    assert line in _error_line(capsys)


def test_run_passes_scale_and_limits_on_and_ends_with_a_table(course, monkeypatch, capsys, tmp_path):
    seen = {}

    def run(paths, output, **options):
        seen.update(names=[path.stem for path in paths], output=output, **options)
        return [notebooks.NotebookRun("02_gradient_fields", 1.5, "torque 0.00 against 3.10")]

    monkeypatch.setattr(notebooks, "run", run)
    monkeypatch.setattr(notebooks, "cores", lambda: 3)
    monkeypatch.setenv("ELF_SCALE", "live")
    arguments = ["run", "02", "--scale", "smoke", "--cell-timeout", "9", "--output", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert seen == {
        "names": ["02_gradient_fields"],
        "output": tmp_path,
        "cell_timeout": 9,
        "jobs": 3,
        "env": {"ELF_SCALE": "smoke"},
    }
    out = capsys.readouterr().out
    assert "torque 0.00 against 3.10" in out
    assert "make lab" in out
    for given, jobs in (([], 4), (["--jobs", "9"], 9)):  # what a machine of many cores does, and what it is told
        monkeypatch.setattr(notebooks, "cores", lambda: 64)
        assert cli.main([*arguments, *given]) == 0
        assert seen["jobs"] == jobs


def test_run_that_fails_exits_with_1_and_ends_with_the_reason(course, monkeypatch, capsys):
    def run(*_, **__):
        raise notebooks.NotebookError("00_start_here.ipynb, cell [3] (x = 1): ValueError: no", "Traceback ...")

    monkeypatch.setattr(notebooks, "run", run)
    assert cli.main(["run"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "elf run: 00_start_here.ipynb, cell [3] (x = 1): ValueError: no"
    )


def test_interrupting_exits_with_130(course, monkeypatch, capsys):
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "run", run)
    assert cli.main(["run"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_lab_listens_on_loopback_with_its_token_and_passes_arguments_on(course, monkeypatch):
    commands = []

    def execv(path, command):
        commands.append((path, command))
        raise SystemExit(0)

    monkeypatch.setattr(cli.os, "execv", execv)
    with pytest.raises(SystemExit):
        cli.main(["lab", "--no-browser"])
    ((path, command),) = commands
    assert path == sys.executable
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--no-browser" in command
    assert command[-1] == str(course / "00_start_here.ipynb")
    assert not [part for part in command if "token" in part or "password" in part]
    (extensions,) = [part.partition("=")[2] for part in command if "extra_labextensions_path" in part]
    assert Path(extensions, "elf-3dmol", "static", "3Dmol-min.js").is_file()


@pytest.fixture
def experiments(monkeypatch):
    """A stand-in for experiments that records how it is called."""
    calls = []

    def reproduce(name, **options):
        if name != "shapes":
            raise ValueError(f"no experiment is named {name!r}; there is shapes")
        calls.append(options)
        return Path("results/shapes.laptop.json")

    monkeypatch.setitem(sys.modules, "experiments.framework.reproduce", SimpleNamespace(reproduce=reproduce))
    return calls


def test_reproduce_hands_its_options_to_the_experiment(experiments, capsys):
    arguments = ["--seeds", "3", "--jobs", "2", "--threads", "1", "--precision", "bf16-mixed", "--num-nodes", "2"]
    arguments += ["--compile"]
    assert cli.main(["reproduce", "shapes", *arguments, "--only", "loss=mse,energy", "--only", "theta=0.5"]) == 0
    assert experiments == [
        {
            "scale": "laptop",
            "seeds": 3,
            "jobs": 2,
            "threads": 1,
            "only": {"loss": ["mse", "energy"], "theta": [0.5]},
            "output": None,
            "workdir": None,
            "fabric": {"num_nodes": 2, "precision": "bf16-mixed", "compile": True},
        }
    ]
    assert "wrote results/shapes.laptop.json" in capsys.readouterr().out


def test_reproduce_with_an_unknown_experiment_is_one_clear_line(experiments, capsys):
    assert cli.main(["reproduce", "sandwiches"]) == 2
    assert "no experiment is named 'sandwiches'" in _error_line(capsys)


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"elf {version('elf-loss')}\n"


def test_help_lists_the_experiments_and_offers_no_strategy_that_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--help"])
    text = capsys.readouterr().out
    assert set(EXPERIMENTS) <= set(re.findall(r"\w+", text.partition("experiments:")[2]))
    assert "fsdp" not in text


def _modules_of_experiments():
    return [name for name in sys.modules if name.partition(".")[0] == "experiments"]


@pytest.mark.parametrize("command", [["reproduce", "shapes"], ["info"]])
def test_without_the_experiments_one_line_says_what_to_do(command, monkeypatch, capsys):
    for name in _modules_of_experiments():
        monkeypatch.setitem(sys.modules, name, None)
    status = cli.main(command)
    said = capsys.readouterr()
    (line,) = [line for line in (said.out + said.err).splitlines() if "experiments" in line]
    assert "part of the repository, not of the installed package; clone it and run this command in it" in line
    assert status == (1 if command[0] == "reproduce" else 0)


@pytest.mark.parametrize("command", [["reproduce", "shapes"], ["info"]])
def test_somebody_elses_experiments_are_not_taken_for_ours(command, monkeypatch, capsys, tmp_path):
    for name in _modules_of_experiments():
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(command) == (1 if command[0] == "reproduce" else 0)
    said = capsys.readouterr()
    assert "`experiments` is not there: it is part of the repository" in said.out + said.err


def test_an_experiment_with_a_module_missing_is_not_taken_for_missing_experiments(monkeypatch, tmp_path):
    (tmp_path / "experiments.py").write_text("import no_such_module\n")
    for name in _modules_of_experiments():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cli.main(["reproduce", "shapes"])


def test_what_an_extra_would_bring_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.delenv("ELF_CACHE", raising=False)
    assert cli.main(["info"]) == 0
    assert "platformdirs" in re.search("^cache +(.+)$", capsys.readouterr().out, re.MULTILINE)[1]
    for name in ("commands", "notebooks"):
        monkeypatch.delitem(sys.modules, f"course.{name}", raising=False)
        monkeypatch.delattr(course_package, name, raising=False)
    monkeypatch.setitem(sys.modules, "nbclient", None)
    assert cli.main(["run"]) == 1
    assert "nbclient" in _error_line(capsys)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "a/b"), "elf reproduce: cannot open a/b: permission denied"),
        (OSError(28, "No space left on device"), "elf reproduce: cannot write the output: no space left on device"),
        (OSError(28, "cannot write a/b: no space"), "elf reproduce: cannot write a/b: no space"),
        (BlockingIOError("a is held by process 1"), "elf reproduce: a is held by process 1"),
        (FileNotFoundError("there is no file"), "elf reproduce: there is no file"),
    ],
)
def test_errors_of_the_operating_system_are_one_line_and_1(error, line, monkeypatch, capsys):
    def reproduce(name, **_):
        raise error

    monkeypatch.setitem(sys.modules, "experiments.framework.reproduce", SimpleNamespace(reproduce=reproduce))
    assert cli.main(["reproduce", "shapes"]) == 1
    assert _error_line(capsys) == line


def _elf(*arguments: str, **options):
    return subprocess.Popen([sys.executable, "-m", "elf", *arguments], stderr=subprocess.PIPE, text=True, **options)


def test_a_work_folder_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with _elf("reproduce", "rigidity", "--scale", "smoke", "--workdir", str(tmp_path / "file")) as process:
        assert process.communicate(timeout=120)[1].startswith("elf reproduce: cannot write ")
    assert process.returncode == 1


FULL_DISK = ["a full disk"] if Path("/dev/full").exists() else []  # Linux has one to try


@pytest.mark.parametrize("place", ["a reader that left", *FULL_DISK])
def test_output_that_nobody_takes_is_one_line(place):
    if place == "a full disk":
        out, message = os.open("/dev/full", os.O_WRONLY), "no space left on device"
    else:
        reader, out = os.pipe()
        os.close(reader)
        message = "broken pipe"
    with _elf("info", stdout=out) as process:
        os.close(out)
        _, err = process.communicate(timeout=120)
    assert err == f"elf info: cannot write the output: {message}\n"
    assert process.returncode == 1


def test_python_m_elf_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "elf", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage: elf" in done.stdout
