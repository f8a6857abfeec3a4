"""Checkpoints and published weights: one safetensors file each, written atomically, never pickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

FORMAT = "elf.training.checkpoint/1"
WEIGHTS_FORMAT = "elf.weights/1"


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file that is, whatever happens, either the old one or the new one, whole.

    Raises:
        OSError: the file could not be written (disk full, ...); the old file is intact and no partial file is left.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(partial, data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        kept = "the file written before is intact" if path.exists() else "there was no earlier file"
        raise OSError(error.errno, f"could not write {path.name} ({error.strerror or error}); {kept}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of CPU tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | Path, expected: str) -> None:
    """Raise ValueError unless the file has the SHA-256 `expected`."""
    found = file_sha256(path)
    if found != expected.lower():
        raise ValueError(f"{Path(path).name} has SHA-256 {found}; it should be {expected}")


def model_signature(model: nn.Module) -> str:
    """Name of the model's class and a hash of the names, shapes and dtypes of its state."""
    text = "\n".join(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in sorted(model.state_dict().items()))
    return f"{type(model).__qualname__}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata (with a hash of the tensors) as one safetensors file, atomically."""
    # Cloned because safetensors refuses tensors that share memory, as tied weights do.
    clean = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = json.dumps({**metadata, "sha256": tensors_sha256(clean)}, sort_keys=True)
    write_atomically(path, safetensors.torch.save(clean, {"elf": header}))


def load_tensors(path: str | Path, format: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a file written by `save_tensors`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, truncated, changed since written, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not a file; it should be one with format {format!r}")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get("elf")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path.name} is damaged or not a safetensors file: {error}") from error
    try:
        metadata = json.loads(header or "{}")
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: its header is not JSON") from error
    if metadata.get("format") != format:
        raise ValueError(f"{path.name} has format {metadata.get('format')!r}; it should have {format!r}")
    if metadata.get("sha256") != tensors_sha256(tensors):
        raise ValueError(f"{path.name} is damaged: its tensors do not have the SHA-256 in its header")
    return tensors, metadata


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
    save_tensors(path, model.state_dict(), {**metadata, "format": WEIGHTS_FORMAT, "model": type(model).__qualname__})
    return file_sha256(path)


def load_weights(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load weights written by `save_weights` into a model of the same shapes. Returns the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or weights of another model; the message says which tensors differ.
    """
    tensors, metadata = load_tensors(path, WEIGHTS_FORMAT)
    different = state_differences(tensors, model)
    if different:
        raise ValueError(f"{Path(path).name} holds weights of another {metadata['model']}: " + "; ".join(different[:5]))
    model.load_state_dict(tensors)
    return metadata
