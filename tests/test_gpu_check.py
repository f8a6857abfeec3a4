"""The GPU's questions, put to the CPU: all are answered, and a loss that errs is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from elf.energy import Energy, Harmonic
from elf.training import TrainRecord, loop
from tools import gpu_check


def test_a_sound_device_passes_and_everything_is_on_record(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "LOSSES", {name: gpu_check.LOSSES[name] for name in ("mse", "energy")})
    out = tmp_path / "gpu.json"
    assert gpu_check.main(["--accelerator", "cpu", "--scale", "smoke", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert set(record["losses"]) == {"mse, float32", "mse, float64", "energy, float32", "energy, float64"}
    assert record["losses"]["energy, float64"]["gradient"] == 0
    assert 0 < record["losses"]["energy, float32"]["gradient"] < 1e-4
    assert set(record["speed"]) == {"plain", "equivariant"}
    for entry in record["speed"].values():
        assert set(entry["ways"]) == {"32-true, eager"}  # without CUDA there is nothing to compare
        assert entry["fastest"] == "32-true, eager"
        assert 0 < entry["share_of_loss"] < 1
    assert set(record["stable_atoms"]["32-true"]) == {"mse", "energy"}
    assert record["failed"] == record["not_compiled"] == []


class Wrong(Harmonic):
    """Two per cent too large in single precision."""

    def _energy(self, prediction, target, mask):
        value = super()._energy(prediction, target, mask)
        return value if prediction.dtype == torch.float64 else 1.02 * value


def test_a_loss_that_errs_is_named(monkeypatch, capsys):
    losses: dict[str, type[Energy]] = {"mse": Harmonic, "wrong": Wrong}
    monkeypatch.setattr(gpu_check, "LOSSES", losses)
    monkeypatch.setattr(gpu_check, "speed", lambda *_: {"ways": {}})
    monkeypatch.setattr(gpu_check, "short_run", lambda *_: {})
    assert gpu_check.main(["--accelerator", "cpu", "--scale", "smoke"]) == 1
    said = capsys.readouterr().err
    assert "FAILED wrong, float32: value 2.0e-02" in said
    assert "mse" not in said


def test_a_loss_that_does_not_repeat_itself_shows():
    class Restless(Harmonic):
        called = 0.0

        def _energy(self, prediction, target, mask):
            self.called += 1
            return (1 + 1e-3 * self.called) * super()._energy(prediction, target, mask)

    cpu = torch.device("cpu")
    assert gpu_check.compared(Restless(), cpu, torch.float64)["again"] == pytest.approx(1e-3, rel=0.01)
    assert gpu_check.compared(Harmonic(), cpu, torch.float32)["again"] == 0


def refuse(*_):
    raise RuntimeError("no compiler is there\nand that is all")


def test_what_fails_is_on_record_in_words_and_the_rest_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "LOSSES", {"energy": gpu_check.LOSSES["energy"]})
    monkeypatch.setattr(gpu_check.gifts, "NETWORKS", {"plain": {}})
    monkeypatch.setattr(gpu_check, "short_run", lambda *_: {})
    monkeypatch.setattr(loop, "compiled", refuse)
    monkeypatch.setattr(gpu_check, "ways", lambda *_: [("32-true", False), ("bf16-mixed", False), ("32-true", True)])
    assert gpu_check.main(["--accelerator", "cpu", "--scale", "smoke"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)["speed"]["plain"]
    assert found["ways"].pop("32-true, compiled") == "RuntimeError: no compiler is there"
    assert "NOT COMPILED speed, plain, 32-true, compiled: RuntimeError: no compiler is there" in said.err
    assert "FAILED" not in said.err
    first, second = found["ways"].values()
    assert first["loss"] != second["loss"] == pytest.approx(first["loss"], rel=0.02)  # the same training in bfloat16
    assert found["ways"][found["fastest"]]["steps_a_second"] == max(way["steps_a_second"] for way in (first, second))

    monkeypatch.setattr(gpu_check, "ways", lambda *_: [("12-bit", False)])
    monkeypatch.setattr(gpu_check, "short_run", refuse)
    assert gpu_check.main(["--accelerator", "cpu", "--scale", "smoke"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["speed"]["plain"]["fastest"] is None
    assert "FAILED speed, plain, 12-bit, eager: ValueError: FitSettings.precision is '12-bit'" in said.err
    assert "FAILED short run, 32-true: RuntimeError: no compiler is there" in said.err


def test_both_precisions_and_compiling_are_tried_where_cuda_has_them(monkeypatch):
    monkeypatch.setattr(gpu_check, "has_bfloat16", lambda accelerator: accelerator == "cuda")
    both = [("32-true", False), ("32-true", True), ("bf16-mixed", False), ("bf16-mixed", True)]
    assert gpu_check.ways(torch.device("cuda"), "cuda") == both
    assert gpu_check.ways(torch.device("cuda"), "old cuda") == both[:2]
    assert gpu_check.ways(torch.device("mps"), "mps") == both[:1]


def test_the_pace_is_that_of_the_steps_after_the_warm_ones(monkeypatch):
    ended = [9.0, 10.0, 10.5, 11.0]
    history = [{"seconds": end, "loss": end} for end in ended]
    record = TrainRecord(torch.nn.Identity(), None, history, 4, 11.0, False)
    monkeypatch.setattr(gpu_check, "trained", lambda *_, **__: record)
    recipe = gpu_check.small.SETTINGS["smoke"]
    assert gpu_check.pace(recipe, 2, 4) == {"steps_a_second": 2.0, "warm_after_seconds": 10.0, "loss": 10.75}


def test_ctrl_c_ends_the_program(monkeypatch):
    record = TrainRecord(torch.nn.Identity(), None, [], 0, 0.0, interrupted=True)
    monkeypatch.setattr(gpu_check.small, "train", lambda *_, **__: record)
    with pytest.raises(KeyboardInterrupt):
        gpu_check.attempt(lambda: gpu_check.trained(gpu_check.small.SETTINGS["smoke"], "mse", 1))


def test_times_are_medians():
    ticks = iter([0.0, 1.0, 10.0, 12.0, 20.0, 29.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_check.time, "perf_counter", lambda: next(ticks))
        assert gpu_check.seconds(lambda: None, torch.device("cpu"), 3) == 2.0
