"""Spin glasses with their exact ground states: random couplings on square lattices with free boundaries (Sec. 5, C.3).

The data are made here, from a seed, by matching (`elf.spins.matching`); ground states are cached and checked by hash.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from elf.checks import require_count, require_one_of
from elf.spins.ground_state import ground_state
from elf.spins.lattice import Couplings, ising_energy

KINDS = ("uniform", "gaussian", "bimodal")
CHUNK = 500
"""Lattices that a worker process solves at a time."""
FORMAT = 1
"""Goes up when the same arguments would mean other lattices or other ground states."""


@dataclass(frozen=True, eq=False)
class SpinGlasses:
    """n lattices with free boundaries and a ground state of each.

    Attributes:
        couplings: J.
        spins: y, +-1, (n, H, W), of the two flips of a ground state the one whose first spin is +1.
        energy: the ground-state energy.
    """

    couplings: Couplings
    spins: Int8[Tensor, "n height width"]
    energy: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.couplings)

    def __getitem__(self, rows: slice | Tensor) -> SpinGlasses:
        """Some of the lattices."""
        return SpinGlasses(self.couplings[rows], self.spins[rows], self.energy[rows])


def sample_couplings(
    n: int, height: int, width: int | None = None, kind: str = "uniform", seed: int = 0, periodic: bool = False
) -> Couplings:
    """Random couplings, float32: the first n lattices of a sequence that the seed determines.

    Args:
        n: number of lattices.
        height: rows.
        width: columns; None means as many as rows.
        kind: "uniform" on [-1, 1] (the paper's), "gaussian" with mean 0 and variance 1, "bimodal" +-1 at even odds.
        seed: a non-negative integer.
        periodic: boundaries.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    width = height if width is None else width
    for name, value in (("n", n), ("height", height), ("width", width)):
        require_count(name, value)
    require_one_of("kind", kind, KINDS)
    if seed < 0:
        raise ValueError(f"seed is {seed}; it should be a non-negative integer")
    lost = 0 if periodic else 1
    right, down = height * (width - lost), (height - lost) * width
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    if kind == "gaussian":
        values = rng.standard_normal((n, right + down), dtype=np.float32)
    else:
        values = 2 * rng.random((n, right + down), dtype=np.float32) - 1
        values = values if kind == "uniform" else np.where(values < 0, np.float32(-1), np.float32(1))
    both = torch.from_numpy(values).split([right, down], 1)
    return Couplings(
        both[0].reshape(n, height, width - lost), both[1].reshape(n, height - lost, width), periodic=periodic
    )


def load(
    n: int,
    height: int = 16,
    width: int | None = None,
    *,
    kind: str = "uniform",
    seed: int = 0,
    processes: int | None = None,
    progress: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> SpinGlasses:
    """`sample_couplings` with exact ground states, computed once and cached.

    20,000 lattices of 16 x 16 take under 20 s on two cores (benchmarks/ground_states.json), and 5 MB of cache in
    `cache_dir` (default: the environment variable ELF_CACHE, else the user's cache folder). The couplings are drawn
    again at each call; the cache holds the spins, with a hash of both.

    Args:
        n, height, width, kind, seed: as for `sample_couplings`; boundaries are free.
        processes: how many solve at the same time; None means one, or for 2,000 lattices and more all cores. With
            several, a script needs the usual `if __name__ == "__main__":`.
        progress: show a progress bar on stdout.

    Raises:
        ValueError: an argument is out of range.
        OSError: the cache cannot be written. A damaged cache is computed again, with a UserWarning that names it.
    """
    couplings = sample_couplings(n, height, width, kind, seed)
    if processes is not None:
        require_count("processes", processes)
    _, rows, columns = couplings.shape
    cache = _cache_folder(cache_dir) / f"spin-glass-{FORMAT}-{kind}-{rows}x{columns}-{seed}-{n}.safetensors"
    spins = _read(cache, couplings)
    if spins is None:
        workers = processes or (1 if n < 2000 else os.cpu_count() or 1)
        spins = torch.cat(list(_bar(_solved(couplings, workers), n, progress)))
        _write(cache, couplings, spins)
    return SpinGlasses(couplings, spins, ising_energy(spins, couplings))


def _solve(chunk: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    right, down = map(torch.from_numpy, chunk)
    return ground_state(Couplings(right, down), "matching").spins.numpy()


def _solved(couplings: Couplings, workers: int) -> Iterator[Tensor]:
    chunks = [
        (couplings.right[i : i + CHUNK].numpy(), couplings.down[i : i + CHUNK].numpy())
        for i in range(0, len(couplings), CHUNK)
    ]
    if min(workers, len(chunks)) == 1:
        yield from (torch.from_numpy(_solve(chunk)) for chunk in chunks)
        return
    import multiprocessing

    # Spawned: a forked process inherits torch's threads in an unusable state.
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from map(torch.from_numpy, pool.map(_solve, chunks))


def _bar(parts: Iterator[Tensor], n: int, show: bool) -> Iterator[Tensor]:
    import sys

    from tqdm.auto import tqdm

    with tqdm(total=n, desc="ground states", file=sys.stdout, disable=not show) as bar:
        for part in parts:
            bar.update(len(part))
            yield part


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if found := os.environ.get("ELF_CACHE"):
        return Path(found)
    import platformdirs

    return platformdirs.user_cache_path("elf")


def _hash(couplings: Couplings, spins: Tensor) -> str:
    digest = hashlib.sha256()
    for part in (couplings.right, couplings.down, spins):
        digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def _read(cache: Path, couplings: Couplings) -> Tensor | None:
    from safetensors import SafetensorError, safe_open

    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            spins, written = file.get_tensor("spins"), (file.metadata() or {}).get("sha256")
        if written == _hash(couplings, spins):
            return spins
        reason = "its SHA-256 does not match its content"
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error)
    warnings.warn(
        f"the spin-glass cache {cache} is damaged ({reason}); its ground states are computed again", stacklevel=3
    )
    return None


def _write(cache: Path, couplings: Couplings, spins: Tensor) -> None:
    from safetensors.torch import save

    content = save({"spins": spins.contiguous()}, metadata={"sha256": _hash(couplings, spins)})
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=cache.parent, prefix=cache.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, cache)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the spin-glass cache ({error.strerror}); set the environment variable ELF_CACHE or pass "
            "cache_dir",
            str(cache.parent),
        ) from error
