"""PoseBusters (Buttenschoen et al. 2024, arXiv:2308.05777): is a generated molecule one that could be?

Its checks of a single molecule, by the authors' package `posebusters`: RDKit and InChI can read it, all atoms hang
together, no radicals; bond lengths, angles and contacts within 25 to 30 % of distance geometry's bounds; aromatic rings
and double bonds flat, other six-rings not. A molecule may be stable and valid and yet fail them; and since bonds are
read off distances, blind to charges and aromatic bonds, good molecules of the data fail them too: compare with the
data's own share first. The package comes with `pip install elf[chem]`, and with the lock.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from elf.chemistry.bonds import QM9, BondRules
from elf.metrics.molecules import each_mol


def pose_checks(
    positions: Tensor,
    numbers: Tensor,
    mask: Tensor | None = None,
    *,
    internal_energy: bool = False,
    rules: BondRules = QM9,
) -> dict[str, float]:
    """Share of molecules that pass each check, and "all", the share that passes every one; between 0 and 1.

    A check that cannot be made (RDKit refuses the molecule) is not passed. Bonds are EDM's, and open valences are
    filled with hydrogens, as for validity. About 20 molecules a second; with `internal_energy` (UFF energy against the
    mean of 50 fresh conformers, at most 100 times as high) about two.

    Args:
        positions, numbers, mask: as everywhere in `elf.metrics.molecules`.
        internal_energy: also make the slow check of the energy.

    Raises:
        ImportError: the package posebusters is not installed.
        ValueError: bad molecules, as `elf.metrics.molecules.stability`.
    """
    with _logs_as_before():
        try:
            from posebusters import PoseBusters
        except ImportError as error:
            raise ImportError(
                "these checks need the package posebusters: pip install posebusters, or pip install elf-loss[chem]"
            ) from error
    mols = list(each_mol(positions, numbers, mask, rules))
    config = "mol" if internal_energy else "mol_fast"
    with _logs_as_before(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the package
        table = PoseBusters(config=config, max_workers=0).bust(mols, None, None)
    # pandas' missing values are the checks that could not be made.
    passed = table.astype("boolean").fillna(False).astype(bool)
    shares = {name: round(float(passed[name].mean()), 6) for name in passed.columns}
    return {**shares, "all": round(float(passed.all(axis=1).mean()), 6)}


@contextmanager
def _logs_as_before() -> Iterator[None]:
    """The package sends RDKit's messages to Python's logging for the whole process, switches debugging on, and reports
    each broken molecule as an error; that is what the table is for."""
    from rdkit import rdBase

    def status() -> dict[str, str]:
        return dict(line.split(":") for line in rdBase.LogStatus().split())

    before, disabled = status(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    rdBase.LogToPythonLogger()
    try:
        yield
    finally:
        logging.disable(disabled)
        rdBase.LogToCppStreams()
        for name, state in before.items():
            (rdBase.EnableLog if state == "enabled" else rdBase.DisableLog)(name)
