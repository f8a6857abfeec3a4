"""The figures of Table 3 that compare generated molecules with the data: MMDs, FCD, and what a chemist would check."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from elf.data import qm9
from elf.generative.samplers import Samples
from elf.metrics import chemnet, mmd, poses, substructures
from elf.metrics import molecules as metrics
from elf.metrics.strain import strain

KINDS = {
    "bond": (substructures.bond_lengths, substructures.BONDS),
    "angle": (substructures.bond_angles, substructures.ANGLES),
    "dihedral": (substructures.dihedral_angles, substructures.DIHEDRALS),
}


def distribution_figures(
    heavy_atoms: tuple[int, int], atoms: tuple[int, int], reference: int, checked: int, samples: Samples
) -> dict[str, Any]:
    """Samples against QM9's test split.

    Args:
        heavy_atoms, atoms: inclusive ranges of the test molecules.
        reference: how many of them, at most.
        checked: how many samples PoseBusters and the force field look at.
        samples: the molecules, positions in angstrom.

    Returns:
        "mmd_bond", "mmd_angle", "mmd_dihedral": mean squared MMD over the eight most frequent types. "fcd": Frechet
        ChemNet distance of the valid molecules. "posebusters": share of the checked molecules that pass every check
        but the internal energy's. "strain": their median strain in kcal/mol; "strained": on how many of them it is
        taken. None where nothing is left to compare.
    """
    known = _reference(heavy_atoms, atoms, reference)
    figures: dict[str, Any] = {}
    for kind, (values, types) in KINDS.items():
        compared = mmd.compare(values(samples.positions, samples.numbers), known[kind], types)
        figures |= {f"mmd_{kind}": compared["mean"], f"mmd_{kind}_missing": compared["missing"]}
    valid = [text for text in metrics.to_smiles(samples.positions, samples.numbers) if text is not None]
    figures["fcd"] = None
    if len(valid) > 1:
        figures["fcd"] = chemnet.frechet_distance(chemnet.chemnet_activations(valid), known["chemnet"])
    some = slice(checked)
    figures["posebusters"] = poses.pose_checks(samples.positions[some], samples.numbers[some])["all"]
    strained = strain(samples.positions[some], samples.numbers[some])
    return {**figures, "strain": strained.median, "strained": len(strained.energies)}


@cache
def _reference(heavy_atoms: tuple[int, int], atoms: tuple[int, int], n: int) -> dict[str, Any]:
    """Values by type, and ChemNet's activations, of molecules of the test split."""
    molecules = qm9.load(heavy_atoms=heavy_atoms, atoms=atoms, split="test", limit=n)
    found: dict[str, dict[str, Tensor] | Tensor] = {
        kind: values(molecules.positions, molecules.numbers) for kind, (values, _) in KINDS.items()
    }
    valid = [text for text in metrics.to_smiles(molecules.positions, molecules.numbers) if text is not None]
    found["chemnet"] = chemnet.chemnet_activations(valid)
    return found
