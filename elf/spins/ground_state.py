"""Ground states of square lattices: one call, several methods, and each answer says whether it is proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from elf.checks import require_one_of, require_positive, require_seed
from elf.spins.annealing import anneal
from elf.spins.lattice import Couplings, ising_energy, plaquettes, require_couplings
from elf.spins.matching import match
from elf.spins.milp import require_connected, solve, whole_units

METHODS = ("auto", "matching", "milp", "annealing", "exhaustive")
EXHAUSTIVE_LIMIT = 24
"""Most spins that `method="exhaustive"` takes: 2^23 configurations."""
MILP_LIMIT = 144
"""Most spins of a periodic lattice that "auto" gives to HiGHS; larger ones are annealed."""


@dataclass(frozen=True, eq=False)
class GroundState:
    """Configurations of least energy, one of each flip pair: the first spin is +1.

    Attributes:
        spins: +-1, (B, H, W).
        energy: E = - sum_<ij> J_ij y_i y_j, in the couplings' dtype.
        method: "matching", "milp", "annealing" or "exhaustive".
        optimal: for each lattice, whether this is proven to be a ground state: to 1e-14 of its largest |J| a bond, by
            HiGHS to 1e-6 of its largest |J|. False for annealing, where HiGHS ran out of time, and where magnitudes
            are so mixed that a method's rounding could hide a lower state; `spins` is then the best that was found.
    """

    spins: Int8[Tensor, "batch height width"]
    energy: Float[Tensor, " batch"]
    method: str
    optimal: Bool[Tensor, " batch"]


def ground_state(
    couplings: Couplings, method: str = "auto", *, time_limit: float = 60.0, seed: SupportsIndex = 0
) -> GroundState:
    """A ground state of each lattice, exact where that is feasible.

    Each is solved in units of its own largest |J|, and alone: neither the unit nor the other lattices of the batch
    change its answer. Where several states have the least energy, one of them, the same at each call.

    - "matching": free boundaries only, exact; a thousandth of a second for 16 x 16.
    - "milp": HiGHS; any boundaries, exact unless it runs out of time; practical up to about 12 x 12.
    - "annealing": any boundaries and size, a heuristic (`elf.spins.anneal`).
    - "exhaustive": every configuration, up to 24 spins.
    - "auto": matching for free boundaries; for periodic ones HiGHS up to 144 spins, annealing beyond.

    Args:
        couplings: the lattices; they are solved on the CPU (annealing: on their device).
        method: one of the above.
        time_limit: seconds that HiGHS may take for each lattice.
        seed: of annealing, and of the configuration that HiGHS's best one is compared with at a time-out.

    Raises:
        TypeError: couplings of another type.
        ValueError: an unknown method, matching with periodic boundaries, exhaustive search of too many spins, or
            zero couplings that leave a lattice disconnected: its parts could be flipped one by one.
    """
    require_couplings(couplings)
    require_one_of("method", method, METHODS)
    time_limit, seed = require_positive("time_limit", time_limit), require_seed("seed", seed)
    batch, height, width = couplings.shape
    if method == "auto":
        periodic = "milp" if height * width <= MILP_LIMIT else "annealing"
        method = periodic if couplings.periodic else "matching"
    if method == "matching" and couplings.periodic:
        raise ValueError(
            "method is 'matching', which needs a planar lattice; for periodic boundaries it should be 'milp'"
        )
    if method == "exhaustive" and height * width > EXHAUSTIVE_LIMIT:
        raise ValueError(
            f"method is 'exhaustive' for {height * width} spins; that should be at most {EXHAUSTIVE_LIMIT}"
        )
    values, edges = couplings.values.detach().cpu().double().numpy(), couplings.edges.cpu().numpy()
    for sample in np.flatnonzero((values == 0).any(1)):
        first, second = edges[:, values[sample] != 0]
        require_connected(first, second, height * width, f"lattice {sample}")
    optimal = torch.full((batch,), method != "annealing", dtype=torch.bool, device="cpu")
    if method == "matching":
        spins, optimal = map(torch.from_numpy, match(values, height, width))
    elif method == "milp":
        spins, optimal = _milp(couplings, values, edges, time_limit, seed)
    elif method == "annealing":
        spins = anneal(couplings, seed=seed)
    else:
        spins = _exhaustive(couplings.shape, values, torch.from_numpy(edges))
    device = couplings.right.device
    spins = spins.to(device, torch.int8)
    return GroundState(spins, ising_energy(spins, couplings), method, optimal.to(device))


def _milp(
    couplings: Couplings, values: np.ndarray, edges: np.ndarray, time_limit: float, seed: int
) -> tuple[Tensor, Tensor]:
    batch, height, width = couplings.shape
    cycles = plaquettes(height, width, couplings.periodic).numpy()
    answers = [solve(edges[0], edges[1], value, height * width, time_limit, cycles) for value in values]
    spins = torch.from_numpy(np.array([a[0] for a in answers]).reshape(batch, height, width))
    optimal = torch.from_numpy(np.array([a[1] for a in answers], dtype=bool))
    late = (~optimal).nonzero().flatten()
    if len(late):
        # HiGHS may have had no time for a good one; annealing takes a fraction of a second.
        exact = couplings[late.to(couplings.right.device)].to("cpu").to(torch.float64)
        found, other = spins[late], anneal(exact, seed=seed)
        better = ising_energy(other, exact) < ising_energy(found, exact)
        spins[late] = torch.where(better[:, None, None], other, found)
    return spins, optimal


def _exhaustive(shape: tuple[int, int, int], values: np.ndarray, edges: Tensor, chunk: int = 1 << 14) -> Tensor:
    """Every configuration with the first spin up, against every lattice, as one matrix product a chunk."""
    batch, n = len(values), shape[1] * shape[2]
    # Sums of whole numbers are exact in any order: a tie is a tie, whatever the unit and the size of the batch.
    whole = torch.from_numpy(whole_units(values))
    best = torch.full((batch,), torch.inf, dtype=torch.float64, device="cpu")
    where = torch.zeros(batch, dtype=torch.long, device="cpu")
    bits = torch.arange(n, device="cpu")
    for start in range(0, 1 << (n - 1), chunk):
        number = 2 * torch.arange(start, min(start + chunk, 1 << (n - 1)), device="cpu")
        spins = 1.0 - 2.0 * ((number[:, None] >> bits) & 1).double()
        energy, index = (-(spins[:, edges[0]] * spins[:, edges[1]]) @ whole.T).min(0)
        better = energy < best
        best, where = torch.where(better, energy, best), torch.where(better, number[index], where)
    return (1 - 2 * ((where[:, None] >> bits) & 1)).view(shape)
