"""The trained spin networks that come with the repository: part "best" of `elf reproduce table5_settings`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from experiments.framework.published import Published
from experiments.spins.table5 import build
from experiments.spins.table5_settings import SETTINGS

LOSSES = ("pair", "ising")
PUBLISHED: Published[nn.Module] = Published(
    "spins",
    {loss: f"table5_settings.laptop/part=best,loss={loss},*" for loss in LOSSES},
    "elf reproduce table5_settings --scale laptop",
    lambda: build(SETTINGS["laptop"].best, 0),
)


def publish(workdir: Path) -> Path:
    """See `Published.publish`."""
    return PUBLISHED.publish(workdir)


def trained(loss: str) -> nn.Module:
    """The network trained longest with this loss ("pair" or "ising"): couplings -> logits. See `Published.trained`."""
    return PUBLISHED.trained(loss)
