"""How good predicted spins are: energy above the ground state, bonds, overlap, domain walls (Table 5)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import values_are_known
from elf.spins.graph import Graph, bond_products, ising_energy, neighbour_sum, require_real, require_spins


def round_logits(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The most probable spins, +-1; a logit of zero becomes +1.

    Raises:
        TypeError: not a tensor of real numbers.
        ValueError: a logit is NaN, which is no spin.
    """
    if values_are_known(require_real("logits", logits)) and bool(logits.isnan().any()):
        raise ValueError(f"logits holds {int(logits.isnan().sum())} NaN; every logit should be a number")
    return torch.where(logits < 0, -1.0, 1.0).to(logits.dtype)


def excess_energy(spins: Tensor, target: Tensor, couplings: Graph) -> Float[Tensor, " batch"]:
    """E(spins) - E(target): the energy above the ground state, if the target is one (the score of Table 5)."""
    return ising_energy(spins, couplings) - ising_energy(target, couplings)


def domain_walls(spins: Tensor, target: Tensor, couplings: Graph) -> tuple[Bool[Tensor, "batch ..."], ...]:
    """Bonds at which exactly one of two configurations has its spins alike: of a lattice, to the right and down."""
    return couplings.laid_out(_walls(spins, target, couplings))


def _walls(spins: Tensor, target: Tensor, couplings: Graph) -> Bool[Tensor, "batch bonds"]:
    product = require_spins("spins", spins, couplings) * require_spins("target", target, couplings)
    return torch.cat(bond_products(couplings, product), 1) < 0


def bond_accuracy(spins: Tensor, target: Tensor, couplings: Graph) -> Float[Tensor, " batch"]:
    """Fraction of bonds that are as in the target: the flip-symmetric accuracy; 1 for +-target, about 1/2 by chance."""
    return 1 - _walls(spins, target, couplings).to(couplings.values.dtype).mean(1)


def overlap(spins: Tensor, target: Tensor, couplings: Graph) -> Float[Tensor, " batch"]:
    """|q| = |mean_i s_i y_i|, the overlap up to a global flip."""
    product = require_spins("spins", spins, couplings) * require_spins("target", target, couplings)
    return product.flatten(1).mean(1).abs()


def wall_distance(spins: Tensor, target: Tensor, couplings: Graph) -> Int[Tensor, "batch ..."]:
    """For each site, 0 if a domain wall between the two configurations passes it, else steps to the nearest such site.

    -1 in samples without any wall. A step goes along a bond.
    """
    walls = _walls(spins, target, couplings)
    dtype = couplings.values.dtype
    near = neighbour_sum(couplings.with_values(walls.to(dtype)), torch.ones_like(spins, dtype=dtype)) > 0
    bonds = couplings.with_values(torch.ones_like(couplings.values))
    distance = torch.where(near, 0, -1)
    for step in range(1, near[0].numel()):
        grown = near | (neighbour_sum(bonds, near.to(dtype)) > 0)
        if torch.equal(grown, near):
            break
        distance, near = torch.where(grown & ~near, step, distance), grown
    return distance
