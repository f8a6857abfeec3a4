"""Frechet ChemNet distance (Preuer et al. 2018, arXiv:1803.09518): do two sets of molecules look alike to a chemist's
network?

ChemNet reads SMILES and predicts bioactivities; the 512 activations of its last layer but one describe a molecule. The
package `fcd` brings its weights, so nothing is downloaded. It comes with `pip install elf[chem]`, and with the lock.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_count, require_strings, require_tensor
from elf.files import check_sha256

WEIGHTS = "ChemNet_v0.13_pretrained.pt"
WEIGHTS_SHA256 = "c22e977602b30eeabd7f81e6c790dd3234c7d7788c6c3e7979d8720ccc96951a"
LONGEST = 349
"""Characters of the longest SMILES that ChemNet's window of 350 holds, with its end mark."""


def frechet_chemnet_distance(smiles: Collection[str], reference: Collection[str]) -> float:
    """FCD between two sets of SMILES: 0 for equal sets, 0.1 to 2 for good models of QM9, some 20 to 40 for junk.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) with mean and covariance of the activations (see `frechet_distance`). It
    falls with the number of molecules, by about a constant over n: two halves of the same data differ too. Compare
    sets of the same size only, 10,000 if it can be. About 150 molecules a second on one
    core; keep `chemnet_activations` of a reference that is used often, and call `frechet_distance`.

    It judges SMILES. Those of `to_smiles` are read off distances, blind to charges and aromatic bonds: read the data's
    own geometries so first, and take their distance as the best that can be had.

    Args:
        smiles, reference: valid SMILES, in the same form (canonical, both with or both without stereo marks:
            `elf.metrics.molecules.to_smiles` and `canonical_smiles`).

    Raises:
        ImportError: the package fcd is not installed.
        ValueError: a set of fewer than two; a SMILES that is too long for ChemNet, or that RDKit cannot read.
    """
    first, second = chemnet_activations(smiles), chemnet_activations(reference)
    return frechet_distance(first, second)


def chemnet_activations(smiles: Collection[str], *, batch_size: int = 128) -> Float[Tensor, "n 512"]:
    """ChemNet's description of each SMILES, float32. Raises as `frechet_chemnet_distance`."""
    from rdkit import Chem, rdBase

    batch_size = require_count("batch_size", batch_size)
    texts = require_strings("smiles", smiles)
    with rdBase.BlockLogs():
        for text in texts:
            if len(text) > LONGEST:
                raise ValueError(f"smiles holds one of {len(text)} characters; ChemNet reads {LONGEST} at most")
            if not text or Chem.MolFromSmiles(text, sanitize=False) is None:
                raise ValueError(f"smiles holds {text!r}, which RDKit cannot read")
    network, encode = _chemnet()
    rows = []
    with torch.no_grad():
        for begin in range(0, len(texts), batch_size):
            one_hots = encode(texts[begin : begin + batch_size])
            rows.append(network(one_hots.transpose(1, 2)))
    return torch.cat(rows) if rows else torch.empty(0, 512, dtype=torch.float32, device="cpu")


def frechet_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m columns"]) -> float:
    """Frechet distance (squared 2-Wasserstein) of the Gaussians with the two samples' means and covariances.

    The trace of (C C')^(1/2) is taken as the sum of the square roots of the eigenvalues of C^(1/2) C' C^(1/2), which is
    symmetric: real for singular covariances too (fewer samples than dimensions), without a correction. float64.

    Raises:
        ValueError: fewer than two rows in a sample; another number of columns; numbers that are not finite.
    """
    for name, sample in (("first", first), ("second", second)):
        if not require_tensor(name, sample).is_floating_point() or sample.ndim != 2 or not sample.isfinite().all():
            raise ValueError(f"{name} has {sample.dtype} {tuple(sample.shape)}; it should be finite numbers (n, d)")
        if len(sample) < 2:
            raise ValueError(f"{name} has {len(sample)} rows; it should have at least two, for a covariance")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"first has {first.shape[1]} columns, second {second.shape[1]}; they should agree")
    a, b = (sample.detach().cpu().double() for sample in (first, second))  # in this order: MPS has no float64
    shift = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.cov(a.T).view(a.shape[1], -1), torch.cov(b.T).view(a.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((shift + cov_a.trace() + cov_b.trace() - 2 * overlap).clamp(min=0))


@cache
def _chemnet() -> tuple[Any, Any]:
    """The network, and the encoder of a list of SMILES as one-hots (n, 350, 35)."""
    try:
        from fcd.fcd import load_ref_model
        from fcd.utils import SmilesDataset
    except ImportError as error:
        raise ImportError(
            "the Frechet ChemNet distance needs the package fcd, which brings ChemNet's weights: "
            "pip install fcd, or pip install elf[chem]"
        ) from error
    import numpy as np

    with as_file(files("fcd") / WEIGHTS) as path:
        check_sha256(path, WEIGHTS_SHA256)
        network = load_ref_model(str(path))

    def encode(texts: list[str]) -> Tensor:
        rows = SmilesDataset(texts)
        return torch.from_numpy(np.stack([rows[i] for i in range(len(rows))])).float()

    return network.float(), encode
