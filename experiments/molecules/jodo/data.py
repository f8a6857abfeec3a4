"""Molecules with their bonds: orders and formal charges from QM9's SMILES, laid over the atoms in 3D.

Orders are 0 (none), 1, 2, 3 and `AROMATIC`, 4. JODO takes QM9's bonds as the file has them, Kekule, so that no aromatic
bond occurs there; its model of GEOM-Drugs has the class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import require_tensor
from elf.chemistry.molecular_graph import to_rdkit
from elf.data import qm9
from elf.data.molecules import Molecules
from elf.elements import PERIODIC_TABLE
from elf.files import cache_folder, read_cache, write_cache

AROMATIC = 4
FORMAT = "elf-jodo-graphs/1"

VALENCES: dict[tuple[int, int], tuple[int, ...]] = {
    (1, 0): (1,), (6, 0): (4,), (7, 0): (3,), (8, 0): (2,), (9, 0): (1,),
    (1, 1): (0,), (1, -1): (0,), (6, 1): (3,), (6, -1): (3,), (7, 1): (4,), (7, -1): (2,),
    (8, 1): (3,), (8, -1): (1,), (9, -1): (0,),
}  # fmt: skip
"""(element, charge) -> sums of bond orders with all electrons paired."""


@dataclass(frozen=True, eq=False)
class Graphs:
    """n molecules with their bonds, padded with zeros.

    positions: angstrom. numbers: atomic numbers, 0 for padding. orders: 0 to 4, symmetric. charges: formal charges.
    """

    positions: Float[Tensor, "n atoms 3"]
    numbers: Int[Tensor, "n atoms"]
    orders: Int[Tensor, "n atoms atoms"]
    charges: Int[Tensor, "n atoms"]

    @property
    def mask(self) -> Bool[Tensor, "n atoms"]:
        """True for real atoms."""
        return self.numbers > 0

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """Atoms a molecule."""
        return self.mask.sum(dim=1)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Tensor | slice) -> Graphs:
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Graphs:
        """The graphs with their tensors changed alike."""
        return Graphs(change(self.positions), change(self.numbers), change(self.orders), change(self.charges))

    def trimmed(self) -> Graphs:
        """Padded only to the largest molecule."""
        n = int(self.counts.max())
        return Graphs(self.positions[:, :n], self.numbers[:, :n], self.orders[:, :n, :n], self.charges[:, :n])


def bond_sums(orders: Int[Tensor, "n atoms atoms"]) -> tuple[Int[Tensor, "n atoms"], Int[Tensor, "n atoms"]]:
    """Least and largest sum of bond orders of each atom: of its aromatic bonds one, or none, is a double bond."""
    aromatic = (orders == AROMATIC).sum(-1)
    least = (orders % AROMATIC).sum(-1) + aromatic
    return least, least + (aromatic > 0)


def saturated(graphs: Graphs) -> Bool[Tensor, "n atoms"]:
    """Atoms whose bond orders sum to a valence of their element and charge, see `VALENCES`; False for padding."""
    least, largest = bond_sums(graphs.orders)
    fine = torch.zeros_like(graphs.mask)
    for (number, charge), sums in VALENCES.items():
        here = (graphs.numbers == number) & (graphs.charges == charge)
        fine |= here & sum(((least <= s) & (s <= largest) for s in sums), start=torch.zeros_like(fine))
    return fine


def check_graphs(graphs: Graphs) -> Graphs:
    """The graphs themselves, if they are possible.

    Raises:
        TypeError: something that is no tensor.
        ValueError: shapes that do not fit together; orders that are not 0 to 4, not symmetric, from an atom to itself
            or to padding; a sum of orders that its element and charge do not allow.
    """
    for name in ("positions", "numbers", "orders", "charges"):
        require_tensor(name, getattr(graphs, name))
    n, atoms = graphs.numbers.shape
    wanted = {"positions": (n, atoms, 3), "orders": (n, atoms, atoms), "charges": (n, atoms)}
    for name, shape in wanted.items():
        if (found := tuple(getattr(graphs, name).shape)) != shape:
            raise ValueError(f"{name} has shape {found}; it should be {shape}, as numbers is {(n, atoms)}")
    orders, mask = graphs.orders, graphs.mask
    if bool(((orders < 0) | (orders > AROMATIC)).any()):
        odd = sorted({*orders.unique().tolist()} - {*range(AROMATIC + 1)})
        raise ValueError(f"orders holds the unknown orders {odd}; they should be 0 to 3, or {AROMATIC} for aromatic")
    unequal = orders != orders.mT
    _refuse(unequal, "orders is {0} from atom {1} to {2} and {3} back; it should be symmetric", orders)
    real = mask[:, :, None] & mask[:, None] & ~torch.eye(atoms, dtype=torch.bool, device=mask.device)
    _refuse(
        (orders > 0) & ~real, "orders is {0} from atom {1} to {2}; it should be 0 there: itself, or padding", orders
    )
    bad = mask & ~saturated(graphs)
    if bool(bad.any()):
        row, atom = bad.nonzero()[0].tolist()
        number, charge = int(graphs.numbers[row, atom]), int(graphs.charges[row, atom])
        name, allowed = PERIODIC_TABLE.get(number, f"element {number}"), VALENCES.get((number, charge), ())
        total, fits = int(bond_sums(orders)[0][row, atom]), " or ".join(map(str, allowed))
        raise ValueError(
            f"molecule {row}: atom {atom} ({name}, charge {charge}) has bonds of {total} in all; "
            f"it should have {fits or 'another element or charge'}"
        )
    return graphs


def _refuse(wrong: Bool[Tensor, "n atoms atoms"], words: str, orders: Tensor) -> None:
    if bool(wrong.any()):
        row, i, j = wrong.nonzero()[0].tolist()
        raise ValueError(f"molecule {row}: " + words.format(int(orders[row, i, j]), i, j, int(orders[row, j, i])))


def graphs_of(molecules: Molecules, *, aromatic: bool = False, cache: Path | None = None) -> tuple[Graphs, Tensor]:
    """Each molecule's graph from its SMILES, checked; and the rows that have one (in QM9 all but eight).

    aromatic: aromatic bonds are `AROMATIC` instead of single and double ones in turn. cache: the folder where they
    are kept; about 2,000 molecules a second are made.

    Raises:
        ValueError: see `check_graphs`.
    """
    parts = _cached(molecules, aromatic, cache_folder(cache))
    rows = parts["verified"].nonzero()[:, 0]
    atoms = molecules.numbers.shape[1]
    orders = torch.zeros(len(molecules), atoms, atoms, dtype=torch.uint8, device="cpu")
    owner, first, second, order = parts["bonds"].long().unbind(1)
    orders[owner, first, second] = orders[owner, second, first] = order.to(torch.uint8)
    charges = torch.zeros(molecules.numbers.shape, dtype=torch.int8, device="cpu")
    owner, atom, charge = parts["charges"].long().unbind(1)
    charges[owner, atom] = charge.to(torch.int8)
    numbers = molecules.numbers.to("cpu", torch.uint8)
    return check_graphs(Graphs(molecules.positions.cpu(), numbers, orders, charges)[rows]), rows


def _cached(molecules: Molecules, aromatic: bool, folder: Path) -> dict[str, Tensor]:
    digest = hashlib.sha256(molecules.index.cpu().numpy().tobytes())
    for text in molecules.smiles:
        digest.update(text.encode() + b"\n")
    digest.update(molecules.positions.cpu().numpy().tobytes())
    stamp = f"{digest.hexdigest()} {aromatic}"
    path = folder / f"{FORMAT.replace('/', '-')}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.safetensors"
    found = read_cache(path, FORMAT, stamp)
    if found is None:
        found = _made(molecules, aromatic)
        write_cache(path, found, FORMAT, stamp)
    return found


def _made(molecules: Molecules, aromatic: bool) -> dict[str, Tensor]:
    """Whether each molecule has a graph; (molecule, atom, atom, order) of bonds, (molecule, atom, charge) of ions."""
    from rdkit import Chem

    verified, bonds, charges = [], [], []
    for i in range(len(molecules)):
        try:
            mol = to_rdkit(molecules, i)
        except ValueError:  # told apart by `verified`
            verified.append(False)
            continue
        verified.append(True)
        if not aromatic:
            Chem.Kekulize(mol, clearAromaticFlags=True)
        for bond in mol.GetBonds():
            order = AROMATIC if bond.GetIsAromatic() else int(bond.GetBondTypeAsDouble())
            bonds.append((i, bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), order))
        charges += [(i, a.GetIdx(), a.GetFormalCharge()) for a in mol.GetAtoms() if a.GetFormalCharge()]
    return {
        "verified": torch.tensor(verified, dtype=torch.bool, device="cpu"),
        "bonds": torch.from_numpy(np.array(bonds, dtype=np.int32).reshape(-1, 4)),
        "charges": torch.from_numpy(np.array(charges, dtype=np.int32).reshape(-1, 3)),
    }


def load(
    heavy_atoms: tuple[int, int],
    atoms: tuple[int, int],
    split: str,
    *,
    aromatic: bool = False,
    limit: int | None = None,
) -> tuple[Graphs, Molecules]:
    """QM9's molecules of these sizes with their bonds, and the same molecules as `elf.data.qm9` has them."""
    molecules = qm9.load(heavy_atoms=heavy_atoms, atoms=atoms, split=split, limit=limit)
    graphs, rows = graphs_of(molecules, aromatic=aromatic)
    return graphs, molecules[rows]


def charges_of(graphs: Graphs) -> dict[int, frozenset[int]]:
    """Element -> the formal charges that it has somewhere."""
    pairs = torch.stack([graphs.numbers[graphs.mask].long(), graphs.charges[graphs.mask].long()]).unique(dim=1)
    found: dict[int, frozenset[int]] = {}
    for number, charge in pairs.T.tolist():
        found[number] = found.get(number, frozenset()) | {charge}
    return found
