"""What reading molecules gave: those that can be used, and the names of the others under a reason each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from elf.data.molecules import Molecules, SmilesList

SHOWN = 3
"""Names shown for each reason where a `Read` is printed; `Read.skipped` has them all."""
_NEAR = 0.1
"""Angstrom. No two atoms of a molecule are as near."""


@dataclass(frozen=True, eq=False)
class Read:
    """What was read: molecules with a name each, and the names of what was skipped, by reason.

    Names are "record: title", as titles may be missing or come twice; `molecules.index` has the record alone, from 1.
    """

    molecules: Molecules
    names: tuple[str, ...]
    skipped: dict[str, list[str]]
    source: str

    def __str__(self) -> str:
        """One line."""
        lost = sum(map(len, self.skipped.values()))
        line = f"{len(self.molecules)} molecule{'s'[: len(self.molecules) != 1]} from {self.source}"
        return f"{line}; {lost} skipped: {_reasons(self.skipped)}" if lost else line


class Row(NamedTuple):
    """One molecule with one conformer: (atoms,) and (atoms, 3) in angstrom; SMILES "" where it is not known."""

    numbers: np.ndarray
    positions: np.ndarray
    charges: np.ndarray
    smiles: str


class Skip(Exception):
    """Why a record, or a conformer of it, cannot be used."""


Record = tuple[str, Iterable[Row | str]]
"""The title of a record, and what its conformers gave: a row, or the reason why there is none."""


def collect(records: Iterable[Record], source: str) -> Read:
    """Rows as one record of molecules, reasons as the names under them."""
    from rdkit import rdBase

    rows: list[Row] = []
    names: list[str] = []
    index: list[int] = []
    skipped: dict[str, list[str]] = {}
    seen: set[tuple[str, bytes, bytes]] = set()
    number = 0
    every = ((number, title, row) for number, (title, found) in enumerate(records, start=1) for row in found)
    with rdBase.BlockLogs():
        for number, title, row in every:
            name = f"{number}: {title}" if title else str(number)
            if not isinstance(row, str):
                key = (title, row.numbers.tobytes(), row.positions.tobytes())
                row = "copy of an earlier one" if key in seen else row
                seen.add(key)
            if isinstance(row, str):
                skipped.setdefault(row, []).append(name)
                continue
            rows.append(row)
            names.append(name)
            index.append(number)
    if not rows:
        why = f"none of its {number} records can be used: {_reasons(skipped)}" if number else "it is empty"
        raise ValueError(f"{source} holds no molecule; {why}")
    return Read(_padded(rows, index), tuple(names), skipped, source)


def tried(make: Callable[..., Row], *args: object) -> Row | str:
    """The row that is made, or the reason why there is none."""
    try:
        return make(*args)
    except Skip as skip:
        return str(skip)


def _reasons(skipped: dict[str, list[str]]) -> str:
    def few(names: list[str]) -> str:
        more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
        return ", ".join(names[:SHOWN] + more)

    return "; ".join(f"{len(names)} {reason} ({few(names)})" for reason, names in skipped.items())


def _padded(rows: Sequence[Row], index: Sequence[int]) -> Molecules:
    columns = ([torch.from_numpy(row[i]) for row in rows] for i in range(3))
    numbers, positions, charges = (pad_sequence(column, batch_first=True) for column in columns)
    smiles = SmilesList.from_strings(row.smiles for row in rows)
    return Molecules(positions, numbers, smiles, torch.tensor(index, dtype=torch.int64, device="cpu"), charges)


def require_cloud(numbers: np.ndarray, positions: np.ndarray) -> None:
    """Skip for coordinates that no molecule has."""
    if len(numbers) == 1:
        raise Skip("one atom")
    if not np.isfinite(positions).all() or np.abs(positions).max() > 1e6:
        raise Skip("impossible coordinates")
    if torch.pdist(torch.from_numpy(positions)).min() < _NEAR:
        raise Skip("atoms in one place")
