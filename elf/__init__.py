"""elf: energy loss functions. A loss is an energy; the rest of the package is what one needs to see, test and train with it.

After "Energy Loss Functions for Physical Systems" (Kaba, Sareen, Levy, Ravanbakhsh; NeurIPS 2025, arXiv:2511.02087).

    energy = elf.PairEnergy(springs=elf.springs.Exponential())
    loss = energy(prediction, target, mask).mean()

Submodules and names load on first use (PEP 562), so that `import elf` costs next to nothing over `import torch`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elf import (
        boltzmann,
        data,
        energy,
        experiments,
        generative,
        geometry,
        metrics,
        models,
        scales,
        spins,
        training,
        viz,
    )
    from elf.energy import Absolute, AlignedHarmonic, Energy, Harmonic, PairEnergy, springs

__version__ = "0.1.0"

_SUBMODULES = (
    "boltzmann",
    "data",
    "energy",
    "experiments",
    "generative",
    "geometry",
    "metrics",
    "models",
    "scales",
    "spins",
    "training",
    "viz",
)
_FROM_ENERGY = ("Absolute", "AlignedHarmonic", "Energy", "Harmonic", "PairEnergy", "springs")

__all__ = [  # noqa: PLE0604 - plain strings, gathered from the two tables above
    "__version__",
    *_SUBMODULES,
    *_FROM_ENERGY,
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"elf.{name}")
    if name in _FROM_ENERGY:
        value = globals()[name] = getattr(import_module("elf.energy"), name)
        return value
    raise AttributeError(f"module 'elf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
