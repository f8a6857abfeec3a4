"""The chemical elements of QM9 and of GEOM-Drugs, by atomic number and symbol."""

from __future__ import annotations

SYMBOLS: dict[int, str] = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
NUMBERS: dict[str, int] = {symbol: number for number, symbol in SYMBOLS.items()}
ELEMENTS: tuple[int, ...] = tuple(SYMBOLS)
VALENCE: dict[int, int] = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}

GEOM_SYMBOLS: dict[int, str] = {
    1: "H",
    5: "B",
    6: "C",
    7: "N",
    8: "O",
    9: "F",
    13: "Al",
    14: "Si",
    15: "P",
    16: "S",
    17: "Cl",
    33: "As",
    35: "Br",
    53: "I",
    80: "Hg",
    83: "Bi",
}
GEOM_ELEMENTS: tuple[int, ...] = tuple(GEOM_SYMBOLS)
