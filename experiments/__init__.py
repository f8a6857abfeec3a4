"""The paper's tables and figures and what was asked beside them: `elf reproduce NAME --scale laptop --seeds 3`.

A module has one `EXPERIMENT`, or several `EXPERIMENTS` by name; it is imported when one of them is asked for.
"""

from __future__ import annotations

from experiments.catalogue import EXPERIMENTS
from experiments.framework.experiment import Experiment, find, load_result, results_folder
from experiments.framework.reproduce import reproduce
from experiments.framework.tables import format_mean, mean_spread, summarise_by, text_table

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "find",
    "format_mean",
    "load_result",
    "mean_spread",
    "reproduce",
    "results_folder",
    "summarise_by",
    "text_table",
]
