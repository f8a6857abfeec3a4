"""Spin glasses with their exact ground states: random couplings on square lattices with free boundaries (Sec. 5, C.3).

The data are made here, from a seed, by matching (`elf.spins.matching`); ground states are cached and checked by hash.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from elf.checks import require_bool, require_count, require_one_of, require_seed
from elf.files import cache_folder, read_cache, tensors_sha256, write_cache
from elf.processes import die_with_parent
from elf.spins.graph import flip_energies, ising_energy
from elf.spins.ground_state import ground_state
from elf.spins.lattice import Couplings

KINDS = ("uniform", "gaussian", "bimodal")
CHUNK = 500
"""Lattices that a worker process solves at a time."""
FORMAT = "elf.spin-glass/2"
"""Goes up when the same arguments would mean other lattices or other ground states, or the file's layout changes."""


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
    n: SupportsIndex,
    height: SupportsIndex,
    width: SupportsIndex | None = None,
    kind: str = "uniform",
    seed: SupportsIndex = 0,
    periodic: bool = False,
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
        TypeError, ValueError: an argument of another type or out of range; the message names it.
    """
    n, height = require_count("n", n), require_count("height", height)
    width = height if width is None else require_count("width", width)
    seed = require_seed("seed", seed)
    require_one_of("kind", kind, KINDS)
    require_bool("periodic", periodic)
    lost = 0 if periodic else 1
    blank = torch.zeros(n, height, width, device="cpu", dtype=torch.float32)
    lattices = Couplings(blank[:, :, lost:], blank[:, lost:], periodic)
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    if kind == "gaussian":
        values = rng.standard_normal(lattices.values.shape, dtype=np.float32)
    else:
        values = 2 * rng.random(lattices.values.shape, dtype=np.float32) - 1
        values = values if kind == "uniform" else np.where(values < 0, np.float32(-1), np.float32(1))
    return lattices.with_values(torch.from_numpy(values))


def load(
    n: SupportsIndex,
    height: SupportsIndex = 16,
    width: SupportsIndex | None = None,
    *,
    kind: str = "uniform",
    seed: SupportsIndex = 0,
    processes: SupportsIndex | None = None,
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
        TypeError, ValueError: an argument of another type or out of range; the message names it.
        OSError: the cache cannot be read or written. A damaged cache, or one whose spins are no ground states, is
            computed again, with a UserWarning that names it.
    """
    couplings = sample_couplings(n, height, width, kind, seed)
    processes = None if processes is None else require_count("processes", processes)
    require_bool("progress", progress)
    count, rows, columns = couplings.shape
    name = f"spin-glass-2-{kind}-{rows}x{columns}-{require_seed('seed', seed)}-{count}.safetensors"
    cache, stamp = cache_folder(cache_dir) / name, tensors_sha256({"right": couplings.right, "down": couplings.down})
    kept = read_cache(cache, FORMAT, stamp)
    spins = None if kept is None else kept.get("spins")
    if kept is not None and not _could_be_ground_states(spins, couplings):
        warnings.warn(f"the cache {cache} is made again: its spins are no ground states", stacklevel=2)
        spins = None
    if spins is None:
        from tqdm.auto import tqdm

        workers = processes or (1 if len(couplings) < 2000 else os.cpu_count() or 1)
        spins = couplings.right.new_empty(0, rows, columns, dtype=torch.int8)
        with tqdm(total=count, desc="ground states", file=sys.stdout, disable=not progress) as bar:
            for part in _solved(couplings, workers):
                spins = torch.cat([spins, part])
                bar.update(len(part))
        write_cache(cache, {"spins": spins}, FORMAT, stamp)
    return SpinGlasses(couplings, spins, ising_energy(spins, couplings))


def _could_be_ground_states(spins: Tensor | None, couplings: Couplings) -> bool:
    """Spins in the layout of `SpinGlasses` that no single flip would improve."""
    if spins is None or spins.dtype != torch.int8 or tuple(spins.shape) != couplings.shape:
        return False
    if not bool((spins.abs() == 1).all() and (spins[:, 0, 0] == 1).all()):
        return False
    return bool((flip_energies(spins, couplings) > -1e-4 * couplings.values.abs().max()).all())


def _solve(chunk: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    right, down = map(torch.from_numpy, chunk)
    return ground_state(Couplings(right, down), "matching").spins.numpy()


def _solved(couplings: Couplings, workers: int) -> Iterator[Tensor]:
    pieces = [couplings[start : start + CHUNK] for start in range(0, len(couplings), CHUNK)]
    chunks = [(piece.right.numpy(), piece.down.numpy()) for piece in pieces]
    if min(workers, len(chunks)) == 1:
        yield from (torch.from_numpy(_solve(chunk)) for chunk in chunks)
        return
    # Spawned: a forked process inherits torch's threads in an unusable state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context, initializer=die_with_parent) as pool:
        yield from map(torch.from_numpy, pool.map(_solve, chunks))
