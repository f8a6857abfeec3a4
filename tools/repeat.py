"""Run the end-to-end tests again and again: `make e2e RUNS=20 SLOWED=4`. Ends with 1 unless every run was green.

They are the tests that drive a browser: those of the built site that open a page, and JupyterLab's. `SLOWED`: how many
times slower than the machine's the pages' processor is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time


def main(runs: int, slowed: float) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-m", "browser", "tests/book", "tests/lab"]
    # The scan of every page asks what is on it, not how soon.
    command += ["--deselect", "tests/book/test_accessibility.py::test_no_serious_violation_on_any_page"]
    environment = {**os.environ, "ELF_SLOWED": str(slowed)}
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
