"""The benchmarks run, and the pair energy has not become slow again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_every_benchmark_runs_at_tiny_size(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--together", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["threads"] == 1
    assert result["scale"] == "tiny"
    assert result["versions"]["torch"] == torch.__version__
    parts = result["parts"]
    assert set(parts) == {
        "losses", "edges", "roofline", "memory", "training", "sampling", "ground_states", "batches",
    }  # fmt: skip
    for row in parts["losses"]:
        assert row["plain_over_pair"] > 0
        assert max(row["error"].values()) < 1e-5
    assert {row["model"] for row in parts["training"]} == {"laptop", "paper"}
    assert all(0 < share < 1 for row in parts["training"] for share in row["loss_share"].values())
    shares = {row["order"]: row["padding_share"] for row in parts["batches"]}
    assert shares["bucketed"] < shares["shuffled"]
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "| sparse: fitted exponent" in done.stdout


def test_the_page_shows_the_committed_results_and_all_claims_hold() -> None:
    from benchmarks.report import claims, with_results

    result = json.loads((ROOT / "benchmarks" / "bench.json").read_text())
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert result["scale"] == "full"
    assert with_results(page, result) == page
    assert {row["holds"] for row in claims(result)} == {"yes"}
    assert result["seconds"] < 600


def test_a_part_prints_its_json_from_a_process_of_its_own() -> None:
    from benchmarks.__main__ import in_own_process

    rates = in_own_process("roofline", tiny=True)
    assert isinstance(rates, dict)
    assert min(rates["nanoseconds_each_in_cache"].values()) > 0


# In a process of its own: the run-time type checks of this one would be timed, too. Of each, the fastest of many calls
# in a row, in processor time: what else runs on the machine can only lengthen a call.
RATIO = """
import time, torch, elf
from benchmarks.timing import samples, step
from experiments.cost.points import broadcast_pair_energy

def fastest(function):
    times = []
    for _ in range({repeats}):
        begin = time.process_time_ns()
        function()
        times.append(time.process_time_ns() - begin)
    return min(times)

torch.set_num_threads(1)
prediction, target = samples({batch}, {atoms})
mask = torch.ones({batch}, {atoms}, dtype=torch.bool)
pair, plain = step(elf.PairEnergy(), prediction, target), step(broadcast_pair_energy, prediction, target, mask)
print(min(fastest(plain), fastest(plain)) / min(fastest(pair), fastest(pair)))
"""


# Measured: 6, 12 and 40 (see benchmarks/README.md); asked for: less than half of that.
@pytest.mark.parametrize(("batch", "atoms", "repeats", "least"), [(64, 29, 100, 2.5), (64, 180, 4, 4), (1, 2000, 4, 6)])
def test_the_pair_energy_stays_several_times_faster_than_the_plain_formula(
    batch: int, atoms: int, repeats: int, least: float
) -> None:
    code = RATIO.format(batch=batch, atoms=atoms, repeats=repeats)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > least
