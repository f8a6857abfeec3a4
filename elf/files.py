"""Files, whole or not there: atomic writes, hashes, safetensors with metadata, caches, locks. Nothing is pickled."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TENSORS_ONLY = "/1"
"""Formats that end so, those of the first edition, have a hash of their tensors alone."""
CACHE_ADVICE = "; set the environment variable ELF_CACHE to another folder, or pass cache_dir"


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where data and runs are kept: `folder`, else the environment variable ELF_CACHE, else the user's cache folder.

    `~` is the home folder in all of them. The folder need not exist.
    """
    if found := folder or os.environ.get("ELF_CACHE"):
        return Path(found).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("elf")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that is, whatever happens, either the old one or the new one, whole.

    Any number of writers may do so at once: each has a temporary file of its own in the same folder, the last to
    finish wins. The file's permissions are those of a new file under the process's umask. What killed writers of the
    same file left behind is removed.

    Raises:
        OSError: the file cannot be written (disk full, ...); the old file is intact and no partial file is left.
    """
    with _partial(Path(path)) as (partial, own):
        _write_new(partial, data)
        os.replace(partial, path)
        _sweep(partial.parent, own)


def require_writable(path: Path, advice: str = "") -> None:
    """Try that `write_atomically` can write `path`, before the long work of making what goes there.

    Raises:
        OSError: it cannot; the message ends with the advice.
    """
    with _partial(path, advice) as (partial, _):
        _write_new(partial, b"")


@contextmanager
def _partial(path: Path, advice: str = "") -> Iterator[tuple[Path, str]]:
    """A new temporary file for `path`, and how all of them begin on this machine; errors say what was to be written."""
    name = path.name.encode()[:100].decode(errors="ignore")  # file systems limit bytes
    own = f".{name}.{socket.gethostname()[:50]}."
    partial = path.with_name(f"{own}{os.getpid()}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is a device or a pipe, which a file would replace")
        yield partial, own
    except OSError as error:
        intact = "; the file written before is intact" if os.path.isfile(path) else ""
        raise _cannot("write", path, error, intact + advice) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _cannot(do: str, path: Path, error: OSError, advice: str = "") -> OSError:
    reason = error.strerror or str(error)
    return OSError(error.errno, f"cannot {do} {path}: {reason[0].lower()}{reason[1:]}{advice}")


def _write_new(path: Path, data: bytes) -> None:
    # O_EXCL follows no link that somebody planted; 0o666 lets the umask decide, which tempfile would not.
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o666)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sweep(folder: Path, own: str) -> None:
    """Remove the partial files of processes of this machine that are no more."""
    for name in os.listdir(folder):
        found = re.fullmatch(re.escape(own) + r"([0-9]+)\.[0-9a-f]{32}\.partial", name)
        if found and not is_running(int(found[1])):
            (folder / name).unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether a process with this number exists on this machine."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | os.PathLike[str], expected: str) -> None:
    """Raise ValueError unless the file has the SHA-256 `expected`."""
    found = file_sha256(path)
    if found != expected.lower():
        raise ValueError(f"{Path(path).name} has SHA-256 {found}; it should be {expected}")


def tensors_sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over JSON-able metadata and names, dtypes, shapes and bytes of CPU tensors, in order of the names."""
    digest = hashlib.sha256()
    if metadata is not None:
        digest.update((json.dumps(metadata, sort_keys=True) + "\n").encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_storable(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless safetensors knows the dtypes of all tensors."""
    import safetensors.torch

    for name, tensor in tensors.items():
        try:
            safetensors.torch.save({name: torch.empty(0, dtype=tensor.dtype, device="cpu")})
        except KeyError:
            raise ValueError(f"{name} is of {tensor.dtype}; it should be of a type that safetensors knows") from None


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], *, format: str
) -> None:
    """Write tensors and JSON-able metadata as one safetensors file, with a hash of both, atomically.

    Raises:
        ValueError: a tensor of a type that safetensors does not know.
        OSError: the file could not be written.
    """
    import safetensors.torch

    require_storable(tensors)
    # Cloned because safetensors refuses tensors that share memory, as tied weights do.
    clean = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = json.loads(json.dumps({**metadata, "format": format}))
    header.pop("sha256", None)  # metadata that `load_tensors` returned may be handed back
    header["sha256"] = tensors_sha256(clean, None if format.endswith(TENSORS_ONLY) else header)
    write_atomically(path, safetensors.torch.save(clean, {"elf": json.dumps(header, sort_keys=True)}))


def load_tensors(path: str | os.PathLike[str], *formats: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a file written by `save_tensors`.

    Raises:
        FileNotFoundError: no such file.
        OSError: the file is there and cannot be read (permissions, a failing disk).
        ValueError: not a safetensors file, truncated, changed since written, or of another format than `formats`.
    """
    import safetensors.torch

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not a file; it should be one with format {' or '.join(formats)}")
    with open(path, "rb"):  # safetensors does not tell what may not be read from what is damaged
        pass
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get("elf")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"{path.name} is damaged or not a safetensors file: {error}") from error
    try:
        metadata = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged: its header is not JSON") from error
    if not isinstance(metadata, dict) or metadata.get("format") not in formats:
        found = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise ValueError(f"{path.name} has format {found!r}; it should have {' or '.join(map(repr, formats))}")
    hashed = {key: value for key, value in metadata.items() if key != "sha256"}
    expected = tensors_sha256(tensors, None if metadata["format"].endswith(TENSORS_ONLY) else hashed)
    if metadata.get("sha256") != expected:
        raise ValueError(f"{path.name} is damaged: its content does not have the SHA-256 in its header")
    return tensors, metadata


def read_cache(path: Path, format: str, stamp: str) -> dict[str, Tensor] | None:
    """The tensors that `write_cache` put there; None where there is no file, or one made from something else.

    A damaged file, or one of another format, gives a UserWarning that names it, and None: it is to be made again.

    Raises:
        OSError: the file is there and cannot be read: that is no damage, and no reason to write over it.
    """
    if not path.is_file():
        return None
    try:
        tensors, metadata = load_tensors(path, format)
    except ValueError as error:
        warnings.warn(f"the cache {path} is made again: {error}", stacklevel=3)
        return None
    except OSError as error:
        raise _cannot("read the cache", path, error) from error
    return tensors if metadata.get("stamp") == stamp else None


def write_cache(path: Path, tensors: Mapping[str, Tensor], format: str, stamp: str) -> None:
    """Keep tensors made from what `stamp` says (a hash of it, say).

    Raises:
        OSError: the folder cannot be written; the message says how to choose another.
    """
    try:
        save_tensors(path, tensors, {"stamp": stamp}, format=format)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{CACHE_ADVICE}") from error


@contextmanager
def locked(folder: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Hold a folder for this process; `doing` says what for. The lock goes with the process, however it ends.

    Raises:
        BlockingIOError: another process holds it; the message says which, and what it is doing.
        OSError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    holder, lock = folder / ".lock-holder", FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
        raise BlockingIOError(f"{folder} is held by {who}; wait for it, or choose another folder") from None
    except OSError as error:
        raise _cannot("write", folder, error) from error
    try:
        write_atomically(holder, f"process {os.getpid()} on {socket.gethostname()} ({doing})".encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
