"""The GPU's questions, put to the CPU: all are answered, and a loss that errs is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from elf.energy import Energy, Harmonic
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
    assert all(0 < entry["share_of_loss"] < 1 for entry in record["speed"].values())


class Wrong(Harmonic):
    """Two per cent too large in single precision."""

    def _energy(self, prediction, target, mask):
        value = super()._energy(prediction, target, mask)
        return value if prediction.dtype == torch.float64 else 1.02 * value


def test_a_loss_that_errs_is_named(monkeypatch, capsys):
    losses: dict[str, type[Energy]] = {"mse": Harmonic, "wrong": Wrong}
    monkeypatch.setattr(gpu_check, "LOSSES", losses)
    monkeypatch.setattr(gpu_check, "speed", lambda *_: {})
    monkeypatch.setattr(gpu_check, "short_run", lambda *_: {})
    assert gpu_check.main(["--accelerator", "cpu", "--scale", "smoke"]) == 1
    said = capsys.readouterr().err
    assert "FAILED wrong, float32: value 2.0e-02" in said
    assert "mse" not in said


def test_times_are_medians():
    ticks = iter([0.0, 1.0, 10.0, 12.0, 20.0, 29.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_check.time, "perf_counter", lambda: next(ticks))
        assert gpu_check.seconds(lambda: None, torch.device("cpu"), 3) == 2.0
