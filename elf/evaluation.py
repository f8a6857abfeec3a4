"""How much the molecules of a file are like molecules: what `elf evaluate` does."""

from __future__ import annotations

from pathlib import Path

import torch

from elf.chemistry.bonds import GEOM, QM9
from elf.chemistry.read import from_file
from elf.chemistry.record import Read
from elf.metrics import molecules as metrics

COLUMNS = ("atom_stability", "molecule_stability", "validity", "uniqueness", "novelty", "connected", "completeness")


def evaluate(path: Path, reference: Path | None = None) -> int:
    """Print what EDM's metrics say of a file's molecules, and first what they say of the reference's own.

    Novelty is against the reference, both as the table of bonds reads them. What that table does not know is left out,
    by name.
    """
    files = [file for file in (reference, path) if file is not None]
    loaded = [_in_the_table(from_file(file, bonds=False)) for file in files]
    for found in loaded:
        print(found)
    records = [found.molecules.trimmed() for found in loaded]
    rules = QM9 if all(set(record.numbers.unique().tolist()) <= {0, *QM9.symbols} for record in records) else GEOM
    print(f"bonds by the table of {'QM9' if rules is QM9 else 'GEOM-Drugs'}\n")
    known = None
    if reference:
        texts = metrics.to_smiles(records[0].positions, records[0].numbers, rules=rules)
        known = {text for text in texts if text is not None}
    table: list[tuple[str, ...]] = [("", *COLUMNS)]
    for file, record in zip(files, records, strict=True):
        scores = metrics.evaluate(record.positions, record.numbers, training_smiles=known, rules=rules)
        label = f"{'reference ' if file is not path else ''}{file.name}"
        table.append((label, *("-" if (score := scores[c]) is None else f"{100 * score:.1f} %" for c in COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if reference is None:
        print("\nwithout --reference nothing says how real molecules score in these columns")
    return 0


def _in_the_table(found: Read) -> Read:
    """Without the molecules whose elements no table of bonds knows, which are named as skipped."""
    known = torch.tensor([0, *GEOM.symbols], dtype=torch.int64, device="cpu")
    good = torch.cat([torch.isin(part.numbers, known).all(1) for part in found.batches()])
    if not bool(good.any()):
        raise ValueError(f"{found.source} holds no molecule whose elements the table of bonds knows")
    found.skip((~good).nonzero()[:, 0].tolist(), "without entries in the table of bonds")
    return found
