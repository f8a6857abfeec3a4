"""The trained JODO networks that come with the repository: seed 0 of "table3", aligned MSE and the inverse springs.

Seed 0 as for all committed networks, by rule and not by result; JODO's own loss, and the springs with which the paper's
Table 3 has the best distribution. `elf reproduce table3` measured them in single precision; here they are in half.
"""

from __future__ import annotations

from experiments.framework.published import Published
from experiments.molecules.jodo import experiment
from experiments.molecules.jodo.diffusion import JointDiffusion

LOSSES = ("kabsch", "inverse_even")


def training_settings() -> experiment.Settings:
    """What the networks were trained with."""
    return experiment.settings_of("table3", "laptop")


PUBLISHED: Published[JointDiffusion] = Published(
    "table3",
    {loss: f"table3.laptop/loss={loss},*,seed=0" for loss in LOSSES},
    "elf reproduce table3 --scale laptop --seeds 3",
    lambda: experiment.make_model(training_settings(), 0),
    half=True,
)

publish, trained = PUBLISHED.publish, PUBLISHED.trained
