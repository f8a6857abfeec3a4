"""Geometry of atoms: distances, rigid motions, symmetry, rigidity."""

from elf.geometry import alignment, distances, graphs, planes, rigidity, symmetry
from elf.geometry.alignment import RigidMotion, align, center, centroid, kabsch, random_rotations
from elf.geometry.distances import cross_distances, edge_distances, norm, pairwise_distances
from elf.geometry.graphs import undirected

__all__ = [
    "RigidMotion",
    "align",
    "alignment",
    "center",
    "centroid",
    "cross_distances",
    "distances",
    "edge_distances",
    "graphs",
    "kabsch",
    "norm",
    "pairwise_distances",
    "planes",
    "random_rotations",
    "rigidity",
    "symmetry",
    "undirected",
]
