"""The making of a cache in a process of its own, slow enough to be killed anywhere, in the middle of its write too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor

from elf import files
from elf.data import qm9, spin_glass

LATTICES, CHUNK = 24, 3
MOLECULES = 40
"""Of each of QM9's files; ELF_KILLS_ROWS=999999 is all of them."""


def few_rows(folder: Path) -> Path:
    """A folder beside the cache with the first rows of QM9's files."""
    short = folder.with_name(f"{folder.name}-csv")
    short.mkdir(exist_ok=True)
    limit = int(os.environ.get("ELF_KILLS_ROWS", MOLECULES))
    for name in qm9.FILES:
        if not (short / name).exists():
            with (qm9._data_folder() / name).open("rb") as whole:
                lines = [line for _, line in zip(range(limit + 1), whole, strict=False)]
            (short / name).write_bytes(b"".join(lines))
        os.utime(short / name, (0, 0))  # the cache holds the time of what it was made from
    return short


def parse(folder: Path, tell) -> None:
    import pandas as pd

    read, source = pd.read_csv, few_rows(folder)

    def telling(*args, **kwargs):
        tell()
        table = read(*args, **kwargs)
        tell()
        return table

    pd.read_csv = telling
    qm9.FILES = {name: files.file_sha256(source / name) for name in qm9.FILES}
    qm9._data_folder = lambda: source
    qm9.load(cache_dir=folder)


def generate(folder: Path, tell, workers: int) -> None:
    solved = spin_glass._solved

    def telling(*args) -> Iterator[Tensor]:
        tell()
        for part in solved(*args):
            tell()
            yield part

    spin_glass._solved, spin_glass.CHUNK = telling, CHUNK
    spin_glass.load(LATTICES, 6, seed=2, processes=workers, cache_dir=folder)


STAGES = {"parse": 1 + 2 * len(qm9.FILES) + 2, "generate": 2 + LATTICES // CHUNK + 2}
"""How often each tells of its progress: first when it is under way, last when the cache is whole."""


def make(kind: str, folder: Path, progress: Connection | None, workers: int) -> None:
    """Fill the cache, telling of each stage; a process that tells is doomed, and waits for its signal at the end."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have switched off
    torch.set_num_threads(1)
    write = files._write_new

    def tell() -> None:
        if progress is not None:
            progress.send_bytes(b".")
            time.sleep(0.005)

    def slowly(path: Path, data: bytes) -> None:
        write(path, data[: len(data) // 2])
        if data:
            tell()
        with open(path, "ab") as file:
            file.write(data[len(data) // 2 :])

    tell()
    files._write_new = slowly
    if kind == "parse":
        parse(folder, tell)
    else:
        generate(folder, tell, workers)
    if progress is not None:
        tell()
        progress.recv_bytes()
