"""Diffusion of molecules with the denoised molecule as the prediction, so that any energy can be the loss (Sec. 4.2).

The paper replaces |x - x_hat|^2 in the diffusion objective by E(x_hat, x), with the weight of the noise level kept;
atom types keep a loss of their own. The paper predicts noise and recovers x_hat from it (Sec. 4.2); here the
network is preconditioned to give x_hat directly (Karras et al. 2022, arXiv:2206.00364), which trains faster at small
budgets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from elf.checks import values_are_known
from elf.elements import ELEMENTS
from elf.energy import Energy
from elf.generative.schedules import Karras
from elf.geometry.alignment import center

TYPE_SCALE = 4.0
"""One-hots are diffused as vectors of this length (angstrom): types are settled at larger noise than bonds are."""


class Denoised(NamedTuple):
    """positions: angstrom, centred. logits: of the element of each atom."""

    positions: Float[Tensor, "batch atoms 3"]
    logits: Float[Tensor, "batch atoms elements"]


class Noisy(NamedTuple):
    """A noisy molecule: positions (angstrom, centred), types (one-hots of length TYPE_SCALE plus noise), sigma."""

    positions: Float[Tensor, "batch atoms 3"]
    types: Float[Tensor, "batch atoms elements"]
    sigma: Float[Tensor, " batch"]


class Denoiser(nn.Module):
    """Noisy molecule -> clean molecule: x_hat = c_skip x_t + c_out network(x_t), with Karras' c_skip and c_out.

    The posterior mean of a one-hot type is the softmax of logits, so types are trained with cross-entropy and sampled
    with probabilities: the same for every loss on positions.

    Args:
        network: `elf.models.transformer.EquivariantTransformer`, or any module with its call.
        sigma_data: root-mean-square coordinate of clean molecules, angstrom.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.5) -> None:
        super().__init__()
        self.network, self.sigma_data = network, sigma_data

    def forward(self, noisy: Noisy, mask: Bool[Tensor, "batch atoms"]) -> Denoised:
        """The expected clean molecule given the noisy one."""
        sigma = noisy.sigma[:, None, None]
        spread = (sigma.square() + self.sigma_data**2).sqrt()
        types = noisy.types / (TYPE_SCALE**2 + sigma.square()).sqrt()
        out = self.network(noisy.positions, types, noisy.sigma, mask)
        positions = (self.sigma_data / spread).square() * noisy.positions
        positions = positions + sigma * self.sigma_data / spread * out.displacements
        return Denoised(center(positions, mask), out.logits)


def centered_noise(mask: Bool[Tensor, "batch atoms"], dim: int, generator: torch.Generator) -> Float[Tensor, "b n d"]:
    """Gaussian noise on the real atoms, without a net displacement, zero on padding."""
    return center(torch.randn(*mask.shape, dim, generator=generator, device=mask.device), mask)


def add_noise(
    positions: Float[Tensor, "batch atoms 3"],
    one_hots: Float[Tensor, "batch atoms elements"],
    sigma: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch atoms"],
    generator: torch.Generator,
) -> Noisy:
    """x_t = x + sigma eps (Eq. 2 with alpha = 1), for positions (centred) and types."""
    level = sigma[:, None, None]
    type_noise = torch.randn(one_hots.shape, generator=generator, device=one_hots.device) * mask[..., None]
    return Noisy(
        center(positions, mask) + level * centered_noise(mask, 3, generator),
        TYPE_SCALE * one_hots + level * type_noise,
        sigma,
    )


class LossParts(NamedTuple):
    """Means over the batch: the weighted energy of the positions, the cross-entropy of the types in nats an atom."""

    positions: Float[Tensor, ""]
    types: Float[Tensor, ""]


def denoising_loss(
    denoiser: nn.Module,
    energy: Energy,
    positions: Float[Tensor, "batch atoms 3"],
    numbers: Int[Tensor, "batch atoms"],
    generator: torch.Generator,
    schedule: Karras,
    far: tuple[Energy, float] | None = None,
) -> LossParts:
    """One draw of noise, one denoising, and the energy between what came out and the clean molecule.

    Args:
        denoiser: a `Denoiser`.
        energy: any energy; `normalize="atoms"` makes molecules of different size count alike.
        positions: clean molecules, angstrom.
        numbers: atomic numbers, 0 for padding.
        generator: of the noise, on the molecules' device.
        schedule: gives the noise levels and their weights.
        far: another energy and the noise level in angstrom from which on it takes the place of the first.

    Raises:
        ValueError: an unknown element, an empty molecule, coordinates that are not finite.
    """
    mask = numbers > 0
    one_hots = (numbers[..., None] == torch.tensor(ELEMENTS, device=numbers.device)).to(positions.dtype)
    if values_are_known(numbers) and bool((lost := mask & (one_hots.sum(dim=-1) == 0)).any()):
        odd = sorted(set(numbers[lost].tolist()))
        raise ValueError(f"numbers holds the unknown elements {odd}; it should hold {list(ELEMENTS)}")
    sigma = schedule.draw(len(positions), generator).to(positions.dtype)
    denoised = denoiser(add_noise(positions, one_hots, sigma, mask, generator), mask)
    clean = center(positions, mask)
    energies = energy(denoised.positions, clean, mask)
    if far is not None:
        energies = torch.where(sigma < far[1], energies, far[0](denoised.positions, clean, mask))
    energies = schedule.weight(sigma) * energies
    surprise = -(denoised.logits.log_softmax(dim=-1) * one_hots).sum(dim=(1, 2)) / mask.sum(dim=1)
    return LossParts(energies.mean(), surprise.mean())
