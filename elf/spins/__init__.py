"""Spin glasses on square lattices: couplings, exact ground states, and the losses of Sec. 5 of arXiv:2511.02087.

loss = FreeEnergy(Mattis(offset=0.5), temperature=0.1)
value = loss(logits, ground_state(couplings).spins, couplings)   # (batch,)
"""

from elf.spins.annealing import anneal
from elf.spins.energy import (
    AlignedCrossEntropy,
    CrossEntropy,
    Ising,
    LocalField,
    Margin,
    Mattis,
    SpinEnergy,
    magnetization,
)
from elf.spins.free_energy import FreeEnergy, entropy
from elf.spins.ground_state import GroundState, ground_state
from elf.spins.lattice import (
    Couplings,
    descend,
    flip_energies,
    frustrated_plaquettes,
    gauge_transform,
    ising_energy,
    local_fields,
    unsatisfied_bonds,
)
from elf.spins.milp import GraphGroundState, graph_ground_state
from elf.spins.symmetry import SYMMETRIES, Symmetry

__all__ = [
    "SYMMETRIES",
    "AlignedCrossEntropy",
    "Couplings",
    "CrossEntropy",
    "FreeEnergy",
    "GraphGroundState",
    "GroundState",
    "Ising",
    "LocalField",
    "Margin",
    "Mattis",
    "SpinEnergy",
    "Symmetry",
    "anneal",
    "descend",
    "entropy",
    "flip_energies",
    "frustrated_plaquettes",
    "gauge_transform",
    "graph_ground_state",
    "ground_state",
    "ising_energy",
    "local_fields",
    "magnetization",
    "unsatisfied_bonds",
]
