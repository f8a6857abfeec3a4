"""Table 3's figures twice: "2D" from the bonds that were drawn with the molecule, "3D" from its distances.

The two may contradict each other. A graph is *right* where RDKit sanitises it, it is in one piece, and all its atoms
are saturated (`data.saturated`); it is *contradicted* where the distances, read by EDM's table, join other atoms than
its bonds do. Of QM9's molecules of up to seven heavy atoms 0.2 % are contradicted so; 4.4 % have a bond that the table
reads as one of another order, mostly in aromatic rings, so that orders are no measure of contradiction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from elf.chemistry.molecular_graph import add_conformer, mol_of
from elf.metrics import chemnet, mmd
from elf.metrics import molecules as metrics
from experiments.molecules.distribution_figures import KINDS
from experiments.molecules.jodo.data import AROMATIC, Graphs, bond_sums, load, saturated

if TYPE_CHECKING:
    from rdkit.Chem import Mol

JODO_VALENCES: dict[int, dict[int, tuple[int, ...]]] = {
    1: {0: (1,), 1: (0,), -1: (0,)},
    6: {0: (3, 4), 1: (3,), -1: (3,)},
    7: {0: (2, 3), 1: (2, 3, 4), -1: (2,)},
    8: {0: (2,), 1: (3,), -1: (1,)},
    9: {0: (1,), -1: (0,)},
}
"""Element -> charge -> sums of bond orders that JODO's program takes for stable in 2D; other charges count as 0.

It lets radicals pass, carbon with three bonds and nitrogen with two: it says less than `saturated`, and than 3D."""


def jodo_stable(graphs: Graphs) -> Bool[Tensor, "n atoms"]:
    """Atoms that JODO's program takes for stable in 2D; False for padding."""
    least, largest = bond_sums(graphs.orders)
    fine = torch.zeros_like(graphs.mask)
    for number, rows in JODO_VALENCES.items():
        charges = graphs.charges.long()
        charges = charges.where(sum(((charges == c) for c in rows), start=torch.zeros_like(fine)), 0)
        for charge, sums in rows.items():
            here = (graphs.numbers == number) & (charges == charge)
            fine |= here & sum(((least <= s) & (s <= largest) for s in sums), start=torch.zeros_like(fine))
    return fine


def each_mol(graphs: Graphs) -> Iterator[Mol]:
    """RDKit's molecules with the bonds and charges drawn, the positions as conformer; not sanitised."""
    from rdkit.Chem import BondType

    aromatic = int(BondType.AROMATIC)
    for i in range(len(graphs)):
        real = graphs.mask[i]
        orders = graphs.orders[i][real][:, real].long().cpu()
        mol = mol_of(graphs.numbers[i][real].tolist(), orders.where(orders != AROMATIC, aromatic))
        for atom, charge in zip(mol.GetAtoms(), graphs.charges[i][real].tolist(), strict=True):
            atom.SetFormalCharge(charge)
        rings = [bond for bond in mol.GetBonds() if bond.GetBondType() == BondType.AROMATIC]
        for part in [part for bond in rings for part in (bond, bond.GetBeginAtom(), bond.GetEndAtom())]:
            part.SetIsAromatic(True)
        add_conformer(mol, graphs.positions[i][real])
        yield mol


def graph_smiles(graphs: Graphs) -> list[str | None]:
    """As `elf.metrics.molecules.to_smiles`, of the bonds drawn."""
    return metrics.smiles_of(each_mol(graphs))


def in_one_piece(graphs: Graphs) -> Bool[Tensor, " n"]:
    """Molecules whose bonds join all of their atoms."""
    reach = (graphs.orders > 0) | torch.eye(graphs.orders.shape[1], dtype=torch.bool, device=graphs.orders.device)
    for _ in range((reach.shape[1] - 1).bit_length()):  # squaring doubles the length of the paths seen
        reach = reach.float() @ reach.float() > 0
    return (reach[:, 0] | ~graphs.mask).all(1)


def graph_figures(graphs: Graphs, training_smiles: Collection[str]) -> tuple[dict[str, Any], list[str | None]]:
    """The figures "graph_..." of the bonds drawn, as fractions of all molecules, and their SMILES.

    "stable_atoms" and "stable" are JODO's (`jodo_stable`), "saturated" asks for closed shells; "right": sane, in one
    piece, saturated; "contradicted": of the right ones, those whose distances join other atoms; "agreement" and
    "order_agreement": molecules for which the distances give the same bonds, and the same orders, right or not;
    "right_both": right, and not contradicted.
    """
    smiles, mask = graph_smiles(graphs), graphs.mask
    sane = torch.tensor([text is not None for text in smiles], dtype=torch.bool, device=mask.device)
    stable, closed = jodo_stable(graphs), (saturated(graphs) | ~mask).all(1)
    whole = in_one_piece(graphs)
    read = metrics.bond_orders(graphs.positions, graphs.numbers.long())
    drawn = graphs.orders.long()
    same = ((read > 0) == (drawn > 0)).flatten(1).all(1)
    right = sane & whole & closed
    valid = [text for text in smiles if text is not None]
    distinct = set(valid)
    shares = {
        "stable": (stable | ~mask).all(1),
        "saturated": closed,
        "validity": sane,
        "connected": whole,
        "completeness": sane & whole,
        "right": right,
        "right_both": right & same,
        "agreement": same,
        "order_agreement": (read == drawn).flatten(1).all(1),
    }
    figures = {
        "stable_atoms": int(stable.sum()) / int(mask.sum()),
        **{name: int(found.sum()) / len(graphs) for name, found in shares.items()},
        "uniqueness": len(distinct) / len(valid) if valid else None,
        "novelty": 1 - len(distinct & set(training_smiles)) / len(distinct) if distinct else None,
        "contradicted": int((right & ~same).sum()) / int(right.sum()) if bool(right.any()) else None,
    }
    return {f"graph_{name}": value for name, value in figures.items()}, smiles


def all_figures(
    graphs: Graphs, training_smiles: Collection[str], *, heavy_atoms: tuple[int, int], atoms: tuple[int, int], n: int
) -> dict[str, Any]:
    """Everything of molecules: 3D as `elf.metrics.molecules.evaluate`, 2D as `graph_figures`; MMDs and FCDs.

    "mmd_..." have the bonds drawn and the positions, JODO's "alignment" of the two; "read_mmd_..." the bonds that the
    distances give. "fcd" is of SMILES read from distances, "graph_fcd" of the bonds drawn; None for fewer than two.

    Args:
        heavy_atoms, atoms: inclusive ranges of the molecules of QM9's test split to compare with.
        n: how many of them, at most.
    """
    known = _reference(heavy_atoms, atoms, n)
    numbers = graphs.numbers.long()
    figures: dict[str, Any] = dict(metrics.evaluate(graphs.positions, numbers, training_smiles=training_smiles))
    flat, drawn = graph_figures(graphs, training_smiles)
    figures |= flat
    for kind, (values, types) in KINDS.items():
        for name, orders in (("mmd", graphs.orders.long()), ("read_mmd", None)):
            found = mmd.compare(values(graphs.positions, numbers, orders), known[f"{name}_{kind}"], types)
            figures |= {f"{name}_{kind}": found["mean"], f"{name}_{kind}_missing": found["missing"]}
    read = metrics.to_smiles(graphs.positions, numbers)
    return {**figures, "fcd": _distance(read, known["fcd"]), "graph_fcd": _distance(drawn, known["graph_fcd"])}


def _distance(smiles: list[str | None], activations: Tensor) -> float | None:
    valid = [text for text in smiles if text is not None]
    return chemnet.frechet_distance(chemnet.chemnet_activations(valid), activations) if len(valid) > 1 else None


@cache
def _reference(heavy_atoms: tuple[int, int], atoms: tuple[int, int], n: int) -> dict[str, Any]:
    """The same of the test split: values by type, with its SMILES' bonds and as read, and ChemNet's activations."""
    graphs, _ = load(heavy_atoms, atoms, "test", limit=n)
    found: dict[str, Any] = {}
    numbers = graphs.numbers.long()
    for kind, (values, _) in KINDS.items():
        found[f"mmd_{kind}"] = values(graphs.positions, numbers, graphs.orders.long())
        found[f"read_mmd_{kind}"] = values(graphs.positions, numbers)
    for name, smiles in (("fcd", metrics.to_smiles(graphs.positions, numbers)), ("graph_fcd", graph_smiles(graphs))):
        found[name] = chemnet.chemnet_activations([text for text in smiles if text is not None])
    return found
