"""A record of many molecules as padded tensors, and the small language of formulas and elements around it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from elf.checks import require_count, require_integer, require_seed, require_strings, require_tensor, values_are_known
from elf.elements import ELEMENTS, NUMBERS, PERIODIC_TABLE

_MANY = 2**62
"""More atoms than any molecule has; larger numbers do not fit a tensor."""


class SmilesList(Sequence[str]):
    """SMILES strings kept as one UTF-8 blob with offsets and decoded on access: 130,000 of them load in no time."""

    def __init__(self, blob: bytes, offsets: np.ndarray, rows: np.ndarray | None = None) -> None:
        self._blob, self._offsets = blob, offsets
        self._rows = np.arange(len(offsets) - 1) if rows is None else rows

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> SmilesList:
        """Pack strings."""
        encoded = [string.encode() for string in require_strings("strings", strings)]
        return cls.from_bytes(b"".join(encoded), [len(text) for text in encoded])

    @classmethod
    def from_bytes(cls, blob: bytes, lengths: Sequence[int] | np.ndarray) -> SmilesList:
        """Strings one after the other, each of so many bytes."""
        return cls(blob, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def pick(self, rows: np.ndarray) -> SmilesList:
        """The strings at these rows, sharing the blob."""
        return SmilesList(self._blob, self._offsets, self._rows[rows])

    def find(self, text: str) -> int | None:
        """Position of the first string equal to `text`, or None; compares bytes, decodes nothing."""
        wanted = np.frombuffer(require_strings("text", [text])[0].encode(), dtype=np.uint8)
        starts = self._offsets[self._rows]
        candidates = np.nonzero(self._offsets[self._rows + 1] - starts == len(wanted))[0]
        letters = np.frombuffer(self._blob, dtype=np.uint8)
        found = (letters[starts[candidates][:, None] + np.arange(len(wanted))] == wanted).all(axis=1)
        return int(candidates[found.argmax()]) if found.any() else None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, item: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> SmilesList: ...
    def __getitem__(self, item: SupportsIndex | slice) -> str | SmilesList:
        if isinstance(item, slice):
            return SmilesList(self._blob, self._offsets, self._rows[item])
        row = self._rows[require_integer("item", item)]
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

    positions: angstrom. numbers: atomic numbers, 0 for padding. smiles: one string a molecule, "" where it is not
    known. index: the molecule's number in the original data set (QM9: 1 to 133,885). charges: formal charges, zero on
    padding; None where they are not known. Indexing with an integer, a slice, a list, a bool or index tensor gives
    Molecules again. TypeError where one is no tensor, ValueError where they do not fit together.
    """

    positions: Float[Tensor, "n atoms 3"]
    numbers: Int[Tensor, "n atoms"]
    smiles: SmilesList
    index: Int[Tensor, " n"]
    charges: Int[Tensor, "n atoms"] | None = None

    def __post_init__(self) -> None:
        for name in ("positions", "numbers", "index", *["charges"] * (self.charges is not None)):
            require_tensor(name, getattr(self, name))
        lengths = {"numbers": len(self.numbers), "smiles": len(self.smiles), "index": len(self.index)}
        if self.positions.shape != (*self.numbers.shape, 3) or len(set(lengths.values())) != 1:
            raise ValueError(
                f"positions has shape {tuple(self.positions.shape)}, numbers {tuple(self.numbers.shape)}; they should "
                f"be (n, atoms, 3) and (n, atoms), and the lengths {lengths} equal"
            )
        if self.charges is not None and self.charges.shape != self.numbers.shape:
            found, wanted = tuple(self.charges.shape), tuple(self.numbers.shape)
            raise ValueError(f"charges has shape {found}; it should be {wanted}, as numbers has")

    @classmethod
    def from_flat(
        cls,
        positions: Float[Tensor, "flat 3"],
        numbers: Integer[Tensor, " flat"],
        counts: Integer[Tensor, " n"],
        smiles: SmilesList,
        index: Integer[Tensor, " n"],
        charges: Integer[Tensor, " flat"] | None = None,
    ) -> Molecules:
        """From the atoms of all molecules one after the other, counts of them each; float32 and int64 on the CPU."""
        counts = counts.long()
        mask = torch.arange(int(counts.max()), dtype=torch.long, device="cpu") < counts[:, None]

        def spread(atoms: Tensor, dtype: torch.dtype) -> Tensor:
            rows = torch.zeros(*mask.shape, *atoms.shape[1:], dtype=dtype, device="cpu")
            rows[mask] = atoms.to(dtype)
            return rows

        padded = spread(positions, torch.float32), spread(numbers, torch.long)
        return cls(*padded, smiles, index.long(), None if charges is None else spread(charges, torch.long))

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

    def __getitem__(self, item: SupportsIndex | slice | list[int] | list[bool] | Tensor | np.ndarray) -> Molecules:
        rows = _rows(item, len(self))
        here = rows.to(self.numbers.device)
        return self._with(lambda atoms: atoms[here], self.smiles.pick(rows.numpy()), self.index[here])

    def _with(self, change: Callable[[Tensor], Tensor], smiles: SmilesList, index: Tensor) -> Molecules:
        """The record with its tensors over atoms changed alike."""
        charges = None if self.charges is None else change(self.charges)
        return Molecules(change(self.positions), change(self.numbers), smiles, index, charges)

    def subset(
        self,
        *,
        atoms: SupportsIndex | Sequence[SupportsIndex] | None = None,
        heavy_atoms: SupportsIndex | Sequence[SupportsIndex] | None = None,
        formula: str | None = None,
        limit: SupportsIndex | None = None,
        seed: SupportsIndex = 0,
    ) -> Molecules:
        """Molecules within these inclusive ranges and of this formula ("C6H6"); where they are more than `limit`, a
        random subset of that size, drawn with `seed`. Order and padding are kept; see `trimmed`.

        Raises:
            TypeError, ValueError: bounds or a limit that are no counts, a formula or a seed that is none.
        """
        limit, seed = None if limit is None else require_count("limit", limit), require_seed("seed", seed)
        keep = torch.ones(len(self), dtype=torch.bool, device=self.numbers.device)
        for name, bounds, count in (("atoms", atoms, self.counts), ("heavy_atoms", heavy_atoms, self.heavy_counts)):
            if bounds is not None:
                low, high = _inclusive(name, bounds)
                keep &= (count >= low) & (count <= high)
        if formula is not None:
            wanted = parse_formula(formula)
            keep &= self.counts == sum(wanted.values())
            for number, wanted_count in wanted.items():
                keep &= (self.numbers == number).sum(dim=1) == wanted_count
        rows = keep.nonzero()[:, 0].cpu().numpy()
        if limit is not None and limit < len(rows):
            rows = np.sort(rows[np.random.RandomState(seed).permutation(len(rows))[:limit]])
        return self[rows]

    def trimmed(self) -> Molecules:
        """The same molecules, padded only to the largest one present."""
        size = int(self.counts.max()) if len(self) else 0
        return self._with(lambda atoms: atoms[:, :size], self.smiles, self.index)

    def formula(self, i: int) -> str:
        """Sum formula of molecule i in Hill order: carbon, hydrogen, then by symbol."""
        return formula(self.numbers[i])

    def to(self, device: torch.device | str) -> Molecules:
        """The same molecules on another device."""
        return self._with(lambda atoms: atoms.to(device), self.smiles, self.index.to(device))


def _rows(item: object, n: int) -> Int[Tensor, " rows"]:
    """The rows among n that an index of any kind means, on the CPU."""
    if isinstance(item, slice):
        return torch.from_numpy(np.arange(n)[item].copy())
    if isinstance(item, Tensor | np.ndarray | Sequence) and not isinstance(item, str | bytes):
        found = item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
        if found.size == 0 and not isinstance(item, Tensor | np.ndarray):
            found = np.zeros(0, dtype=np.int64)
    else:
        found = np.array([require_integer("index", item)])
    if found.dtype == bool and found.shape == (n,):
        found = found.nonzero()[0]
    if found.ndim != 1 or found.dtype == bool or not np.can_cast(found.dtype, np.int64):
        raise ValueError(f"index has {found.dtype} {found.shape}; it should be integers (rows,) or bools ({n},)")
    found = found.astype(np.int64)
    wrong = found[(found < -n) | (found >= n)]
    if len(wrong):
        raise IndexError(f"index holds {wrong[0]}; it should hold rows of {n} molecules, from {-n} to {n - 1}")
    return torch.from_numpy(found % max(n, 1))


def _inclusive(name: str, bounds: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, int]:
    pair = tuple(bounds) if isinstance(bounds, Sequence) and not isinstance(bounds, str) else (bounds, bounds)
    low, high = (require_integer(name, bound) for bound in pair) if len(pair) == 2 else (0, 0)
    if not 0 < low <= high:
        raise ValueError(f"{name} is {bounds}; it should be a count or an inclusive range (low, high), 0 < low <= high")
    return min(low, _MANY), min(high, _MANY)


def parse_formula(formula: str) -> dict[int, int]:
    """`"C2H6O"` -> {6: 2, 1: 6, 8: 1}. ValueError for anything else than elements with counts of 1 to 999,999,999."""
    if not isinstance(formula, str):
        raise TypeError(f"formula is {formula!r}; it should be a string")
    parts = re.findall(r"([A-Z][a-z]?)([0-9]*)", formula)
    if not formula or "".join(symbol + count for symbol, count in parts) != formula:
        raise ValueError(f'formula is {formula!r}; it should be element symbols with counts such as "C6H6"')
    wanted: dict[int, int] = {}
    for symbol, count in parts:
        if symbol not in NUMBERS:
            raise ValueError(f"formula is {formula!r}; {symbol!r} should be the symbol of an element")
        if count.startswith("0") or len(count) > 9:
            raise ValueError(f"formula is {formula!r}; it counts {symbol!r} as {count!r}, a count is 1 to 999999999")
        wanted[NUMBERS[symbol]] = wanted.get(NUMBERS[symbol], 0) + int(count or 1)
    return wanted


def formula(numbers: Int[Tensor, " atoms"]) -> str:
    """Sum formula of atomic numbers (0: padding) in Hill order, e.g. "C2H6O"; ValueError for other numbers."""
    found = numbers[numbers != 0].tolist()
    unknown = sorted(set(found) - set(PERIODIC_TABLE))
    if unknown:
        raise ValueError(f"numbers holds the unknown elements {unknown}; it should hold atomic numbers, 0 for padding")
    counts = Counter(PERIODIC_TABLE[number] for number in found)
    first = ["C", "H"] if "C" in counts else []
    order = first + sorted(set(counts) - set(first))
    return "".join(symbol + (str(counts[symbol]) if counts[symbol] > 1 else "") for symbol in order if counts[symbol])


def one_hot(
    numbers: Int[Tensor, "*batch atoms"], elements: Sequence[int] = ELEMENTS, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*batch atoms elements"]:
    """Element of every atom as a one-hot row in the order of `elements`; padding (0) is a row of zeros.

    Raises:
        TypeError: numbers is no tensor of integers, or elements holds something else than integers.
        ValueError: an element that is not among `elements`.
    """
    if require_tensor("numbers", numbers).dtype.is_floating_point:
        raise TypeError(f"numbers has dtype {numbers.dtype}; it should be integer (atomic numbers)")
    known = [require_integer("elements", number) for number in elements]
    hot = numbers[..., None] == torch.tensor(known, dtype=torch.long, device=numbers.device)
    if values_are_known(numbers) and bool((lost := (numbers != 0) & ~hot.any(dim=-1)).any()):
        odd = sorted(set(numbers[lost].tolist()))
        raise ValueError(f"numbers holds the unknown elements {odd}; it should hold elements={tuple(elements)}")
    return hot.to(dtype)
