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
    from elf import chemistry, data, energy, generative, geometry, metrics, models, spins, springs, training, viz
    from elf import scales as scales
    from elf.energy import Absolute, AlignedHarmonic, Energy, Harmonic, HeightEnergy, PairEnergy

__version__ = "0.2.0"

name_missing_extras()

# fmt: off
__all__ = [
    "Absolute", "AlignedHarmonic", "Energy", "Harmonic", "HeightEnergy", "PairEnergy", "chemistry", "data",
    "energy", "generative", "geometry", "metrics", "models", "scales", "spins", "springs", "training", "viz",
]
# fmt: on
_FROM_ENERGY = frozenset({"Absolute", "AlignedHarmonic", "Energy", "Harmonic", "HeightEnergy", "PairEnergy"})
_SUBMODULES = frozenset(__all__) - _FROM_ENERGY


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"elf.{name}")
    if name in _FROM_ENERGY:
        value = globals()[name] = getattr(import_module("elf.energy"), name)
        return value
    if name == "report_card":
        return import_module("elf.metrics.report_card").report_card
    raise AttributeError(f"module 'elf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_FROM_ENERGY, "report_card"})
