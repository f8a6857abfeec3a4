"""Simulated annealing: a heuristic for ground states of any lattice, batched over lattices and copies of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_count, require_positive
from elf.spins.lattice import Couplings, bond_energy, colours, descend, neighbour_sum


def anneal(
    couplings: Couplings,
    *,
    sweeps: int = 500,
    copies: int = 8,
    hot: float = 2.0,
    cold: float = 0.1,
    seed: int = 0,
) -> Float[Tensor, "batch height width"]:
    """The best of several Metropolis runs, cooled geometrically, then single-flip descent; the first spin is +1.

    Temperatures are in units of the root mean square coupling. A heuristic: nothing proves its answer to be a ground
    state (see `benchmarks/ground_states.py` for its measured gap).

    Args:
        couplings: the lattices.
        sweeps: attempted flips a spin.
        copies: independent runs of each lattice.
        hot: first temperature.
        cold: last temperature.
        seed: seeds the noise, on the couplings' device.

    Returns:
        Spins +-1, (B, H, W), in the couplings' dtype.

    Raises:
        ValueError: a number out of range; the message names it.
    """
    require_count("sweeps", sweeps)
    require_count("copies", copies)
    require_positive("hot", hot)
    require_positive("cold", cold)
    if cold > hot:
        raise ValueError(f"cold is {cold}, hot is {hot}; cooling should end at or below where it starts")
    device = couplings.right.device
    generator = torch.Generator(device).manual_seed(seed)
    repeated = couplings[torch.arange(len(couplings), device=device).repeat_interleave(copies)]
    shape = repeated.shape

    def uniform() -> Tensor:
        return torch.rand(shape, generator=generator, device=device, dtype=couplings.right.dtype)

    spins = torch.where(uniform() < 0.5, -1.0, 1.0).to(couplings.right.dtype)
    if not len(couplings) or not couplings.values.numel():
        return spins.new_ones(couplings.shape)
    unit = float(couplings.values.square().mean().sqrt()) or 1.0
    sets = colours(couplings)
    for sweep in range(sweeps):
        temperature = unit * hot * (cold / hot) ** (sweep / max(1, sweeps - 1))
        for here in sets:
            cost = 2 * spins * neighbour_sum(repeated, spins)
            flips = here & (uniform() < torch.exp(-cost.clamp_min(0) / temperature))
            spins = torch.where(flips, -spins, spins)
    spins = descend(spins, repeated)
    energies = bond_energy(repeated, spins).view(-1, copies)
    best = spins.view(-1, copies, *shape[1:])[torch.arange(len(couplings), device=device), energies.argmin(1)]
    return best * best[:, :1, :1]
