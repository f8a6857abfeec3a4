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
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elf.checks import require_count, require_one_of
from elf.data.molecules import Molecules, SmilesList, formula, one_hot, parse_formula
from elf.elements import ELEMENTS, NUMBERS

__all__ = ["ELEMENTS", "Molecules", "find", "formula", "load", "one_hot", "parse_formula", "split_index"]

VERSION = "1.0.3"
SIZE = 130_831
SPLITS = {"train": 100_000, "validation": 17_748, "test": 13_083}
# SHA-256 of the files in the wheel.
FILES = {
    "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
    "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
    "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
}
NAMES = {
    "methane": "C",
    "ammonia": "N",
    "water": "O",
    "acetylene": "C#C",
    "ethane": "CC",
    "methanol": "CO",
    "ethanol": "CCO",
    "acetone": "CC(C)=O",
    "benzene": "c1ccccc1",
    "phenol": "Oc1ccccc1",
    "toluene": "Cc1ccccc1",
    "cyclohexane": "C1CCCCC1",
    "propylene oxide": "CC1CO1",
    "glyceraldehyde": "OCC(O)C=O",
}


def load(
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    atoms: int | Sequence[int] | None = None,
    heavy_atoms: int | Sequence[int] | None = None,
    formula: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Molecules:
    """QM9, or the part of it in these inclusive ranges of atoms and heavy atoms, of this formula and split.

    The first call parses the wheel's CSV files (a few seconds, pinned by SHA-256) and caches the arrays in `cache_dir`
    (default: the environment variable ELF_CACHE, else the user's cache folder); later calls take well under a second.
    `split` is fixed for good (`split_index`). `limit` keeps a random subset of that size, drawn with `seed`, in QM9's
    order. The result is padded to its largest molecule.

    Raises ImportError without qm9pack, ValueError for a changed CSV file or bad arguments or an empty result, OSError
    when the cache cannot be written. A damaged cache is rebuilt with a UserWarning that names it.
    """
    if limit is not None:
        require_count("limit", limit)
    if split is not None:
        require_one_of("split", split, tuple(SPLITS))
    molecules = _everything(_cache_folder(cache_dir))
    if split is not None:
        molecules = molecules[split_index(split)]
    molecules = molecules.subset(atoms=atoms, heavy_atoms=heavy_atoms, formula=formula)
    if not len(molecules):
        raise ValueError(
            f"no QM9 molecule has atoms={atoms}, heavy_atoms={heavy_atoms}, formula={formula!r}, split={split!r}"
        )
    if limit is not None and limit < len(molecules):
        rows = np.random.RandomState(seed).permutation(len(molecules))[:limit]
        molecules = molecules[torch.from_numpy(np.sort(rows))]
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


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    from platformdirs import user_cache_dir

    return Path(cache_dir or os.environ.get("ELF_CACHE") or user_cache_dir("elf")).expanduser()


def _data_folder() -> Path:
    """Folder of the CSV files; importing qm9pack itself needs pkg_resources, which setuptools no longer has."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"QM9 is read from the package qm9pack, which is missing: pip install qm9pack=={VERSION}")
    return Path(spec.submodule_search_locations[0]) / "data"


def _everything(cache_dir: Path) -> Molecules:
    folder = _data_folder()
    stamp = _stamp(folder)
    cache = cache_dir / f"qm9-{VERSION}.safetensors"
    arrays = _read_cache(cache, stamp)
    if arrays is None:
        with _CacheWriter(cache) as writer:
            arrays = _parse(folder)
            writer.write(arrays, stamp)
    return _padded(arrays)


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
    """Ragged arrays of all molecules: positions (atoms in all, 3), numbers, counts, index, smiles (bytes), lengths."""
    import pandas as pd

    code = np.zeros(256, dtype=np.uint8)
    for symbol, number in NUMBERS.items():
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


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


def _read_cache(cache: Path, stamp: str) -> dict[str, np.ndarray] | None:
    """The cached arrays; None when there are none, when the CSV files were touched since, or when they are damaged."""
    from safetensors import SafetensorError, safe_open

    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        if metadata.get("sha256") == _digest(arrays):
            return arrays if metadata.get("files") == stamp else None
        reason = "its SHA-256 does not match its content"
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error)
    warnings.warn(f"the QM9 cache {cache} is damaged ({reason}); it is rebuilt from qm9pack", stacklevel=4)
    return None


class _CacheWriter:
    """Opens the cache's temporary file before the slow parsing: a folder that cannot be written fails at once."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def __enter__(self) -> _CacheWriter:
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.cache.parent, prefix=self.cache.name, suffix=".part")
        except OSError as error:
            raise self._explained(error) from error
        os.close(handle)
        self.part = Path(name)
        return self

    def write(self, arrays: dict[str, np.ndarray], stamp: str) -> None:
        from safetensors.numpy import save

        content = save(arrays, metadata={"version": VERSION, "sha256": _digest(arrays), "files": stamp})
        try:
            with self.part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.part, self.cache)
        except OSError as error:
            raise self._explained(error) from error

    def __exit__(self, *_: object) -> None:
        self.part.unlink(missing_ok=True)

    def _explained(self, error: OSError) -> OSError:
        reason = error.strerror or str(error)
        return OSError(
            error.errno,
            f"cannot write the QM9 cache ({reason}); it needs 40 MB in a folder that can be written: "
            "set the environment variable ELF_CACHE or pass cache_dir",
            str(self.cache.parent),
        )


def _padded(arrays: dict[str, np.ndarray]) -> Molecules:
    counts = arrays["counts"].astype(np.int64)
    mask = torch.from_numpy(np.arange(counts.max()) < counts[:, None])
    positions = torch.zeros(*mask.shape, 3)
    positions[mask] = torch.from_numpy(arrays["positions"])
    numbers = torch.zeros(mask.shape, dtype=torch.long)
    numbers[mask] = torch.from_numpy(arrays["numbers"]).long()
    offsets = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
    smiles = SmilesList(arrays["smiles"].tobytes(), offsets)
    return Molecules(positions, numbers, smiles, torch.from_numpy(arrays["index"]).long())
