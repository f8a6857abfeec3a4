"""Ancestral sampling on Gaussian data, where every variance is known, and its bookkeeping."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from elf.energy import PairEnergy
from elf.generative.ancestral import KarrasMolecules, ancestral_molecules, draw_counts
from elf.generative.diffusion import TYPE_SCALE, Denoised, Denoiser
from elf.generative.noise_prediction import Clean, Featuriser, NoisePredictor, noise_loss
from elf.generative.schedules import Karras, Polynomial, Schedule
from elf.models.egnn import EGNN, GNN
from elf.models.transformer import EquivariantTransformer

SIZE, SPREAD = 0.7, 0.2


class Gaussian:
    """Knows E[x | x_t] where coordinates are N(0, SIZE^2) and features N(0, SPREAD^2); counts its evaluations."""

    width = 2

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.calls, self.last = schedule, 0, Tensor()

    def denoise(self, positions: Tensor, features: Tensor, t: Tensor, mask: Tensor) -> Clean:
        self.calls += 1
        a, s = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
        shrink = [a * size**2 / (a.square() * size**2 + s.square()) for size in (SIZE, SPREAD)]
        self.last = shrink[1] * features
        return Clean(shrink[0] * positions, self.last)

    def decode(self, features: Tensor, mask: Tensor) -> Tensor:
        return mask.long() * 6


def variance(schedule: Schedule, steps: int, size: float) -> float:
    """What the sampler must leave: V_s = c^2 V_t + b^2, step by step in float64."""
    times = schedule.grid(steps).double()
    alphas, sigmas = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    value = sigmas[0] ** 2
    for (a, s), (a_next, s_next) in pairwise(zip(alphas, sigmas, strict=True)):
        gain, shrink = a / a_next * s_next**2 / s**2, a * size**2 / (a**2 * size**2 + s**2)
        value = (gain + (a_next - gain * a) * shrink) ** 2 * value + s_next**2 - gain**2 * s**2
    if sigmas[-1] > 0:
        value *= (alphas[-1] * size**2 / (alphas[-1] ** 2 * size**2 + sigmas[-1] ** 2)) ** 2
    return value


@pytest.mark.parametrize("schedule", [Karras(sigma_max=5.0), Polynomial()], ids=["Karras", "Polynomial"])
def test_variance_of_positions_and_features(schedule):
    n, atoms, steps = 6000, 4, 100
    oracle = Gaussian(schedule)
    drawn = ancestral_molecules(
        oracle, torch.full((n,), atoms), torch.Generator().manual_seed(0), steps=steps, batch_size=n
    )
    found = (drawn.positions.square().sum() / (3 * (atoms - 1) * n)).item()
    assert found == pytest.approx(variance(schedule, steps, SIZE), rel=4 * math.sqrt(2 / (9 * n)))
    assert drawn.positions.sum(dim=1).abs().max() < 1e-5
    found = oracle.last.square().mean().item()
    assert found == pytest.approx(variance(schedule, steps, SPREAD), rel=4 * math.sqrt(2 / (8 * n)))
    # A thousand steps leave the data's variance, to half a per cent.
    assert variance(schedule, 1000, SIZE) == pytest.approx(SIZE**2, rel=0.01)


@pytest.mark.parametrize(("schedule", "extra"), [(Karras(), 0), (Polynomial(), 1)], ids=["Karras", "Polynomial"])
def test_evaluations_progress_and_frames(schedule, extra):
    oracle, told = Gaussian(schedule), []
    drawn = ancestral_molecules(
        oracle, torch.tensor([3, 5, 2]), torch.Generator().manual_seed(0), steps=20, batch_size=2, frames=4,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert oracle.calls == 2 * (20 + extra)
    assert told == [(i + 1, 40) for i in range(40)]
    assert drawn.trajectory.shape == (4, 3, 5, 3)
    torch.testing.assert_close(drawn.trajectory[-1], drawn.positions, rtol=0.1, atol=0.05)
    assert (drawn.numbers > 0).sum(dim=1).tolist() == [3, 5, 2]
    assert not drawn.positions[2, 2:].any()


def test_same_seed_same_molecules():
    predictor = NoisePredictor(EGNN(channels=8, layers=1))
    counts = torch.tensor([4, 2, 5])
    draws = [ancestral_molecules(predictor, counts, torch.Generator().manual_seed(s), steps=5) for s in (0, 0, 1)]
    assert torch.equal(draws[0].positions, draws[1].positions)
    assert torch.equal(draws[0].numbers, draws[1].numbers)
    assert not torch.equal(draws[0].positions, draws[2].positions)
    assert set(draws[0].numbers.unique().tolist()) <= {0, 1, 6, 7, 8, 9}
    assert draws[0].trajectory is None


def test_dropout_is_off_and_the_mode_comes_back():
    class Noisy(EGNN):
        def forward(self, *args):
            assert not self.training
            return super().forward(*args)

    predictor = NoisePredictor(Noisy(channels=8, layers=1)).train()
    ancestral_molecules(predictor, torch.tensor([2]), torch.Generator(), steps=2)
    assert predictor.training


def test_the_notebooks_denoiser_samples_too():
    """One known molecule: the sampler of the Karras noise ends there, whatever the number of steps."""
    target = torch.tensor([[[0.0, 0, 0.5], [0, 0, -0.5]]])

    class Certain(nn.Module):
        def forward(self, noisy, mask):
            logits = torch.zeros(*mask.shape, 5)
            logits[..., 2] = 9
            return Denoised(target.expand(len(mask), -1, -1), logits)

    drawn = ancestral_molecules(
        KarrasMolecules(Certain(), Karras()), torch.tensor([2, 2]), torch.Generator().manual_seed(0), steps=7
    )
    torch.testing.assert_close(drawn.positions, target.expand(2, -1, -1))
    assert drawn.numbers.tolist() == [[7, 7], [7, 7]]


def test_karras_molecules_expects_scaled_one_hots():
    adapter = KarrasMolecules(Denoiser(EquivariantTransformer(channels=8, heads=2, layers=1)), Karras())
    mask = torch.tensor([[True, True, False]])
    clean = adapter.denoise(torch.zeros(1, 3, 3), torch.zeros(1, 3, 5), torch.ones(1), mask)
    assert clean.features.sum(dim=-1).tolist() == [[pytest.approx(TYPE_SCALE)] * 2 + [0]]
    drawn = ancestral_molecules(adapter, torch.tensor([3, 1]), torch.Generator().manual_seed(0), steps=3)
    assert (drawn.numbers > 0).sum(dim=1).tolist() == [3, 1]
    assert drawn.positions[1].abs().max() == 0


def test_sizes_are_drawn_from_the_data():
    counts = torch.tensor([3, 3, 3, 9])
    drawn = draw_counts(counts, 4000, seed=1)
    assert set(drawn.tolist()) == {3, 9}
    assert (drawn == 9).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drawn, draw_counts(counts, 4000, seed=1))


@pytest.mark.parametrize("build", [EGNN, GNN])
def test_model_loss_and_sampler_run_on_the_meta_device(build):
    with torch.device("meta"):
        predictor = NoisePredictor(build(channels=16, layers=2))
    positions = torch.zeros(2, 4, 3, device="meta")
    numbers = torch.zeros(2, 4, dtype=torch.long, device="meta")
    generator = torch.Generator().manual_seed(0)
    loss = sum(noise_loss(predictor, PairEnergy(), positions, numbers, generator, predictor=predictor))
    loss.backward()
    assert loss.is_meta
    assert all(p.grad.is_meta for p in predictor.parameters())
    drawn = ancestral_molecules(predictor, torch.tensor([3, 4]), generator, steps=3, device="meta", frames=2)
    assert all(part.is_meta for part in (drawn.positions, drawn.numbers, drawn.trajectory))
    assert drawn.positions.shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("counts", "arguments", "message"),
    [
        (torch.tensor([0]), {}, r"counts has shape \(1,\); it should be \(n,\) with n >= 1 and entries >= 1"),
        (torch.tensor([], dtype=torch.long), {}, r"counts has shape \(0,\)"),
        (torch.tensor([2]), {"steps": 0}, "steps is 0"),
        (torch.tensor([2]), {"batch_size": 0}, "batch_size is 0"),
        (torch.tensor([2]), {"steps": 3, "frames": 4}, "frames is 4; it should be between 0 and steps=3"),
    ],
)
def test_errors(counts, arguments, message):
    with pytest.raises(ValueError, match=message):
        ancestral_molecules(Gaussian(Polynomial()), counts, torch.Generator(), **arguments)


def test_featuriser_width_reaches_the_sampler():
    predictor = NoisePredictor(
        EGNN(features=16, channels=8, layers=1), featuriser=Featuriser(tuple(range(1, 17)), False)
    )
    drawn = ancestral_molecules(predictor, torch.tensor([3]), torch.Generator().manual_seed(0), steps=2)
    assert drawn.numbers.shape == (1, 3)
