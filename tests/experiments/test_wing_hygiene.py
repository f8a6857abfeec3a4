"""The molecule experiments take NumPy's integers, and torch's default device and precision change nothing in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.molecules import conformers, edm_errors, errors, paper, springs
from experiments.molecules import small as molecules
from experiments.molecules.paper_tables import SETTINGS

SMALL, PAPER, CONFORMERS = molecules.SETTINGS["smoke"], SETTINGS["table2"]["smoke"], conformers.SETTINGS["smoke"]
RANKED = springs.Settings(molecules=2, distortions=4, fitted=2, sizes=(0.1,))


@contextmanager
def odd_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def small(seed):
    denoiser = molecules.make_denoiser(SMALL, 0)
    return lambda: molecules.sample(denoiser, SMALL, n=type(seed)(3), seed=seed).positions


def papers(seed):
    predictor, sizes = paper.make_predictor(PAPER, "gdm", 0), paper.TrainingSet(PAPER).sizes
    return lambda: paper.sample(predictor, PAPER, sizes, seed=seed).positions


def predicted(seed):
    network, data = conformers.make_network(CONFORMERS, 0), conformers.held_out_set(CONFORMERS)
    return lambda: conformers.predict(network, data, seed)


def told(seed):
    network, data = conformers.make_network(replace(CONFORMERS, told=True), 0), conformers.held_out_set(CONFORMERS)
    return lambda: conformers.predict(network, data, seed, told=True)


def once(seed):
    one, other = (paper.make_predictor(PAPER, "edm", n) for n in (0, 1))
    probed = errors.probe_of("qm9", (1, 5), (3, 29), 5).molecules
    relay = edm_errors.Relay(one, other, 0.2)
    return lambda: torch.cat([errors.denoised_once(relay, probed, noise, int(seed)) for noise in (0.1, 0.5)])


CASES = {
    "small": small,
    "paper": papers,
    "conformers": predicted,
    "told conformers": told,
    "denoised once": once,
    "half": lambda seed: lambda: molecules.training_molecules(SMALL, 0.5).index,
    "half of the paper's": lambda seed: lambda: paper.TrainingSet(PAPER, 0.5).rows,
    "drawn": lambda seed: lambda: springs.draw("test", type(seed)(3), seed).index,
    "curve": lambda seed: lambda: molecules.loss_curve([0.1] * 60),
    "ranked": lambda seed: lambda: springs.rank(RANKED, "minimum", "thermal", seed),
    "fitted": lambda seed: lambda: springs.fit_springs.__wrapped__(RANKED, seed),
}


@pytest.mark.parametrize("name", list(CASES))
def test_numpys_integers_and_torchs_defaults(name):
    expected, again = CASES[name](1)(), CASES[name](np.int64(1))
    with odd_defaults():
        found = again()
    assert torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_odd_seeds_are_refused(seed):
    with pytest.raises((TypeError, ValueError), match="seed"):
        molecules.sample(molecules.make_denoiser(SMALL, 0), SMALL, n=2, seed=seed)
    with pytest.raises((TypeError, ValueError), match="seed"):
        springs.rank(RANKED, "minimum", "random", seed)
    with pytest.raises((TypeError, ValueError), match="seed"):
        predicted(seed)()
