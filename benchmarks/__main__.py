"""All benchmarks, each in a process of its own: `python -m benchmarks`, or one of them: `python -m benchmarks losses`.

Writes bench.json and bench.png into this folder (or into --out) and prints a summary.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {
    "losses": "benchmarks.losses:measure",
    "edges": "benchmarks.edges:measure",
    "roofline": "benchmarks.roofline:measure",
    "memory": "benchmarks.memory:measure",
    "training": "benchmarks.rates:training",
    "sampling": "benchmarks.rates:sampling",
    "ground_states": "benchmarks.rates:ground_states",
    "batches": "benchmarks.rates:batches",
    "scale": "benchmarks.scale:measure",
    "peers": "benchmarks.peers:measure",
}
THREADS = 1


def measure_part(name: str, tiny: bool) -> object:
    """One part, in this process."""
    import torch

    torch.set_num_threads(THREADS)
    module, function = PARTS[name].split(":")
    return getattr(importlib.import_module(module), function)(tiny)


def in_own_process(name: str, tiny: bool) -> object:
    """One part, where no other has filled caches, heated an allocator or left threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    pinned = {**os.environ, **dict.fromkeys(names, str(THREADS))}
    command = [sys.executable, "-m", "benchmarks", name, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, cwd=HERE.parent, env=pinned, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, help="print this part's JSON; default: all, to files")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--together", action="store_true", help="all parts in this process: quicker, less exact")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for bench.json and bench.png")
    chosen = parser.parse_args()
    if chosen.part is not None:
        print(json.dumps(measure_part(chosen.part, chosen.tiny)))
        return

    begin, load = time.perf_counter(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    parts = {}
    for name in PARTS:
        start = time.perf_counter()
        parts[name] = (measure_part if chosen.together else in_own_process)(name, chosen.tiny)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)

    from benchmarks.figure import draw
    from benchmarks.report import summary, with_results
    from elf.files import write_atomically
    from experiments.framework.experiment import device_name, versions, write_json

    result = {
        "parts": parts,
        "scale": "tiny" if chosen.tiny else "full",
        "device": device_name("cpu"),
        "threads": THREADS,
        "versions": versions(),
        "load_average_at_the_start": None if load is None else round(load, 1),
        "seconds": round(time.perf_counter() - begin),
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "bench.json", result)
    write_atomically(chosen.out / "bench.png", draw(result))
    page = HERE / "README.md"
    if chosen.out == HERE:
        write_atomically(page, with_results(page.read_text(encoding="utf-8"), result).encode())
    print(summary(result))


if __name__ == "__main__":
    main()
