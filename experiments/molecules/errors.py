"""Where a denoiser errs: bonds, angles, torsions, flatness and hands of what it makes of noisy molecules.

No training: molecules of the test split are noised to a level, denoised once, and compared with what they were; or
noised and sampled from there on (the restart test), which says at what noise a geometry is spoilt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

from elf.chemistry.stereo import GraphedMolecules, StereoCentres, hops
from elf.data.molecules import Molecules
from elf.generative.molecules import KarrasDenoiser, MoleculeDenoiser, molecule_noise
from elf.generative.samplers import heun
from elf.generative.schedules import Karras, Schedule, add_noise
from elf.geometry.alignment import align
from elf.metrics import molecules as metrics
from elf.metrics.strain import strain
from experiments.molecules.small import molecules_of

SIGMAS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
RESTARTS = (0.2, 0.5)
"""Angstrom."""
FLAT = 0.05
"""Angstrom that an atom with three neighbours may stand above their plane and count as flat."""
KINDS = {"bond": 1, "1-3": 2, "1-4": 3}
"""Kind of distance -> bonds between its atoms."""


@dataclass(frozen=True)
class Probe:
    """Molecules, with what there is to measure on them.

    Attributes:
        pairs: kind -> molecule and two atoms of each distance.
        flat: molecule, atom and its three neighbours, of each atom in the plane of its neighbours.
        centres: stereo centres.
    """

    molecules: Molecules
    pairs: dict[str, tuple[Tensor, ...]]
    flat: Int[Tensor, "flat 5"]
    centres: StereoCentres

    @classmethod
    def of(cls, molecules: Molecules) -> Probe:
        """Those of the molecules whose graphs are sure."""
        graphed = GraphedMolecules.of(molecules)
        apart, numbers = hops(graphed.orders).triu(1), graphed.molecules.numbers
        real = (numbers[:, :, None] != 0) & (numbers[:, None] != 0)
        pairs = {kind: torch.where((apart == bonds) & real) for kind, bonds in KINDS.items()}
        bonded = graphed.orders > 0
        three = (bonded.sum(-1) == 3).nonzero()
        corners = bonded[three[:, 0], three[:, 1]].nonzero()[:, 1].view(-1, 3)
        rows = torch.cat([three, corners], dim=1)
        flat = rows[heights(graphed.molecules.positions, rows).abs() < FLAT]
        return cls(graphed.molecules, pairs, flat, StereoCentres.of(graphed.molecules))


def heights(positions: Float[Tensor, "n atoms 3"], rows: Int[Tensor, "rows 5"]) -> Float[Tensor, " rows"]:
    """How far each atom stands above the plane of its three neighbours, angstrom."""
    atom, *corners = (positions[rows[:, 0], rows[:, i]] for i in range(1, 5))
    first, second, third = corners
    normal = torch.linalg.cross(second - first, third - first)
    return ((atom - first) * normal).sum(-1) / normal.norm(dim=-1)


@cache
def probe_of(data: str, heavy_atoms: tuple[int, int], atoms: tuple[int, int], n: int) -> Probe:
    """Of n molecules of the test split of one of `small.DATA`."""
    return Probe.of(molecules_of(data, heavy_atoms, atoms, "test", n))


def errors(probe: Probe, prediction: Float[Tensor, "n atoms 3"]) -> dict[str, float]:
    """Root mean squares, in angstrom: of distances by kind, of atoms after alignment ("aligned"), of flat atoms' height
    over their neighbours ("out_of_plane"); and the share of stereo centres with the wrong hand ("hands")."""
    truth, mask = probe.molecules.positions, probe.molecules.numbers != 0
    found = {}
    for kind, (molecule, i, j) in probe.pairs.items():
        r, r_hat = ((x[molecule, i] - x[molecule, j]).norm(dim=-1) for x in (truth, prediction))
        found[kind] = (r_hat - r).square().mean().sqrt()
    moved = (align(prediction, truth, mask) - prediction.where(mask[..., None], 0)).square().sum()
    found["aligned"] = (moved / mask.sum()).sqrt()
    found["out_of_plane"] = heights(prediction, probe.flat).square().mean().sqrt()
    wrong = probe.centres.hands(prediction) != probe.centres.hands(truth)
    return {name: float(value) for name, value in {**found, "hands": wrong.float().mean()}.items()}


def noise_over_signal(schedule: Schedule, t: Tensor) -> Tensor:
    """sigma / alpha, angstrom: the noise in x_t / alpha, as `SIGMAS` counts it."""
    return schedule.sigma(t) / schedule.alpha(t)


def time_at(schedule: Schedule, sigma: float) -> float:
    """The time at which the noise over the signal is this large, angstrom."""
    if isinstance(schedule, Karras):
        return sigma

    def beyond(t: float) -> float:
        return float(noise_over_signal(schedule, torch.tensor(t, dtype=torch.float64, device="cpu"))) - sigma

    return brentq(beyond, 0.0, 1.0)


@torch.no_grad()
def denoised_once(
    denoiser: MoleculeDenoiser, molecules: Molecules, sigma: float, seed: int
) -> Float[Tensor, "n atoms 3"]:
    """x_hat of the molecules with noise of this level over the signal."""
    t = time_at(denoiser.schedule, sigma)
    clean, x_t, mask = _noised(denoiser, molecules, t, seed)
    return denoiser.denoise(x_t, clean.new_full((len(clean),), t), mask)[..., :3]


def restarted(
    denoiser: KarrasDenoiser, molecules: Molecules, sigma: float, seed: int, steps: int
) -> Float[Tensor, "n atoms 3"]:
    """The molecules noised to this level, and sampled down from it: Heun's steps, without churn."""
    _, x_t, mask = _noised(denoiser, molecules, sigma, seed)
    schedule: Karras = replace(denoiser.schedule, sigma_max=sigma)
    return heun(partial(denoiser.denoise, mask=mask), schedule, x_t / sigma, steps)[..., :3]


def _noised(denoiser: MoleculeDenoiser, molecules: Molecules, t: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    numbers, generator = molecules.numbers.long(), torch.Generator("cpu").manual_seed(seed)
    clean, mask = denoiser.encode(molecules.positions, numbers), numbers != 0
    noise = molecule_noise(mask, denoiser.featuriser.width, generator, clean.dtype)
    return clean, add_noise(clean, noise, clean.new_full((len(clean),), t), denoiser.schedule), mask


def error_figures(denoiser: MoleculeDenoiser, probe: Probe, seed: int) -> dict[str, float]:
    """`errors` of a trained denoiser at each of `SIGMAS`, named "bond@0.1" and so on; the seed is that of the noise."""
    return {
        f"{name}@{sigma}": value
        for sigma in SIGMAS
        for name, value in errors(probe, denoised_once(denoiser, probe.molecules, sigma, seed)).items()
    }


def restart_figures(
    denoiser: KarrasDenoiser, molecules: Molecules, seed: int, *, restarts: int = 60, steps: int = 20
) -> dict[str, Any]:
    """Of the restart test at each of `RESTARTS` the share of stable atoms ("restart_stable@0.5") and the median strain
    in kcal/mol ("restart_strain@0.5"), None below 30.

    Args:
        denoiser: a trained one.
        molecules: of QM9, of which the first `restarts` are noised and sampled.
        seed: of the noise.
        steps: of the sampler.
    """
    found: dict[str, Any] = {}
    few = molecules[:restarts].trimmed()
    for sigma in RESTARTS:
        positions = restarted(denoiser, few, sigma, seed, steps)
        strained = strain(positions, few.numbers)
        found[f"restart_stable@{sigma}"] = metrics.stability(positions, few.numbers).atom_fraction
        found[f"restart_strain@{sigma}"] = strained.median if len(strained.energies) >= 30 else None
    return found
