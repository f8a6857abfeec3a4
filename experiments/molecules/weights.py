"""The small trained denoisers that come with the repository: seed 0 of `elf reproduce molecule_checkpoints`."""

from __future__ import annotations

from pathlib import Path

from elf.generative.diffusion import Denoiser
from experiments.framework.published import Published
from experiments.molecules.checkpoints import SETTINGS
from experiments.molecules.small import make_denoiser

LOSSES = ("energy", "mse", "kabsch")
PUBLISHED: Published[Denoiser] = Published(
    "molecules",
    {loss: f"molecule_checkpoints.laptop/loss={loss},*,seed=0" for loss in LOSSES},
    "elf reproduce molecule_checkpoints --scale laptop --seeds 3",
    lambda: make_denoiser(SETTINGS["laptop"], 0),
)


def publish(workdir: Path) -> Path:
    """See `Published.publish`."""
    return PUBLISHED.publish(workdir)


def trained(loss: str) -> Denoiser:
    """The denoiser trained with this loss ("energy", "mse" or "kabsch"). See `Published.trained`."""
    return PUBLISHED.trained(loss)
