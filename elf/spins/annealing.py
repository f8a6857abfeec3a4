"""Simulated annealing: a heuristic for ground states of any graph, batched over lattices and copies of them."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_count, require_positive, require_seed
from elf.spins.graph import AnyGraph, Graph, bond_energy, colours, descend, neighbour_sum, require_graph


def anneal(
    couplings: Graph,
    *,
    sweeps: SupportsIndex = 500,
    copies: SupportsIndex = 8,
    hot: float = 2.0,
    cold: float = 0.1,
    seed: SupportsIndex = 0,
) -> Float[Tensor, "batch ..."]:
    """The best of several Metropolis runs, cooled geometrically, then single-flip descent; the first spin is +1.

    Temperatures are in units of a sample's root mean square coupling. All samples see the same noise, so that each has
    the answer that it has alone. A heuristic: nothing proves its answer to be a ground state (see
    `benchmarks/ground_states.py` for its measured gap).

    Args:
        couplings: of lattices, or of any graph.
        sweeps: attempted flips a spin.
        copies: independent runs of each lattice.
        hot: first temperature.
        cold: last temperature.
        seed: seeds the noise, on the couplings' device.

    Returns:
        Spins +-1, (B, *sites), in the couplings' dtype.

    Raises:
        ValueError: a number out of range; the message names it.
    """
    require_graph(couplings)
    sweeps, copies, seed = require_count("sweeps", sweeps), require_count("copies", copies), require_seed("seed", seed)
    hot, cold = require_positive("hot", hot), require_positive("cold", cold)
    if cold > hot:
        raise ValueError(f"cold is {cold}, hot is {hot}; cooling should end at or below where it starts")
    device, dtype, batch = couplings.values.device, couplings.values.dtype, len(couplings)
    if not batch or not couplings.values.numel():
        return torch.ones(couplings.shape, device=device, dtype=dtype)
    generator = torch.Generator(device).manual_seed(seed)
    repeated = _relative(couplings)[torch.arange(batch, device=device).repeat_interleave(copies)]

    def uniform() -> Tensor:
        noise = torch.rand((copies, *couplings.shape[1:]), generator=generator, device=device, dtype=dtype)
        return torch.cat([noise] * batch)

    spins = torch.where(uniform() < 0.5, -1.0, 1.0).to(dtype)
    sets = colours(couplings)
    for sweep in range(sweeps):
        temperature = hot * (cold / hot) ** (sweep / max(1, sweeps - 1))
        for here in sets:
            cost = 2 * spins * neighbour_sum(repeated, spins)
            flips = here & (uniform() < torch.exp(-cost.clamp_min(0) / temperature))
            spins = torch.where(flips, -spins, spins)
    spins = descend(spins, repeated)
    energies = bond_energy(repeated, spins).view(batch, copies)
    best = spins.view(batch, copies, *spins.shape[1:])[torch.arange(batch, device=device), energies.argmin(1)]
    return best * best.flatten(1)[:, 0].view(-1, *[1] * (best.ndim - 1))


def _relative(couplings: AnyGraph) -> AnyGraph:
    """Each sample in units of its root mean square coupling; first of the largest, whose square does not overflow."""
    values = couplings.values
    for measure in (lambda x: x.abs().amax(1, keepdim=True), lambda x: x.square().mean(1, keepdim=True).sqrt()):
        unit = measure(values)
        values = values / torch.where(unit == 0, 1, unit)
    return couplings.with_values(values)
