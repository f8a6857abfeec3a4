"""The paper's tables and figures and what was asked beside them: `elf reproduce NAME --scale laptop --seeds 3`.

A module has one `EXPERIMENT`, or several `EXPERIMENTS` by name; it is imported when one of them is asked for.
"""

from __future__ import annotations

from experiments.framework.experiment import Experiment, find, load_result, reproduce
from experiments.framework.tables import format_mean, mean_spread, summarise_by, text_table

EXPERIMENTS: dict[str, str] = {
    "conformers": "experiments.molecules.conformers",
    "figure4": "experiments.molecules.figure4",
    "loss_cost": "experiments.cost.points",
    "molecule_checkpoints": "experiments.molecules.checkpoints",
    "molecule_distributions": "experiments.molecules.committed",
    "molecule_noise": "experiments.molecules.noise",
    "molecule_rates": "experiments.molecules.rates",
    "molecule_shares": "experiments.molecules.shares",
    "molecule_springs": "experiments.molecules.spring_kinds",
    "molecule_step": "experiments.cost.step",
    "molecules": "experiments.molecules.small",
    "paper_models": "experiments.cost.paper_models",
    "rigidity": "experiments.clouds.rigidity",
    "samplers": "experiments.molecules.samplers",
    "score": "experiments.clouds.score",
    "shapes": "experiments.clouds.shapes",
    "shapes_rates": "experiments.clouds.shapes_rates",
    "sparse_springs": "experiments.clouds.sparse_springs",
    "springs": "experiments.molecules.springs",
    "table1": "experiments.molecules.table1",
    "table2": "experiments.molecules.table2_8",
    "table3": "experiments.molecules.table3",
    "table4": "experiments.molecules.table4",
    "table5": "experiments.spins.table5",
    "table5_settings": "experiments.spins.table5_settings",
}
"""Name of each experiment and its address: "module", or "module:name" where a module holds several."""

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
