"""One training loop for every experiment: a plain PyTorch loop on Lightning Fabric.

`fit` trains; `FitSettings` says how; `shuffled_batches` orders the data; `TimeLimit` and `ProgressBar` watch;
`save_weights` and `load_weights` publish the result.
"""

from __future__ import annotations

from elf.data.batching import shuffled_batches
from elf.training.callbacks import ProgressBar, TimeLimit
from elf.training.checkpoint import load_weights, save_weights
from elf.training.loop import fit
from elf.training.settings import FitSettings, fabric_options, learning_rate_at, with_fabric_options
from elf.training.state import TrainRecord, TrainState

__all__ = [
    "FitSettings",
    "ProgressBar",
    "TimeLimit",
    "TrainRecord",
    "TrainState",
    "fabric_options",
    "fit",
    "learning_rate_at",
    "load_weights",
    "save_weights",
    "shuffled_batches",
    "with_fabric_options",
]
