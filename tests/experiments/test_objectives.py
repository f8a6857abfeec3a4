"""What the experiments train on, worked out by hand: the loss of each step from what went into it and came out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from elf.data.batching import bucketed_batches
from elf.elements import ELEMENTS
from experiments.molecules import conformers, paper
from experiments.molecules import small as molecules
from experiments.molecules.losses import FAR, LOSSES
from experiments.molecules.paper_settings import MODELS
from experiments.molecules.paper_tables import SETTINGS


def squared(x, y):
    return ((x - y) ** 2).sum() / len(x)


def absolute(x, y):
    return np.abs(x - y).sum() / len(x)


def aligned(x, y):
    _, root = Rotation.align_vectors(y - y.mean(0), x - x.mean(0))
    return root**2 / len(x)


def springs(k):
    def energy(x, y):
        pairs = [(i, j) for i in range(len(x)) for j in range(i)]
        rest = {(i, j): np.linalg.norm(y[i] - y[j]) for i, j in pairs}
        return sum(k(r) * (np.linalg.norm(x[i] - x[j]) - r) ** 2 for (i, j), r in rest.items()) / len(x)

    return energy


SMALL = {
    "mse": squared,
    "kabsch": aligned,
    "energy": springs(lambda r: 5 * math.exp(-r)),
    "short": springs(lambda r: 26 * math.exp(-r / 0.5)),
    "inverse_square": springs(lambda r: 2.24 / r**2),
    "inverse": springs(lambda r: 1.13 / r),
    "constant": springs(lambda r: 0.462),
}


class Recorder:
    """Keeps what a module is called with and what it answers, in training."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.calls: list[tuple] = []
        module.register_forward_hook(lambda _, args, out: self.calls.append((args, out)))


def arrays(positions, mask):
    """The real atoms of each molecule, in double precision."""
    return [x[real].double().numpy() for x, real in zip(positions.detach(), mask, strict=True)]


def judged_small(loss, x, y, sigma):
    """The loss on positions of one molecule at one noise level."""
    if loss == "near":
        loss = "energy" if sigma < 0.5 else "mse"
    elif loss == "far":
        loss = "mse" if sigma < 0.5 else "energy"
    return (sigma**2 + 1.5**2) / (sigma * 1.5) ** 2 * SMALL[loss](x, y)


@pytest.mark.parametrize("loss", [*SMALL, "near", "far"])
def test_small_molecules(loss, monkeypatch, tmp_path):
    """Karras' weight times the loss on positions, plus the cross-entropy of the types, an atom each."""
    settings = molecules.SETTINGS["smoke"]
    network, made = [], molecules.make_denoiser

    def make(*args):
        denoiser = made(*args)
        network.append(Recorder(denoiser.network))
        return denoiser

    energy = LOSSES[loss]()
    judged = Recorder(energy)
    monkeypatch.setitem(LOSSES, loss, lambda: energy)
    monkeypatch.setattr(molecules, "make_denoiser", make)
    monkeypatch.setattr(molecules, "sample", lambda *args, **kwargs: molecules.training_molecules(settings)[:2])
    cell = {"loss": loss, "steps": 3, "share": 1.0, "learning_rate": 2e-3, "seed": 0}
    curve = molecules.run_cell(settings, cell, tmp_path, [])["loss_curve"]

    data = molecules.training_molecules(settings)
    rows = bucketed_batches(data.counts, settings.batch_size, 0)
    levels = []
    for step, ((args, out), ((x_hat, *_), _)) in enumerate(zip(network[0].calls[:3], judged.calls, strict=True)):
        sigma, mask = args[2].double().tolist(), args[3]
        batch = data[rows(step)]
        clean = [y - y.mean(0) for y in arrays(batch.positions, batch.mask)]
        predicted = arrays(x_hat, mask)
        positions = [judged_small(loss, x, y, s) for x, y, s in zip(predicted, clean, sigma, strict=True)]
        logs = out.logits.detach().double().log_softmax(-1)
        types = [
            -np.mean([logs[i, j, ELEMENTS.index(z)].item() for j, z in enumerate(numbers) if z])
            for i, numbers in enumerate(batch.numbers.tolist())
        ]
        assert curve[step] == pytest.approx(np.mean(positions) + np.mean(types), rel=2e-4, abs=1e-4)
        levels += sigma
    # exp(N(-1, 1.3^2)) angstrom.
    assert np.log(levels).mean() == pytest.approx(-1, abs=2.5 * 1.3 / len(levels) ** 0.5)
    if loss in FAR:
        assert min(levels) < 0.5 < max(levels)


PAPER = {
    "mse": (squared, 2, (1e-3, 1.5), (3e-4, 1.0)),
    "mae": (absolute, 1, (1e-3, 0.8), (3e-4, 1.0)),
    "kabsch": (aligned, 2, (8e-4, 0.8), (3e-4, 0.8)),
    "energy": (springs(lambda r: 42 * math.exp(-r)), 2, (4e-4, 0.05), (1e-4, 0.05)),
    "inverse_square": (springs(lambda r: 16 / r**2), 2, (6e-4, 0.05), (1e-4, 0.1)),
    "inverse": (springs(lambda r: 5 / r), 2, (7e-4, 0.05), (1e-4, 0.05)),
    "constant": (springs(lambda r: 1), 2, (9e-4, 0.05), (1e-4, 0.05)),
}
"""The loss of one molecule, the power of a length it has, C.2's best rate and weight for the GNN and for the EGNN."""


@pytest.mark.parametrize(
    ("loss", "model", "over"),
    [
        *((loss, model, "atoms") for loss in PAPER for model in MODELS),
        *((loss, model, "edm") for loss in ("energy", "mse", "mae", "kabsch") for model in ("gdm", "edm")),
    ],
)
def test_the_papers_molecules(loss, model, over, monkeypatch):
    """w (alpha / sigma)^degree E(x_hat, x) + |eps_h - eps_hat_h|^2 / n, with all noise recovered from what went in.

    As in EDM's program, the energies' second term has (3 + 6) N instead of n, N atoms with the padding.
    """
    settings = replace(SETTINGS["table2"]["smoke"], features_over=over)
    judge, degree, gdm, edm = PAPER[loss]
    rate, weight = edm if model == "edm" else gdm
    network, made = [], paper.make_predictor

    def make(*args):
        predictor = made(*args)
        network.append(Recorder(predictor.network))
        return predictor

    monkeypatch.setattr(paper, "make_predictor", make)
    energy = paper.LOSSES[loss].energy()
    judged = Recorder(energy)
    monkeypatch.setitem(paper.LOSSES, loss, paper.LOSSES[loss]._replace(energy=lambda: energy))
    data = paper.TrainingSet(settings)
    history = paper.train(settings, model, loss, seed=0, data=data).history
    pool = 50 if over == "atoms" else 1
    batch = data.batch(bucketed_batches(data.sizes, settings.batch_size, 0, pool=pool)(0))
    (noisy, features, t, mask), out = network[0].calls[0]
    alpha = ((1 - 2e-5) * (1 - t.double() ** 2) ** 2 + 1e-5).sqrt().tolist()
    sigma = [math.sqrt(1 - a**2) for a in alpha]
    values = []
    for i, n in enumerate(mask.sum(1).tolist()):
        z = batch["numbers"][i, :n].tolist()
        x, moves = (part[i, :n].detach().double().numpy() for part in (noisy, out.displacements))
        x_hat = (x - sigma[i] * (moves - moves.mean(0))) / alpha[i]
        clean = judged.calls[0][0][1][i, :n].double().numpy()
        real = batch["positions"][i, :n].double().numpy()
        turn, miss = Rotation.align_vectors(clean, real - real.mean(0))
        assert miss < 1e-4
        assert (turn.magnitude() > 1e-3) == MODELS[model].rotated
        types = np.array([[0.25 * (z[j] == kind) for kind in ELEMENTS] + [0.1 * z[j]] for j in range(n)])
        eps = (features[i, :n].double().numpy() - alpha[i] * types) / sigma[i]
        missed = ((eps - out.logits[i, :n].detach().double().numpy()) ** 2).sum()
        missed /= 9 * mask.shape[1] if over == "edm" and loss == "energy" else n
        values.append(weight * (alpha[i] / sigma[i]) ** degree * judge(x_hat, clean) + missed)
    assert history[0]["loss"] == pytest.approx(np.mean(values), rel=1e-3)
    assert paper.fit_settings(SETTINGS["table2"]["paper"], model, loss, 1000, 0).learning_rate == rate


def test_the_weight_that_the_programs_denominators_make(monkeypatch):
    """512 molecules of QM9, in batches of 64: features weigh 12.5 times less than where both terms are an atom's."""
    settings = replace(
        SETTINGS["table2"]["smoke"], heavy_atoms=(1, 9), batch_size=64, steps=8, warmup_steps=0, learning_rates={}
    )
    data, features = paper.TrainingSet(settings), {}
    true = paper.denoising_loss

    def spy(*args, **kwargs):
        parts = true(*args, **kwargs)
        kept = features.setdefault(kwargs["features_over"], [])
        kept.append(parts.features.item())
        return parts

    monkeypatch.setattr(paper, "denoising_loss", spy)
    for over in ("atoms", "edm"):
        still = replace(settings, features_over=over)
        paper.train(still, "gdm", "energy", seed=0, data=data, learning_rate=1e-12)
    assert [len(found) for found in features.values()] == [8, 8]
    assert np.mean(features["atoms"]) / np.mean(features["edm"]) == pytest.approx(12.5, abs=0.5)


def test_conformers(monkeypatch):
    """The energy between the answer and the molecule, which is centred and turned; any number of passes may be last."""
    settings = replace(conformers.SETTINGS["smoke"], steps=12, passes=3, heavy_atoms=(1, 5))
    made, network, energy = conformers.make_network, [], LOSSES["energy"]()
    judged = Recorder(energy)

    def make(*args):
        model = made(*args)
        network.append(Recorder(model))
        return model

    monkeypatch.setattr(conformers, "make_network", make)
    history = conformers.train(settings, energy, seed=0).history
    data = conformers.training_set(settings).molecules
    rows = bucketed_batches(data.counts, settings.batch_size, 0)
    passes = []
    for step, ((args, answer), ((prediction, target, mask), values)) in enumerate(
        zip(network[0].calls[:12], judged.calls, strict=True)
    ):
        passes.append(args[4])
        batch = data[rows(step)]
        assert prediction is answer
        assert torch.equal(mask, batch.trimmed().mask)
        for y, real in zip(arrays(target, mask), arrays(batch.positions, batch.mask), strict=True):
            turn, miss = Rotation.align_vectors(y, real - real.mean(0))
            assert miss < 1e-4 * math.sqrt(len(y))
            assert turn.magnitude() > 1e-3
        by_hand = [SMALL["energy"](x, y) for x, y in zip(arrays(answer, mask), arrays(target, mask), strict=True)]
        assert values.tolist() == pytest.approx(by_hand, rel=1e-4)
        assert history[step]["loss"] == pytest.approx(np.mean(by_hand), rel=1e-4)
    assert set(passes) == {1, 2, 3}
