"""What reading molecules gave: those that can be used, in a temporary file, and the names of the others by reason."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from elf.data.molecules import Molecules, SmilesList

SHOWN = 3
"""Names shown for each reason where a `Read` is printed; `Read.skipped` has them all."""
_NEAR = 0.1
"""Angstrom. No two atoms of a molecule are as near."""
_IN_MEMORY = 2**22
"""Bytes; what is more lies on disk."""


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


class Read:
    """What was read: `molecules` are all of it at once, padded to the largest; `batch` and `batches` some of it.

    The whole lies in a temporary file, gone with this object, so that a file of any length is read, and used in
    batches, within the same memory (two hundred bytes a molecule apart). Names are "record: title", as titles may
    be missing or come twice; `molecules.index` has the record alone, from 1.

    Args:
        records: what is read, one at a time.
        source: where from, for messages.
        charged: whether charges are known.

    Attributes:
        skipped: names of what cannot be used, by reason.
        pieces: names of molecules in several pieces, such as salts: they are used, as they are.

    Raises:
        ValueError: nothing can be used.
    """

    def __init__(self, records: Iterable[Record], source: str, *, charged: bool = True) -> None:
        from rdkit import rdBase

        self.source, self._charged = source, charged
        self.skipped: dict[str, list[str]] = {}
        self.pieces: list[str] = []
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        entries, seen, number = array("q"), set[bytes](), 0
        with rdBase.BlockLogs():
            for number, (title, found) in enumerate(records, start=1):
                self._add(number, title, found, entries, seen)
        # First byte, atoms, bytes of title and SMILES, number of the record.
        self._entries = np.array(entries, dtype=np.int64).reshape(-1, 5)
        if not len(self):
            why = f"none of its {number} records can be used: {_reasons(self.skipped)}" if number else "it is empty"
            raise ValueError(f"{source} holds no molecule; {why}")

    def _add(self, number: int, title: str, found: Iterable[Row | str], entries: array[int], seen: set[bytes]) -> None:
        # Neither a terminal nor an SDF line takes what a binary file may have as its title.
        title = "".join(letter for letter in title if letter.isprintable()).strip()
        name = f"{number}: {title}" if title else str(number)
        for row in found:
            if isinstance(row, str):
                self.skipped.setdefault(row, []).append(name)
                continue
            parts = title.encode(errors="replace"), row.smiles.encode(), *_bytes_of(row)
            digest = blake2b(data := b"".join(parts), digest_size=16).digest()
            if digest in seen:
                self.skipped.setdefault("repeated exactly", []).append(name)
                continue
            seen.add(digest)
            if "." in row.smiles:
                self.pieces.append(name)
            entries.extend([self._file.tell(), len(row.numbers), len(parts[0]), len(parts[1]), number])
            self._file.write(data)

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        """One line."""
        line = f"{len(self)} molecule{'s'[: len(self) != 1]} from {self.source}"
        if self.pieces:
            line += f", {len(self.pieces)} of them in several pieces ({_few(self.pieces)})"
        lost = sum(map(len, self.skipped.values()))
        return f"{line}; {lost} skipped: {_reasons(self.skipped)}" if lost else line

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """Atoms a molecule."""
        return torch.from_numpy(self._entries[:, 1].copy())

    @property
    def names(self) -> tuple[str, ...]:
        """A name a molecule."""
        return tuple(self._name(entry) for entry in self._entries)

    @cached_property
    def molecules(self) -> Molecules:
        """All of them."""
        return self.batch(range(len(self)))

    def batch(self, rows: Sequence[int] | Int[Tensor, " batch"]) -> Molecules:
        """These molecules, padded to the largest of them; at least one."""
        entries = self._entries[np.asarray(rows)]
        ends = np.cumsum(entries[:, 1])
        positions = np.empty((ends[-1], 3), dtype=np.float32)
        numbers, charges = np.empty(ends[-1], dtype=np.uint8), np.empty(ends[-1], dtype=np.int8)
        texts = []
        for entry, end in zip(entries, ends, strict=True):
            _, atoms, title, letters, _ = entry
            data, here = self._bytes(entry), slice(end - atoms, end)
            texts.append(data[title : title + letters])
            numbers[here] = np.frombuffer(data, np.uint8, atoms, title + letters)
            charges[here] = np.frombuffer(data, np.int8, atoms, title + letters + atoms)
            positions[here] = np.frombuffer(data[-12 * atoms :], np.float32).reshape(-1, 3)
        x, z, q, counts, index = map(torch.from_numpy, (positions, numbers, charges, entries[:, 1], entries[:, 4]))
        smiles = SmilesList.from_bytes(b"".join(texts), entries[:, 3])
        return Molecules.from_flat(x, z, counts, smiles, index, q if self._charged else None)

    def batches(self, size: int = 1000) -> Iterator[Molecules]:
        """All of them, so many at a time."""
        return (self.batch(range(start, min(start + size, len(self)))) for start in range(0, len(self), size))

    def skip(self, rows: Sequence[int], reason: str) -> None:
        """Take these molecules out, under their names, for this reason."""
        if len(rows):
            self.skipped.setdefault(reason, []).extend(self._name(entry) for entry in self._entries[list(rows)])
            self._entries = np.delete(self._entries, rows, axis=0)
            self.__dict__.pop("molecules", None)

    def _name(self, entry: np.ndarray) -> str:
        title = self._bytes(entry)[: entry[2]].decode()
        return f"{entry[4]}: {title}" if title else str(entry[4])

    def _bytes(self, entry: np.ndarray) -> bytes:
        start, atoms, title, letters, _ = entry.tolist()
        self._file.seek(start)
        return self._file.read(title + letters + 14 * atoms)


def _bytes_of(row: Row) -> tuple[bytes, bytes, bytes]:
    columns = row.numbers.astype(np.uint8), row.charges.astype(np.int8), row.positions.astype(np.float32)
    return columns[0].tobytes(), columns[1].tobytes(), columns[2].tobytes()


def tried(make: Callable[..., Row], *args: object) -> Row | str:
    """The row that is made, or the reason why there is none."""
    try:
        return make(*args)
    except Skip as skip:
        return str(skip)


def _few(names: Sequence[str]) -> str:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])


def _reasons(skipped: dict[str, list[str]]) -> str:
    return "; ".join(f"{len(names)} {reason} ({_few(names)})" for reason, names in skipped.items())


def require_cloud(numbers: np.ndarray, positions: np.ndarray) -> None:
    """Skip for coordinates that no molecule has."""
    if len(numbers) == 1:
        raise Skip("of one atom")
    if not np.isfinite(positions).all() or np.abs(positions).max() > 1e6:
        raise Skip("with impossible coordinates")
    if torch.pdist(torch.from_numpy(positions)).min() < _NEAR:
        raise Skip("with atoms in one place")
