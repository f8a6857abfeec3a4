"""How good predicted spins are: energy above the ground state, bonds, overlap, domain walls (Table 5)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import values_are_known
from elf.spins.lattice import Couplings, bond_products, ising_energy, require_real, require_spins


def round_logits(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The most probable spins, +-1; a logit of zero becomes +1.

    Raises:
        TypeError: not a tensor of real numbers.
        ValueError: a logit is NaN, which is no spin.
    """
    if values_are_known(require_real("logits", logits)) and bool(logits.isnan().any()):
        raise ValueError(f"logits holds {int(logits.isnan().sum())} NaN; every logit should be a number")
    return torch.where(logits < 0, -1.0, 1.0).to(logits.dtype)


def excess_energy(spins: Tensor, target: Tensor, couplings: Couplings) -> Float[Tensor, " batch"]:
    """E(spins) - E(target): the energy above the ground state, if the target is one (the score of Table 5)."""
    return ising_energy(spins, couplings) - ising_energy(target, couplings)


def domain_walls(
    spins: Tensor, target: Tensor, couplings: Couplings
) -> tuple[Bool[Tensor, "batch height columns"], Bool[Tensor, "batch rows width"]]:
    """Bonds, to the right and down, at which exactly one of two configurations has its spins alike."""
    s, t = require_spins("spins", spins, couplings), require_spins("target", target, couplings)
    right, down = bond_products(s * t, couplings.periodic)
    return right < 0, down < 0


def bond_accuracy(spins: Tensor, target: Tensor, couplings: Couplings) -> Float[Tensor, " batch"]:
    """Fraction of bonds that are as in the target: the flip-symmetric accuracy; 1 for +-target, about 1/2 by chance."""
    right, down = domain_walls(spins, target, couplings)
    return 1 - torch.cat([right.flatten(1), down.flatten(1)], 1).to(couplings.right.dtype).mean(1)


def overlap(spins: Tensor, target: Tensor, couplings: Couplings) -> Float[Tensor, " batch"]:
    """|q| = |mean_i s_i y_i|, the overlap up to a global flip."""
    product = require_spins("spins", spins, couplings) * require_spins("target", target, couplings)
    return product.mean((1, 2)).abs()


def wall_distance(spins: Tensor, target: Tensor, couplings: Couplings) -> Int[Tensor, "batch height width"]:
    """For each site, 0 if a domain wall between the two configurations passes it, else steps to the nearest such site.

    -1 in samples without any wall. Steps go to nearest neighbours.
    """
    right, down = domain_walls(spins, target, couplings)
    near = torch.zeros(couplings.shape, dtype=torch.bool, device=right.device)
    near[:, :, : right.shape[2]] |= right
    near |= right.roll(1, 2) if couplings.periodic else torch.nn.functional.pad(right, (1, 0))
    near[:, : down.shape[1]] |= down
    near |= down.roll(1, 1) if couplings.periodic else torch.nn.functional.pad(down, (0, 0, 1, 0))
    distance = torch.where(near, 0, -1)
    for step in range(1, sum(couplings.shape[1:])):
        grown = near.clone()
        grown[:, 1:] |= near[:, :-1]
        grown[:, :-1] |= near[:, 1:]
        grown[:, :, 1:] |= near[:, :, :-1]
        grown[:, :, :-1] |= near[:, :, 1:]
        if couplings.periodic:
            grown = near | near.roll(1, 1) | near.roll(-1, 1) | near.roll(1, 2) | near.roll(-1, 2)
        distance = torch.where(grown & ~near, step, distance)
        near = grown
    return distance
