"""Killed at random moments and made again, a cache has the same bytes, and neither file nor process is left over."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from toy_caches import STAGES, make

from elf.files import file_sha256

MOMENTS = int(os.environ.get("ELF_KILLS", "3"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
processes = multiprocessing.get_context("forkserver")
# What takes seconds is imported once, by the server from which the makers are forked.
processes.set_forkserver_preload(["pytest", "pandas", "pymatching", "elf.data.qm9", "elf.data.spin_glass"])


def end(process: BaseProcess) -> None:
    """Wait for a process and for all that it started."""
    process.join(240)
    assert process.exitcode is not None
    assert process.pid is not None
    for _ in range(1200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process outlived the one that started it")


def make_whole(kind: str, folder: Path, workers: int) -> str:
    """The hash of a cache that is made without a signal, and is the only file of its folder."""
    process = processes.Process(target=make, args=(kind, folder, None, workers))
    process.start()
    end(process)
    assert process.exitcode == 0
    (file,) = folder.iterdir()
    return file_sha256(file)


@pytest.fixture(scope="module", params=sorted(STAGES))
def kind_and_cache(request, tmp_path_factory) -> tuple[str, str]:
    return request.param, make_whole(request.param, tmp_path_factory.mktemp("whole") / "cache", 1)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_a_random_moment(tmp_path, kind_and_cache, moment):
    """ELF_KILLS sets the number of moments: `ELF_KILLS=20 python -m pytest tests/data/test_killed_caches.py`."""
    kind, whole = kind_and_cache
    choice, workers = random.Random(moment), 1 + moment % 2
    here, there = processes.Pipe()
    process = processes.Process(target=make, args=(kind, tmp_path / "cache", there, workers))
    process.start()
    stages = choice.randrange(1, STAGES[kind] + 1)
    for _ in range(stages):
        here.recv_bytes()
    # Workers take their time to start.
    time.sleep((0.01 if stages > 2 else 1.0) * choice.random())
    assert process.pid is not None
    os.kill(process.pid, SIGNALS[moment % 3])
    end(process)
    if SIGNALS[moment % 3] != signal.SIGINT:
        assert process.exitcode == -SIGNALS[moment % 3]
    assert make_whole(kind, tmp_path / "cache", workers) == whole
