"""Tables 1, 9 and 12: GEOM-Drugs, from the user's file (`elf.data.geom` says where to get it)."""

from __future__ import annotations

from dataclasses import replace

from experiments.molecules.paper import experiment
from experiments.molecules.paper_settings import TABLE_1, scales

_BASE = scales(("gdm", "gdm-aug"), ("mse", "energy", "sparse_inverse"), smoke=(("gdm",), ("mse", "energy")))
SETTINGS = {
    **{
        scale: replace(settings, data="geom", atoms=(1, 60), batch_size=min(16, settings.batch_size), sample_batch=32)
        for scale, settings in _BASE.items()
    },
    "paper": replace(_BASE["paper"], data="geom", atoms=(1, 181), epochs=13, layers=4, batch_size=64, sample_batch=32),
}
"""The paper has 4 layers and 13 epochs; batch size 64 is EDM's for GEOM-Drugs, learning rates are QM9's."""

EXPERIMENT = experiment("table1", "GEOM-Drugs: GDM and GDM-aug (Tables 1, 9, 12)", SETTINGS, TABLE_1)
