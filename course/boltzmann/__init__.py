"""What an energy says about probability: Boltzmann distributions, their divergences, and the heat bath that makes them.

Everywhere here an energy function maps configurations (points, dim) to energies (points,); `around` makes one of an
`elf.Energy` and a target. Temperatures are in the energy's own units (k_B = 1).
"""

from course.boltzmann.distribution import Boltzmann, around, distribution
from course.boltzmann.divergence import bin_probabilities, histogram_kl, kl_divergence
from course.boltzmann.langevin import Trajectory, langevin
from course.boltzmann.quadrature import Grid, grid

__all__ = [
    "Boltzmann",
    "Grid",
    "Trajectory",
    "around",
    "bin_probabilities",
    "distribution",
    "grid",
    "histogram_kl",
    "kl_divergence",
    "langevin",
]
