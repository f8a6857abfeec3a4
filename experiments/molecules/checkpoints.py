"""Long runs of each loss, from which the networks that come with the repository are taken.

The same experiment as `experiments.molecules.small` with more steps; see `experiments.molecules.weights`.
"""

from __future__ import annotations

from dataclasses import replace

from experiments.molecules import small as molecules

LOSSES = ("energy", "mse", "kabsch")
STEPS = {"smoke": 3, "live": 500, "laptop": 12_000, "paper": 2_000_000}
SETTINGS = {
    scale: replace(settings, steps=(STEPS[scale],), losses=LOSSES, samples=1000)
    if scale == "laptop"
    else replace(settings, steps=(STEPS[scale],), losses=LOSSES)
    for scale, settings in molecules.SETTINGS.items()
}

EXPERIMENT = replace(
    molecules.EXPERIMENT,
    name="molecule_checkpoints",
    title="QM9, up to 7 heavy atoms: long runs of each loss",
    settings=SETTINGS.__getitem__,
)
