"""Frechet distance against closed forms, ChemNet against its own package, on a few molecules."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from elf.metrics import chemnet
from elf.metrics import molecules as metrics

ALKANES = ["C" * n for n in range(1, 25)]
ALCOHOLS = ["C" * n + "O" for n in range(1, 25)]


def test_frechet_distance_of_two_gaussians_on_a_line(generator, dtype):
    a = torch.randn(4000, 1, generator=generator, dtype=dtype)
    b = 3 * torch.randn(4000, 1, generator=generator, dtype=dtype) + 2
    wanted = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert chemnet.frechet_distance(a, b) == pytest.approx(float(wanted), rel=1e-5)
    assert chemnet.frechet_distance(a, b) == pytest.approx(4 + 4, rel=0.1)


def test_frechet_distance_equals_the_matrix_root(generator):
    a = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    b = a @ torch.randn(8, 8, generator=generator, dtype=torch.float64) + 0.2
    first, second = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    root = scipy.linalg.sqrtm(first @ second).real
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert chemnet.frechet_distance(a, b) == pytest.approx(float(wanted), rel=1e-6)
    assert chemnet.frechet_distance(a, b) == pytest.approx(chemnet.frechet_distance(b, a), rel=1e-6)


def test_frechet_distance_with_fewer_rows_than_columns(generator):
    a, b = torch.randn(2, 5, 20, generator=generator)
    assert chemnet.frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert chemnet.frechet_distance(a, b) > 1


def test_equals_the_package_itself(monkeypatch):
    from fcd import utils

    # The package asks for `disp`, which scipy 1.18 no longer has: hand it the root as it expects it.
    root = utils.linalg.sqrtm
    monkeypatch.setattr(utils.linalg, "sqrtm", lambda a, disp=True: root(a) if disp else (root(a), 0.0))
    first, second = (chemnet.chemnet_activations(smiles) for smiles in (ALKANES, ALCOHOLS))
    assert first.shape == (24, 512)
    assert first.dtype == torch.float32
    wanted = utils.calculate_frechet_distance(
        *(f(rows) for rows in (first.numpy(), second.numpy()) for f in (lambda r: r.mean(0), lambda r: np.cov(r.T)))
    )
    # The package adds 1e-6 to singular covariances; here they are.
    assert chemnet.frechet_distance(first, second) == pytest.approx(wanted, rel=2e-2)


def test_activations_do_not_depend_on_the_batch():
    torch.testing.assert_close(
        chemnet.chemnet_activations(ALCOHOLS, batch_size=5), chemnet.chemnet_activations(ALCOHOLS), rtol=1e-4, atol=1e-5
    )
    assert chemnet.chemnet_activations([]).shape == (0, 512)


def test_the_data_are_near_themselves_and_far_from_alkanes(all_of_qm9):
    shuffled = all_of_qm9[torch.randperm(len(all_of_qm9), generator=torch.Generator().manual_seed(0))[:400]]
    smiles = sorted(metrics.canonical_smiles(shuffled.smiles))
    halves = [chemnet.chemnet_activations(smiles[start::2]) for start in (0, 1)]
    near = chemnet.frechet_distance(*halves)
    assert chemnet.frechet_distance(halves[0], halves[0]) == pytest.approx(0, abs=1e-4)
    # Two samples of 200 of one distribution: 2 to 4, where 10,000 would give 0.1.
    assert 0.5 < near < 5
    assert chemnet.frechet_distance(halves[0], chemnet.chemnet_activations(ALKANES)) > 5 * near


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="first has 1 rows"):
        chemnet.frechet_chemnet_distance(["C"], ["C", "CC"])
    with pytest.raises(ValueError, match="second 3; they should agree"):
        chemnet.frechet_distance(torch.ones(3, 2), torch.ones(3, 3))
    with pytest.raises(ValueError, match="of 400 characters; ChemNet reads 349"):
        chemnet.chemnet_activations(["C" * 400])
    with pytest.raises(ValueError, match="smiles holds 'nonsense', which RDKit cannot read"):
        chemnet.chemnet_activations(["C", "nonsense"])
    with pytest.raises(ValueError, match="smiles holds '', which RDKit cannot read"):
        chemnet.chemnet_activations([""])
    chemnet._chemnet.cache_clear()
    monkeypatch.setattr(chemnet, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="has SHA-256 c22e9776"):
        chemnet.chemnet_activations(["C"])
    for name in [name for name in sys.modules if name.split(".")[0] == "fcd"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fcd", None)
    with pytest.raises(ImportError, match="needs the package fcd"):
        chemnet.chemnet_activations(["C"])
    monkeypatch.undo()
    chemnet._chemnet.cache_clear()
