"""Checkpoints and published weights: one safetensors file each, written atomically, never pickled."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import elf
from elf.files import file_sha256, load_tensors, require_storable, save_tensors
from elf.training.settings import resume_differences
from elf.training.state import Run

FORMAT = "elf.training.checkpoint/2"
WEIGHTS_FORMAT = "elf.weights/2"
OLD_WEIGHTS_FORMAT = "elf.weights/1"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
KINDS = {
    int: ("step", "world_size", "threads"),
    str: ("model", "device"),
    dict: ("settings", "extra_state", "scaler"),
    list: ("untouched",),
}
"""What a checkpoint's metadata hold, by type; `untouched` are the parameters that have had no gradient yet."""


def split_state(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A module's state: its tensors, and the JSON-able rest (from `get_extra_state`).

    Raises:
        ValueError: something in it that is neither a tensor of a type that safetensors knows nor JSON-able.
    """
    state = module.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in state.items() if name not in tensors}
    require_storable(tensors)
    for name, value in rest.items():
        try:
            survives = json.loads(json.dumps(value)) == value
        except (TypeError, ValueError):
            survives = False
        if not survives:
            raise ValueError(
                f"{name} is a {type(value).__name__}; it should be a tensor, or what JSON gives back unchanged, as "
                "files here hold no pickle"
            )
    return tensors, rest


def model_signature(model: nn.Module) -> str:
    """Name of the model's class and a hash of the names, shapes and dtypes of its state."""
    tensors, rest = split_state(model)
    lines = [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()]
    text = "\n".join(sorted([*lines, *rest]))
    return f"{type(model).__qualname__}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """How the state in a file does not fit: missing, unexpected and differently shaped entries."""
    here, there = (
        {name: tuple(value.shape) if isinstance(value, Tensor) else "no tensor" for name, value in state.items()}
        for state in (expected, found)
    )
    return [
        f"{name} is {there.get(name, 'missing')} in the file, {here.get(name, 'missing')} in the model"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]


def not_finite(tensors: Mapping[str, Tensor], modules: nn.Module) -> Iterator[str]:
    """Names of the tensors that hold a NaN, or an infinity and are no buffer (a mask may hold one)."""
    buffers = {name for name, _ in modules.named_buffers()}
    for name, tensor in tensors.items():
        if bool((tensor.isnan() if name in buffers else ~tensor.isfinite()).any()):
            yield name


def save_run(path: str | Path, run: Run) -> None:
    """Write a checkpoint after the latest whole step; all processes call it, the first one writes.

    Raises:
        FloatingPointError: a weight, its average or a moment of its gradients is not finite; nothing is written.
        OSError: the file could not be written; the checkpoint before is kept.
    """
    tensors, extra = split_state(run.modules)
    untouched = []
    for name, parameter in run.trainable.items():
        moments = run.optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{name}.{entry}": value for entry, value in moments.items()}
        if not moments:
            untouched.append(name)
    for name in not_finite(tensors, run.modules):
        raise FloatingPointError(
            f"{name} is not finite after step {run.state.step - 1}; training stops, and the last checkpoint is kept"
        )
    everyone = [run.gather(stream) for stream in run.random.kept]
    if run.fabric.is_global_zero:
        tensors |= {f"random.{i}": streams for i, streams in enumerate(everyone)}
        tensors["history.loss"] = torch.tensor(run.state.losses, dtype=torch.float64, device="cpu")
        tensors["history.seconds"] = torch.tensor(run.state.ended, dtype=torch.float64, device="cpu")
        about = {
            **_here(run),
            "step": run.state.step,
            "settings": asdict(run.state.settings),
            "untouched": untouched,
            "extra_state": extra,
            "scaler": run.fabric.strategy.precision.state_dict(),
            "torch": torch.__version__,
            "elf": elf.__version__,
        }
        save_tensors(path, tensors, about, format=FORMAT)
    run.fabric.barrier()


def _here(run: Run) -> dict[str, Any]:
    return {
        "model": model_signature(run.state.model),
        "device": run.fabric.device.type,
        "world_size": run.fabric.world_size,
        "threads": torch.get_num_threads(),
    }


def load_run(path: str | Path, run: Run) -> None:
    """Put a run where the checkpoint left it; a run that the checkpoint does not fit is left as it is.

    A UserWarning says where the number of threads differs from the checkpoint's: on a CPU, sums over another number
    of threads are rounded differently.

    Raises:
        ValueError: the file is damaged, or of a run with another model, settings, device or number of processes.
    """
    tensors, about = load_tensors(path, FORMAT)
    here, modules, name = _here(run), run.modules, Path(path).name
    wrong = [(key, kind) for kind, keys in KINDS.items() for key in keys if type(about.get(key)) is not kind]
    kinds = [f"{key} is {about.get(key)!r}; it should be of type {kind.__name__}" for key, kind in wrong]
    _refuse(f"checkpoint {name} is damaged", kinds)
    different = resume_differences(about["settings"], run.state.settings) + [
        f"{key} is {about[key]!r} in the checkpoint, {value!r} now"
        for key, value in here.items()
        if key != "threads" and about[key] != value
    ]
    if about["model"] != here["model"]:
        weights = {name: tensor for name, tensor in tensors.items() if name.startswith(("model.", "ema."))}
        different += differences(weights, split_state(modules)[0])[:5]
    _refuse(f"checkpoint {name} is of another run", different, ". Choose another file, or resume=False")
    _refuse(f"checkpoint {name} is damaged", [*_damage(tensors, about, run)])
    # Cloned because torch's set_state misreads a tensor that does not begin where its storage does.
    rows = [tensors[f"random.{i}"][run.fabric.global_rank].clone() for i in range(len(run.random.kept))]
    try:
        run.random.set_state(rows)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"checkpoint {name} is damaged: its state of randomness is refused: {error}") from error
    run.fabric.strategy.precision.load_state_dict(about["scaler"])
    state = tensors | about["extra_state"]
    modules.load_state_dict({key: state[key] for key in modules.state_dict()})
    moments = {
        i: {moment: tensors[f"optimizer.{name}.{moment}"] for moment in MOMENTS}
        for i, name in enumerate(run.trainable)
        if name not in about["untouched"]
    }
    run.optimizer.load_state_dict({"state": moments, "param_groups": run.optimizer.state_dict()["param_groups"]})
    run.state.begin(about["step"], tensors["history.loss"].tolist(), tensors["history.seconds"].tolist())
    if here["device"] == "cpu" and about["threads"] != here["threads"]:
        warnings.warn(
            f"checkpoint {name} was written by a training on {about['threads']} threads, which goes on with "
            f"{here['threads']}: it ends near the weights of an uninterrupted run, not at the same bits",
            stacklevel=3,
        )


def _refuse(what: str, faults: Sequence[str], advice: str = "") -> None:
    if faults:
        raise ValueError(f"{what}: {'; '.join(faults[:12])}{advice}")


def _damage(tensors: Mapping[str, Tensor], about: Mapping[str, Any], run: Run) -> Iterator[str]:
    """What of a checkpoint's content is incomplete, impossible or not finite."""
    step, steps, world = about["step"], run.state.steps, run.fabric.world_size
    if not 0 <= step <= steps:
        yield f"step is {step}; it should be between 0 and steps={steps}"
        return
    expected, extra = split_state(run.modules)
    history = torch.empty(step, dtype=torch.float64, device="meta")
    expected |= {"history.loss": history, "history.seconds": history}
    expected |= {f"random.{i}": stream.expand(world, -1) for i, stream in enumerate(run.random.kept)}
    for name, parameter in run.trainable.items():
        if name not in about["untouched"]:
            expected |= {f"optimizer.{name}.{moment}": parameter for moment in MOMENTS}
            expected[f"optimizer.{name}.step"] = torch.empty((), dtype=torch.float32, device="meta")
    yield from differences(tensors, expected)
    yield from differences(about["extra_state"], extra)
    yield from (f"{name} is not finite" for name in not_finite(tensors, run.modules))
    scaler, now = about["scaler"], run.fabric.strategy.precision.state_dict()
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in scaler.values())
    if scaler.keys() != now.keys() or not numbers:
        yield f"scaler is {scaler}; it should hold finite numbers for {sorted(now)}"


def save_weights(path: str | Path, model: nn.Module, metadata: Mapping[str, Any]) -> str:
    """Publish the weights of a model with JSON-able metadata (settings, data, numbers). Returns the file's SHA-256.

    Raises:
        ValueError: the model's state holds what is neither a tensor nor JSON-able.
        OSError: the file could not be written.
    """
    tensors, extra = split_state(model)
    about = {**metadata, "model": type(model).__qualname__} | ({"extra_state": extra} if extra else {})
    save_tensors(path, tensors, about, format=WEIGHTS_FORMAT)
    return file_sha256(path)


def load_weights(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load weights written by `save_weights` into a model of the same shapes. Returns the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or weights of another model; the message says which tensors differ.
    """
    tensors, metadata = load_tensors(path, WEIGHTS_FORMAT, OLD_WEIGHTS_FORMAT)
    state = tensors | metadata.get("extra_state", {})
    different = differences(state, model.state_dict())
    what = f"{Path(path).name} holds weights of another {metadata.get('model', 'model')}"
    _refuse(what, different[:5])
    model.load_state_dict(state)
    return metadata
