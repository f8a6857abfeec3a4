"""Table 4: which springs? GDM-aug on QM9."""

from __future__ import annotations

from experiments.molecules.paper import experiment
from experiments.molecules.paper_settings import TABLE_4, scales

SETTINGS = scales(
    ("gdm-aug",),
    ("energy", "inverse_square", "inverse", "constant"),
    smoke=(("gdm-aug",), ("inverse_square", "constant")),
)
EXPERIMENT = experiment(
    "table4", "QM9, GDM-aug: exponential, inverse square, inverse, constant springs", SETTINGS, TABLE_4
)
