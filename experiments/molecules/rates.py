"""Which learning rate suits which loss? The sweep behind the learning rates of `experiments.molecules.small`."""

from __future__ import annotations

from dataclasses import replace

from experiments.molecules import small as molecules

RATES = (1e-3, 2e-3, 4e-3)
SETTINGS = {
    scale: replace(
        settings,
        steps=(min(500, settings.steps[0]),),
        losses=("mse", "kabsch", "energy"),
        learning_rates=RATES,
        samples=min(200, settings.samples),
    )
    for scale, settings in molecules.SETTINGS.items()
}

EXPERIMENT = replace(
    molecules.EXPERIMENT,
    name="molecule_rates",
    title="QM9, up to 7 heavy atoms: learning rates for each loss, short runs",
    settings=SETTINGS.__getitem__,
)
