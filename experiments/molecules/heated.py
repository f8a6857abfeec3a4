"""QM9 out of equilibrium: the same molecules at 0, 300, 1000 and 3000 K of the MMFF94 force field, one geometry each.

0 K is the minimum below QM9's geometry. 300 and 1000 K are draws from the classical normal modes there: a mode has the
energy k_B T / 2 on average. That is a straight line for each atom, on which a methyl group that turns tears its bonds,
so that modes softer than `SOFT` are drawn as if they were so stiff. Beyond `HARMONIC` it is Langevin's dynamics on the
force field itself, from the minimum, with which no mode needs a rule. MMFF94 breaks no bond, however hot.

Left out, for all temperatures alike: molecules that `elf.chemistry.molecular_graph` cannot lay over their atoms
("unreadable"), that MMFF94 does not know ("untyped"), without a minimum ("no_minimum"), and those whose minimum
`experiments.molecules.relaxed` reads as another molecule ("changed"): new bonds, or charges, which it does not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elf.chemistry.force_field import BOLTZMANN, ForceField, force_fields
from elf.chemistry.molecular_graph import to_rdkit
from elf.chemistry.vibrations import NormalModes, normal_modes
from elf.data import qm9
from elf.data.molecules import Molecules
from elf.files import cache_folder, read_cache, tensors_sha256, write_cache
from experiments.molecules.relaxed import is_itself

KELVIN = (0, 300, 1000, 3000)
SOFT = 400.0
"""Wavenumber in 1/cm; with it the MMFF94 energy of the draws is k_B T / 2 a mode within a tenth (see the results)."""
HARMONIC = 1000.0
"""Kelvin up to which geometries are drawn from normal modes."""
STEPS, STEP, FRICTION = 1000, 0.5, 0.02
"""Of the dynamics: how many, of so many femtoseconds, and the rate at which momenta are forgotten, 1/fs."""
TIME = 48.888213
"""sqrt(dalton angstrom^2 / (kcal/mol)) in femtoseconds."""
FORMAT = "elf-heated/1"
LOST = ("unreadable", "untyped", "no_minimum", "changed")


class Heated(NamedTuple):
    """molecules: centred, at the temperature. energies: above the minimum in units of k_B T / 2 a mode, (n,): 1 on
    average by equipartition; zero at 0 K. lost: reason -> QM9's numbers of those left out."""

    molecules: Molecules
    energies: Tensor
    lost: dict[str, list[int]]


def harmonic(modes: NormalModes, temperature: float, generator: torch.Generator) -> Float[Tensor, "atoms 3"]:
    """A displacement from the Boltzmann distribution of the harmonic molecule, angstrom; see `SOFT`."""
    stiffness = modes.stiffness * (SOFT / modes.wavenumbers.clamp(max=SOFT)).square()
    noise = torch.randn(len(stiffness), generator=generator, dtype=stiffness.dtype, device="cpu")
    return torch.einsum("k,kad->ad", noise * (BOLTZMANN * temperature / stiffness).sqrt(), modes.directions)


def langevin(
    gradient: Callable[[Tensor], Tensor],
    positions: Float[Tensor, "*batch atoms 3"],
    masses: Float[Tensor, " atoms"],
    temperature: float,
    generator: torch.Generator,
    *,
    steps: int = STEPS,
    step: float = STEP,
    friction: float = FRICTION,
) -> Float[Tensor, "*batch atoms 3"]:
    """Positions after Langevin's dynamics by BAOAB (Leimkuhler and Matthews 2013), whose positions are those of the
    Boltzmann distribution exactly in a harmonic well, whatever the step.

    Args:
        gradient: of the energy, kcal/mol/angstrom.
        masses: dalton.
        step, friction: femtoseconds, and one over them.
    """
    half, mass = step / TIME / 2, masses[:, None]
    keep = math.exp(-friction * step)

    def thermal() -> Tensor:
        noise = torch.randn(positions.shape, generator=generator, dtype=positions.dtype, device="cpu")
        return noise * (BOLTZMANN * temperature / mass).sqrt()

    x, v = positions, thermal()
    kick = half * gradient(x) / mass
    for _ in range(steps):
        v = v - kick
        x = x + half * v
        v = keep * v + math.sqrt(1 - keep**2) * thermal()
        x = x + half * v
        kick = half * gradient(x) / mass
        v = v - kick
    return x


def heated(
    field: ForceField, minimum: Float[Tensor, "atoms 3"], temperature: float, seed: int
) -> tuple[Float[Tensor, "atoms 3"], float]:
    """A geometry, and its energy above the minimum in units of k_B T / 2 a mode."""
    if temperature == 0:
        return minimum, 0.0
    modes = normal_modes(field.hessian(minimum), minimum, field.masses)
    # The same noise at every temperature: draws from normal modes are the same distortion, larger.
    generator = torch.Generator("cpu").manual_seed(seed)
    if temperature <= HARMONIC:
        x = minimum + harmonic(modes, temperature, generator)
    else:
        x = langevin(field.gradient, minimum, field.masses, temperature, generator)
    above = float(field.energy(x) - field.energy(minimum))
    return x, above / (len(modes.stiffness) * BOLTZMANN * temperature / 2)


def heat(molecules: Molecules, temperature: float) -> Heated:
    """One geometry of each molecule, each with noise of its own: the same whatever else is heated."""
    good, lost = force_fields(molecules, to_rdkit)
    positions = torch.zeros_like(molecules.positions)
    cold = Molecules(positions.clone(), molecules.numbers, molecules.smiles, molecules.index, molecules.charges)
    for i, _, minimum in good:
        cold.positions[i, : len(minimum)] = (minimum - minimum.mean(dim=0)).to(positions.dtype)
    changed = [i for i, *_ in good if not is_itself(cold, i)]
    rows, energies = [], []
    for i, field, minimum in good:
        if i in changed:
            continue
        x, energy = heated(field, minimum, temperature, int(molecules.index[i]))
        positions[i, : len(x)] = (x - x.mean(dim=0)).to(positions.dtype)
        rows.append(i)
        energies.append(energy)
    cold.positions[:] = positions
    numbers = {name: molecules.index[at].tolist() for name, at in {**lost, "changed": changed}.items()}
    return Heated(cold[rows], torch.tensor(energies, dtype=torch.float64, device="cpu"), numbers)


@cache
def heated_qm9(temperature: float, heavy_atoms: tuple[int, int], atoms: tuple[int, int], split: str) -> Heated:
    """`heat` of QM9's molecules of these ranges (3,004 of up to 7 heavy atoms: 20 seconds; by dynamics minutes), kept
    in elf's cache."""
    from rdkit import rdBase

    molecules = qm9.load(heavy_atoms=heavy_atoms, atoms=atoms, split=split)
    about = {"rdkit": rdBase.rdkitVersion, "rules": [SOFT, HARMONIC, STEPS, STEP, FRICTION]}
    stamp = tensors_sha256({"positions": molecules.positions, "numbers": molecules.numbers}, about)
    name = f"{FORMAT.replace('/', '-')}-{temperature:g}-{heavy_atoms}-{atoms}-{split}".replace(" ", "")
    path = cache_folder() / f"{name}.safetensors"
    kept = read_cache(path, FORMAT, stamp)
    if kept is None:
        found = heat(molecules, temperature)
        kept = {"index": found.molecules.index, "positions": found.molecules.positions, "energies": found.energies}
        kept |= {reason: torch.tensor(found.lost[reason], dtype=torch.long, device="cpu") for reason in LOST}
        write_cache(path, kept, FORMAT, stamp)
    same = molecules[torch.isin(molecules.index, kept["index"])]
    hot = Molecules(kept["positions"], same.numbers, same.smiles, same.index, same.charges)
    return Heated(hot, kept["energies"], {reason: kept[reason].tolist() for reason in LOST})


def load(
    temperature: float,
    *,
    heavy_atoms: tuple[int, int],
    atoms: tuple[int, int],
    split: str = "train",
    limit: int | None = None,
) -> Molecules:
    """The molecules of `heated_qm9`, as `elf.data.qm9.load` gives QM9's own."""
    return heated_qm9(temperature, heavy_atoms, atoms, split).molecules.subset(limit=limit)
