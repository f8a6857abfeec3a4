"""Eq. 15 of arXiv:2511.02087: mean energy minus temperature times entropy of a factorised prediction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from elf.checks import require_number
from elf.spins.energy import SpinEnergy, Spins
from elf.spins.lattice import Couplings, require_real


def entropy(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Entropy in nats of a spin with logits +-z: log(2 cosh z) - z tanh z, between 0 and log 2, exact for large |z|."""
    size = (
        require_real("logits", logits).abs().clamp_max(1e4)
    )  # where it is long zero; twice the largest float would be infinite
    return F.softplus(-2 * size) + 2 * size * torch.sigmoid(-2 * size)


class FreeEnergy(SpinEnergy):
    """F = <E> - T S(q): T times Eq. 15 without log Z, which does not depend on the prediction.

    Zero at certain, right logits. The reverse KL divergence from independent spins q to the Boltzmann distribution of
    the energy is (F - F_exact) / T.

    Args:
        energy: any SpinEnergy.
        temperature: T in the units of the couplings; 0 leaves the energy alone.
    """

    def __init__(self, energy: SpinEnergy, temperature: float = 0.1) -> None:
        super().__init__()
        if not isinstance(energy, SpinEnergy):
            raise TypeError(f"energy is a {type(energy).__name__}; it should be an elf.spins.SpinEnergy")
        self.energy, self.temperature = energy, require_number("temperature", temperature)
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature is {temperature}; it should be finite and not negative")

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        return self.energy._energy(logits, target, couplings) - self.temperature * entropy(logits).sum((1, 2))
