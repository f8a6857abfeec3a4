"""Ising and Potts spins on any graph: couplings, exact ground states, and the losses of Sec. 5 of arXiv:2511.02087.

loss = FreeEnergy(Mattis(offset=0.5), temperature=0.1)
value = loss(logits, ground_state(couplings).spins, couplings)   # (batch,)
"""

from elf.spins.annealing import anneal
from elf.spins.energy import (
    AlignedCrossEntropy,
    CrossEntropy,
    FreeEnergy,
    Ising,
    LocalField,
    Margin,
    Mattis,
    SpinEnergy,
    entropy,
    magnetization,
)
from elf.spins.graph import (
    Graph,
    descend,
    flip_energies,
    gauge_transform,
    ising_energy,
    local_fields,
    unsatisfied_bonds,
)
from elf.spins.ground_state import GroundState, ground_state
from elf.spins.lattice import SYMMETRIES, Couplings, Symmetry, frustrated_plaquettes
from elf.spins.milp import GraphGroundState, graph_ground_state

# fmt: off
__all__ = [
    "SYMMETRIES", "AlignedCrossEntropy", "Couplings", "CrossEntropy", "FreeEnergy", "Graph", "GraphGroundState",
    "GroundState", "Ising", "LocalField", "Margin", "Mattis", "SpinEnergy", "Symmetry", "anneal", "descend", "entropy",
    "flip_energies", "frustrated_plaquettes", "gauge_transform", "graph_ground_state", "ground_state", "ising_energy",
    "local_fields", "magnetization", "unsatisfied_bonds",
]
# fmt: on
