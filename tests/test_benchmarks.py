"""The benchmarks run, their page shows what they found, and the pair energy does no more work than it should."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import elf
from benchmarks.timing import samples, step
from elf.geometry.graphs import random_regular_edges
from experiments.cost.points import broadcast_pair_energy

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
        "scale", "peers",
    }  # fmt: skip
    for row in parts["losses"]:
        assert row["plain_over_pair"] > 0
        assert max(row["error"].values()) < 1e-5
    assert parts["losses"][0]["height_over_pair"] > 0
    assert {row["model"] for row in parts["training"]} == {"laptop", "paper"}
    assert all(0 < share < 1 for row in parts["training"] for share in row["loss_share"].values())
    shares = {row["order"]: row["padding_share"] for row in parts["batches"]}
    assert shares["bucketed"] < shares["shuffled"]
    assert {name for name, curve in parts["scale"]["curves"].items() if len(curve["rows"]) > 1} >= {"dense energy"}
    assert parts["scale"]["processes"]["efficiency"] > 0
    for row in parts["peers"]:
        assert ("milliseconds" in row) == row["installed"]
        assert row.get("difference", 0) < 1e-5, row  # the same is computed, or the comparison compares nothing
    assert "Where to switch" in done.stdout
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "| sparse: fitted exponent" in done.stdout


def test_the_page_shows_the_committed_results() -> None:
    from benchmarks.report import claims, with_results

    result = json.loads((ROOT / "benchmarks" / "bench.json").read_text())
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert result["scale"] == "full"
    assert with_results(page, result) == page
    accuracy = [row for row in claims(result) if "error" in row["claim"]]
    assert accuracy
    assert {row["holds"] for row in accuracy} == {"yes"}


def test_a_part_prints_its_json_from_a_process_of_its_own() -> None:
    from benchmarks.__main__ import in_own_process

    rates = in_own_process("roofline", tiny=True)
    assert isinstance(rates, dict)
    assert min(rates["nanoseconds_each_in_cache"].values()) > 0


def test_exponents_and_crossings_are_read_from_the_rows() -> None:
    from benchmarks.scale import crossing, exponent

    rows = [{"size": n, "seconds": 1 + 1e-3 * n**2.0} for n in (1, 10, 1_000, 10_000)]
    assert exponent(rows) == pytest.approx(2, abs=0.01)  # of the upper half: the overhead below does not count
    assert exponent(rows[:1]) is None
    dense = [{"size": n, "seconds": float(n * n)} for n in (10, 100, 1_000, 10_000)]
    sparse = [{"size": n, "seconds": 300.0 * n} for n in (100, 1_000, 10_000, 100_000)]
    assert crossing(dense, sparse) == 1_000
    assert crossing(dense[:2], sparse) is None


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peers
    from benchmarks.report import _peers

    peer = {"missing": ("no_such_package", "nothing", lambda tiny: pytest.fail("it was made"))}
    monkeypatch.setattr(peers, "PEERS", peer)
    rows = peers.measure(tiny=True)
    assert rows == [{"peer": "missing", "what": "nothing", "installed": False}]
    assert "not installed" in _peers({"peers": rows})[1]


class Work(TorchDispatchMode):
    """Counts the numbers that operations pass over: of each, its largest operand or result; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = [leaf.numel() for leaf in tree_leaves((args, result)) if isinstance(leaf, torch.Tensor)]
            self.numbers += max(touched, default=0)
        return result


def work(function: Callable[[], object]) -> int:
    function()
    with Work() as counted:
        function()
    return counted.numbers


# Not by the clock: what a machine is fast at, and what else it does, is no property of the code.
@pytest.mark.parametrize(("batch", "atoms"), [(64, 29), (64, 180), (1, 2000)])
def test_the_pair_energy_passes_over_a_third_of_the_numbers_of_the_plain_formula(batch: int, atoms: int) -> None:
    prediction, target = samples(batch, atoms)
    mask = torch.ones(batch, atoms, dtype=torch.bool)
    pair = work(step(elf.PairEnergy(), prediction, target))
    plain = work(step(broadcast_pair_energy, prediction, target, mask))
    assert pair <= 40 * batch * atoms * (atoms - 1) // 2
    assert plain >= 3 * pair


def test_sparse_edges_take_work_in_proportion_to_the_edges() -> None:
    each = []
    for points in (300, 3_000):
        prediction, target = samples(1, points)
        edges = random_regular_edges(points, 6, 0, method="switching")
        each.append(work(step(elf.PairEnergy(edges=edges), prediction, target)) / edges.shape[1])
    assert each[0] == pytest.approx(each[1], rel=0.01)
