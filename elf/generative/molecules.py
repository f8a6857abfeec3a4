"""Diffusion of molecules with any energy as the loss on positions (Sec. 4.2 and C.2 of arXiv:2511.02087).

The paper replaces |x - x_hat|^2 in the diffusion objective by E(x_hat, x), with the weight of the noise level kept;
atom types keep a loss of their own:

    weight(t) E(x_hat, x) + features' loss.

A *state* is one tensor (batch, atoms, 3 + features): positions in angstrom, centred, and beside them features that say
which element an atom is (`Featuriser`). Both are noised alike. A `MoleculeDenoiser` is a network with its schedule; of
its two parametrisations `NoisePredictor` is the paper's, and `KarrasDenoiser`, preconditioned to give x_hat directly,
trains faster at small budgets: the notebooks have it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from elf.checks import require_coordinates, require_finite, require_number, require_occupied, values_are_known
from elf.data.molecules import one_hot
from elf.elements import ELEMENTS
from elf.energy import Energy
from elf.generative.schedules import Karras, Polynomial, Schedule, add_noise, wide
from elf.geometry.alignment import center

State = Float[Tensor, "batch atoms state"]
Features = Float[Tensor, "batch atoms features"]
Numbers = Int[Tensor, "batch atoms"]
Times = Float[Tensor, " batch"]
Mask = Bool[Tensor, "batch atoms"]
"""True for a real atom."""


@dataclass(frozen=True)
class Featuriser:
    """Atomic numbers <-> features: scaled one-hots and, with `charges`, scaled atomic numbers.

    Args:
        elements: the atomic numbers that occur, such as `elf.elements.ELEMENTS` or `GEOM_ELEMENTS`.
        charges: whether the atomic number, times 0.1, is a feature too (EDM: for QM9, not for GEOM-Drugs).
        type_scale: length of a one-hot. EDM's normalize_factors [1, 4, 10] make it 0.25, so that types are settled
            after the positions.
    """

    elements: tuple[int, ...] = ELEMENTS
    charges: bool = True
    type_scale: float = 0.25

    @property
    def width(self) -> int:
        """Features an atom."""
        return len(self.elements) + self.charges

    def encode(self, numbers: Numbers, dtype: torch.dtype = torch.float32) -> Features:
        """Features, zeros where numbers is 0 (padding).

        Raises:
            ValueError: an element that is not among `elements`.
        """
        parts = [self.type_scale * one_hot(numbers, self.elements, dtype=dtype)]
        return torch.cat(parts + [0.1 * numbers[..., None].to(dtype)] * self.charges, dim=-1)

    def decode(self, features: Features, mask: Mask) -> Numbers:
        """Atomic numbers: the largest of the types wins (the charge is not asked, as in EDM); 0 for padding."""
        kinds = torch.tensor(self.elements, dtype=torch.int64, device=features.device)
        return kinds[features[..., : len(self.elements)].argmax(dim=-1)] * mask


class MoleculeDenoiser(nn.Module, ABC):
    """A network with the schedule of its noise; a subclass says what the network's answer means.

    Args:
        network: called as network(positions, features, t, mask), answers with displacements (batch, atoms, 3) and
            logits (batch, atoms, features), such as those of `elf.models`.
        schedule: the noise.
        featuriser: what the features are.
    """

    features_first = False
    """Whether training draws the noise of the features before that of the positions."""

    def __init__(self, network: nn.Module, schedule: Schedule, featuriser: Featuriser) -> None:
        super().__init__()
        self.network, self.schedule, self.featuriser = network, schedule, featuriser

    @abstractmethod
    def forward(self, x_t: State, t: Times, mask: Mask) -> State:
        """The network's answer to noisy states, of which `clean` makes the denoised ones."""

    @abstractmethod
    def clean(self, x_t: State, answer: State, t: Times, mask: Mask) -> State:
        """The denoised state x_hat that an answer implies."""

    @abstractmethod
    def features_missed(self, answer: State, clean: State, noise: State) -> Features:
        """The features' loss, number by number, from the answer, the clean state and the noise that was added."""

    def denoise(self, x_t: State, t: Times, mask: Mask) -> State:
        """x_hat(x_t, t): what the samplers ask for."""
        return self.clean(x_t, self(x_t, t, mask), t, mask)

    def encode(self, positions: Float[Tensor, "batch atoms 3"], numbers: Numbers) -> State:
        """The clean state of molecules, with numbers 0 for padding.

        Raises:
            TypeError: positions are not floating-point, numbers not integer.
            ValueError: an unknown element, an empty molecule, coordinates that are not finite, shapes that do not fit.
        """
        require_coordinates("positions", positions, 3)
        features, mask = self.featuriser.encode(numbers, positions.dtype), numbers != 0
        if positions.shape != (*numbers.shape, 3):
            found, fits = tuple(positions.shape), (*numbers.shape, 3)
            raise ValueError(f"positions has shape {found}; it should be {fits}, as numbers has")
        if values_are_known(positions, numbers):
            require_occupied(mask)
            require_finite("positions", positions, mask)
        return torch.cat([center(positions, mask), features], dim=-1)

    def add_noise(self, clean: State, t: Times, mask: Mask, generator: torch.Generator) -> tuple[State, State]:
        """The noisy states x_t (Eq. 2), and their noise."""
        width = self.featuriser.width
        noise = molecule_noise(mask, width, generator, clean.dtype, features_first=self.features_first)
        return add_noise(clean, noise, t, self.schedule), noise


class KarrasDenoiser(MoleculeDenoiser):
    """x_hat = c_skip x_t + c_out displacements, and the types' probabilities: the softmax of the logits.

    c_skip and c_out are those of Karras et al. 2022 (arXiv:2206.00364), with the schedule's sigma_data; the time t is
    the noise level sigma. The posterior mean of a one-hot is a softmax, so types are trained with cross-entropy (nats)
    and sampled with probabilities: the same for every loss on positions. One-hots are 4 angstrom long: types are
    settled at larger noise than bonds are.
    """

    features_first = True
    schedule: Karras

    def __init__(
        self, network: nn.Module, schedule: Karras | None = None, elements: tuple[int, ...] = ELEMENTS
    ) -> None:
        super().__init__(network, schedule or Karras(), Featuriser(elements, charges=False, type_scale=4.0))

    def forward(self, x_t: State, t: Times, mask: Mask) -> State:
        """Displacements and logits."""
        types = x_t[..., 3:] / (self.featuriser.type_scale**2 + wide(t).square()).sqrt()
        return torch.cat(self.network(x_t[..., :3], types, t, mask), dim=-1)

    def clean(self, x_t: State, answer: State, t: Times, mask: Mask) -> State:
        """Positions without a net displacement; expected one-hots."""
        sigma, size = wide(t), self.schedule.sigma_data
        spread = (sigma.square() + size**2).sqrt()
        positions = (size / spread).square() * x_t[..., :3] + sigma * size / spread * answer[..., :3]
        types = self.featuriser.type_scale * answer[..., 3:].softmax(dim=-1) * mask[..., None]
        return torch.cat([center(positions, mask), types], dim=-1)

    def features_missed(self, answer: State, clean: State, noise: State) -> Features:
        """Cross-entropy."""
        return -answer[..., 3:].log_softmax(dim=-1) * (clean[..., 3:] / self.featuriser.type_scale)


class NoisePredictor(MoleculeDenoiser):
    """The paper's: the network predicts the noise eps_hat, and x_hat = (x_t - sigma_t eps_hat) / alpha_t.

    As in EDM (Hoogeboom et al. 2022, arXiv:2203.17003): variance-preserving noise with a polynomial schedule, the
    network (`elf.models.egnn.EGNN` or `GNN`) is told the time t in [0, 1], features keep the squared error of their
    noise. With `Harmonic` the positions' loss is the squared error of theirs.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule | None = None, featuriser: Featuriser | None = None
    ) -> None:
        super().__init__(network, schedule or Polynomial(), featuriser or Featuriser())

    def forward(self, x_t: State, t: Times, mask: Mask) -> State:
        """The predicted noise; that of the positions has no net displacement."""
        displacements, logits = self.network(x_t[..., :3], x_t[..., 3:], t, mask)
        return torch.cat([center(displacements, mask), logits * mask[..., None]], dim=-1)

    def clean(self, x_t: State, answer: State, t: Times, mask: Mask) -> State:
        """What is left when the noise is taken away."""
        return (x_t - wide(self.schedule.sigma(t)) * answer) / wide(self.schedule.alpha(t))

    def features_missed(self, answer: State, clean: State, noise: State) -> Features:
        """(eps - eps_hat)^2."""
        return (noise[..., 3:] - answer[..., 3:]).square()


class LossParts(NamedTuple):
    """Means over the batch: the weighted energy of the positions, and the features' loss."""

    positions: Float[Tensor, ""]
    features: Float[Tensor, ""]


def denoising_loss(
    model: nn.Module,
    energy: Energy,
    positions: Float[Tensor, "batch atoms 3"],
    numbers: Numbers,
    generator: torch.Generator,
    *,
    degree: int = 2,
    far: tuple[Energy, float] | None = None,
    features_over: Literal["atoms", "edm"] = "atoms",
) -> LossParts:
    """One time, one noise, one denoising a molecule, and the weighted energy between what came out and the molecule.

    Args:
        model: a `MoleculeDenoiser`, or what wraps one and has it as `module` (Fabric, DDP).
        energy: any energy; with `normalize="atoms"` molecules of different size count alike.
        positions: clean molecules, angstrom.
        numbers: atomic numbers, 0 for padding.
        generator: of times and noise, on the molecules' device.
        degree: by what power of a length the energy grows: it is weighted by the schedule's weight^(degree / 2), so
            that it is the same function of eps - eps_hat at every time. 2 for MSE, Kabsch and pair energies (the
            paper's alpha^2 / sigma^2), 1 for MAE.
        far: another energy and the noise level sigma / alpha in angstrom from which on it takes the first one's place.
        features_over: what each molecule's features' loss is divided by: "atoms", as the energy is, its atoms; "edm",
            as the paper's code has it, (3 + features) times the batch's padded number of atoms. The paper's weights of
            0.05 belong to the latter.

    Raises:
        TypeError, ValueError: as `MoleculeDenoiser.encode`; a model, degree or features_over that is none of the above.
    """
    own = model if isinstance(model, MoleculeDenoiser) else getattr(model, "module", None)
    if not isinstance(own, MoleculeDenoiser):
        raise TypeError(f"model is a {type(model).__name__}; it should be a MoleculeDenoiser, or wrap one as `module`")
    if degree not in (1, 2):
        raise ValueError(f"degree is {degree!r}; it should be 1 or 2")
    if features_over not in ("atoms", "edm"):
        raise ValueError(f"features_over is {features_over!r}; it should be 'atoms' or 'edm'")
    clean, mask = own.encode(positions, numbers), numbers != 0
    t = own.schedule.draw(len(positions), generator).to(positions.device, positions.dtype)
    x_t, noise = own.add_noise(clean, t, mask, generator)
    answer = model(x_t, t, mask)
    target, x_hat = clean[..., :3], own.clean(x_t, answer, t, mask)[..., :3]
    energies = energy(x_hat, target, mask)
    if far is not None:
        near = own.schedule.sigma(t) < require_number("far", far[1]) * own.schedule.alpha(t)
        energies = torch.where(near, energies, far[0](x_hat, target, mask))
    energies = own.schedule.weight(t) ** (degree / 2) * energies
    missed = own.features_missed(answer, clean, noise).sum(dim=(1, 2))
    shares = mask.sum(dim=1) if features_over == "atoms" else clean.shape[-1] * mask.shape[1]
    return LossParts(energies.mean(), (missed / shares).mean())


def molecule_noise(
    mask: Mask, features: int, generator: torch.Generator, dtype: torch.dtype, *, features_first: bool = False
) -> State:
    """Standard Gaussian noise of states, zero on padding; that of the positions has no net displacement.

    Positions and features are two draws, and `features_first` is their order: trainings and samples that once were
    published repeat only with theirs.
    """
    order = (features, 3) if features_first else (3, features)
    draws = [torch.randn(*mask.shape, n, generator=generator, device=mask.device, dtype=dtype) for n in order]
    moves, types = reversed(draws) if features_first else draws
    return torch.cat([center(moves, mask), types * mask[..., None]], dim=-1)
