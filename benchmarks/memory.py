"""Peak memory of a loss: a fresh process for each, its largest resident set against one that computes nothing."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

NOTHING = "nothing"
CASES = (
    (NOTHING, 1, 30_000),
    ("pair", 64, 29),
    ("pair", 512, 29),
    ("pair", 64, 180),
    ("pair", 1, 3_000),
    ("pair", 1, 30_000),
    ("plain", 64, 29),
    ("plain", 512, 29),
    ("plain", 64, 180),
    ("plain", 1, 3_000),
    ("sparse", 1, 300_000),
    ("mse", 1, 30_000),
    ("kabsch", 1, 30_000),
)
TINY = ((NOTHING, 1, 40), ("pair", 1, 40))


def measure(tiny: bool = False) -> dict[str, Any]:
    """Megabytes above a process that imports the same and holds the inputs."""
    cases = TINY if tiny else CASES
    peaks = {case: _peak_of_process(*case) for case in cases}
    base = peaks[cases[0]]
    return {
        "baseline_megabytes": round(base / 1e6, 1),
        "rows": [
            {"loss": loss, "batch": batch, "atoms": atoms, "megabytes_above": round((peak - base) / 1e6, 1)}
            for (loss, batch, atoms), peak in peaks.items()
            if loss != NOTHING
        ],
    }


def _peak_of_process(loss: str, batch: int, atoms: int) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", loss, str(batch), str(atoms)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _peak() -> int:
    """Bytes of this process' largest resident set, since it was started."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss starts at the size of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _run(loss: str, batch: int, atoms: int) -> None:
    import torch

    import elf
    from benchmarks.timing import samples, step
    from experiments.cost.points import LOSSES

    torch.set_num_threads(1)
    prediction, target = samples(batch, atoms)
    # Everything that is loaded on first use, before anything is measured.
    step(elf.Harmonic(), *samples(1, 3))()
    step(elf.AlignedHarmonic(), *samples(1, 3))()
    if loss != NOTHING:
        step(LOSSES["dense" if loss == "pair" else loss](atoms, 0), prediction, target)()


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(_peak())
