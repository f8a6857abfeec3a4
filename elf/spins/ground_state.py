"""Ground states of square lattices: one call, several methods, and each answer says whether it is proven."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from elf.checks import require_one_of, require_positive
from elf.spins.annealing import anneal
from elf.spins.lattice import Couplings, descend, ising_energy

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
        optimal: for each lattice, whether this is proven to be a ground state: False for annealing, and where HiGHS
            ran out of time and `spins` is the best it had found.
    """

    spins: Int8[Tensor, "batch height width"]
    energy: Float[Tensor, " batch"]
    method: str
    optimal: Bool[Tensor, " batch"]


def ground_state(couplings: Couplings, method: str = "auto", *, time_limit: float = 60.0, seed: int = 0) -> GroundState:
    """A ground state of each lattice, exact where that is feasible.

    - "matching": free boundaries only, exact (to 1e-7 of the largest |J| a bond), a thousandth of a second for 16 x 16.
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
    if not isinstance(couplings, Couplings):
        raise TypeError(f"couplings is a {type(couplings).__name__}; it should be elf.spins.Couplings")
    require_one_of("method", method, METHODS)
    require_positive("time_limit", time_limit)
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
    _require_connected(couplings)
    optimal = torch.full((batch,), method != "annealing", dtype=torch.bool)
    if method == "matching":
        from elf.spins.matching import match

        right, down = (x.detach().cpu().double().numpy() for x in (couplings.right, couplings.down))
        spins = torch.from_numpy(match(right, down))
    elif method == "milp":
        spins, optimal = _milp(couplings, time_limit, seed)
    elif method == "annealing":
        spins = anneal(couplings, seed=seed)
    else:
        spins = _exhaustive(couplings)
    device = couplings.right.device
    spins = spins.to(device, torch.int8)
    return GroundState(spins, ising_energy(spins, couplings), method, optimal.to(device))


def _require_connected(couplings: Couplings) -> None:
    absent = couplings.values == 0
    if not bool(absent.any()):
        return
    from elf.spins.milp import require_connected

    edges, n = couplings.edges.cpu().numpy(), couplings.shape[1] * couplings.shape[2]
    for sample in absent.any(1).nonzero().flatten().tolist():
        present = ~absent[sample].cpu().numpy()
        require_connected(edges[0, present], edges[1, present], n, f"lattice {sample}")


def _squares(couplings: Couplings) -> np.ndarray:
    """The four bonds around each plaquette, as indices into `Couplings.values`, (plaquettes, 4)."""
    rows, columns = couplings.down.shape[1], couplings.right.shape[2]
    size = couplings.right[0].numel()
    right = torch.arange(size).view(couplings.right.shape[1:])
    down = size + torch.arange(couplings.down[0].numel()).view(couplings.down.shape[1:])
    below, beside = right.roll(-1, 0), down.roll(-1, 1)
    return torch.stack([right[:rows], below[:rows], down[:, :columns], beside[:, :columns]], -1).view(-1, 4).numpy()


def _milp(couplings: Couplings, time_limit: float, seed: int) -> tuple[Tensor, Tensor]:
    from elf.spins.milp import solve

    _, height, width = couplings.shape
    edges, cycles = couplings.edges.cpu().numpy(), _squares(couplings)
    values = couplings.values.detach().cpu().double().numpy()
    answers = [solve(edges[0], edges[1], value, height * width, time_limit, cycles) for value in values]
    spins = torch.from_numpy(np.array([a[0] for a in answers]).reshape(-1, height, width))
    optimal = torch.tensor([a[1] for a in answers], dtype=torch.bool)
    late = (~optimal).nonzero().flatten()
    if len(late):
        # HiGHS may have had no time for a good one; annealing takes a fraction of a second.
        exact = couplings[late.to(couplings.right.device)].to("cpu", torch.float64)
        found, other = descend(spins[late], exact), anneal(exact, seed=seed)
        better = ising_energy(other, exact) < ising_energy(found, exact)
        spins[late] = torch.where(better[:, None, None], other, found)
    return spins, optimal


def _exhaustive(couplings: Couplings, chunk: int = 1 << 14) -> Tensor:
    """Every configuration with the first spin up, against every lattice, as one matrix product a chunk."""
    batch, height, width = couplings.shape
    n = height * width
    values, edges = couplings.values.detach().cpu().double(), couplings.edges.cpu()
    best, where = torch.full((batch,), torch.inf, dtype=torch.float64), torch.zeros(batch, dtype=torch.long)
    bits = torch.arange(n)
    for start in range(0, 1 << (n - 1), chunk):
        number = 2 * torch.arange(start, min(start + chunk, 1 << (n - 1)))
        spins = 1.0 - 2.0 * ((number[:, None] >> bits) & 1).double()
        energy, index = (-(spins[:, edges[0]] * spins[:, edges[1]]) @ values.T).min(0)
        better = energy < best
        best, where = torch.where(better, energy, best), torch.where(better, number[index], where)
    return (1 - 2 * ((where[:, None] >> bits) & 1)).view(batch, height, width)
