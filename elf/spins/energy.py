"""Energies of spins around a target configuration, as functions of logits: Eq. 16 put right, its flip-symmetric rival,
the true energy, the two baselines of Table 5, and labels compared up to one global flip.

Logits +-z make independent spins with mean m = tanh(z). Every energy here is linear in each spin, so that its mean over
these spins is its value at m; the entropy is added by `elf.spins.FreeEnergy`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from elf.checks import require_positive, require_tensor, widen
from elf.spins.lattice import Couplings, bond_energy, neighbour_sum, require_couplings, require_spins, require_summable

Spins = Float[Tensor, "batch height width"]


def magnetization(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """m = tanh(z), the mean of a spin that is +1 with probability e^z / (e^z + e^-z)."""
    return torch.tanh(logits)


class SpinEnergy(nn.Module, ABC):
    """E(y_hat, y) of spins predicted by logits around a target y: the spins' side of the contract of an energy.

    Called `energy(logits, target, couplings)`, one value per sample, not reduced. A subclass says what it is for valid
    arguments (`_energy`). Energies hold no state.
    """

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(self, logits: Tensor, target: Tensor, couplings: Couplings) -> Tensor:
        """The mean energy of each sample under independent spins with these logits.

        Args:
            logits: z, (B, H, W); positive means that the spin is probably +1.
            target: y, +-1, (B, H, W), of any dtype.
            couplings: J of the same lattices.

        Returns:
            (B,), in the logits' dtype; float16 and bfloat16 are computed and returned in float32.

        Raises:
            TypeError: logits or target are not tensors, logits are not floating point.
            ValueError: shapes, dtypes or devices differ, a logit is NaN, infinite or so large that sums overflow, a
                target is not +-1.
        """
        z, y, couplings = _checked(logits, target, couplings)
        return self._energy(z, y, couplings)

    if TYPE_CHECKING:

        def __call__(self, logits: Tensor, target: Tensor, couplings: Couplings) -> Tensor:
            """See `forward`."""
            ...

    @override
    def extra_repr(self) -> str:
        """The energy's parameters."""
        return ", ".join(f"{name}={value}" for name, value in vars(self).items() if isinstance(value, float))

    @abstractmethod
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        """For valid arguments, target and couplings in the dtype of the logits."""


def _checked(logits: Tensor, target: Tensor, couplings: Couplings) -> tuple[Tensor, Tensor, Couplings]:
    require_couplings(couplings)
    if not require_tensor("logits", logits).is_floating_point():
        raise TypeError(f"logits has dtype {logits.dtype}; it should be a floating-point type")
    if tuple(logits.shape) != couplings.shape:
        raise ValueError(f"logits has shape {tuple(logits.shape)}; the couplings are of {couplings.shape}")
    if logits.device != couplings.right.device:
        raise ValueError(f"logits is on {logits.device}, the couplings on {couplings.right.device}")
    require_summable("logits", logits)
    z = widen(logits)
    if couplings.right.dtype != z.dtype:
        if couplings.right.dtype == torch.float64 or z.dtype == torch.float64:
            raise ValueError(
                f"logits has dtype {logits.dtype}, the couplings {couplings.right.dtype}; they should be equal"
            )
        couplings = couplings.to(z.dtype)
    return z, require_spins("target", target, couplings), couplings


class Ising(SpinEnergy):
    """The true energy above that of the target: - sum_<ij> J_ij (m_i m_j - y_i y_j).

    Zero at the target and at its flip; negative below it, if y is not a ground state. Its gradient does not depend on
    the target: to minimise it needs no data, only couplings (last row of Table 5 of arXiv:2511.02087).
    """

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        return bond_energy(couplings, magnetization(logits)) - bond_energy(couplings, target)


class LocalField(SpinEnergy):
    """Eq. 16 of arXiv:2511.02087 put right: - sum_i h_i (m_i - y_i), with h_i = sum_j J_ij y_j + h0 y_i.

    The first-order expansion of the Ising energy around y (times two), plus an offset. y is its unique minimum if
    every h_i has the sign of y_i: for any y where h0 exceeds the sum of a site's |J| (4 for couplings in [-1, 1]), and
    for any h0 > 0 if y is a ground state. Zero at the target. As printed, the sum has the wrong sign and the offset
    stands inside the sum over j; then the minimum is elsewhere (tests/spins/test_errata.py).

    Args:
        offset: h0.
    """

    def __init__(self, offset: float = 0.5) -> None:
        super().__init__()
        self.offset = require_positive("offset", offset)

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        field = neighbour_sum(couplings, target) + self.offset * target
        return -(field * (magnetization(logits) - target)).sum((1, 2))


class Mattis(SpinEnergy):
    """The pair energy of spins: sum_<ij> w_ij (1 - y_i y_j m_i m_j), with w_ij = |J_ij| + w0 > 0.

    The couplings w_ij y_i y_j of this magnet (D. C. Mattis, Phys. Lett. A 56, 421, 1976) are made of the target and
    unfrustrated: on a connected lattice its global minima are y and -y and no other; local ones have domain walls, as
    in any ferromagnet. It judges bonds, not spins, as the pair energy of atoms judges distances, not places; a global
    flip costs nothing. Zero at +-y.

    Args:
        offset: w0; every bond of the lattice weighs at least this much, those with J = 0 too.
    """

    def __init__(self, offset: float = 0.5) -> None:
        super().__init__()
        self.offset = require_positive("offset", offset)

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        weights = replace(couplings, right=couplings.right.abs() + self.offset, down=couplings.down.abs() + self.offset)
        total = weights.right.sum((1, 2)) + weights.down.sum((1, 2))
        return total + bond_energy(weights, target * magnetization(logits))


class CrossEntropy(SpinEnergy):
    """The baseline of classification: - sum_i log q_i(y_i), with q_i(+1) = 1 / (1 + exp(-2 z_i))."""

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        return _cross_entropy(logits, target)


class AlignedCrossEntropy(SpinEnergy):
    """Cross-entropy with the nearer of the two labels: min(CE(z, y), CE(z, -y)), one choice for the whole sample.

    What Kabsch alignment is to MSE: a global flip costs nothing, but all spins are still judged by one sign. Of two
    patches whose signs differ, the smaller one is wrong spin by spin, though only the bonds between them are.
    """

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        return torch.minimum(_cross_entropy(logits, target), _cross_entropy(logits, -target))


def _cross_entropy(logits: Spins, target: Spins) -> Float[Tensor, " batch"]:
    # log(1 + e^x) is x from x = 40 on in float64 too; softplus' own threshold, 20, is 2e-9 off there.
    return F.softplus(-2 * target * logits, threshold=40).sum((1, 2))


class Margin(SpinEnergy):
    """The hinge baseline: sum_i max(0, margin - y_i z_i).

    Args:
        margin: from which logit on a right spin costs nothing.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = require_positive("margin", margin)

    @override
    def _energy(self, logits: Spins, target: Spins, couplings: Couplings) -> Float[Tensor, " batch"]:
        return (self.margin - target * logits).clamp_min(0).sum((1, 2))
