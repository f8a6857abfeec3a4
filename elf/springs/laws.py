"""Spring constants k_ij = f(r_ij) of the pair energy (Eq. 7 of arXiv:2511.02087): functions of TARGET distances.

Each spring is a small frozen dataclass, called with distances in angstrom and answering with spring constants of the
same shape. A plain function does as well: `PairEnergy(springs=lambda r: 1 / (1 + r))`.

Energies here are dimensionless (in units of k_B T of Eq. 4), so k is in 1 / angstrom^2. The default prefactor is k = 1
throughout. The authors' programs choose prefactors that make k of order one, and these differ from program to program
for the same mode: exponential 2.6 (shapes), 42 (EDM), 24 (JODO); inverse 5 / 3.7; inverse square 16 / 9; bond-aware 9;
and they divide by the number of atoms, which here is `PairEnergy(normalize="atoms")`.

Springs that diverge at r = 0 are softened: distances below `r_min` (0.01 angstrom by default, a hundredth of a bond)
count as `r_min`. Coincident target atoms therefore have a stiff but finite spring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import frexp, inf
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from elf.checks import require_positive, values_are_known

__all__ = ["BondAware", "Constant", "Exponential", "Inverse", "InverseSquare", "LennardJones", "Morse", "Spring"]


SpringFunction = Callable[[Tensor], Tensor]
"""k(r), elementwise."""
Springs = SpringFunction | Tensor
"""k(r), or the constants themselves."""
STIFFEST, LONGEST = 1e30, 1e30
"""The largest spring constant, what energies in float32 have room for; distances beyond any that occur."""


@dataclass(frozen=True)
class Spring(ABC):
    """A spring constant as a function of distance; every parameter is a positive number.

    A subclass that says `trusted=True` (`class Mine(Spring, trusted=True)`) vouches for answers of the right shape,
    finite and not negative, at any distance, zero included: its answers are not looked at in every call.

    Raises:
        TypeError, ValueError: a parameter is no positive number; or a trusted spring's constants are not below 1e30.
    """

    trusted: ClassVar[bool] = False

    def __init_subclass__(cls, trusted: bool = False) -> None:
        cls.trusted = trusted

    def __post_init__(self) -> None:
        numbers = []
        for field in fields(self):
            numbers.append(require_positive(f"{type(self).__name__}({field.name})", getattr(self, field.name)))
            object.__setattr__(self, field.name, numbers[-1])
        if not self.trusted:
            return
        # Where a formula has its largest values: at zero, at or beyond one of its parameters.
        places = [0.0, *(10.0**n for n in range(-18, 19)), *(n * (1 + 1e-6) for n in numbers if n < LONGEST)]
        try:
            constants = self(torch.tensor(places, dtype=torch.float32, device="cpu"))
            fine = not values_are_known(constants) or bool(((constants >= 0) & (constants <= STIFFEST)).all())
        except (OverflowError, RuntimeError):  # a parameter that float32 does not know
            fine = False
        if not fine:
            raise ValueError(
                f"{self} has spring constants beyond what float32 holds; they should be at most {STIFFEST:.0e}"
            )

    @abstractmethod
    def __call__(self, distances: Tensor) -> Tensor:
        """Spring constants (1 / angstrom^2) at these target distances (angstrom); same shape."""


def is_trusted(springs: object) -> bool:
    """Whether these springs may be asked about anything, and their answers taken as they are."""
    return getattr(type(springs), "trusted", False) is True


def spring_constants(springs: SpringFunction, distances: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """k(r); springs not trusted that answer with another shape or dtype, negative or not finite are a ValueError."""
    constants = springs(distances)
    if is_trusted(springs):
        return constants
    if not isinstance(constants, Tensor) or constants.shape != distances.shape or constants.dtype != distances.dtype:
        answer = f"{constants.dtype} {tuple(constants.shape)}" if isinstance(constants, Tensor) else repr(constants)
        question = f"{distances.dtype} {tuple(distances.shape)}"
        raise ValueError(f"springs answers {question} with {answer}; these should be alike")
    if not values_are_known(constants):
        return constants
    smallest, largest = constants.detach().aminmax()
    if not 0 <= float(smallest) <= float(largest) < inf:
        worst = tuple((~((constants >= 0) & constants.isfinite())).nonzero()[0].tolist())
        raise ValueError(
            f"springs answers distance {distances[worst].item()} with {constants[worst].item()}; "
            "spring constants should be finite and not negative"
        )
    return constants


@dataclass(frozen=True)
class Constant(Spring, trusted=True):
    """k(r) = k: an elastic network with equal springs. The case of Prop. 4.4, where the diffusion score is exact."""

    k: float = 1.0

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        return torch.full_like(distances, self.k)


@dataclass(frozen=True)
class Inverse(Spring, trusted=True):
    """k(r) = k / max(r, r_min): decays slowly, which suits sparse edges on large molecules (Sec. 4.3).

    Authors' prefactors: k = 5 and 3.7.
    """

    k: float = 1.0
    r_min: float = 1e-2

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        return self.k / distances.clamp(min=self.r_min)


@dataclass(frozen=True)
class InverseSquare(Spring, trusted=True):
    """k(r) = k / max(r, r_min)^2: every pair is penalised for its relative change of length, k (1 - r_hat / r)^2.

    Authors' prefactors: k = 16 and 9.
    """

    k: float = 1.0
    r_min: float = 1e-2

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        return self.k / distances.clamp(min=self.r_min).square()


@dataclass(frozen=True)
class Exponential(Spring, trusted=True):
    """k(r) = k exp(-r / length): local geometry first. The paper's best spring on QM9 (Table 4), there with length 1.

    `length` in angstrom. Authors' prefactors: k = 2.6 (shapes), 42 (EDM), 24 (JODO).
    """

    k: float = 1.0
    length: float = 1.0

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        # The same number, and twice as soon, where one over the length is exact.
        exact = frexp(self.length)[0] == 0.5
        decay = (distances * (-1 / self.length) if exact else distances / -self.length).exp_()
        return decay if self.k == 1 else self.k * decay


@dataclass(frozen=True)
class Morse(Spring, trusted=True):
    """k = 2 D a^2: the second-order Taylor expansion of the Morse bond D (1 - exp(-a (r_hat - r)))^2 (App. A.3).

    `depth` D is the well depth (in k_B T), `a` its inverse width (1 / angstrom). Eq. 7 carries the expansion's factor
    1/2 over ordered pairs, so that over i < j this k gives TWICE the quadratic term D a^2 (r_hat - r)^2 of one bond.
    """

    depth: float = 1.0
    a: float = 1.0

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        return torch.full_like(distances, 2 * self.depth * self.a**2)


@dataclass(frozen=True)
class LennardJones(Spring, trusted=True):
    """k(r) = 72 eps / max(r, r_min)^2: the second-order Taylor expansion of Lennard-Jones (App. A.3).

    The potential is eps ((r/r_hat)^12 - 2 (r/r_hat)^6), with depth `eps` (in k_B T), expanded at r_hat = r. As for
    `Morse`, k is the curvature: over i < j it gives twice the quadratic term.
    """

    eps: float = 1.0
    r_min: float = 1e-2

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        return 72 * self.eps / distances.clamp(min=self.r_min).square()


@dataclass(frozen=True)
class BondAware(Spring, trusted=True):
    """k(r) = k_bond for r <= cutoff (bonded), k_pair / max(r, r_min)^2 beyond: stiff bonds, soft contacts.

    The mode that the authors' code calls "lj", there with prefactor 9 and bonds from the molecule. Here a pair counts
    as bonded if its target distance is at most `cutoff` angstrom, and a distance alone knows no elements: 1.7 leaves
    out C-Cl (1.77), C-S (1.81), C-Br (1.94) and S-S (2.05), and takes in H..H of H2O (1.51) and NH2 (1.62), though not
    of CH2 (1.8). In QM9 C-C bonds reach 1.77 where non-bonded C..C come as near as 1.74: no cutoff parts them. True
    bonds are the molecular graph's (`elf.chemistry.molecular_graph`): see `elf.springs.by_bonds`.
    """

    k_bond: float = 1.0
    k_pair: float = 1.0
    cutoff: float = 1.7
    r_min: float = 1e-2

    @override
    def __call__(self, distances: Tensor) -> Tensor:
        beyond = self.k_pair / distances.clamp(min=self.r_min).square()
        return beyond.masked_fill(distances <= self.cutoff, self.k_bond)
