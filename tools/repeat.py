"""Repeat the tests marked `live`: `make e2e RUNS=20 SLOWED=4`. Ends with 1 unless every run was green.

They ask in a real browser whether what a reader does on the built site or in JupyterLab is answered. `SLOWED`: how many
times slower than the machine's the pages' processor is. Each run is a fresh process, browser and JupyterLab.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def main(runs: int, slowed: float) -> int:
    subprocess.run([sys.executable, "-m", "tools.book"], check=True)  # once for all runs
    # By name, so that a run does not import what the other tests need.
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "pytest.mark.live" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-m", "live", *files]
    environment = {**os.environ, "ELF_SLOWED": str(slowed), "ELF_BUILT": "1"}
    green = 0
    for number in range(1, runs + 1):
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
        green += done.returncode == 0
        color, seconds = "RED" if done.returncode else "green", time.perf_counter() - begin
        print(f"[{number}/{runs}] {color} {seconds:.0f} s: {last}", flush=True)
        if done.returncode:
            print(done.stdout[-4000:], flush=True)
    print(f"{green} of {runs} runs green")
    return int(green < runs)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
