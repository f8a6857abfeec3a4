"""Energies of a predicted configuration around a target: the losses of this package."""

from elf.energy.base import Energy
from elf.energy.harmonic import Absolute, AlignedHarmonic, Harmonic
from elf.energy.height import HeightEnergy
from elf.energy.pair import PairEnergy

__all__ = ["Absolute", "AlignedHarmonic", "Energy", "Harmonic", "HeightEnergy", "PairEnergy"]
