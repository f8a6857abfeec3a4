"""The paper's setting: features, the identity of the weight, and what the loss of a perfect network is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from elf.elements import GEOM_ELEMENTS
from elf.energy import Absolute, Harmonic, PairEnergy
from elf.generative.noise_prediction import (
    Clean,
    Featuriser,
    NoisePredictor,
    molecule_noise,
    noise_loss,
    random_rotation_of,
)
from elf.generative.schedules import Polynomial
from elf.geometry import center, pairwise_distances
from elf.models.egnn import EGNN, GNN
from elf.models.transformer import NetworkOutput

NUMBERS = torch.tensor([[6, 1, 1, 8], [7, 1, 0, 0]])


class Fixed(nn.Module):
    """Answers with the same noise whatever it is asked, and keeps what it was asked."""

    def __init__(self, noise: Clean | None = None) -> None:
        super().__init__()
        self.noise, self.asked = noise, []

    def forward(self, positions: Tensor, features: Tensor, level: Tensor, mask: Tensor) -> NetworkOutput:
        self.asked.append(Clean(positions, features))
        noise = self.noise or Clean(torch.zeros_like(positions), torch.zeros_like(features))
        return NetworkOutput(*noise)


@pytest.fixture
def positions(generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 4, 3, generator=generator, dtype=dtype) * (NUMBERS > 0)[..., None]


def test_features_are_edms():
    features = Featuriser().encode(NUMBERS)
    assert features.shape == (2, 4, 6)
    assert features[0, 0].tolist() == pytest.approx([0, 0.25, 0, 0, 0, 0.6])
    assert features[0, 3].tolist() == pytest.approx([0, 0, 0, 0.25, 0, 0.8])
    assert not features[1, 2:].any()
    assert Featuriser(GEOM_ELEMENTS, charges=False).encode(NUMBERS).shape == (2, 4, 16)


def test_decode_undoes_encode(generator):
    for featuriser in (Featuriser(), Featuriser(GEOM_ELEMENTS, charges=False)):
        noise = 0.05 * torch.randn(2, 4, featuriser.width, generator=generator)
        assert torch.equal(featuriser.decode(featuriser.encode(NUMBERS) + noise, NUMBERS > 0), NUMBERS)
    with pytest.raises(ValueError, match=r"unknown elements \[17\]"):
        Featuriser().encode(torch.tensor([[17, 1]]))


def test_noise_is_standard_centred_and_masked(generator, dtype):
    mask = torch.arange(6) < torch.tensor([[6], [3]]).expand(2, 1)
    draws = [molecule_noise(mask, 2, generator, dtype) for _ in range(2000)]
    x, h = torch.stack([d.positions for d in draws]), torch.stack([d.features for d in draws])
    assert x.dtype == h.dtype == dtype
    assert x.sum(dim=2).abs().max() < 1e-5
    assert not x[:, 1, 3:].any()
    assert not h[:, 1, 3:].any()
    # n - 1 of n degrees of freedom are left of the positions.
    assert x[:, 0].square().mean().item() == pytest.approx(5 / 6, rel=0.02)
    assert x[:, 1, :3].square().mean().item() == pytest.approx(2 / 3, rel=0.03)
    assert h[:, 0].square().mean().item() == pytest.approx(1, rel=0.03)


def test_weighted_energy_of_x_hat_is_the_squared_error_of_the_noise(positions, generator, dtype):
    """w_t alpha^2 / sigma^2 |x - x_hat|^2 = w_t |eps - eps_hat|^2 (Sec. 2.2), and likewise for MAE."""
    mask = NUMBERS > 0
    guess = molecule_noise(mask, 6, generator, dtype)
    for degree, energy, power in ((2, Harmonic(normalize="atoms"), 2), (1, Absolute(normalize="atoms"), 1)):
        for seed in range(20):
            network = Fixed(guess)
            predictor = NoisePredictor(network)
            loss = noise_loss(
                predictor, energy, positions, NUMBERS, torch.Generator().manual_seed(seed),
                predictor=predictor, degree=degree,
            )  # fmt: skip
            # The same draws again, by hand.
            again = torch.Generator().manual_seed(seed)
            Polynomial().draw(2, again)
            eps = molecule_noise(mask, 6, again, dtype)
            missed = (eps.positions - guess.positions).abs().pow(power).sum((1, 2)) / mask.sum(1)
            assert loss.positions.item() == pytest.approx(
                missed.mean().item(), rel=2e-3 if dtype == torch.float32 else 1e-7
            )
            wanted = ((eps.features - guess.features).square().sum((1, 2)) / mask.sum(1)).mean().item()
            assert loss.features.item() == pytest.approx(wanted, rel=1e-5)


def test_a_network_that_knows_the_noise_has_no_loss(positions, dtype):
    class Oracle(NoisePredictor):
        def forward(self, x, h, t, mask):
            alpha, sigma = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
            features = self.featuriser.encode(NUMBERS, dtype)
            return Clean((x - alpha * center(positions, mask)) / sigma, (h - alpha * features) / sigma)

    oracle = Oracle(Fixed())
    for energy in (Harmonic(normalize="atoms"), PairEnergy(normalize="atoms")):
        loss = noise_loss(oracle, energy, positions, NUMBERS, torch.Generator().manual_seed(3), predictor=oracle)
        assert loss.positions.item() < (1e-6 if dtype == torch.float32 else 1e-18)
        assert loss.features.item() < (1e-6 if dtype == torch.float32 else 1e-18)
    clean = oracle.denoise(
        0.3 * positions, torch.zeros(2, 4, 6, dtype=dtype), torch.tensor([0.2, 0.9], dtype=dtype), NUMBERS > 0
    )
    torch.testing.assert_close(clean.positions, center(positions, NUMBERS > 0), rtol=1e-3, atol=1e-3)


def test_the_network_sees_variance_preserving_noise(positions, dtype):
    network = Fixed()
    predictor = NoisePredictor(network)
    seen = []
    for seed in range(400):
        noise_loss(predictor, Harmonic(), positions, NUMBERS, torch.Generator().manual_seed(seed), predictor=predictor)
        t = Polynomial().draw(2, torch.Generator().manual_seed(seed)).to(dtype)
        alpha, sigma = Polynomial().alpha(t), Polynomial().sigma(t)
        x, h = network.asked[-1]
        rest = (h - alpha[:, None, None] * Featuriser().encode(NUMBERS, dtype)) / sigma[:, None, None]
        seen.append(rest[0])
        assert x.sum(dim=1).abs().max() < 1e-5
    assert torch.stack(seen).square().mean().item() == pytest.approx(1, rel=0.05)


def test_rotations_of_the_augmentation_keep_distances(positions, generator, dtype):
    turned = random_rotation_of(positions, generator)
    torch.testing.assert_close(pairwise_distances(turned), pairwise_distances(positions))
    assert (turned - positions).abs().max() > 0.1
    again = random_rotation_of(positions, torch.Generator().manual_seed(5))
    assert torch.equal(again, random_rotation_of(positions, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("build", [EGNN, GNN])
def test_gradients_reach_every_weight(build, positions):
    predictor = NoisePredictor(build(channels=8, layers=2))
    loss = noise_loss(
        predictor, PairEnergy(normalize="atoms"), positions.float(), NUMBERS, torch.Generator().manual_seed(0),
        predictor=predictor,
    )  # fmt: skip
    sum(loss).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in predictor.parameters())


@pytest.mark.parametrize(
    ("positions", "numbers", "degree", "message"),
    [
        (torch.zeros(1, 2, 3), torch.tensor([[0, 0]]), 2, "mask leaves sample 0 without a real atom"),
        (torch.zeros(1, 2, 3), torch.tensor([[6, 17]]), 2, r"unknown elements \[17\]"),
        (torch.full((1, 2, 3), torch.nan), torch.tensor([[6, 1]]), 2, "positions holds 2 atoms with a NaN"),
        (torch.zeros(1, 2, 3), torch.tensor([[6, 1]]), 3, "degree is 3; it should be 1 or 2"),
    ],
)
def test_errors(positions, numbers, degree, message):
    predictor = NoisePredictor(Fixed())
    with pytest.raises(ValueError, match=message):
        noise_loss(predictor, Harmonic(), positions, numbers, torch.Generator(), predictor=predictor, degree=degree)


def test_one_atom_costs_nothing_in_space():
    predictor = NoisePredictor(EGNN(channels=8, layers=1))
    loss = noise_loss(
        predictor, PairEnergy(normalize="atoms"), torch.zeros(1, 1, 3), torch.tensor([[6]]),
        torch.Generator().manual_seed(0), predictor=predictor,
    )  # fmt: skip
    assert loss.positions.item() == 0
    assert loss.features.item() > 0
