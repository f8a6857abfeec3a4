"""The chemical elements of QM9, by atomic number and symbol."""

from __future__ import annotations

SYMBOLS: dict[int, str] = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
NUMBERS: dict[str, int] = {symbol: number for number, symbol in SYMBOLS.items()}
ELEMENTS: tuple[int, ...] = tuple(SYMBOLS)
VALENCE: dict[int, int] = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}
