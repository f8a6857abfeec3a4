"""At which noise does the energy earn its lead? Pair energy below 0.5 angstrom and MSE above, and the other way round.

The same experiment as `experiments.molecules.small`, whose runs with MSE or with the energy at all noise levels it is
read with. Not in the paper; its Prop. 4.4 and 4.5 say that the energy gives the score, with less variance, at small
noise.
"""

from __future__ import annotations

from dataclasses import replace

from experiments.molecules import small as molecules

SETTINGS = {scale: replace(settings, losses=("near", "far")) for scale, settings in molecules.SETTINGS.items()}

EXPERIMENT = replace(
    molecules.EXPERIMENT,
    name="molecule_noise",
    title="QM9, up to 7 heavy atoms: the energy at small noise only, and at large noise only",
    settings=SETTINGS.__getitem__,
)
