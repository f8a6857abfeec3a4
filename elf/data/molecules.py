"""A record of many molecules as padded tensors, and the small language of formulas and elements around it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.elements import ELEMENTS, NUMBERS, SYMBOLS


class SmilesList(Sequence[str]):
    """SMILES strings kept as one UTF-8 blob with offsets and decoded on access: 130,000 of them load in no time."""

    def __init__(self, blob: bytes, offsets: np.ndarray, rows: np.ndarray | None = None) -> None:
        self._blob, self._offsets = blob, offsets
        self._rows = np.arange(len(offsets) - 1) if rows is None else rows

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> SmilesList:
        """Pack strings."""
        encoded = [string.encode() for string in strings]
        return cls(b"".join(encoded), np.cumsum([0, *map(len, encoded)]))

    def pick(self, rows: np.ndarray) -> SmilesList:
        """The strings at these rows, sharing the blob."""
        return SmilesList(self._blob, self._offsets, self._rows[rows])

    def find(self, text: str) -> int | None:
        """Position of the first string equal to `text`, or None; compares bytes, decodes nothing."""
        wanted = np.frombuffer(text.encode(), dtype=np.uint8)
        starts = self._offsets[self._rows]
        candidates = np.nonzero(self._offsets[self._rows + 1] - starts == len(wanted))[0]
        letters = np.frombuffer(self._blob, dtype=np.uint8)
        found = (letters[starts[candidates][:, None] + np.arange(len(wanted))] == wanted).all(axis=1)
        return int(candidates[found.argmax()]) if found.any() else None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> SmilesList: ...
    def __getitem__(self, item: int | slice) -> str | SmilesList:
        if isinstance(item, slice):
            return SmilesList(self._blob, self._offsets, self._rows[item])
        row = self._rows[item]
        return self._blob[self._offsets[row] : self._offsets[row + 1]].decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(smiles) for smiles in self[:3])
        return f"SmilesList([{shown}{', ...' if len(self) > 3 else ''}], len={len(self)})"


@dataclass(frozen=True, eq=False)
class Molecules:
    """n molecules of up to `atoms` atoms, padded with zeros.

    positions: angstrom. numbers: atomic numbers, 0 for padding. smiles: one string a molecule. index: the molecule's
    number in the original data set (QM9: 1 to 133,885). Indexing with an int, a slice, a list, a bool or index tensor
    gives Molecules again.
    """

    positions: Float[Tensor, "n atoms 3"]
    numbers: Int[Tensor, "n atoms"]
    smiles: SmilesList
    index: Int[Tensor, " n"]

    @property
    def mask(self) -> Bool[Tensor, "n atoms"]:
        """True for real atoms."""
        return self.numbers > 0

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """Atoms a molecule."""
        return self.mask.sum(dim=1)

    @property
    def heavy_counts(self) -> Int[Tensor, " n"]:
        """Atoms other than hydrogen a molecule."""
        return (self.numbers > 1).sum(dim=1)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, item: int | slice | list[int] | Tensor) -> Molecules:
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"molecule {item} of {len(self)}")
            item = [item]
        if isinstance(item, slice):
            rows = torch.arange(len(self))[item]
        else:
            rows = torch.as_tensor(item)
            if rows.dtype == torch.bool:
                if rows.shape != (len(self),):
                    raise ValueError(f"a bool index must have shape ({len(self)},), got {tuple(rows.shape)}")
                rows = rows.nonzero()[:, 0]
            if rows.ndim != 1 or rows.is_floating_point():
                raise ValueError(f"index must be one-dimensional integers, got {rows.dtype} {tuple(rows.shape)}")
        rows = rows.long()
        here = rows.to(self.numbers.device)
        return Molecules(
            self.positions[here], self.numbers[here], self.smiles.pick(rows.cpu().numpy()), self.index[here]
        )

    def subset(
        self,
        *,
        atoms: int | Sequence[int] | None = None,
        heavy_atoms: int | Sequence[int] | None = None,
        formula: str | None = None,
    ) -> Molecules:
        """Molecules within these inclusive ranges and of this formula ("C6H6"). Padding is kept; see `trimmed`."""
        keep = torch.ones(len(self), dtype=torch.bool, device=self.numbers.device)
        for name, bounds, count in (
            ("atoms", atoms, self.counts),
            ("heavy_atoms", heavy_atoms, self.heavy_counts),
        ):
            if bounds is not None:
                low, high = _inclusive(name, bounds)
                keep &= (count >= low) & (count <= high)
        if formula is not None:
            wanted = parse_formula(formula)
            for number in ELEMENTS:
                keep &= (self.numbers == number).sum(dim=1) == wanted.get(number, 0)
        return self[keep]

    def trimmed(self) -> Molecules:
        """The same molecules, padded only to the largest one present."""
        size = int(self.counts.max()) if len(self) else 0
        return Molecules(self.positions[:, :size], self.numbers[:, :size], self.smiles, self.index)

    def formula(self, i: int) -> str:
        """Sum formula of molecule i in Hill order: carbon, hydrogen, then by symbol."""
        return formula(self.numbers[i])

    def to(self, device: torch.device | str) -> Molecules:
        """The same molecules on another device."""
        return Molecules(self.positions.to(device), self.numbers.to(device), self.smiles, self.index.to(device))


def _inclusive(name: str, bounds: int | Sequence[int]) -> tuple[int, int]:
    pair = (bounds, bounds) if isinstance(bounds, int) else tuple(bounds)
    if len(pair) != 2 or not all(isinstance(bound, int) for bound in pair) or not 0 < pair[0] <= pair[1]:
        raise ValueError(f"{name} is {bounds}; it should be a count or an inclusive range (low, high), 0 < low <= high")
    return pair[0], pair[1]


def parse_formula(formula: str) -> dict[int, int]:
    """`"C2H6O"` -> {6: 2, 1: 6, 8: 1}. ValueError for anything else than H, C, N, O, F with counts."""
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    if not formula or "".join(symbol + count for symbol, count in parts) != formula:
        raise ValueError(f'formula must be element symbols with counts such as "C6H6", got {formula!r}')
    wanted: dict[int, int] = {}
    for symbol, count in parts:
        if symbol not in NUMBERS:
            raise ValueError(f"formula {formula!r} names the unknown element {symbol!r}; known: {', '.join(NUMBERS)}")
        if count.startswith("0"):
            raise ValueError(f"formula {formula!r} counts {symbol!r} as {count!r}; a count starts with 1 to 9")
        wanted[NUMBERS[symbol]] = wanted.get(NUMBERS[symbol], 0) + int(count or 1)
    return wanted


def formula(numbers: Int[Tensor, " atoms"]) -> str:
    """Sum formula of atomic numbers (0: padding) in Hill order, e.g. "C2H6O"."""
    found = numbers[numbers > 0].tolist()
    unknown = sorted(set(found) - set(SYMBOLS))
    if unknown:
        raise ValueError(f"numbers holds unknown elements {unknown}; known: {SYMBOLS}")
    symbols = [SYMBOLS[number] for number in found]
    first = ["C", "H"] if "C" in symbols else []
    order = first + sorted(set(symbols) - set(first))
    return "".join(
        symbol + (str(symbols.count(symbol)) if symbols.count(symbol) > 1 else "")
        for symbol in order
        if symbol in symbols
    )


def one_hot(
    numbers: Int[Tensor, "*batch atoms"], elements: Sequence[int] = ELEMENTS
) -> Float[Tensor, "*batch atoms elements"]:
    """Element of every atom as a one-hot row in the order of `elements`; padding (0) is a row of zeros."""
    hot = numbers[..., None] == numbers.new_tensor(list(elements))
    lost = (numbers != 0) & ~hot.any(dim=-1)
    if lost.any():
        raise ValueError(
            f"numbers holds elements {sorted(set(numbers[lost].tolist()))} that are not in elements={tuple(elements)}"
        )
    return hot.float()
