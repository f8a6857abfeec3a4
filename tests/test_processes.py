import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from elf.processes import die_with_parent

SCRIPT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from elf.processes import die_with_parent

def work(seconds):
    print(os.getpid(), flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=die_with_parent) as pool:
        list(pool.map(work, [float(sys.argv[1])] * 2))
    print("done", flush=True)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """The script with two workers; its output ends when the last process that holds it does."""
    (folder / "script.py").write_text(SCRIPT)
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_end_with_their_parent(tmp_path: Path, end: signal.Signals):
    parent = start(tmp_path, 3600)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.send_signal(end)
    try:
        out, _ = parent.communicate(timeout=60)
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert out == ""
    assert parent.returncode == -end


def test_work_is_finished_while_the_parent_lives(tmp_path: Path):
    parent = start(tmp_path, 0.1)
    out, _ = parent.communicate(timeout=60)
    assert parent.returncode == 0
    assert out.endswith("done\n")


def test_nothing_happens_in_a_process_of_its_own():
    before = threading.active_count()
    die_with_parent()
    assert threading.active_count() == before


COUNTED = """
import resource, torch
from torch import nn
from elf.training import FitSettings, fit
torch.set_num_threads(1)
settings = FitSettings(steps=1, learning_rate=0.1, accelerator="cpu")
fit(nn.Linear(1, 1), lambda net, x, _: net(x).sum(), lambda _: torch.ones(1, 1), settings)
holes, faults = [torch.ones(1) for _ in range(1000)][::2], []
for _ in range(20):
    blocks = [torch.ones(2**18) for _ in range(100)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[-1] - faults[9]) / 10)
"""


def test_what_a_step_of_a_training_frees_is_kept_for_the_next() -> None:
    """Pages handed out anew, 25,600 each time where the 100 MiB of one step's tensors are given back to the system."""
    done = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1000
