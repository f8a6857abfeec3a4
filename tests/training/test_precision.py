"""Every precision of Fabric trains and resumes to the same bits, or is refused before anything starts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.plugins.precision.precision import _PRECISION_INPUT
from toy_training import SETTINGS, noisy_loss, plain_loss, toy_batches, toy_model

from elf import files
from elf.training import FitSettings, TrainRecord, fit, loop
from elf.training.checkpoint import FORMAT
from elf.training.settings import PRECISIONS

OFFERED = sorted({str(name) for part in get_args(_PRECISION_INPUT) for name in get_args(part)})
SHORT = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}
DTYPES = {"bf16-true": torch.bfloat16, "64-true": torch.float64}


def run(precision: str, **kwargs: Any) -> TrainRecord:
    settings = dataclasses.replace(SETTINGS, precision=precision, steps=40, weight_decay=0.01)
    return fit(toy_model(), noisy_loss, toy_batches(), settings, **kwargs)


def stop(state: Any) -> None:
    if state.step == 17:
        state.stop()


def check_resume(precision: str, path: Any) -> TrainRecord:
    whole = run(precision)
    run(precision, checkpoint=path, callbacks=[stop])
    resumed = run(precision, checkpoint=path)
    for a, b in ((whole.model, resumed.model), (whole.ema_model, resumed.ema_model)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    losses = [entry["loss"] for entry in whole.history]
    assert losses == [entry["loss"] for entry in resumed.history]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    return whole


def gpu_fabric(settings: FitSettings) -> Fabric:
    """What Fabric makes on a GPU of 16-mixed, on the CPU: float16 autocast under a gradient scaler."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", growth_interval=5, init_scale=1024.0))
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
    fabric.launch()
    return fabric


@pytest.mark.parametrize("precision", OFFERED)
def test_every_name_that_fabric_takes(precision, tmp_path, monkeypatch):
    name = SHORT.get(precision, precision)
    if name not in PRECISIONS:
        with pytest.raises(ValueError, match=f"FitSettings.precision is '{precision}'; it should be one of"):
            dataclasses.replace(SETTINGS, precision=precision)
        return
    assert dataclasses.replace(SETTINGS, precision=precision).precision == name
    if name == "16-mixed":
        monkeypatch.setattr(loop, "make_fabric", gpu_fabric)
    record = check_resume(precision, tmp_path / "run.safetensors")
    dtype = DTYPES.get(name, torch.float32)
    assert {p.dtype for p in record.model.parameters()} == {dtype}
    # An average in bfloat16 would stand still where a step changes less than a 256th of it.
    average = torch.float64 if dtype == torch.float64 else torch.float32
    assert {p.dtype for p in record.ema_model.parameters()} == {average}


def test_the_averages_of_bfloat16_weights_by_hand():
    settings = dataclasses.replace(SETTINGS, precision="bf16-true", ema_decay=0.999, steps=30)
    expected = []

    def note(state):
        decay = min(0.999, state.step / (9 + state.step))  # of step t = state.step - 1
        now = [p.detach().double() for p in state.model.parameters()]
        pairs = zip(expected or [p.detach().bfloat16().double() for p in toy_model().parameters()], now, strict=True)
        expected[:] = [decay * before + (1 - decay) * after for before, after in pairs]

    record = fit(toy_model(), noisy_loss, toy_batches(), settings, callbacks=[note])
    for mine, theirs in zip(record.ema_model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)


def test_the_scaler_skips_a_step_that_overflows_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "make_fabric", gpu_fabric)
    path = tmp_path / "run.safetensors"

    def loss(model, batch, generator):
        # 1024 * 100 is more than float16 holds: so is the gradient.
        return plain_loss(model, batch, generator) * (100.0 if len(calls) == 3 else 1.0)

    calls: list[float] = []
    scales = []

    def note(state):
        calls.append(float(state.model[0].weight.detach().sum()))
        scales.append(files.load_tensors(path, FORMAT)[1]["scaler"]["scale"])

    settings = dataclasses.replace(SETTINGS, precision="16-mixed", steps=20, checkpoint_every=1)
    fit(toy_model(dropout=0.0), loss, toy_batches(), settings, checkpoint=path, callbacks=[note])
    assert calls[3] == calls[2] != calls[4]
    assert scales[3] == scales[2] / 2
    assert max(scales) > 1024  # it grows after five good steps: a resumed run has to know


def test_a_scaler_that_is_no_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "make_fabric", gpu_fabric)
    path = tmp_path / "run.safetensors"
    run("16-mixed", checkpoint=path)
    tensors, about = files.load_tensors(path, FORMAT)
    for scaler in ({}, {**about["scaler"], "scale": math.nan}, {**about["scaler"], "scale": "1"}):
        files.save_tensors(path, tensors, {**about, "scaler": scaler}, format=FORMAT)
        with pytest.raises(ValueError, match="is damaged: scaler is"):
            run("16-mixed", checkpoint=path)


@pytest.mark.parametrize("accelerator", ["cpu"] if torch.accelerator.is_available() else ["cpu", "auto"])
def test_16_mixed_is_refused_where_there_is_no_gpu(accelerator):
    def never(step):
        raise AssertionError("a step was begun")

    settings = dataclasses.replace(SETTINGS, precision="16-mixed", accelerator=accelerator)
    with (
        pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU"),
        pytest.raises(ValueError, match="precision is '16-mixed', which Fabric does not offer on cpu; it should be"),
    ):
        fit(toy_model(), noisy_loss, never, settings)
