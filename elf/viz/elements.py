"""How elements are drawn: names, radii, colours."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from elf.elements import PERIODIC_TABLE
from elf.viz.arrays import finite

_CPK = {
    1: "#f2f2f2", 5: "#ffb5b5", 6: "#4a4a4a", 7: "#3050f8", 8: "#e0200d", 9: "#5fbf3a", 14: "#c8a878", 15: "#ff8000",
    16: "#e0c020", 17: "#1fb01f", 35: "#a62929", 53: "#940094",
}  # fmt: skip
_OTHER = "#d070c0"


class Element(NamedTuple):
    """How an element is drawn: covalent radius in angstrom (RDKit's, of Cordero et al. 2008), CPK colour."""

    number: int
    symbol: str
    name: str
    radius: float
    color: str

    @property
    def ball(self) -> float:
        """Radius of an atom in a picture of balls and sticks, in angstrom."""
        return 0.2 + 0.28 * self.radius


@functools.cache
def element(number: float) -> Element:
    """The element of an atomic number.

    Raises:
        ValueError: not a whole number from 1 to 118.
    """
    from rdkit import Chem

    if number not in PERIODIC_TABLE:
        raise ValueError(f"numbers holds {number}; it should be atomic numbers, 1 to 118 (drop padding first)")
    number, table = int(number), Chem.GetPeriodicTable()
    name = table.GetElementName(number).lower()
    return Element(number, PERIODIC_TABLE[number], name, table.GetRcovalent(number), _CPK.get(number, _OTHER))


def elements(numbers: Any, layout: str = "atoms") -> list[Element]:
    """The elements of atomic numbers, without padding, of a given layout; errors as for `element` and `finite`."""
    return [element(value) for value in finite("numbers", numbers, layout).flatten().tolist()]
