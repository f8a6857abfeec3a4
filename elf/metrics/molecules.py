"""Is a cloud of atoms a molecule? Stability, validity, uniqueness, novelty, completeness.

Stability follows EDM (Hoogeboom et al., arXiv:2203.17003): distances give bond orders by a fixed table
(`elf.chemistry.bonds`); an atom is stable when its bond orders sum to its valence, a molecule when all its atoms are.
Everything up to `fragments` is batched torch on any device; from `to_rdkit` on RDKit takes molecules one by one.

Arguments everywhere: positions (B, N, 3) in angstrom, numbers (B, N) atomic numbers, mask (B, N) bool, True for a real
atom (default: number not 0). What stands at masked atoms never matters. Raises TypeError for wrong dtypes, ValueError
for wrong shapes or devices, an empty molecule, elements that the rules do not know, or coordinates that are not finite.
rules: `bonds.QM9` (H, C, N, O, F) by default, `bonds.GEOM` for GEOM-Drugs.

Compare with the data's own figure first. EDM's rules see distances alone, neither charges nor aromatic bonds, and
have their own error: of all QM9, 99.36 % of the atoms and 95.28 % of the molecules are stable, and 97.6 % valid, though
all are DFT minima. Of the 15,145 unstable atoms 62 % are carbons and 36 % nitrogens, one bond short or one over: in
aromatic and conjugated rings bonds lie between the table's double and single ones, where half a picometre decides
(benzene's carbons, at 139.5 pm, count three single bonds each). 71 % of the 6,181 unstable molecules have an aromatic
ring, of all QM9 17 %; another 8 % hold charges, such as zwitterions.

Validity is never to be read alone. Open valences are filled up with hydrogens and the largest fragment is taken, so
that a gas of separate atoms is 100 % valid (and 0 % stable), and a chlorobenzene that is misread as a cyclohexyl
chloride is valid too. "completeness" and "stable_connected" of `evaluate` ask for more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import (
    require_coordinates,
    require_count,
    require_finite,
    require_mask,
    require_occupied,
    require_strings,
    require_tensor,
    widen,
)
from elf.chemistry.bonds import QM9, BondRules, orders_of
from elf.chemistry.molecular_graph import add_conformer, mol_of

if TYPE_CHECKING:
    from rdkit.Chem import Mol


@dataclass(frozen=True)
class Stability:
    """Which atoms and molecules are stable. Padding counts as not stable and is left out of every fraction."""

    atom_stable: Bool[Tensor, "molecules atoms"]
    molecule_stable: Bool[Tensor, " molecules"]
    mask: Bool[Tensor, "molecules atoms"]

    @property
    def atom_fraction(self) -> float:
        """Share of stable atoms among all atoms of all molecules (EDM's atom stability)."""
        return self.atom_stable.sum().item() / self.mask.sum().item()

    @property
    def molecule_fraction(self) -> float:
        """Share of molecules all of whose atoms are stable (EDM's molecule stability)."""
        return self.molecule_stable.sum().item() / len(self.molecule_stable)

    def summary(self) -> dict[str, float]:
        """`{"molecules", "atoms", "atom_stability", "molecule_stability"}`: counts, fractions between 0 and 1."""
        counts = {"molecules": len(self.molecule_stable), "atoms": int(self.mask.sum())}
        return {**counts, "atom_stability": self.atom_fraction, "molecule_stability": self.molecule_fraction}


# Plain `Tensor` arguments on purpose: the checks in `check_molecules` are the ones that speak to the user.
def bond_orders(
    positions: Tensor, numbers: Tensor, mask: Tensor | None = None, *, rules: BondRules = QM9
) -> Int[Tensor, "B N N"]:
    """Bond order 0, 1, 2 or 3 of every pair of atoms, from their distance alone (EDM's table).

    Symmetric; zero on the diagonal and for padding. Memory grows as B N^2; `stability` and `fragments` go in chunks.
    """
    positions, numbers, _ = check_molecules(positions, numbers, mask, rules)
    return orders_of(positions, numbers, rules)


def stability(
    positions: Tensor, numbers: Tensor, mask: Tensor | None = None, *, rules: BondRules = QM9, chunk_size: int = 1024
) -> Stability:
    """Atom and molecule stability: do the bond orders of every atom sum to its valence (H 1, C 4, N 3, O 2, F 1)?

    At most `chunk_size` molecules' distances are in memory at a time.
    """
    positions, numbers, mask = check_molecules(positions, numbers, mask, rules)
    bonds = torch.cat([orders.sum(dim=-1) for _, _, orders in order_chunks(positions, numbers, rules, chunk_size)])
    allowed = rules.allowed(device=numbers.device)
    known = bonds < allowed.shape[1]  # more bonds than any valence
    atom_stable = allowed[numbers, bonds.where(known, 0)] & known & mask
    return Stability(atom_stable, (atom_stable | ~mask).all(dim=1), mask)


def summary(
    positions: Tensor, numbers: Tensor, mask: Tensor | None = None, *, rules: BondRules = QM9
) -> dict[str, float]:
    """Counts and stable fractions of these molecules: see `Stability.summary`."""
    return stability(positions, numbers, mask, rules=rules).summary()


def fragments(
    positions: Tensor, numbers: Tensor, mask: Tensor | None = None, *, rules: BondRules = QM9, chunk_size: int = 1024
) -> Int[Tensor, " B"]:
    """Number of connected pieces of each molecule under `bond_orders`; 1 means that all its atoms hang together."""
    positions, numbers, mask = check_molecules(positions, numbers, mask, rules)
    size = numbers.shape[1]
    pieces = []
    for _, z, orders in order_chunks(positions, numbers, rules, chunk_size):
        reach = (orders > 0).float() + torch.eye(size, dtype=torch.float32, device=orders.device)
        # Squaring doubles the length of the paths seen; a path has at most size - 1 bonds.
        for _ in range((size - 1).bit_length()):
            reach = (reach @ reach).clamp(max=1)
        # Each piece is counted at the one atom of it that comes first.
        first = reach.tril(-1).sum(dim=-1) == 0
        pieces.append((first & (z > 0)).sum(dim=-1))
    return torch.cat(pieces)


def order_chunks(
    positions: Tensor, numbers: Tensor, rules: BondRules, size: int
) -> Iterator[tuple[Tensor, Tensor, Int[Tensor, "chunk N N"]]]:
    """(positions, numbers, bond orders) of checked molecules, so many at a time."""
    size = require_count("chunk_size", size)
    for x, z in zip(positions.split(size), numbers.split(size), strict=True):
        yield x, z, orders_of(x, z, rules)


def to_rdkit(positions: Tensor, numbers: Tensor, *, rules: BondRules = QM9) -> Mol:
    """One molecule as an RDKit Mol with a conformer: positions (N, 3) in angstrom, numbers (N,), no padding.

    Bonds are those of EDM's table, as found, and not sanitised: valences may be wrong (`Chem.SanitizeMol` says so). For
    bonds, charges and stereo centres of a known SMILES see `elf.chemistry.molecular_graph.to_rdkit`.
    """
    return next(each_mol(positions[None], numbers[None], None, rules))


def each_mol(positions: Tensor, numbers: Tensor, mask: Tensor | None, rules: BondRules) -> Iterator[Mol]:
    """`to_rdkit` of one molecule after the other."""
    positions, numbers, mask = check_molecules(positions, numbers, mask, rules)
    for x, z, real in zip(positions, numbers, mask, strict=True):
        mol = mol_of(z[real].tolist(), orders_of(x[real][None], z[real][None], rules)[0].cpu())
        add_conformer(mol, x[real])
        yield mol


def to_smiles(
    positions: Tensor, numbers: Tensor, mask: Tensor | None = None, *, rules: BondRules = QM9
) -> list[str | None]:
    """Canonical SMILES of each molecule's largest fragment, None where RDKit's sanitisation refuses the molecule.

    A string says what EDM's table read, not what the molecule is. Validity is EDM's: too many bonds are refused, too
    few are filled up with implicit hydrogens. The SMILES carry no hydrogens and no stereo marks, to be compared with
    `canonical_smiles` of a data set; EDM keeps explicit hydrogens, so that its uniqueness is the same or higher (a
    radical differs from its closed-shell partner).
    """
    return smiles_of(each_mol(positions, numbers, mask, rules))


def smiles_of(molecules: Iterable[Mol]) -> list[str | None]:
    """As `to_smiles`, of RDKit's molecules with bonds that come from elsewhere; sanitises them in place."""
    from rdkit import Chem, rdBase

    result: list[str | None] = []
    with rdBase.BlockLogs():
        for mol in molecules:
            if Chem.SanitizeMol(mol, catchErrors=True):
                result.append(None)
                continue
            largest = max(Chem.GetMolFrags(mol, asMols=True), key=lambda fragment: fragment.GetNumAtoms())
            result.append(Chem.MolToSmiles(Chem.RemoveHs(largest), isomericSmiles=False))
    return result


def canonical_smiles(smiles: Iterable[str]) -> frozenset[str]:
    """A data set's SMILES in the form `to_smiles` writes: canonical, without stereo marks (about 8,000 a second)."""
    from rdkit import Chem, rdBase

    result = set()
    with rdBase.BlockLogs():
        for text in require_strings("smiles", smiles):
            mol = Chem.MolFromSmiles(text)
            if mol is None:
                raise ValueError(f"smiles holds {text!r}, which RDKit cannot read")
            result.add(Chem.MolToSmiles(mol, isomericSmiles=False))
    return frozenset(result)


def evaluate(
    positions: Tensor,
    numbers: Tensor,
    mask: Tensor | None = None,
    *,
    training_smiles: Collection[str] | None = None,
    rules: BondRules = QM9,
) -> dict[str, float | None]:
    """`summary` and what RDKit says, as fractions between 0 and 1: first of the data themselves, then of a model.

    "validity": molecules that RDKit sanitises. "uniqueness": distinct SMILES among the valid. "novelty": those of the
    distinct ones not in `training_smiles` (see `canonical_smiles`; QM9 itself scores 0.02 against its own SMILES, where
    the bond table misreads a bond). "connected": molecules in one piece. "stable_connected": stable ones in one piece;
    "molecule_stability" counts a molecule that fell into stable pieces, too. "completeness": molecules both valid and
    in one piece (JODO's figure). None where there is nothing to count.
    """
    smiles = to_smiles(positions, numbers, mask, rules=rules)
    valid = [text for text in smiles if text is not None]
    distinct = set(valid)
    sane = torch.tensor([text is not None for text in smiles], dtype=torch.bool, device=positions.device)
    connected = fragments(positions, numbers, mask, rules=rules) == 1
    found = stability(positions, numbers, mask, rules=rules)
    known = None if training_smiles is None else distinct & set(require_strings("training_smiles", training_smiles))
    return {
        **found.summary(),
        "validity": len(valid) / len(smiles),
        "uniqueness": len(distinct) / len(valid) if valid else None,
        "novelty": 1 - len(known) / len(distinct) if known is not None and distinct else None,
        "connected": int(connected.sum()) / len(smiles),
        "stable_connected": int((found.molecule_stable & connected).sum()) / len(smiles),
        "completeness": int((sane & connected).sum()) / len(smiles),
    }


def check_molecules(
    positions: Tensor, numbers: Tensor, mask: Tensor | None, rules: BondRules
) -> tuple[Float[Tensor, "B N 3"], Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """The arguments, checked as the module's docstring says; zeros where masked, float32 or better, int64."""
    require_coordinates("positions", positions, 3)
    if positions.shape[-1] != 3:
        raise ValueError(f"positions has shape {tuple(positions.shape)}; it should be (batch, atoms, 3)")
    require_tensor("numbers", numbers)
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"numbers has dtype {numbers.dtype}; it should be integer (atomic numbers)")
    if numbers.shape != positions.shape[:2]:
        raise ValueError(f"numbers has shape {tuple(numbers.shape)}; it should be {tuple(positions.shape[:2])}")
    if numbers.device != positions.device:
        raise ValueError(f"numbers is on {numbers.device}; it should be on {positions.device}, where positions is")
    if mask is None:
        mask = numbers != 0
    require_mask(mask, positions)
    require_occupied(mask)
    numbers = numbers.masked_fill(~mask, 0).long()
    known = sum((numbers == number for number in rules.symbols), start=torch.zeros_like(mask)) > 0
    if not (known | ~mask).all():
        odd = sorted(set(numbers[mask & ~known].tolist()))
        raise ValueError(f"numbers holds the unknown elements {odd}; it should hold {dict(rules.symbols)}")
    require_finite("positions", positions, mask)
    return widen(positions).masked_fill(~mask[..., None], 0), numbers, mask
