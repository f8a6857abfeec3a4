"""Drug-like molecules: 10,000 of MOSES' training set, each with one conformer that was made here, part of this package.

The SMILES are MOSES' (Polykovskiy et al., Front. Pharmacol. 11, 565644, 2020; ZINC's clean leads, 250 to 350 dalton;
elements C, N, O, F, S, Cl, Br and hydrogen), from the wheel `molsets` 0.3.1: MIT licence, copyright 2018 Insilico
Medicine, Inc. They are all different, and carry the stereo marks of the conformer: MOSES says nothing of hands. The
conformer is RDKit's (ETKDG version 3, relaxed by MMFF94 in the gas phase), at no temperature, one of many: neither
GEOM-Drugs nor DFT. Its orientation is arbitrary.

`tools/make_druglike.py` makes the file: flat arrays, positions in thousandths of an angstrom. Bonds and charges are not
in it: atoms come in the order of the SMILES, hydrogens last, each nearest to its heavy atom, so that
`elf.chemistry.molecular_graph` finds them; it does for every molecule. EDM's table of GEOM-Drugs, which sees neither
charges nor aromatic bonds, finds 83.0 % of the atoms and 5.0 % of the molecules stable, and 99.7 % in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch

from elf.checks import require_one_of
from elf.data.molecules import Molecules, SmilesList
from elf.files import check_sha256

FILE = Path(__file__).with_name("druglike.npz")
SHA256 = "9a4c35f680b2f520eb70f7503951ba763e84a72c4ca92d393fd7d48acedb73fa"
SIZE = 10_000
SPLITS = {"train": slice(0, 8_000), "validation": slice(8_000, 9_000), "test": slice(9_000, SIZE)}
"""The molecules come in random order."""
COLUMNS = ("positions", "numbers", "counts", "index", "smiles", "lengths")


def load(
    *,
    split: str | None = None,
    atoms: SupportsIndex | Sequence[SupportsIndex] | None = None,
    heavy_atoms: SupportsIndex | Sequence[SupportsIndex] | None = None,
    formula: str | None = None,
    limit: SupportsIndex | None = None,
    seed: SupportsIndex = 0,
) -> Molecules:
    """The molecules, or the part of them of this split, within these inclusive ranges, of this formula.

    Arguments as those of `elf.data.qm9.load`; `index` is the molecule's row in MOSES' train.csv, from 1.

    Raises:
        TypeError, ValueError: bad arguments; an empty result; a file that was changed.
    """
    if split is not None:
        require_one_of("split", split, tuple(SPLITS))
    check_sha256(FILE, SHA256)
    with np.load(FILE, allow_pickle=False) as file:
        flat = {name: torch.from_numpy(file[name]) for name in COLUMNS}
    smiles = SmilesList.from_bytes(flat["smiles"].numpy().tobytes(), flat["lengths"].numpy())
    molecules = Molecules.from_flat(flat["positions"] / 1000, flat["numbers"], flat["counts"], smiles, flat["index"])
    molecules = molecules[SPLITS[split]] if split else molecules
    molecules = molecules.subset(atoms=atoms, heavy_atoms=heavy_atoms, formula=formula, limit=limit, seed=seed)
    if not len(molecules):
        found = f"atoms={atoms}, heavy_atoms={heavy_atoms}, formula={formula!r}, split={split!r}"
        raise ValueError(f"no drug-like molecule has {found}")
    return molecules.trimmed()
