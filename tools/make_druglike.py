"""Makes elf/data/druglike.npz: drug-like molecules of the wheel `molsets`, one conformer each (see elf.data.druglike).

    pip download molsets==0.3.1 --no-deps
    python tools/make_druglike.py molsets-0.3.1-py3-none-any.whl

Molecules are taken in the order of a seeded permutation of the wheel's training SMILES until there are enough; what
cannot be used is counted by reason. Ten minutes on one core; killed, the same command goes on from the last hundred.
The same wheel and the same RDKit on the same kind of machine give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rdkit
import torch
from torch import Tensor

from elf.chemistry import molecular_graph, read
from elf.data import druglike
from elf.files import check_sha256, read_cache, write_atomically, write_cache

WHEEL_SHA256 = "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34"
INSIDE = "moses/dataset/data/train.csv.gz"
SEED = 0
PART = 100
FORMAT = "elf-druglike-part/1"


def smiles_of(wheel: Path) -> list[str]:
    """The SMILES in the wheel, in its order."""
    check_sha256(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        header, *rows = gzip.decompress(archive.read(INSIDE)).decode().split()
    if header != "SMILES":
        raise ValueError(f"{INSIDE} begins with {header!r}; it should begin with 'SMILES'")
    return rows


def part(rows: Sequence[int], smiles: Sequence[str], path: Path) -> dict[str, Tensor]:
    """Flat arrays of these rows' molecules, and how many each reason cost ("lost REASON"); kept in `path`."""
    stamp = f"{WHEEL_SHA256} {SEED} {list(rows)} RDKit {rdkit.__version__}"
    if (kept := read_cache(path, FORMAT, stamp)) is not None:
        return kept
    found = read.from_smiles([smiles[row] for row in rows], seed=SEED)
    fits = molecular_graph.bond_orders(found.molecules)[1]
    lost = Counter({reason: len(names) for reason, names in found.skipped.items()})
    lost["its graph is not found again in 3D"] += int((~fits).sum())
    good = found.molecules[fits]
    centred = [x[real].double() - x[real].double().mean(0) for x, real in zip(good.positions, good.mask, strict=True)]
    texts = [text.encode() for text in good.smiles]
    arrays = {
        "positions": (1000 * torch.cat(centred)).round().to(torch.int16),
        "numbers": good.numbers[good.mask].to(torch.uint8),
        "counts": good.counts.to(torch.uint8),
        "index": torch.tensor(rows, dtype=torch.int32, device="cpu")[good.index - 1] + 1,
        "smiles": torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8),
        "lengths": torch.tensor([len(text) for text in texts], dtype=torch.uint8, device="cpu"),
        **{f"lost {reason}": torch.tensor([n], dtype=torch.int32, device="cpu") for reason, n in lost.items() if n},
    }
    write_cache(path, arrays, FORMAT, stamp)
    return arrays


def make(smiles: Sequence[str], size: int, work: Path) -> tuple[bytes, dict[str, int]]:
    """The file with `size` molecules, and how many of those looked at were lost to each reason."""
    order = np.random.RandomState(SEED).permutation(len(smiles)).tolist()
    parts: list[dict[str, Tensor]] = []
    lost: Counter[str] = Counter()
    found = 0
    for start in range(0, len(order), PART):
        one = part(order[start : start + PART], smiles, work / f"{start:07d}.safetensors")
        lost.update({name[5:]: int(n) for name, n in one.items() if name.startswith("lost ")})
        parts.append(one)
        found += len(one["counts"])
        print(f"{found} of {size} molecules; lost: {dict(lost)}", flush=True)
        if found >= size:
            break
    else:
        raise ValueError(f"smiles gives {found} molecules; it should give size={size}")
    columns = {name: torch.cat([one[name] for one in parts]) for name in druglike.COLUMNS}
    atoms, letters = (int(columns[name][:size].sum(dtype=torch.long)) for name in ("counts", "lengths"))
    ends = {"positions": atoms, "numbers": atoms, "smiles": letters}
    file = io.BytesIO()
    np.savez_compressed(file, **{name: column[: ends.get(name, size)].numpy() for name, column in columns.items()})
    return file.getvalue(), dict(lost)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--size", type=int, default=druglike.SIZE)
    parser.add_argument("--work", type=Path, default=Path("build/druglike"), help="folder of what is done so far")
    parser.add_argument("--output", type=Path, default=druglike.FILE)
    args = parser.parse_args()
    data, lost = make(smiles_of(args.wheel), args.size, args.work)
    write_atomically(args.output, data)
    print(f"wrote {args.output}, {len(data)} bytes; lost: {lost}")
    check_sha256(args.output, druglike.SHA256)


if __name__ == "__main__":
    main()
