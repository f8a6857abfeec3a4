"""GEOM-Drugs: 304,000 drug-like molecules, 30 conformers each or fewer (Axelrod, Gomez-Bombarelli, Sci. Data 9, 185).

No package brings these data; they are read from your own files, in the layout that EDM's `build_geom_dataset.py` writes
(https://github.com/ehoogeboom/e3_diffusion_for_molecules) and that the literature's figures are computed from:

    geom_drugs_30.npy     float64, a row an atom: index of the conformer, atomic number, x, y, z in angstrom
    geom_drugs_n_30.npy   integers: atoms of each conformer (optional; counted from the first file where it is missing)
    geom_drugs_smiles.txt a SMILES a line, of the molecules, not the conformers (optional)
    geom_permutation.npy  the order that EDM's splits are cut from (optional)

12 GB: the file stays on disk, memory-mapped; a batch reads its own rows. Nothing is unpickled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from elf.checks import require_count, require_one_of, require_tensor
from elf.data.molecules import Molecules, SmilesList
from elf.elements import GEOM_ELEMENTS
from elf.files import cache_folder

SPLITS = ("train", "validation", "test")
SHARE = 0.1
"""Of validation and of test, each; EDM's."""
_ROWS = 1_000_000

WHERE = (
    "To get GEOM-Drugs: download drugs_crude.msgpack.tar.gz (50 GB unpacked) from the Harvard Dataverse, "
    "doi:10.7910/DVN/JNGTDF; run build_geom_dataset.py of https://github.com/ehoogeboom/e3_diffusion_for_molecules on "
    "it; and name the folder of geom_drugs_30.npy by the environment variable ELF_GEOM or the argument folder"
)


@dataclass(frozen=True, eq=False)
class GeomDrugs:
    """Conformers on disk; `batch` reads some of them.

    counts: atoms of each conformer. smiles: file of the molecules' SMILES, if there is one.
    """

    counts: Int[Tensor, " conformers"]
    smiles: Path | None
    _table: np.ndarray
    _starts: np.ndarray
    _name: str

    def __len__(self) -> int:
        return len(self.counts)

    def batch(self, rows: Int[Tensor, " batch"]) -> Molecules:
        """These conformers, padded to the largest of them; float32 on the CPU. Their SMILES are empty.

        Raises:
            TypeError: rows are no integers.
            ValueError: no rows; a conformer whose rows disagree about its index, with an element that GEOM-Drugs does
                not have, or with coordinates that are not finite.
        """
        if require_tensor("rows", rows).dtype.is_floating_point or rows.dtype == torch.bool:
            raise TypeError(f"rows has dtype {rows.dtype}; it should be integer")
        if rows.ndim != 1 or not len(rows):
            raise ValueError(f"rows has shape {tuple(rows.shape)}; it should be (n,) with n >= 1")
        if int(rows.min()) < 0 or int(rows.max()) >= len(self):
            raise ValueError(f"rows reaches from {int(rows.min())} to {int(rows.max())} among {len(self)} conformers")
        blocks = [self._block(row) for row in rows.tolist()]
        table, unknown = torch.from_numpy(np.concatenate(blocks)), SmilesList.from_strings([""] * len(rows))
        return Molecules.from_flat(table[:, 2:], table[:, 1].long(), self.counts[rows.long()], unknown, rows.cpu())

    def read_smiles(self) -> list[str]:
        """SMILES of the molecules; fewer than the conformers.

        Raises:
            FileNotFoundError: geom_drugs_smiles.txt is not there.
        """
        if self.smiles is None:
            raise FileNotFoundError(f"geom_drugs_smiles.txt is not beside {self._name}. {WHERE}")
        return self.smiles.read_text(encoding="utf-8").split()

    def _block(self, row: int) -> np.ndarray:
        start = int(self._starts[row])
        block = np.array(self._table[start : start + int(self.counts[row])])  # the only rows read
        if not np.isfinite(block).all():
            raise ValueError(f"{self._name}: conformer {row} holds a NaN or infinity; its numbers should be finite")
        if (block[:, 0] != block[0, 0]).any():
            raise ValueError(
                f"{self._name}: the atoms of conformer {row} have indices {np.unique(block[:, 0]).tolist()}"
            )
        odd = sorted(set(block[:, 1].tolist()) - set(GEOM_ELEMENTS))
        if odd:
            raise ValueError(
                f"{self._name}: conformer {row} holds the unknown elements {odd}; it should hold {list(GEOM_ELEMENTS)}"
            )
        return block


def load(
    folder: str | os.PathLike[str] | None = None,
    *,
    conformations: int = 30,
    split: str | None = None,
    max_atoms: int | None = None,
) -> tuple[GeomDrugs, Int[Tensor, " rows"]]:
    """The data set on disk, and the rows of a split; reads sizes only (a few seconds and 100 MB for the whole set).

    Args:
        folder: where the files are; default the environment variable ELF_GEOM, else `geom` in elf's cache.
        conformations: the number in the file's name: most conformers kept of a molecule.
        split: "train" (80 %), "validation" or "test" (10 % each); None for all. Cut from geom_permutation.npy if it is
            there (EDM's split), else from NumPy's frozen RandomState(0). As in EDM, conformers of one molecule can fall
            into different splits.
        max_atoms: leave larger conformers out.

    Raises:
        FileNotFoundError: no such file; the message says where to get it.
        ValueError: a file of another layout or truncated; nothing left; an unknown split.
    """
    conformations = require_count("conformations", conformations)
    if split is not None:
        require_one_of("split", split, SPLITS)
    max_atoms = None if max_atoms is None else require_count("max_atoms", max_atoms)
    named = folder or os.environ.get("ELF_GEOM")
    place = Path(named).expanduser() if named else cache_folder() / "geom"
    name = f"geom_drugs_{conformations}.npy"
    table = _open(place / name)
    if table.ndim != 2 or table.shape[1] != 5 or table.dtype.kind != "f" or not len(table):
        raise ValueError(
            f"{name} holds {table.dtype} {tuple(table.shape)}; it should be floats (atoms, 5): "
            "index of the conformer, atomic number, x, y, z"
        )
    counts = _counts(place / f"geom_drugs_n_{conformations}.npy", table, name)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    smiles = place / "geom_drugs_smiles.txt"
    data = GeomDrugs(torch.from_numpy(counts), smiles if smiles.is_file() else None, table, starts, name)
    rows = torch.from_numpy(_split(place / "geom_permutation.npy", len(counts), split))
    if max_atoms is not None:
        rows = rows[data.counts[rows] <= max_atoms]
    if not len(rows):
        raise ValueError(f"{name} has no conformer with split={split!r}, max_atoms={max_atoms}")
    return data, rows


def _open(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}. {WHERE}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path.name} is truncated, or not a NumPy array of numbers: {error}") from error


def _counts(path: Path, table: np.ndarray, name: str) -> np.ndarray:
    """Atoms of each conformer."""
    if path.is_file():
        counts = np.array(_open(path))
        if counts.ndim != 1 or counts.dtype.kind not in "iu" or not len(counts) or counts.min() < 1:
            raise ValueError(
                f"{path.name} holds {counts.dtype} {tuple(counts.shape)}; it should be (conformers,) counts"
            )
        counts = counts.astype(np.int64)
        if counts.sum() != len(table):
            raise ValueError(f"{path.name} counts {counts.sum()} atoms, {name} has {len(table)}; they should agree")
        return counts
    # A piece at a time, so that 12 GB never are in memory together.
    edges = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(table), _ROWS):
        index = np.array(table[max(0, start - 1) : start + _ROWS, 0])
        edges.append(np.nonzero(np.diff(index))[0] + max(0, start - 1) + 1)
    edges.append(np.array([len(table)], dtype=np.int64))
    return np.diff(np.concatenate(edges))


def _split(path: Path, n: int, split: str | None) -> np.ndarray:
    if split is None:
        return np.arange(n)
    if path.is_file():
        order = np.array(_open(path)).astype(np.int64)
        if not np.array_equal(np.sort(order), np.arange(n)):
            raise ValueError(f"{path.name} is no rearrangement of the {n} conformers")
    else:
        order = np.random.RandomState(0).permutation(n)
    # EDM's order: validation, test, then the rest.
    cut = int(n * SHARE)
    parts = {"validation": order[:cut], "test": order[cut : 2 * cut], "train": order[2 * cut :]}
    return np.sort(parts[split])
