"""Noise, denoising and sampling against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch

from elf.elements import ELEMENTS, VALENCE
from elf.energy import Harmonic, PairEnergy
from elf.generative.diffusion import TYPE_SCALE, Denoised, Denoiser, Noisy, add_noise, denoising_loss
from elf.generative.sampling import closed_shell_types, sample_molecules
from elf.generative.schedules import Karras
from elf.models.transformer import EquivariantTransformer, NetworkOutput


class Oracle(torch.nn.Module):
    """The exact posterior mean where clean coordinates are N(0, size^2) and every atom is carbon."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, noisy: Noisy, mask: torch.Tensor) -> Denoised:
        shrink = self.size**2 / (self.size**2 + noisy.sigma[:, None, None] ** 2)
        carbon = 50.0 * (torch.tensor(ELEMENTS) == 6)
        return Denoised(shrink * noisy.positions, carbon.expand_as(noisy.types))


class Still(torch.nn.Module):
    """A network that answers nothing."""

    def forward(self, positions, features, sigma, mask):
        return NetworkOutput(torch.zeros_like(positions), torch.zeros_like(features))


@pytest.fixture
def numbers() -> torch.Tensor:
    return torch.tensor([[8, 1, 1, 0], [6, 1, 7, 9]])


def test_heun_solves_the_probability_flow(generator):
    """For Gaussian data the flow is x(sigma) = x(sigma_max) sqrt((s^2 + sigma^2) / (s^2 + sigma_max^2))."""
    schedule, size = Karras(), 1.5
    counts = torch.full((400,), 6)
    out = sample_molecules(Oracle(size), counts, schedule, generator, steps=60, batch_size=150)
    # 6 atoms without net displacement have 5 * 3 free coordinates.
    spread = (out.positions.square().sum() / (400 * 15)).sqrt()
    exact = size * schedule.sigma_max / math.hypot(size, schedule.sigma_max)
    assert spread.item() == pytest.approx(exact, rel=3 / math.sqrt(2 * 400 * 15))
    assert out.positions.mean(dim=1).abs().max() < 1e-4
    assert (out.numbers == 6).all()


def test_churn_keeps_the_distribution(generator):
    schedule, size = Karras(), 1.5
    out = sample_molecules(Oracle(size), torch.full((400,), 6), schedule, generator, steps=60, churn=0.4)
    spread = (out.positions.square().sum() / (400 * 15)).sqrt()
    assert spread.item() == pytest.approx(size, rel=3 / math.sqrt(2 * 400 * 15) + 0.01)
    with pytest.raises(ValueError, match=r"churn is 0\.5"):
        sample_molecules(Oracle(size), torch.full((1,), 6), schedule, generator, churn=0.5)


def test_closed_shell_types_are_the_likeliest_of_even_valence(generator):
    """By brute force over all assignments of four atoms."""
    logits = torch.randn(40, 5, 5, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([4, 3] * 20)[:, None]
    chosen = closed_shell_types(logits, mask)
    valences = torch.tensor([VALENCE[z] for z in ELEMENTS])
    assert torch.equal(chosen.sum(-1), mask.double())
    assert ((valences[chosen.argmax(-1)] * mask).sum(1) % 2 == 0).all()
    for k in range(40):
        n = int(mask[k].sum())
        allowed = [c for c in product(range(5), repeat=n) if sum(int(valences[i]) for i in c) % 2 == 0]
        best = max(allowed, key=lambda c: sum(float(logits[k, i, e]) for i, e in enumerate(c)))
        assert chosen[k, :n].argmax(-1).tolist() == list(best)


def test_sampling_can_ask_for_closed_shells(generator):
    """A denoiser that finds all types equally likely draws odd sums in half of the molecules; asked, in none."""

    class Undecided(Oracle):
        def forward(self, noisy, mask):
            return Denoised(super().forward(noisy, mask).positions, noisy.types / (0.1 + noisy.sigma[:, None, None]))

    counts = torch.full((200,), 7)
    valence = torch.tensor([VALENCE.get(z, 0) for z in range(10)])
    odd = {}
    for asked in (False, True):
        out = sample_molecules(Undecided(1.5), counts, Karras(), generator, steps=20, closed_shell=asked)
        assert (out.numbers > 0).all()
        odd[asked] = (valence[out.numbers].sum(1) % 2).double().mean().item()
    assert odd[True] == 0
    assert 0.3 < odd[False] < 0.7


def test_heun_is_second_order(generator):
    start = torch.Generator().manual_seed(5)
    exact_ratio = 1.5 / math.hypot(1.5, 15.0)
    errors = []
    for steps in (20, 40, 80):
        start.manual_seed(5)
        out = sample_molecules(Oracle(1.5), torch.full((8,), 5), Karras(), start, steps=steps)
        start.manual_seed(5)
        torch.randn(8, 5, 5, generator=start)  # the noise of the types comes first
        noise = torch.randn(8, 5, 3, generator=start)
        exact = 15.0 * (noise - noise.mean(dim=1, keepdim=True)) * exact_ratio
        errors.append((out.positions - exact).abs().max().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.5, errors


def test_sampling_is_seeded_sorted_back_and_padded():
    counts = torch.tensor([3, 1, 5, 2])
    draws = [
        sample_molecules(Oracle(1.0), counts, Karras(), torch.Generator().manual_seed(s), steps=4, trajectory=True)
        for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0].positions, draws[1].positions)
    assert not torch.equal(draws[0].positions, draws[2].positions)
    assert torch.equal((draws[0].numbers > 0).sum(dim=1), counts)
    assert draws[0].positions[1, 1:].abs().sum() == 0
    assert draws[0].trajectory.shape == (4, 4, 5, 3)


def test_sampling_restores_training_mode_and_reports_progress():
    denoiser = Denoiser(EquivariantTransformer(channels=8, heads=2, layers=1)).train()
    seen = []
    sample_molecules(
        denoiser,
        torch.full((5,), 3),
        Karras(),
        torch.Generator(),
        steps=2,
        batch_size=2,
        progress=lambda *a: seen.append(a),
    )
    assert denoiser.training
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    "counts", [torch.tensor([3, 0]), torch.zeros(0, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64)]
)
def test_bad_counts(counts):
    with pytest.raises(ValueError, match="counts has shape"):
        sample_molecules(Oracle(1.0), counts, Karras(), torch.Generator())


def test_denoiser_keeps_clean_molecules(generator, numbers):
    mask = numbers > 0
    positions = torch.randn(2, 4, 3, generator=generator)
    noisy = add_noise(positions, torch.zeros(2, 4, 5), torch.tensor([1e-6, 1e-6]), mask, generator)
    out = Denoiser(EquivariantTransformer(channels=8, heads=2, layers=1))(noisy, mask)
    torch.testing.assert_close(out.positions, noisy.positions, rtol=0, atol=1e-5)
    assert out.positions[0, 3].abs().sum() == 0


def test_noise_has_the_right_size(generator):
    numbers = torch.full((4000, 5), 6)
    mask = numbers > 0
    noisy = add_noise(torch.zeros(4000, 5, 3), torch.zeros(4000, 5, 5), torch.full((4000,), 2.0), mask, generator)
    # Without net displacement the variance of each coordinate is sigma^2 (1 - 1/N).
    assert noisy.positions.var().item() == pytest.approx(4 * (1 - 1 / 5), rel=0.03)
    assert noisy.types.var().item() == pytest.approx(4, rel=0.03)


def test_loss_is_the_weighted_energy(generator, numbers):
    """With a silent network x_hat = c_skip x_t, and everything can be written down."""
    schedule = Karras(log_mean=0.3, log_std=1e-6)
    positions, denoiser = torch.randn(2, 4, 3, generator=generator), Denoiser(Still())
    for energy in (Harmonic(normalize="atoms"), PairEnergy(normalize="atoms")):
        parts = denoising_loss(denoiser, energy, positions, numbers, torch.Generator().manual_seed(3), schedule)
        draw = torch.Generator().manual_seed(3)
        sigma, mask = schedule.draw(2, draw), numbers > 0
        one_hots = (numbers[..., None] == torch.tensor(ELEMENTS)).float()
        noisy = add_noise(positions, one_hots, sigma, mask, draw)
        clean = (positions - (positions * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]) * mask[
            ..., None
        ]
        s = math.exp(0.3)
        x_hat = noisy.positions * 1.5**2 / (s**2 + 1.5**2)
        expected = (s**2 + 1.5**2) / (s * 1.5) ** 2 * energy(x_hat, clean, mask)
        torch.testing.assert_close(parts.positions, expected.mean(), rtol=1e-4, atol=1e-5)
        assert parts.types.item() == pytest.approx(math.log(5), rel=1e-5)


@pytest.mark.parametrize("border", [1.0, 2.0])
def test_another_energy_from_a_noise_level_on(generator, numbers, border):
    """All noise here is of exp(0.3) = 1.35 angstrom: below the border nothing changes, above it the other counts."""
    schedule, near, far = Karras(log_mean=0.3, log_std=1e-6), PairEnergy(), Harmonic()
    positions, denoiser = torch.randn(2, 4, 3, generator=generator), Denoiser(Still())

    def loss(energy, **switch):
        drawn = torch.Generator().manual_seed(3)
        return denoising_loss(denoiser, energy, positions, numbers, drawn, schedule, **switch).positions

    assert loss(near) != loss(far)
    assert loss(near, far=(far, border)) == (loss(far) if border < 1.35 else loss(near))


def test_weight_is_the_papers_where_noise_is_small():
    sigma = torch.tensor([1e-3, 1e-2])
    torch.testing.assert_close(Karras().weight(sigma) * sigma**2, torch.ones(2), rtol=1e-4, atol=0)
    assert Karras().weight(torch.tensor([1e6])).item() == pytest.approx(1 / 1.5**2)


def test_schedule(generator):
    schedule = Karras()
    grid = schedule.grid(40)
    assert grid[0].item() == pytest.approx(15.0)
    assert grid[-2].item() == pytest.approx(0.01, rel=1e-4)
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()
    logs = schedule.draw(20_000, generator).log()
    assert logs.mean().item() == pytest.approx(-0.4, abs=0.04)
    assert logs.std().item() == pytest.approx(1.4, rel=0.03)
    with pytest.raises(ValueError, match="steps is 0"):
        schedule.grid(0)
    with pytest.raises(ValueError, match=r"Karras.sigma_min is 20.0"):
        Karras(sigma_min=20.0)
    with pytest.raises(ValueError, match=r"Karras.rho is -1"):
        Karras(rho=-1)


def test_types_are_scaled(generator, numbers):
    one_hots = (numbers[..., None] == torch.tensor(ELEMENTS)).float()
    noisy = add_noise(torch.zeros(2, 4, 3), one_hots, torch.full((2,), 1e-7), numbers > 0, generator)
    torch.testing.assert_close(noisy.types, TYPE_SCALE * one_hots, rtol=0, atol=1e-5)
