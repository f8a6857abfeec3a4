"""Figure 4's question in short runs: MSE and energy on half of the molecules, for the same number of steps."""

from __future__ import annotations

from dataclasses import replace

from experiments.molecules import small as molecules

SETTINGS = {
    scale: replace(settings, losses=("mse", "energy"), shares=(0.5,)) for scale, settings in molecules.SETTINGS.items()
}

EXPERIMENT = replace(
    molecules.EXPERIMENT,
    name="molecule_shares",
    title="QM9, up to 7 heavy atoms: MSE and energy on half of the data",
    settings=SETTINGS.__getitem__,
)
