"""Tables 2 and 8: QM9, every model with every loss. `elf reproduce table2`."""

from __future__ import annotations

from experiments.molecules.paper import experiment
from experiments.molecules.paper_settings import TABLE_8, scales

SETTINGS = scales(
    ("gdm", "gdm-aug", "edm"),
    ("mse", "mae", "kabsch", "sparse", "energy"),
    smoke=(("gdm-aug", "edm"), ("mse", "energy")),
)
EXPERIMENT = experiment("table2", "QM9: GDM, GDM-aug and EDM with five losses (Tables 2 and 8)", SETTINGS, TABLE_8)
