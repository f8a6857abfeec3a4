"""Which experiments there are. Their modules are imported when one of them is asked for."""

from __future__ import annotations

_CONFORMERS = "experiments.molecules.conformers"
_SHAPES, _STEP = "experiments.clouds.shapes", "experiments.cost.step"
_GIFTS = "experiments.molecules.gifts"
_JODO = "experiments.molecules.jodo.experiment"
_SMALL, _PAPER = "experiments.molecules.small", "experiments.molecules.paper_tables"

EXPERIMENTS: dict[str, str] = {
    "conformers": f"{_CONFORMERS}:conformers",
    "conformers_told": f"{_CONFORMERS}:conformers_told",
    "conformers_tenth": f"{_CONFORMERS}:conformers_tenth",
    "curvatures": "experiments.molecules.curvatures",
    "druglike": "experiments.molecules.druglike:druglike",
    "druglike_sparse": "experiments.molecules.druglike:druglike_sparse",
    "edm_errors": "experiments.molecules.edm_errors",
    "edm_rates": f"{_PAPER}:edm_rates",
    "figure4": f"{_PAPER}:figure4",
    "gdm_rates": f"{_PAPER}:gdm_rates",
    "gift_rates": f"{_GIFTS}:gift_rates",
    "jodo_rates": f"{_JODO}:jodo_rates",
    "loss_cost": "experiments.cost.points",
    "mended_energies": f"{_GIFTS}:mended_energies",
    "molecule_checkpoints": f"{_SMALL}:molecule_checkpoints",
    "molecule_distributions": "experiments.molecules.committed",
    "molecule_noise": f"{_SMALL}:molecule_noise",
    "molecule_rates": f"{_SMALL}:molecule_rates",
    "molecule_shares": f"{_SMALL}:molecule_shares",
    "molecule_springs": f"{_SMALL}:molecule_springs",
    "molecule_step": f"{_STEP}:molecule_step",
    "molecules": f"{_SMALL}:molecules",
    "paper_distributions": f"{_PAPER}:paper_distributions",
    "paper_models": f"{_STEP}:paper_models",
    "paper_spring_rates": f"{_PAPER}:paper_spring_rates",
    "rigidity": "experiments.clouds.rigidity",
    "samplers": "experiments.molecules.samplers",
    "score": "experiments.clouds.score",
    "shapes": f"{_SHAPES}:shapes",
    "shapes_rates": f"{_SHAPES}:shapes_rates",
    "sparse_springs": "experiments.clouds.sparse_springs",
    "springs": "experiments.molecules.springs",
    "table1": f"{_PAPER}:table1",
    "table2": f"{_PAPER}:table2",
    "table3": f"{_JODO}:table3",
    "table4": f"{_PAPER}:table4",
    "table5": "experiments.spins.table5",
    "table5_aligned": "experiments.spins.table5_aligned",
    "table5_settings": "experiments.spins.table5_settings",
    "temperatures": "experiments.molecules.temperatures",
    "two_gifts": f"{_GIFTS}:two_gifts",
    "two_gifts_long": f"{_GIFTS}:two_gifts_long",
    "two_gifts_loud": f"{_GIFTS}:two_gifts_loud",
    "two_gifts_long_mended": f"{_GIFTS}:two_gifts_long_mended",
    "two_gifts_long_equivariant": f"{_GIFTS}:two_gifts_long_equivariant",
    "longest_drawn": "experiments.molecules.longest",
    "longest_plain": f"{_GIFTS}:longest_plain",
    "longest_equivariant": f"{_GIFTS}:longest_equivariant",
    "two_gifts_mended": f"{_GIFTS}:two_gifts_mended",
}
"""Name of each experiment and its address: "module", or "module:name" where a module holds several."""
