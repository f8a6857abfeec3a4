"""`elf reproduce --devices 2`: two processes with gloo give the result of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def reproduce(script: list[str], *arguments: str) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-W", "error", *script, "reproduce", *arguments, "--scale", "smoke", "--accelerator", "cpu"],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_two_processes_equal_one(tmp_path):
    results = {}
    for devices in ("1", "2"):
        output = tmp_path / f"{devices}.json"
        where = ("--devices", devices, "--strategy", "ddp" if devices == "2" else "auto")
        script = [str(HERE / "toy_cli.py")]
        reproduce(script, "toy", *where, "--output", str(output), "--workdir", str(tmp_path / devices))
        results[devices] = json.loads(output.read_text())
    one, two = results["1"]["cells"], results["2"]["cells"]
    assert [row["cell"] for row in two] == [row["cell"] for row in one]
    assert [row["result"]["error"] for row in two] == pytest.approx([row["result"]["error"] for row in one], abs=2e-4)
    assert "--devices 2 --strategy ddp" in results["2"]["command"]


@pytest.mark.parametrize(
    ("name", "only"), [("table2", ("model=edm", "loss=energy")), ("table3", ("loss=inverse_even",))]
)
def test_a_table_of_the_paper_runs_in_two_processes(tmp_path, name, only):
    wanted = [part for cell in only for part in ("--only", cell)]
    reproduce(["-m", "elf"], name, "--devices", "2", "--strategy", "ddp", "--workdir", str(tmp_path), *wanted)
    result = json.loads((tmp_path / f"{name}.smoke" / "partial.json").read_text())
    (row,) = result["cells"]
    assert row["result"]["molecules"] == 4
