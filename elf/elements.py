"""The chemical elements by atomic number and symbol: all of them, those of QM9, those of GEOM-Drugs; their valences."""

from __future__ import annotations

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y "
    "Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re "
    "Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds "
    "Rg Cn Nh Fl Mc Lv Ts Og"
)
PERIODIC_TABLE: dict[int, str] = dict(enumerate(_SYMBOLS.split(), start=1))
NUMBERS: dict[str, int] = {symbol: number for number, symbol in PERIODIC_TABLE.items()}

VALENCE: dict[int, int] = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}
ELEMENTS: tuple[int, ...] = tuple(VALENCE)
SYMBOLS: dict[int, str] = {number: PERIODIC_TABLE[number] for number in ELEMENTS}

GEOM_VALENCES: dict[int, tuple[int, ...]] = {
    1: (1,), 5: (3,), 6: (4,), 7: (3,), 8: (2,), 9: (1,), 13: (3,), 14: (4,), 15: (3, 5), 16: (4,), 17: (1,), 33: (3,),
    35: (1,), 53: (1,), 80: (1, 2), 83: (3, 5),
}  # fmt: skip
"""Sums of bond orders at which EDM calls an atom of GEOM-Drugs stable."""
GEOM_ELEMENTS: tuple[int, ...] = tuple(GEOM_VALENCES)
GEOM_SYMBOLS: dict[int, str] = {number: PERIODIC_TABLE[number] for number in GEOM_ELEMENTS}
