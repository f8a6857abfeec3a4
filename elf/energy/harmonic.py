"""Energies that tie each atom to its own place: MSE, MAE, and MSE after optimal superposition."""

from __future__ import annotations

from typing import final

from typing_extensions import override

from elf.checks import require_bool
from elf.energy.base import Coordinates, Energy, Mask, Values
from elf.geometry.alignment import align


@final
class Harmonic(Energy):
    """E = sum_i |y_hat_i - y_i|^2 (Eq. 6 of arXiv:2511.02087): MSE, as a physicist reads it.

    Each atom sits in an isotropic harmonic trap at a fixed place in the laboratory, with T = 2 sigma^2. No interaction
    and no symmetry: a rotated target is a different target. Units: angstrom^2.
    """

    def _energy(self, prediction: Coordinates, target: Coordinates, mask: Mask) -> Values:
        return (prediction - target).square().sum((-2, -1))


@final
class Absolute(Energy):
    """E = sum_i |y_hat_i - y_i|_1: MAE, summed over atoms and coordinates (a baseline of Table 8).

    A trap with a constant force in each coordinate; not even invariant to rotating prediction and target together.
    Units: angstrom.
    """

    def _energy(self, prediction: Coordinates, target: Coordinates, mask: Mask) -> Values:
        return (prediction - target).abs().sum((-2, -1))


@final
class AlignedHarmonic(Energy):
    """E = min_{R, t} sum_i |y_hat_i - (R y_i + t)|^2 over rotations R, translations t: "Kabsch" in Table 8.

    The invariant baseline: blind to rotations and translations of prediction and target, that is to SE(d), but neither
    to mirror images nor to relabelling equivalent atoms. Units: angstrom^2.

    The gradient is that of the minimum: by the envelope theorem, the optimal R and t may be treated as constants, so
    the SVD is not differentiated and the gradient is finite in every degenerate case. This holds for first derivatives
    only; a Hessian of this energy by autograd lacks the terms with dR.

    Args:
        normalize, nonfinite: see `Energy`.
        allow_reflection: minimise over mirror images too (E(d) instead of SE(d)), so that chirality costs nothing.
    """

    def __init__(self, normalize: str = "sum", allow_reflection: bool = False, nonfinite: str = "error") -> None:
        super().__init__(normalize, nonfinite)
        require_bool("allow_reflection", allow_reflection)
        self.allow_reflection = allow_reflection

    def _energy(self, prediction: Coordinates, target: Coordinates, mask: Mask) -> Values:
        aligned = align(prediction, target, mask, allow_reflection=self.allow_reflection)
        return (prediction - aligned).square().sum((-2, -1))

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, allow_reflection={self.allow_reflection}"
