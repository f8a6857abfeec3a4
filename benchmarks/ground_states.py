"""How fast ground states are found, and by which method: writes ground_states.json beside this file.

    OMP_NUM_THREADS=1 python benchmarks/ground_states.py

Matching and HiGHS solve the same 16 x 16 lattices on one core; times are CPU times of the process, which other
programs on the machine lengthen little. HiGHS gets the odd-cycle inequalities of the plaquettes, without which it needs
minutes for one lattice. The annealing gap is measured against the exact energies. The data set of
20,000 is timed on all cores, by the clock on the wall (which other programs do lengthen) and in CPU seconds.
"""

import argparse
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from elf.data.spin_glass import load, sample_couplings
from elf.spins import ground_state
from experiments.framework.experiment import device_name, versions, write_json


def timed(function, *arguments, **options):
    begin = time.process_time()
    result = function(*arguments, **options)
    return result, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lattices", type=int, default=500, help="lattices of 16 x 16 for matching")
    parser.add_argument("--highs", type=int, default=10, help="how many of them HiGHS solves too")
    parser.add_argument("--dataset", type=int, default=20_000, help="lattices of the timed data set; 0 leaves it out")
    chosen = parser.parse_args()
    torch.set_num_threads(1)

    couplings = sample_couplings(chosen.lattices, 16, seed=7)
    ground_state(couplings[:8])  # imports and the plaquette table are not what is measured
    found, matching = timed(ground_state, couplings)
    exact, highs = timed(ground_state, couplings[: chosen.highs], "milp", time_limit=300.0)
    assert exact.optimal.all()
    annealed, annealing = timed(ground_state, couplings[:100], "annealing")
    gap = (annealed.energy - found.energy[:100]) / found.energy[:100].abs()
    each = {
        "matching": matching / chosen.lattices,
        "highs": highs / chosen.highs,
        "annealing_8_copies_500_sweeps": annealing / 100,
    }
    difference = float((exact.energy - found.energy[: chosen.highs]).abs().max())
    result = {
        "lattice": "16 x 16, free boundaries, uniform couplings on [-1, 1]",
        "cpu_seconds_each": {name: float(f"{value:.4g}") for name, value in each.items()},
        "matching_per_second": round(1 / each["matching"]),
        "highs_over_matching": round(each["highs"] / each["matching"]),
        "instances": {"matching": chosen.lattices, "highs": chosen.highs},
        "largest_energy_difference_to_highs": float(f"{difference:.3g}"),
        "annealing_relative_gap_mean": float(f"{float(gap.mean()):.3g}"),
        "annealing_share_solved": float((gap < 1e-6).double().mean()),
        "mean_energy": round(float(found.energy.double().mean()), 2),
        "versions": versions(),
        "device": device_name("cpu"),
        "threads": 1,
        "load_average_at_the_end": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    if chosen.dataset:
        with TemporaryDirectory() as folder:
            begin, before = time.perf_counter(), os.times()
            load(chosen.dataset, 16, seed=11, cache_dir=folder, progress=True)
            seconds, after = time.perf_counter() - begin, os.times()
        result["dataset"] = {
            "lattices": chosen.dataset,
            "wall_seconds": round(seconds, 1),
            "cpu_seconds_of_all_processes": round(sum(after[:4]) - sum(before[:4]), 1),
            "cores": os.cpu_count(),
        }
    print(json.dumps(result, indent=1))
    write_json(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
