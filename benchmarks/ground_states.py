"""How fast ground states are found, and by which method: writes ground_states.json beside this file.

    OMP_NUM_THREADS=1 python benchmarks/ground_states.py

Matching and HiGHS solve the same 16 x 16 lattices on one core; times are CPU times of the process, which other
programs on the machine lengthen little. The annealing gap is measured against the exact energies. The data set of
20,000 is timed by the clock on the wall, on all cores.
"""

import argparse
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from elf.data.spin_glass import load, sample_couplings
from elf.experiments.base import device_name, versions, write_json
from elf.spins import Couplings, ground_state
from elf.spins.milp import solve


def plain_highs(couplings: Couplings) -> np.ndarray:
    """Energies by the textbook linearisation alone, without the odd-cycle inequalities that `ground_state` adds."""
    edges = couplings.edges.numpy()
    n = couplings.shape[1] * couplings.shape[2]
    energies = []
    for values in couplings.values.double().numpy():
        spins, optimal, _ = solve(edges[0], edges[1], values, n, 300.0)
        assert optimal
        energies.append(-(values * spins[edges[0]] * spins[edges[1]]).sum())
    return np.array(energies)


def timed(function, *arguments, **options):
    begin = time.process_time()
    result = function(*arguments, **options)
    return result, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lattices", type=int, default=500, help="lattices of 16 x 16 for matching")
    parser.add_argument("--highs", type=int, default=10, help="how many of them HiGHS solves too")
    parser.add_argument("--plain", type=int, default=2, help="how many of them HiGHS solves without cycle inequalities")
    parser.add_argument("--dataset", type=int, default=20_000, help="lattices of the timed data set; 0 leaves it out")
    chosen = parser.parse_args()
    torch.set_num_threads(1)

    couplings = sample_couplings(chosen.lattices, 16, seed=7)
    ground_state(couplings[:8])  # imports and the plaquette table are not what is measured
    found, matching = timed(ground_state, couplings)
    exact, highs = timed(ground_state, couplings[: chosen.highs], "milp", time_limit=300.0)
    assert exact.optimal.all()
    plain, plain_seconds = timed(plain_highs, couplings[: chosen.plain])
    annealed, annealing = timed(ground_state, couplings[:100], "annealing")
    gap = (annealed.energy - found.energy[:100]) / found.energy[:100].abs()
    each = {
        "matching": matching / chosen.lattices,
        "highs": highs / chosen.highs,
        "highs_without_cycle_inequalities": plain_seconds / chosen.plain,
        "annealing_8_copies_500_sweeps": annealing / 100,
    }
    difference = float((exact.energy - found.energy[: chosen.highs]).abs().max())
    other = float(np.abs(plain - found.energy[: chosen.plain].double().numpy()).max())
    result = {
        "lattice": "16 x 16, free boundaries, uniform couplings on [-1, 1]",
        "cpu_seconds_each": {name: float(f"{value:.4g}") for name, value in each.items()},
        "matching_per_second": round(1 / each["matching"]),
        "highs_over_matching": round(each["highs"] / each["matching"]),
        "plain_highs_over_matching": round(each["highs_without_cycle_inequalities"] / each["matching"]),
        "instances": {"matching": chosen.lattices, "highs": chosen.highs, "plain_highs": chosen.plain},
        "largest_energy_difference_to_highs": float(f"{max(difference, other):.3g}"),
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
            begin = time.perf_counter()
            load(chosen.dataset, 16, seed=11, cache_dir=folder, progress=True)
            seconds = time.perf_counter() - begin
        result["dataset"] = {"lattices": chosen.dataset, "wall_seconds": round(seconds, 1), "cores": os.cpu_count()}
    print(json.dumps(result, indent=1))
    write_json(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
