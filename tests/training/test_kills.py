"""Killed at random moments and run again, a training ends at the same bits and leaves nothing else behind."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from toy_kills import STEPS, training

MOMENTS = int(os.environ.get("ELF_KILLS", "6"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
processes = multiprocessing.get_context("forkserver")
# What takes seconds is imported once, by the server from which the trainings are forked.
processes.set_forkserver_preload(["pytest", "torch._dynamo", "lightning_fabric", "elf.training"])


def end(process: BaseProcess) -> None:
    """Wait for a process; nothing of its session is left."""
    process.join(240)
    assert process.exitcode is not None
    assert process.pid is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def run_to_the_end(folder: Path) -> bytes:
    """The published weights and losses of a training that nobody kills."""
    process = processes.Process(target=training, args=(folder, None, False))
    process.start()
    end(process)
    assert process.exitcode == 0
    assert sorted(os.listdir(folder)) == ["final.safetensors", "run.safetensors"]
    return (folder / "final.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    return run_to_the_end(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_a_random_moment(tmp_path, whole, moment):
    """ELF_KILLS sets the number of moments: `ELF_KILLS=20 python -m pytest tests/training/test_kills.py`."""
    choice = random.Random(moment)
    here, there = processes.Pipe()
    process = processes.Process(target=training, args=(tmp_path, there, True))
    process.start()
    for _ in range(choice.randrange(STEPS + 1)):
        here.recv_bytes()
    time.sleep(0.02 * choice.random())
    assert process.pid is not None
    os.kill(process.pid, SIGNALS[moment % 3])
    end(process)
    if SIGNALS[moment % 3] != signal.SIGINT:
        assert process.exitcode == -SIGNALS[moment % 3]
    assert run_to_the_end(tmp_path) == whole
