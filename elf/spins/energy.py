"""Energies of spins around a target configuration: Eq. 16 put right, its flip-symmetric rival, the true energy, the two
baselines of Table 5, labels compared up to a relabelling, and Eq. 15, which adds the entropy.

A prediction makes independent spins. Logits +-z make Ising spins, of mean v = tanh(z); probabilities of q states make
Potts spins, whose mean v they are if states are unit vectors. A bond knows v_i . v_j alone: m_i m_j, or the probability
that two spins are alike. Every energy but the baselines is linear in each v_i, so that its mean over the spins is its
value at the means. Potts spins with q = 2 and couplings 2 J are the Ising spins of J.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from elf.checks import require_number, require_positive, require_tensor, values_are_known, widen
from elf.spins.graph import (
    Graph,
    bond_energy,
    bond_products,
    neighbour_sum,
    require_graph,
    require_real,
    require_sites,
    require_spins,
    require_summable,
)

Prediction = Float[Tensor, "batch ..."]
"""Logits (B, *sites), or probabilities (B, *sites, q)."""
States = Float[Tensor, "batch ..."]
"""y_i of the target: +-1 in an axis of its own, or unit vectors of q states."""


def magnetization(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """m = tanh(z), the mean of a spin that is +1 with probability e^z / (e^z + e^-z)."""
    return torch.tanh(logits)


def entropy(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Entropy in nats of a spin with logits +-z: log(2 cosh z) - z tanh z, between 0 and log 2, exact for large |z|."""
    # From 1e4 on it is long zero; twice the largest float would be infinite.
    size = require_real("logits", logits).abs().clamp_max(1e4)
    return F.softplus(-2 * size) + 2 * size * torch.sigmoid(-2 * size)


class SpinEnergy(nn.Module, ABC):
    """E(y_hat, y) of predicted spins around a target y: the spins' side of the contract of an energy.

    Called `energy(prediction, target, couplings)`, one value per sample, not reduced. A subclass says what it is for
    valid arguments (`_energy`). Energies hold no state.
    """

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(self, prediction: Tensor, target: Tensor, couplings: Graph, mask: object = None) -> Tensor:
        """The mean energy of each sample under independent spins.

        Args:
            prediction: logits z, (B, H, W) on a lattice, (B, N) on another graph; positive means that the spin is
                probably +1. Or probabilities of q >= 2 states, (B, H, W, q) or (B, N, q): Potts spins. A logarithm of
                zero counts as that of the smallest positive number.
            target: y, +-1, of any dtype, or for Potts spins integers from 0 to q - 1; (B, *sites).
            couplings: J of the same lattices (`Couplings`) or graph (`Graph`).
            mask: refused. All samples share a graph; samples of other graphs have calls of their own.

        Returns:
            (B,), in the prediction's dtype; float16 and bfloat16 are computed and returned in float32.

        Raises:
            TypeError: an argument of another type, a prediction that is not floating point, states that are not
                integers.
            ValueError: shapes, dtypes or devices differ; a logit is NaN, infinite or so large that sums overflow;
                probabilities are negative or do not add up to 1; a target is none of the states.
        """
        if mask is not None:
            raise ValueError("mask is given; spins have none, it should be a Graph of the sites that there are")
        return self._energy(*_checked(prediction, target, couplings))

    if TYPE_CHECKING:
        __call__ = forward

    @override
    def extra_repr(self) -> str:
        """The energy's parameters."""
        return ", ".join(f"{name}={value}" for name, value in vars(self).items() if isinstance(value, float))

    @abstractmethod
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        """For valid arguments, target and couplings in the dtype of the prediction."""


def _checked(prediction: Tensor, target: Tensor, couplings: Graph) -> tuple[Tensor, Tensor, Graph]:
    sites = len(require_graph(couplings).shape) - 1
    potts = require_tensor("prediction", prediction).ndim == sites + 2
    name = "probabilities" if potts else "logits"
    if not prediction.is_floating_point():
        raise TypeError(f"{name} has dtype {prediction.dtype}; it should be a floating-point type")
    require_sites(name, prediction, couplings, *prediction.shape[sites + 1 :])
    require_summable(name, prediction)
    p, found = widen(prediction), couplings.values.dtype
    if found != p.dtype:
        if torch.float64 in (found, p.dtype):
            raise ValueError(f"{name} has dtype {prediction.dtype}, the couplings {found}; they should be equal")
        couplings = couplings.to(p.dtype)
    y = _states(target, prediction, couplings) if potts else require_spins("target", target, couplings)[..., None]
    if len(y) != len(p):
        raise ValueError(f"target has shape {tuple(target.shape)}; {name} has {len(p)} samples")
    return p, y.to(p.dtype), couplings


def _states(target: Tensor, probabilities: Tensor, couplings: Graph) -> Tensor:
    """The target as unit vectors, once it and the probabilities are known to be valid."""
    q = probabilities.shape[-1]
    y = require_real("target", target)
    if y.is_floating_point():
        raise TypeError(f"target has dtype {y.dtype}; it should be integers, the numbers of states")
    require_sites("target", y, couplings)
    if values_are_known(probabilities, y):
        known = probabilities.detach()
        total, close = widen(known).sum(-1), max(1e-3, 4 * torch.finfo(probabilities.dtype).eps)
        if q < 2 or bool((known < 0).any() | ((total - 1).abs() > close).any()):
            raise ValueError(
                f"probabilities of {q} states add up to {float(total.min()):.4g} ... {float(total.max()):.4g}, the "
                f"least is {float(known.min()):.4g}; of two or more states they should be >= 0 and add up to 1"
            )
        if bool(((y < 0) | (y >= q)).any()):
            raise ValueError(f"target holds states {int(y.min())} ... {int(y.max())}; they should be 0 ... {q - 1}")
    return (y[..., None] == torch.arange(q, device=y.device)).to(probabilities.dtype)


def _means(prediction: Prediction, target: States) -> States:
    """v: magnetisations in an axis of their own, or the probabilities themselves."""
    return prediction if prediction.ndim == target.ndim else magnetization(prediction)[..., None]


def _log(probabilities: States) -> States:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class Ising(SpinEnergy):
    """The true energy above that of the target: - sum_<ij> J_ij (v_i . v_j - y_i . y_j).

    Of Ising spins, - sum J_ij m_i m_j; of Potts spins, - sum J_ij P(s_i = s_j), the mean of - sum J_ij delta(s_i, s_j).
    Zero at the target and its relabellings (for Ising spins, its flip); negative below it, if y is not a ground state.
    Its gradient does not depend on the target: to minimise it needs no data, only couplings (last row of Table 5 of
    arXiv:2511.02087).
    """

    @override
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        return bond_energy(couplings, _means(prediction, target)) - bond_energy(couplings, target)


class LocalField(SpinEnergy):
    """Eq. 16 of arXiv:2511.02087 put right: - sum_i h_i . (v_i - y_i), with h_i = sum_j J_ij y_j + h0 y_i.

    The first-order expansion of the true energy around y (times two), plus an offset. y is its unique minimum if
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
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        field = neighbour_sum(couplings, target) + self.offset * target
        return -(field * (_means(prediction, target) - target)).flatten(1).sum(1)


class Mattis(SpinEnergy):
    """The pair energy of spins: sum_<ij> w_ij s_ij (y_i . y_j - v_i . v_j), w_ij = |J_ij| + w0 > 0, s_ij = +-1.

    s_ij says whether two spins of the target are alike: y_i y_j, or 2 delta(y_i, y_j) - 1. For Ising spins this is
    sum w_ij (1 - y_i y_j m_i m_j). The couplings w_ij s_ij of this magnet (D. C. Mattis, Phys. Lett. A 56, 421, 1976)
    are made of the target and unfrustrated: on a connected graph its global minima are y and -y and no other; local
    ones have domain walls, as in any ferromagnet. It judges bonds, not spins, as the pair energy of atoms judges
    distances, not places; a global flip costs nothing. Zero at +-y. For Potts spins with q > 2: zero at y and its
    relabellings, and wherever the same bonds join equal spins.

    Args:
        offset: w0; every bond weighs at least this much, those with J = 0 too.
    """

    def __init__(self, offset: float = 0.5) -> None:
        super().__init__()
        self.offset = require_positive("offset", offset)

    @override
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        alike = torch.cat(bond_products(couplings, target), 1)
        sign = torch.where(alike > 0, 1, -1).to(alike.dtype)
        magnet = couplings.with_values((couplings.values.abs() + self.offset) * sign)
        return bond_energy(magnet, _means(prediction, target)) - bond_energy(magnet, target)


class CrossEntropy(SpinEnergy):
    """The baseline of classification: - sum_i log q_i(y_i); of logits, q_i(+1) = 1 / (1 + exp(-2 z_i))."""

    @override
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        return _cross_entropy(prediction, target)


class AlignedCrossEntropy(SpinEnergy):
    """Cross-entropy with the nearest relabelling of the target, one for the whole sample: min(CE(z, y), CE(z, -y)).

    What Kabsch alignment is to MSE: a global flip costs nothing, but all spins are still judged by one sign. Of two
    patches whose signs differ, the smaller one is wrong spin by spin, though only the bonds between them are. The
    nearest of the q! relabellings of Potts states is a linear assignment (scipy, of the extra `spins`).
    """

    @override
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        if prediction.ndim < target.ndim:
            return torch.minimum(_cross_entropy(prediction, target), _cross_entropy(prediction, -target))
        from scipy.optimize import linear_sum_assignment

        # What it costs to call state a of the target b, in each sample.
        costs = -target.flatten(1, -2).mT @ _log(prediction).flatten(1, -2)
        best = [linear_sum_assignment(cost)[1].tolist() for cost in costs.numpy(force=True)]
        index = torch.tensor(best, dtype=torch.long, device=costs.device).view(costs.shape[:2])
        return costs.gather(2, index[..., None]).sum((1, 2))


def _cross_entropy(prediction: Prediction, target: States) -> Float[Tensor, " batch"]:
    if prediction.ndim == target.ndim:
        return -(_log(prediction) * target).flatten(1).sum(1)
    # log(1 + e^x) is x from x = 40 on in float64 too; softplus' own threshold, 20, is 2e-9 off there.
    return F.softplus(-2 * target[..., 0] * prediction, threshold=40).flatten(1).sum(1)


class Margin(SpinEnergy):
    """The hinge baseline: sum_i max(0, margin - y_i z_i). Of logits alone.

    Args:
        margin: from which logit on a right spin costs nothing.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = require_positive("margin", margin)

    @override
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        if prediction.ndim == target.ndim:
            raise ValueError(f"probabilities has shape {tuple(prediction.shape)}; the margin is one of logits")
        return (self.margin - target[..., 0] * prediction).clamp_min(0).flatten(1).sum(1)


class FreeEnergy(SpinEnergy):
    """F = <E> - T S(q): T times Eq. 15 without log Z, which does not depend on the prediction.

    Zero at certain, right spins. The reverse KL divergence from independent spins q to the Boltzmann distribution of
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
    def _energy(self, prediction: Prediction, target: States, couplings: Graph) -> Float[Tensor, " batch"]:
        potts = prediction.ndim == target.ndim
        disorder = -prediction * _log(prediction) if potts else entropy(prediction)
        return self.energy._energy(prediction, target, couplings) - self.temperature * disorder.flatten(1).sum(1)
