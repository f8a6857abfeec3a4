"""The paper's diffusion of molecules: noise is predicted, the energy judges the molecule it implies (Sec. 4.2, C.2).

As in EDM (Hoogeboom et al. 2022, arXiv:2203.17003): variance-preserving noise with a polynomial schedule on centred
positions (angstrom) and on features, one-hot atom types times 0.25 and, for QM9, atomic numbers times 0.1. The network
predicts the noise eps_hat of both. Then x_hat = (x_t - sigma_t eps_hat) / alpha_t, and the paper's loss is

    c alpha_t^2 / sigma_t^2 E(x_hat, x) + |eps_h - eps_hat_h|^2,

both divided by the number of atoms: the energy replaces the squared error of the positions' noise, and the features
keep theirs. With `Harmonic` the first term is c |eps - eps_hat|^2, the usual one. `elf.generative.diffusion` is the
faster variant that the notebooks train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from elf.checks import require_finite, require_occupied, values_are_known
from elf.elements import ELEMENTS
from elf.energy import Energy
from elf.generative.schedules import Polynomial
from elf.geometry.alignment import center, random_rotations

TYPE_SCALE, CHARGE_SCALE = 0.25, 0.1
"""EDM's normalize_factors [1, 4, 10]: types and charges are small, so that they are settled after the positions."""


class Clean(NamedTuple):
    """A denoised molecule: positions in angstrom, centred; features as `Featuriser` makes them."""

    positions: Float[Tensor, "batch atoms 3"]
    features: Float[Tensor, "batch atoms features"]


@dataclass(frozen=True)
class Featuriser:
    """Atomic numbers <-> features: scaled one-hots and, with `charges`, scaled atomic numbers.

    Args:
        elements: the atomic numbers that occur, such as `elf.elements.ELEMENTS` or `GEOM_ELEMENTS`.
        charges: whether the atomic number is a feature too (EDM: for QM9, not for GEOM-Drugs).
    """

    elements: tuple[int, ...] = ELEMENTS
    charges: bool = True

    @property
    def width(self) -> int:
        """Features an atom."""
        return len(self.elements) + self.charges

    def encode(self, numbers: Int[Tensor, "batch atoms"], dtype: torch.dtype = torch.float32) -> Tensor:
        """Features (batch, atoms, width); zeros where numbers is 0 (padding).

        Raises:
            ValueError: an element that is not among `elements`.
        """
        one_hots = numbers[..., None] == torch.tensor(self.elements, device=numbers.device)
        if values_are_known(numbers) and bool((lost := (numbers != 0) & ~one_hots.any(-1)).any()):
            odd = sorted(set(numbers[lost].tolist()))
            raise ValueError(f"numbers holds the unknown elements {odd}; it should hold {list(self.elements)}")
        parts = [TYPE_SCALE * one_hots.to(dtype)]
        return torch.cat(parts + [CHARGE_SCALE * numbers[..., None].to(dtype)] * self.charges, dim=-1)

    def decode(self, features: Tensor, mask: Bool[Tensor, "batch atoms"]) -> Int[Tensor, "batch atoms"]:
        """Atomic numbers: the largest of the types wins (the charge is not asked, as in EDM); 0 for padding."""
        kinds = torch.tensor(self.elements, device=features.device)
        return kinds[features[..., : len(self.elements)].argmax(dim=-1)] * mask


class NoisePredictor(nn.Module):
    """A network that predicts noise, with the schedule that says how much there is.

    Args:
        network: `elf.models.egnn.EGNN` or `GNN` of `featuriser.width` features, or any module with their call; it is
            told the time t in [0, 1].
        schedule: the noise.
        featuriser: what the features are.
    """

    def __init__(
        self, network: nn.Module, schedule: Polynomial | None = None, featuriser: Featuriser | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule, self.featuriser = schedule or Polynomial(), featuriser or Featuriser()

    @property
    def width(self) -> int:
        """Features an atom."""
        return self.featuriser.width

    def forward(
        self,
        positions: Float[Tensor, "batch atoms 3"],
        features: Float[Tensor, "batch atoms features"],
        t: Float[Tensor, " batch"],
        mask: Bool[Tensor, "batch atoms"],
    ) -> Clean:
        """The predicted noise of a molecule x_t, h_t at times t."""
        out = self.network(positions, features, t, mask)
        return Clean(center(out.displacements, mask), out.logits * mask[..., None])

    def denoise(self, positions: Tensor, features: Tensor, t: Tensor, mask: Tensor) -> Clean:
        """x_hat = (x_t - sigma_t eps_hat) / alpha_t, and the same for the features."""
        noise = self(positions, features, t, mask)
        return self.without_noise(Clean(positions, features), noise, t)

    def without_noise(self, noisy: Clean, noise: Clean, t: Float[Tensor, " batch"]) -> Clean:
        """The molecule that is left of a noisy one when this noise is taken away."""
        alpha, sigma = (f(t)[:, None, None] for f in (self.schedule.alpha, self.schedule.sigma))
        return Clean(
            (noisy.positions - sigma * noise.positions) / alpha, (noisy.features - sigma * noise.features) / alpha
        )

    def decode(self, features: Tensor, mask: Tensor) -> Tensor:
        """Atomic numbers of denoised features."""
        return self.featuriser.decode(features, mask)


class NoiseLoss(NamedTuple):
    """Means over the batch: weighted energy of the positions, squared error of the features' noise, an atom each."""

    positions: Float[Tensor, ""]
    features: Float[Tensor, ""]


def noise_loss(
    model: nn.Module,
    energy: Energy,
    positions: Float[Tensor, "batch atoms 3"],
    numbers: Int[Tensor, "batch atoms"],
    generator: torch.Generator,
    *,
    predictor: NoisePredictor,
    degree: int = 2,
) -> NoiseLoss:
    """One time, one noise, one prediction a molecule; the energy of x_hat, weighted (Sec. 4.2).

    Args:
        model: what is called for the noise: `predictor` itself, or a wrapping of it (Fabric, DDP).
        energy: any energy; with `normalize="atoms"` molecules of different size count alike.
        positions: clean molecules, angstrom.
        numbers: atomic numbers, 0 for padding.
        generator: of times and noise, on the molecules' device.
        predictor: gives the schedule and the features.
        degree: by what power of a length the energy grows: the weight is (alpha_t / sigma_t)^degree, so that it is the
            same function of eps - eps_hat at every time. 2 for MSE, Kabsch and pair energies (the paper's weight), 1
            for MAE.

    Raises:
        ValueError: an unknown element, an empty molecule, coordinates that are not finite.
    """
    if degree not in (1, 2):
        raise ValueError(f"degree is {degree!r}; it should be 1 or 2")
    mask = numbers > 0
    if values_are_known(positions, numbers):
        require_occupied(mask)
        require_finite("positions", positions, mask)
    schedule, device = predictor.schedule, positions.device
    features = predictor.featuriser.encode(numbers, positions.dtype)
    clean = Clean(center(positions, mask), features)
    t = schedule.draw(len(positions), generator).to(device, positions.dtype)
    eps = molecule_noise(mask, features.shape[-1], generator, positions.dtype)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    noisy = Clean(
        *(alpha[:, None, None] * part + sigma[:, None, None] * noise for part, noise in zip(clean, eps, strict=True))
    )
    predicted = model(noisy.positions, noisy.features, t, mask)
    x_hat = predictor.without_noise(noisy, predicted, t).positions
    energies = (alpha / sigma) ** degree * energy(x_hat, clean.positions, mask)
    missed = (eps.features - predicted.features).square().sum(dim=(1, 2)) / mask.sum(dim=1)
    return NoiseLoss(energies.mean(), missed.mean())


def molecule_noise(
    mask: Bool[Tensor, "batch atoms"], features: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Clean:
    """Standard Gaussian noise for real atoms, zero on padding; that of the positions has no net displacement."""
    draws = [
        torch.randn(*mask.shape, width, generator=generator, device=mask.device, dtype=dtype) for width in (3, features)
    ]
    return Clean(center(draws[0], mask), draws[1] * mask[..., None])


def random_rotation_of(
    positions: Float[Tensor, "batch atoms 3"], generator: torch.Generator
) -> Float[Tensor, "batch atoms 3"]:
    """Each molecule turned by a rotation of its own, uniform over SO(3): the augmentation of GDM-aug."""
    rotations = random_rotations(len(positions), 3, generator=generator, dtype=positions.dtype)
    return positions @ rotations.to(positions.device).mT
