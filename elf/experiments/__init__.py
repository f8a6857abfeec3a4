"""One file a table or figure of the paper, each at four scales: `elf reproduce NAME --scale laptop --seeds 3`.

Each module listed in `EXPERIMENTS` has one `EXPERIMENT`, an `Experiment`; it is imported when it is asked for.
"""

from __future__ import annotations

from elf.experiments.base import Experiment, find, load_result, reproduce
from elf.experiments.tables import format_mean, mean_spread, summarise_by, text_table

EXPERIMENTS: dict[str, str] = {
    "conformers": "elf.experiments.conformers",
    "figure4": "elf.experiments.figure4",
    "loss_cost": "elf.experiments.loss_cost",
    "molecule_checkpoints": "elf.experiments.molecule_checkpoints",
    "molecule_distributions": "elf.experiments.molecule_distributions",
    "molecule_noise": "elf.experiments.molecule_noise",
    "molecule_rates": "elf.experiments.molecule_rates",
    "molecule_shares": "elf.experiments.molecule_shares",
    "molecule_springs": "elf.experiments.molecule_springs",
    "molecule_step": "elf.experiments.molecule_step",
    "molecules": "elf.experiments.molecules",
    "paper_models": "elf.experiments.paper_models",
    "rigidity": "elf.experiments.rigidity",
    "samplers": "elf.experiments.samplers",
    "score": "elf.experiments.score",
    "shapes": "elf.experiments.shapes",
    "shapes_rates": "elf.experiments.shapes_rates",
    "sparse_springs": "elf.experiments.sparse_springs",
    "springs": "elf.experiments.springs",
    "table1": "elf.experiments.table1",
    "table2": "elf.experiments.table2_8",
    "table3": "elf.experiments.table3",
    "table4": "elf.experiments.table4",
    "table5": "elf.experiments.table5",
    "table5_settings": "elf.experiments.table5_settings",
}
"""Name of each experiment and the module that holds it."""

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "find",
    "format_mean",
    "load_result",
    "mean_spread",
    "reproduce",
    "summarise_by",
    "text_table",
]
