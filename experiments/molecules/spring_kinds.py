"""Which springs train best? Table 4's question in short runs, and shorter springs than the paper's."""

from __future__ import annotations

from dataclasses import replace

from experiments.molecules import small as molecules

LOSSES = ("energy", "inverse_square", "inverse", "constant", "short")
SETTINGS = {
    scale: replace(settings, losses=LOSSES, steps=tuple(min(steps, 800) for steps in settings.steps))
    if scale == "laptop"
    else replace(settings, losses=LOSSES)
    for scale, settings in molecules.SETTINGS.items()
}

EXPERIMENT = replace(
    molecules.EXPERIMENT,
    name="molecule_springs",
    title="QM9, up to 7 heavy atoms: five springs in short runs",
    settings=SETTINGS.__getitem__,
)
