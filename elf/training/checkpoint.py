"""Checkpoints and published weights: one safetensors file each, written atomically, never pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import elf
from elf.files import file_sha256, load_tensors, save_tensors
from elf.training.settings import FitSettings, resume_differences

FORMAT = "elf.training.checkpoint/2"
WEIGHTS_FORMAT = "elf.weights/2"
OLD_WEIGHTS_FORMAT = "elf.weights/1"


def model_signature(model: nn.Module) -> str:
    """Name of the model's class and a hash of the names, shapes and dtypes of its state."""
    text = "\n".join(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in sorted(model.state_dict().items()))
    return f"{type(model).__qualname__}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that start with `prefix`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def state_differences(state: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """How saved weights do not fit the model: missing, unexpected and differently shaped tensors."""
    own = model.state_dict()
    return (
        [f"{name} is missing in the file" for name in own if name not in state]
        + [f"{name} is not in the model" for name in state if name not in own]
        + [
            f"{name} is {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ]
    )


@dataclass(frozen=True)
class Run:
    """The parts of a training run that a checkpoint saves and restores."""

    fabric: Any
    settings: FitSettings
    model: nn.Module
    ema_model: nn.Module | None
    optimizer: torch.optim.Optimizer


def save_run(
    path: str | Path, run: Run, step: int, losses: Sequence[float], ended: Sequence[float], random: Sequence[Tensor]
) -> None:
    """Write a checkpoint after `step` steps; all processes call it, the first one writes.

    Raises:
        FloatingPointError: a weight is not finite; the checkpoint before is kept.
        OSError: the file could not be written; the checkpoint before is kept.
    """
    for name, parameter in run.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise FloatingPointError(
                f"weight {name} is not finite after step {step - 1}; training stops, and the last checkpoint is kept"
            )
    everyone = [_gather(state.to(run.fabric.device), run.fabric.world_size) for state in random]
    if run.fabric.is_global_zero:
        tensors = with_prefix("model.", run.model.state_dict())
        if run.ema_model is not None:
            tensors |= with_prefix("ema.", run.ema_model.state_dict())
        for index, values in run.optimizer.state_dict()["state"].items():
            tensors |= with_prefix(f"optimizer.{index}.", values)
        tensors |= {f"random.{i}": states for i, states in enumerate(everyone)}
        tensors["history.loss"] = torch.tensor(losses, dtype=torch.float64)
        tensors["history.seconds"] = torch.tensor(ended, dtype=torch.float64)
        about = {
            "step": step,
            "settings": run.settings.as_dict(),
            "model": model_signature(run.model),
            "device": run.fabric.device.type,
            "world_size": run.fabric.world_size,
            "torch": torch.__version__,
            "elf": elf.__version__,
        }
        save_tensors(path, tensors, about, format=FORMAT)
    run.fabric.barrier()


def _gather(tensor: Tensor, world_size: int) -> Tensor:
    """The processes' 1-d tensors as rows."""
    parts = [torch.empty_like(tensor) for _ in range(world_size)]
    if world_size == 1:
        parts = [tensor]
    else:
        torch.distributed.all_gather(parts, tensor)
    return torch.stack(parts)


def load_run(path: str | Path, run: Run) -> tuple[int, list[float], list[float], list[Tensor]]:
    """Restore model, average and optimizer. Returns the step, the losses, their times and this process's randomness.

    Raises:
        ValueError: the file is damaged, or of a run with another model, settings, device or number of processes.
    """
    tensors, about = load_tensors(path, FORMAT)
    name = Path(path).name
    weights = without_prefix("model.", tensors)
    here = {"device": run.fabric.device.type, "world_size": run.fabric.world_size}
    different = resume_differences(about["settings"], run.settings) + [
        f"{key}={about[key]!r} in the checkpoint, {value!r} now" for key, value in here.items() if about[key] != value
    ]
    if about["model"] != model_signature(run.model):
        different += [f"model {about['model']} in the checkpoint, {model_signature(run.model)} now"]
        different += state_differences(weights, run.model)[:5]
    if different:
        raise ValueError(
            f"checkpoint {name} is of another run: {'; '.join(different)}. Choose another file, or resume=False"
        )
    run.model.load_state_dict(weights)
    if run.ema_model is not None:
        run.ema_model.load_state_dict(without_prefix("ema.", tensors))
    optimizer = run.optimizer.state_dict()
    optimizer["state"] = {}
    for key, tensor in without_prefix("optimizer.", tensors).items():
        index, entry = key.split(".")
        optimizer["state"].setdefault(int(index), {})[entry] = tensor
    run.optimizer.load_state_dict(optimizer)
    # Cloned because torch's set_state misreads a tensor that does not begin where its storage does.
    rank, streams = run.fabric.global_rank, len(without_prefix("random.", tensors))
    random = [tensors[f"random.{i}"][rank].clone() for i in range(streams)]
    return about["step"], tensors["history.loss"].tolist(), tensors["history.seconds"].tolist(), random


def save_weights(path: str | Path, model: nn.Module, metadata: Mapping[str, Any]) -> str:
    """Publish the weights of a model with JSON-able metadata (settings, data, numbers). Returns the file's SHA-256."""
    about = {**metadata, "model": type(model).__qualname__}
    save_tensors(path, model.state_dict(), about, format=WEIGHTS_FORMAT)
    return file_sha256(path)


def load_weights(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load weights written by `save_weights` into a model of the same shapes. Returns the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or weights of another model; the message says which tensors differ.
    """
    tensors, metadata = load_tensors(path, WEIGHTS_FORMAT, OLD_WEIGHTS_FORMAT)
    different = state_differences(tensors, model)
    if different:
        raise ValueError(f"{Path(path).name} holds weights of another {metadata['model']}: " + "; ".join(different[:5]))
    model.load_state_dict(tensors)
    return metadata
