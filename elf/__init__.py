"""elf: energy loss functions. A loss is an energy; everything else is what one needs to see, test and train with it.

After "Energy Loss Functions for Physical Systems" (Kaba, Sareen, Levy, Ravanbakhsh; NeurIPS 2025, arXiv:2511.02087).

    energy = elf.PairEnergy(springs=elf.springs.Exponential())
    loss = energy(prediction, target, mask).mean()

Submodules and names load on first use (PEP 562), so that `import elf` costs next to nothing over `import torch`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from elf._lazy import name_missing_extras

if TYPE_CHECKING:
    from elf import boltzmann as boltzmann
    from elf import chemistry as chemistry
    from elf import data as data
    from elf import energy as energy
    from elf import generative as generative
    from elf import geometry as geometry
    from elf import metrics as metrics
    from elf import models as models
    from elf import scales as scales
    from elf import spins as spins
    from elf import training as training
    from elf import viz as viz
    from elf.energy import Absolute as Absolute
    from elf.energy import AlignedHarmonic as AlignedHarmonic
    from elf.energy import Energy as Energy
    from elf.energy import Harmonic as Harmonic
    from elf.energy import HeightEnergy as HeightEnergy
    from elf.energy import PairEnergy as PairEnergy
    from elf.energy import springs as springs

__version__ = "0.2.0"

name_missing_extras()

# fmt: off
_SUBMODULES = frozenset({
    "boltzmann", "chemistry", "data", "energy", "generative", "geometry",
    "metrics", "models", "scales", "spins", "training", "viz",
})
_FROM_ENERGY = frozenset({"Absolute", "AlignedHarmonic", "Energy", "Harmonic", "HeightEnergy", "PairEnergy", "springs"})
# fmt: on


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"elf.{name}")
    if name in _FROM_ENERGY:
        value = globals()[name] = getattr(import_module("elf.energy"), name)
        return value
    raise AttributeError(f"module 'elf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_FROM_ENERGY})
