"""QM9: 130,831 small organic molecules with their DFT geometries (Ramakrishnan et al., Sci. Data 1, 140022, 2014).

The data come from the `qm9pack` 1.0.3 wheel (MIT, R. Ramakrishnan). The 3,054 molecules whose relaxed geometry no
longer matches their SMILES are not in it. Coordinates in angstrom, B3LYP/6-31G(2df,p). The SMILES are Kekule (benzene:
C1=CC=CC=C1), all different, and without stereo marks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from elf.checks import require_one_of, require_strings
from elf.data.molecules import Molecules, SmilesList, formula, one_hot, parse_formula
from elf.elements import ELEMENTS, SYMBOLS
from elf.files import CACHE_ADVICE, cache_folder, read_cache, require_writable, write_cache

__all__ = ["ELEMENTS", "Molecules", "find", "formula", "load", "one_hot", "parse_formula", "split_index"]

VERSION = "1.0.3"
FORMAT = "elf-qm9/2"
"""Layout of the cache; it goes up when the same wheel would give other arrays."""
SIZE = 130_831
SPLITS = {"train": 100_000, "validation": 17_748, "test": 13_083}
# SHA-256 of the files in the wheel.
FILES = {
    "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
    "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
    "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
}
LAYOUT = {
    **dict.fromkeys(("numbers", "counts", "smiles", "lengths"), (torch.uint8, ())),
    "positions": (torch.float32, (3,)),
    "index": (torch.int32, ()),
}
NAMES = {
    "methane": "C", "ammonia": "N", "water": "O", "acetylene": "C#C", "ethane": "CC", "methanol": "CO",
    "ethanol": "CCO", "acetone": "CC(C)=O", "benzene": "c1ccccc1", "phenol": "Oc1ccccc1", "toluene": "Cc1ccccc1",
    "cyclohexane": "C1CCCCC1", "propylene oxide": "CC1CO1", "glyceraldehyde": "OCC(O)C=O",
}  # fmt: skip


def load(
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    atoms: SupportsIndex | Sequence[SupportsIndex] | None = None,
    heavy_atoms: SupportsIndex | Sequence[SupportsIndex] | None = None,
    formula: str | None = None,
    split: str | None = None,
    limit: SupportsIndex | None = None,
    seed: SupportsIndex = 0,
) -> Molecules:
    """QM9, or the part of it in these inclusive ranges of atoms and heavy atoms, of this formula and split.

    The first call parses the wheel's CSV files (a few seconds, pinned by SHA-256) and caches the arrays in `cache_dir`
    (default: the environment variable ELF_CACHE, else the user's cache folder); later calls take well under a second.
    `split` is fixed for good (`split_index`). `limit` keeps a random subset of that size, drawn with `seed`, in QM9's
    order. The result is padded to its largest molecule.

    Raises ImportError without qm9pack, TypeError or ValueError for bad arguments, ValueError for a changed CSV file or
    an empty result, OSError when the cache cannot be read or written. A damaged cache, or one of another layout, is
    rebuilt with a UserWarning that names it.
    """
    molecules = _everything(cache_folder(cache_dir))
    if split is not None:
        molecules = molecules[split_index(split)]
    molecules = molecules.subset(atoms=atoms, heavy_atoms=heavy_atoms, formula=formula, limit=limit, seed=seed)
    if not len(molecules):
        raise ValueError(
            f"no QM9 molecule has atoms={atoms}, heavy_atoms={heavy_atoms}, formula={formula!r}, split={split!r}"
        )
    return molecules.trimmed()


def split_index(split: str) -> Tensor:
    """Sorted rows (0 to 130,830) of a split: train 100,000, validation 17,748, test 13,083.

    Cut from one permutation, NumPy's frozen `RandomState(0)`: the very split of Cormorant and EDM, so that test figures
    compare with the literature's.
    """
    require_one_of("split", split, tuple(SPLITS))
    parts = np.split(np.random.RandomState(0).permutation(SIZE), np.cumsum(list(SPLITS.values()))[:-1])
    return torch.from_numpy(np.sort(parts[list(SPLITS).index(split)]))


def find(query: str, *, within: Molecules | None = None) -> Molecules:
    """The molecule with this SMILES or common name ("water", "benzene", ...), as a record of one molecule.

    A SMILES is looked up verbatim first, then as the same graph written differently (RDKit's canonical form, stereo
    chemistry ignored). `within` is searched (default: all of QM9). ValueError when there is none.
    """
    (query,) = require_strings("query", [query])
    molecules = load() if within is None else within
    smiles = NAMES.get(query.lower(), query)
    verbatim = molecules.smiles.find(smiles)
    if verbatim is not None:
        return molecules[verbatim].trimmed()
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    with rdBase.BlockLogs():
        wanted = Chem.MolFromSmiles(smiles)
    if wanted is None:
        raise ValueError(f"{query!r} is neither a SMILES nor one of the names {', '.join(NAMES)}")
    canonical = partial(Chem.MolToSmiles, isomericSmiles=False)
    # Only the molecules with the right elements are worth parsing.
    if Chem.GetFormalCharge(wanted):
        raise ValueError(f"{query!r} is an ion; QM9 holds neutral molecules")
    candidates = molecules.subset(formula=CalcMolFormula(wanted))
    for i, candidate in enumerate(candidates.smiles):
        found = Chem.MolFromSmiles(candidate)
        if found is not None and canonical(found) == canonical(wanted):
            return candidates[i].trimmed()
    raise ValueError(f"no molecule with SMILES {smiles!r} among the {len(molecules)} searched")


def _data_folder() -> Path:
    """Folder of the CSV files; importing qm9pack itself needs pkg_resources, which setuptools no longer has."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"QM9 is read from the package qm9pack, which is missing: pip install qm9pack=={VERSION}")
    return Path(spec.submodule_search_locations[0]) / "data"


def _everything(cache_dir: Path) -> Molecules:
    folder = _data_folder()
    stamp = _stamp(folder)
    # Of this layout: what another version of elf keeps beside it stays whole.
    cache = cache_dir / f"{FORMAT.replace('/', '-')}-{VERSION}.safetensors"
    arrays = read_cache(cache, FORMAT, stamp)
    if arrays is not None and not _fits(arrays):
        warnings.warn(f"the cache {cache} is made again: its arrays do not fit together", stacklevel=3)
        arrays = None
    if arrays is None:
        require_writable(cache, CACHE_ADVICE)
        arrays = {name: torch.from_numpy(array) for name, array in _parse(folder).items()}
        write_cache(cache, arrays, FORMAT, stamp)
    smiles = SmilesList.from_bytes(arrays["smiles"].numpy().tobytes(), arrays["lengths"].numpy())
    return Molecules.from_flat(arrays["positions"], arrays["numbers"], arrays["counts"], smiles, arrays["index"])


def _fits(arrays: Mapping[str, Tensor]) -> bool:
    """Whether these are the arrays of `_parse`, of sizes that fit together."""
    if {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()} != LAYOUT:
        return False
    atoms, letters = (int(arrays[name].sum(dtype=torch.long)) for name in ("counts", "lengths"))
    molecules = len(arrays["counts"])
    sizes = {"positions": atoms, "numbers": atoms, "smiles": letters}
    return all(len(array) == sizes.get(name, molecules) for name, array in arrays.items()) and molecules > 0


def _stamp(folder: Path) -> str:
    """Size and time of the CSV files: while they stand still the cache needs no second reading of 225 MB."""
    found = {}
    for name in FILES:
        try:
            stat = (folder / name).stat()
        except FileNotFoundError:
            raise ValueError(f"{folder / name} is missing; {_REINSTALL}") from None
        found[name] = [stat.st_size, stat.st_mtime_ns]
    return json.dumps(found)


_REINSTALL = f"reinstall it: pip install --force-reinstall --no-deps --no-cache-dir qm9pack=={VERSION}"


def _parse(folder: Path) -> dict[str, np.ndarray]:
    """Ragged arrays of all molecules, as in `LAYOUT`; smiles are bytes, lengths how many of them a molecule has."""
    import pandas as pd

    code = np.zeros(256, dtype=np.uint8)
    for number, symbol in SYMBOLS.items():
        code[ord(symbol)] = number
    parts = []
    for name, expected in FILES.items():
        content = (folder / name).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ValueError(
                f"{folder / name} is changed or truncated: SHA-256 {found}, expected {expected}; {_REINSTALL}"
            )
        table = pd.read_csv(io.BytesIO(content), usecols=["Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang"])
        letters = "".join(table["Elements"]).translate(str.maketrans("", "", "[]', "))
        # The brackets and numbers such as `0.` are not JSON; without the brackets it is one comma-separated line.
        numerals = ",".join(table["XYZ_Ang"]).translate(str.maketrans("", "", "[] "))
        smiles = [text.encode() for text in table["SMILES"]]
        part = {
            "positions": np.fromstring(numerals, sep=",").astype(np.float32).reshape(-1, 3),
            "numbers": code[np.frombuffer(letters.encode(), dtype=np.uint8)],
            "counts": table["N_atoms"].to_numpy(dtype=np.uint8),
            "index": table["Index"].to_numpy(dtype=np.int32),
            "smiles": np.frombuffer(b"".join(smiles), dtype=np.uint8),
            "lengths": np.array([len(text) for text in smiles], dtype=np.uint8),
        }
        if not len(part["positions"]) == len(part["numbers"]) == part["counts"].sum(dtype=np.int64):
            raise ValueError(f"{folder / name}: N_atoms, Elements and XYZ_Ang disagree")
        parts.append(part)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
