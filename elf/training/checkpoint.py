"""Checkpoints and published weights: one safetensors file each, written atomically, never pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elf.files import file_sha256, load_tensors, save_tensors

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
