"""Ground states of Ising spins: one call, several methods, and each answer says whether it is proven."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from elf.checks import require_one_of, require_positive, require_seed
from elf.spins.annealing import anneal
from elf.spins.graph import Graph, ising_energy, require_graph
from elf.spins.lattice import Couplings, plaquettes
from elf.spins.matching import match
from elf.spins.milp import require_connected, solve, whole_units

METHODS = ("auto", "matching", "milp", "annealing", "exhaustive")
EXHAUSTIVE_LIMIT = 24
"""Most spins that `method="exhaustive"` takes: 2^23 configurations."""
MILP_LIMIT = 144
"""Most spins of a graph that is not planar that "auto" gives to HiGHS; larger ones are annealed."""


@dataclass(frozen=True, eq=False)
class GroundState:
    """Configurations of least energy, one of each flip pair: the first spin is +1.

    Attributes:
        spins: +-1, (B, *sites).
        energy: E = - sum_<ij> J_ij y_i y_j, in the couplings' dtype.
        method: "matching", "milp", "annealing" or "exhaustive".
        optimal: for each sample, whether this is proven to be a ground state: to 1e-14 of its largest |J| a bond, by
            HiGHS to 1e-6 of its largest |J|. False for annealing, where HiGHS ran out of time, and where magnitudes
            are so mixed that a method's rounding could hide a lower state; `spins` is then the best that was found.
    """

    spins: Int8[Tensor, "batch ..."]
    energy: Float[Tensor, " batch"]
    method: str
    optimal: Bool[Tensor, " batch"]


def ground_state(
    couplings: Graph, method: str = "auto", *, time_limit: float = 60.0, seed: SupportsIndex = 0
) -> GroundState:
    """A ground state of each lattice or graph, exact where that is feasible.

    Each is solved in units of its own largest |J|, and alone: neither the unit nor the rest of the batch
    change its answer. Where several states have the least energy, one of them, the same at each call.

    - "matching": lattices with free boundaries only, exact; a thousandth of a second for 16 x 16.
    - "milp": HiGHS; any graph, exact unless it runs out of time; practical up to about 12 x 12, or some 30 spins if all
      are coupled.
    - "annealing": any graph and size, a heuristic (`elf.spins.anneal`).
    - "exhaustive": every configuration, up to 24 spins.
    - "auto": matching for free boundaries; for periodic ones and other graphs HiGHS up to 144 spins, annealing beyond.

    Args:
        couplings: of lattices or of any graph; they are solved on the CPU (annealing: on their device).
        method: one of the above.
        time_limit: seconds that HiGHS may take for each lattice.
        seed: of annealing, and of the configuration that HiGHS's best one is compared with at a time-out.

    Raises:
        TypeError: couplings of another type.
        ValueError: an unknown method, matching of what is not a lattice with free boundaries, exhaustive search of too
            many spins, or couplings that leave a sample disconnected: its parts could be flipped one by one.
    """
    require_graph(couplings)
    require_one_of("method", method, METHODS)
    time_limit, seed = require_positive("time_limit", time_limit), require_seed("seed", seed)
    batch, n = len(couplings), prod(couplings.sites)
    planar = isinstance(couplings, Couplings) and not couplings.periodic
    if method == "auto":
        method = "matching" if planar else "milp" if n <= MILP_LIMIT else "annealing"
    if method == "matching" and not planar:
        raise ValueError(
            "method is 'matching', which needs a planar lattice; for periodic boundaries it should be 'milp'"
        )
    if method == "exhaustive" and n > EXHAUSTIVE_LIMIT:
        raise ValueError(f"method is 'exhaustive' for {n} spins; that should be at most {EXHAUSTIVE_LIMIT}")
    exact = couplings.to("cpu").to(torch.float64)
    values, edges = exact.values.detach().numpy(), exact.edges.numpy()
    # A lattice is connected unless couplings are zero.
    unsure = (values == 0).any(1) | (not isinstance(couplings, Couplings))
    for sample in np.flatnonzero(unsure):
        first, second = edges[:, values[sample] != 0]
        require_connected(
            first, second, n, f"lattice {sample}" if isinstance(couplings, Couplings) else f"graph {sample}"
        )
    optimal = torch.full((batch,), method != "annealing", dtype=torch.bool, device="cpu")
    if method == "matching":
        spins, optimal = map(torch.from_numpy, match(values, *couplings.sites))
    elif method == "milp":
        spins, optimal = _milp(exact, time_limit, seed)
    elif method == "annealing":
        spins = anneal(couplings, seed=seed)
    else:
        spins = _exhaustive(exact)
    device = couplings.values.device
    spins = spins.to(device, torch.int8)
    return GroundState(spins, ising_energy(spins, couplings), method, optimal.to(device))


def _milp(exact: Graph, time_limit: float, seed: int) -> tuple[Tensor, Tensor]:
    cycles = plaquettes(*exact.sites, exact.periodic).numpy() if isinstance(exact, Couplings) else None
    answers = [solve(exact[[sample]], time_limit, cycles) for sample in range(len(exact))]
    spins = torch.stack([answer.spins for answer in answers]).view(exact.shape)
    optimal = torch.tensor([answer.optimal for answer in answers], dtype=torch.bool, device="cpu")
    late = (~optimal).nonzero().flatten()
    if len(late):
        # HiGHS may have had no time for a good one; annealing takes a fraction of a second.
        found, other = spins[late], anneal(exact[late], seed=seed).to(torch.int8)
        better = ising_energy(other, exact[late]) < ising_energy(found, exact[late])
        spins[late[better]] = other[better]
    return spins, optimal


def _exhaustive(exact: Graph, chunk: int = 1 << 14) -> Tensor:
    """Every configuration with the first spin up, against every sample, as one matrix product a chunk."""
    batch, n, (first, second) = len(exact), prod(exact.sites), exact.edges
    # Sums of whole numbers are exact in any order: a tie is a tie, whatever the unit and the size of the batch.
    whole = torch.from_numpy(whole_units(exact.values.detach().numpy()))
    best = torch.full((batch,), torch.inf, dtype=torch.float64, device="cpu")
    where = torch.zeros(batch, dtype=torch.long, device="cpu")
    bits = torch.arange(n, device="cpu")
    for start in range(0, 1 << (n - 1), chunk):
        number = 2 * torch.arange(start, min(start + chunk, 1 << (n - 1)), device="cpu")
        spins = 1.0 - 2.0 * ((number[:, None] >> bits) & 1).double()
        energy, index = (-(spins[:, first] * spins[:, second]) @ whole.T).min(0)
        better = energy < best
        best, where = torch.where(better, energy, best), torch.where(better, number[index], where)
    return (1 - 2 * ((where[:, None] >> bits) & 1)).view(exact.shape)
