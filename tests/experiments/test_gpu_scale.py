"""What `elf reproduce` asks of a device: bf16-mixed by itself at scale gpu, compiling when told; both are on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from elf.training import loop
from experiments import EXPERIMENTS, reproduce
from experiments.framework import reproduce as reproducing
from experiments.framework.experiment import has_bfloat16


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "toy", "toy_experiment")
    monkeypatch.delenv("TOY_STEPS", raising=False)


@pytest.fixture
def asked(monkeypatch):
    """A device that has bfloat16 (what is trained stays on the CPU, where the toy puts it), and who asked for it."""
    calls = []
    monkeypatch.setattr(reproducing, "has_bfloat16", lambda accelerator: not calls.append(accelerator))
    return calls


def run(folder: Path, scale: str = "gpu", **fabric) -> dict:
    path = reproduce("toy", scale=scale, seeds=1, workdir=folder, output=folder / "toy.json", fabric=fabric)
    return json.loads(path.read_text())


def trained_with(folder: Path, scale: str = "gpu") -> str:
    """The settings in a cell's checkpoint."""
    saved = (folder / f"toy.{scale}" / "loss=mse,seed=0" / "run.safetensors").read_bytes()
    return saved.split(b"settings", 1)[1].split(b"}", 1)[0].decode().replace('\\"', "")


def test_scale_gpu_is_bf16_where_the_device_has_it_and_keeps_other_results_apart(tmp_path, asked, capsys):
    assert run(tmp_path, precision="32-true")["command"].endswith("--seeds 1 --precision 32-true")
    assert capsys.readouterr().out.startswith("A line is fitted (toy, gpu, 32-true): 2 cells, 0 of them finished")
    assert run(tmp_path, accelerator="cpu")["command"].endswith("--seeds 1 --precision bf16-mixed --accelerator cpu")
    said = capsys.readouterr().out.splitlines()
    assert "precision: '32-true' -> 'bf16-mixed'" in said[0]
    assert said[1] == "A line is fitted (toy, gpu, bf16-mixed): 2 cells, 0 of them finished before"
    assert "precision: bf16-mixed" in trained_with(tmp_path)
    assert asked[-1] == "cpu"


@pytest.mark.parametrize("scale", ["smoke", "live", "laptop", "paper"])
def test_other_scales_stay_as_they_are(tmp_path, asked, scale):
    assert run(tmp_path, scale)["command"] == f"elf reproduce toy --scale {scale} --seeds 1"
    assert not asked


def test_so_does_scale_gpu_where_it_is_the_laptops_and_where_nothing_has_bfloat16(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(reproducing, "has_bfloat16", lambda accelerator: False)
    assert run(tmp_path)["command"] == "elf reproduce toy --scale gpu --seeds 1"
    monkeypatch.setattr(reproducing, "has_bfloat16", lambda accelerator: True)
    monkeypatch.setenv("TOY_STEPS", "12")
    assert run(tmp_path)["command"] == "elf reproduce toy --scale gpu --seeds 1"
    assert "precision: 32-true" in trained_with(tmp_path)


@pytest.mark.parametrize(
    ("accelerator", "cuda", "native", "expected"),
    [
        *((name, True, True, True) for name in ("auto", "gpu", "cuda")),
        *((name, True, True, False) for name in ("cpu", "mps")),
        ("auto", True, False, False),
        ("auto", False, True, False),
    ],
)
def test_bfloat16_is_cudas_and_no_emulation(monkeypatch, accelerator, cuda, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert has_bfloat16(accelerator) is expected


def test_compile_reaches_the_training_and_the_command(tmp_path, monkeypatch):
    models: list[torch.nn.Module] = []
    monkeypatch.setattr(loop, "compiled", lambda model: models.append(model) or model)
    assert run(tmp_path, "smoke", compile=True)["command"] == "elf reproduce toy --scale smoke --seeds 1 --compile"
    assert len(models) == 2
    assert "compile: true" in trained_with(tmp_path, "smoke")
    assert run(tmp_path, "smoke")["command"] == "elf reproduce toy --scale smoke --seeds 1"
    assert len(models) == 2
    assert "compile: false" in trained_with(tmp_path, "smoke")
