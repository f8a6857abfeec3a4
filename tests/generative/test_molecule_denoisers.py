"""Both denoisers of molecules: features, noise, preconditioning, and losses worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from elf.elements import GEOM_ELEMENTS
from elf.energy import Absolute, AlignedHarmonic, Harmonic, PairEnergy
from elf.generative.molecules import (
    Featuriser,
    KarrasDenoiser,
    MoleculeDenoiser,
    NoisePredictor,
    denoising_loss,
    molecule_noise,
)
from elf.generative.schedules import Karras, Polynomial
from elf.geometry import center, pairwise_distances
from elf.models.egnn import EGNN, GNN
from elf.models.transformer import EquivariantTransformer, NetworkOutput

NUMBERS = torch.tensor([[6, 1, 1, 8], [7, 1, 0, 0]])
MASK = NUMBERS > 0


class Fixed(nn.Module):
    """Answers the same whatever it is asked, and keeps what it was asked."""

    def __init__(self, displacements: Tensor | None = None, logits: Tensor | None = None) -> None:
        super().__init__()
        self.answer, self.asked = (displacements, logits), []

    def forward(self, positions: Tensor, features: Tensor, level: Tensor, mask: Tensor) -> NetworkOutput:
        self.asked.append((positions, features, level, mask))
        silent = torch.zeros_like(positions), torch.zeros_like(features)
        return NetworkOutput(*(zero if part is None else part for part, zero in zip(self.answer, silent, strict=True)))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def positions(generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 4, 3, generator=generator, dtype=dtype) * MASK[..., None]


# --- features and noise


def test_features_are_edms():
    features = Featuriser().encode(NUMBERS)
    assert features.shape == (2, 4, 6)
    assert features[0, 0].tolist() == pytest.approx([0, 0.25, 0, 0, 0, 0.6])
    assert features[0, 3].tolist() == pytest.approx([0, 0, 0, 0.25, 0, 0.8])
    assert not features[1, 2:].any()
    assert Featuriser(GEOM_ELEMENTS, charges=False).encode(NUMBERS).shape == (2, 4, 16)
    assert KarrasDenoiser(Fixed()).featuriser.encode(NUMBERS)[0, 3].tolist() == [0, 0, 0, 4, 0]


def test_decode_undoes_encode(generator):
    for featuriser in (Featuriser(), Featuriser(GEOM_ELEMENTS, charges=False)):
        noise = 0.05 * torch.randn(2, 4, featuriser.width, generator=generator)
        assert torch.equal(featuriser.decode(featuriser.encode(NUMBERS) + noise, MASK), NUMBERS)
    with pytest.raises(ValueError, match=r"unknown elements \[17\]"):
        Featuriser().encode(torch.tensor([[17, 1]]))


@pytest.mark.parametrize("features_first", [False, True])
def test_noise_is_standard_centred_and_masked(generator, dtype, features_first):
    mask = torch.arange(6) < torch.tensor([[6], [3]]).expand(2, 1)
    draws = torch.stack([molecule_noise(mask, 3, generator, dtype, features_first=features_first) for _ in range(2000)])
    x, h = draws[..., :3], draws[..., 3:]
    assert draws.dtype == dtype
    assert x.sum(dim=2).abs().max() < 1e-5
    assert h.sum(dim=2).abs().max() > 1
    assert not draws[:, 1, 3:].any()
    # n - 1 of n degrees of freedom are left of the positions.
    assert x[:, 0].square().mean().item() == pytest.approx(5 / 6, rel=0.02)
    assert x[:, 1, :3].square().mean().item() == pytest.approx(2 / 3, rel=0.03)
    assert h[:, 0].square().mean().item() == pytest.approx(1, rel=0.03)


def test_the_order_of_the_draws():
    """Published trainings and samples repeat only with theirs."""
    first, second = (torch.randn(2, 4, n, generator=g) for g in [seeded(1)] for n in (5, 3))
    drawn = molecule_noise(MASK, 5, seeded(1), torch.float32, features_first=True)
    assert torch.equal(drawn, torch.cat([center(second, MASK), first * MASK[..., None]], -1))
    first, second = (torch.randn(2, 4, n, generator=g) for g in [seeded(1)] for n in (3, 6))
    drawn = molecule_noise(MASK, 6, seeded(1), torch.float32)
    assert torch.equal(drawn, torch.cat([center(first, MASK), second * MASK[..., None]], -1))


@pytest.mark.parametrize("build", [NoisePredictor, KarrasDenoiser])
def test_noise_is_added_as_equation_2_has_it(build, positions, dtype):
    denoiser, t = build(Fixed()), torch.tensor([0.3, 0.7], dtype=dtype)
    clean = denoiser.encode(positions, NUMBERS)
    assert torch.equal(clean[..., :3], center(positions, MASK))
    x_t, noise = denoiser.add_noise(clean, t, MASK, seeded(2))
    alpha, sigma = denoiser.schedule.alpha(t)[:, None, None], denoiser.schedule.sigma(t)[:, None, None]
    torch.testing.assert_close(x_t, alpha * clean + sigma * noise)
    assert torch.equal(
        noise, molecule_noise(MASK, clean.shape[-1] - 3, seeded(2), dtype, features_first=build is KarrasDenoiser)
    )


# --- the two parametrisations


def test_karras_preconditioning_by_hand(positions, generator, dtype):
    """sigma = 2, sigma_data = 1/2: c_skip 1/17, c_out 2/sqrt(17); types enter over sqrt(16 + 4)."""
    moves, logits = center(torch.randn(2, 4, 3, generator=generator, dtype=dtype), MASK), torch.zeros(2, 4, 5)
    logits[..., 1] = math.log(3)
    network = Fixed(moves, logits.to(dtype))
    denoiser = KarrasDenoiser(network, Karras(sigma_data=0.5))
    x_t = torch.cat([center(positions, MASK), torch.ones(2, 4, 5, dtype=dtype)], -1)
    x_hat = denoiser.denoise(x_t, torch.full((2,), 2.0, dtype=dtype), MASK)
    torch.testing.assert_close(x_hat[..., :3], x_t[..., :3] / 17 + 2 / math.sqrt(17) * moves)
    asked, types, level, _ = network.asked[0]
    assert torch.equal(asked, x_t[..., :3])
    torch.testing.assert_close(types, torch.full_like(types, 1 / math.sqrt(20)))
    assert level.tolist() == [2, 2]
    wanted = 4 * torch.tensor([1, 3, 1, 1, 1], dtype=dtype) / 7
    torch.testing.assert_close(x_hat[..., 3:], wanted.expand(2, 4, 5) * MASK[..., None])


def test_karras_denoiser_keeps_clean_molecules(generator):
    denoiser = KarrasDenoiser(EquivariantTransformer(channels=8, heads=2, layers=1))
    clean, t = denoiser.encode(torch.randn(2, 4, 3, generator=generator), NUMBERS), torch.tensor([1e-6, 1e-6])
    x_t, _ = denoiser.add_noise(clean, t, MASK, generator)
    out = denoiser.denoise(x_t, t, MASK)
    torch.testing.assert_close(out[..., :3], clean[..., :3], rtol=0, atol=1e-5)
    assert not out[1, 2:].any()


def test_noise_predictor_by_hand(positions, generator, dtype):
    """x_hat = (x_t - sigma eps_hat) / alpha, of positions and features alike."""
    eps = molecule_noise(MASK, 6, generator, dtype)
    network = Fixed(eps[..., :3] + 5, eps[..., 3:])
    predictor, t = NoisePredictor(network), torch.tensor([0.2, 0.9], dtype=dtype)
    x_t = torch.cat([center(positions, MASK), torch.ones(2, 4, 6, dtype=dtype)], -1)
    torch.testing.assert_close(predictor(x_t, t, MASK), eps)  # the net displacement is gone
    alpha, sigma = (f(t)[:, None, None] for f in (Polynomial().alpha, Polynomial().sigma))
    torch.testing.assert_close(predictor.denoise(x_t, t, MASK), (x_t - sigma * eps) / alpha)
    assert torch.equal(network.asked[0][2], t)


def test_a_denoiser_must_say_what_its_answer_means():
    with pytest.raises(TypeError, match="abstract class MoleculeDenoiser"):
        MoleculeDenoiser(Fixed(), Karras(), Featuriser())


# --- the loss


def test_karras_loss_by_hand(positions, dtype):
    """With a silent network x_hat = c_skip x_t, and everything can be written down."""
    schedule = Karras(log_mean=0.3, log_std=1e-6, sigma_data=0.8)
    denoiser, s = KarrasDenoiser(Fixed(), schedule), math.exp(0.3)
    for energy in (Harmonic(normalize="atoms"), PairEnergy(normalize="atoms")):
        parts = denoising_loss(denoiser, energy, positions, NUMBERS, seeded(3))
        draw = seeded(3)
        schedule.draw(2, draw)
        eps = molecule_noise(MASK, 5, draw, dtype, features_first=True)[..., :3]
        clean = center(positions, MASK)
        x_hat = 0.8**2 / (s**2 + 0.8**2) * (clean + s * eps)
        expected = (s**2 + 0.8**2) / (s * 0.8) ** 2 * energy(x_hat, clean, MASK)
        torch.testing.assert_close(parts.positions, expected.mean(), rtol=1e-4, atol=1e-5)
        assert parts.features.item() == pytest.approx(math.log(5), rel=1e-5)


def test_cross_entropy_by_hand():
    """Two molecules of 4 and 2 atoms; the network says e : 1 for carbon everywhere, and only C is."""
    logits = torch.zeros(2, 4, 5)
    logits[..., 1] = 1
    denoiser = KarrasDenoiser(Fixed(None, logits))
    parts = denoising_loss(denoiser, Harmonic(), torch.zeros(2, 4, 3), NUMBERS, seeded(0))
    total = math.log(math.e + 4)
    assert parts.features.item() == pytest.approx(((4 * total - 1) / 4 + total) / 2)
    edm = denoising_loss(denoiser, Harmonic(), torch.zeros(2, 4, 3), NUMBERS, seeded(0), features_over="edm")
    assert edm.features.item() == pytest.approx((4 * total - 1 + 2 * total) / ((3 + 5) * 4) / 2)
    assert edm.positions == parts.positions


def test_weighted_energy_of_x_hat_is_the_squared_error_of_the_noise(positions, generator, dtype):
    """w_t alpha^2 / sigma^2 |x - x_hat|^2 = w_t |eps - eps_hat|^2 (Sec. 2.2), and likewise for MAE."""
    guess = molecule_noise(MASK, 6, generator, dtype)
    for degree, energy in ((2, Harmonic(normalize="atoms")), (1, Absolute(normalize="atoms"))):
        for seed in range(20):
            predictor = NoisePredictor(Fixed(guess[..., :3], guess[..., 3:]))
            loss = denoising_loss(predictor, energy, positions, NUMBERS, seeded(seed), degree=degree)
            # The same draws again, by hand.
            again = seeded(seed)
            Polynomial().draw(2, again)
            missed = molecule_noise(MASK, 6, again, dtype) - guess
            wanted = (missed[..., :3].abs().pow(degree).sum((1, 2)) / MASK.sum(1)).mean().item()
            assert loss.positions.item() == pytest.approx(wanted, rel=2e-3 if dtype == torch.float32 else 1e-7)
            wanted = (missed[..., 3:].square().sum((1, 2)) / MASK.sum(1)).mean().item()
            assert loss.features.item() == pytest.approx(wanted, rel=1e-5)


def test_features_over_edms_denominator(positions, generator, dtype):
    """Erratum 10: sum |d eps_h|^2 / ((3 + 6) N_padded), while the energy is over the molecule's own atoms."""
    predictor = NoisePredictor(Fixed())
    ours, edm = (
        denoising_loss(predictor, Harmonic(), positions, NUMBERS, seeded(1), features_over=over)
        for over in ("atoms", "edm")
    )
    again = seeded(1)
    Polynomial().draw(2, again)
    missed = molecule_noise(MASK, 6, again, dtype)[..., 3:].square().sum((1, 2))
    assert edm.features.item() == pytest.approx((missed / (9 * 4)).mean().item(), rel=1e-5)
    assert ours.features.item() == pytest.approx((missed / torch.tensor([4, 2])).mean().item(), rel=1e-5)
    assert ours.positions == edm.positions


def test_a_network_that_knows_the_noise_has_no_loss(positions, dtype):
    class Oracle(NoisePredictor):
        def forward(self, x_t, t, mask):
            alpha, sigma = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
            return (x_t - alpha * self.encode(positions, NUMBERS)) / sigma

    oracle = Oracle(Fixed())
    for energy in (Harmonic(normalize="atoms"), PairEnergy(normalize="atoms")):
        loss = denoising_loss(oracle, energy, positions, NUMBERS, seeded(3))
        assert loss.positions.item() < (1e-6 if dtype == torch.float32 else 1e-18)
        assert loss.features.item() < (1e-6 if dtype == torch.float32 else 1e-18)


def test_the_network_sees_variance_preserving_noise(positions, dtype):
    network = Fixed()
    predictor = NoisePredictor(network)
    seen = []
    for seed in range(400):
        denoising_loss(predictor, Harmonic(), positions, NUMBERS, seeded(seed))
        t = Polynomial().draw(2, seeded(seed)).to(dtype)
        alpha, sigma = Polynomial().alpha(t), Polynomial().sigma(t)
        x, h = network.asked[-1][:2]
        rest = (h - alpha[:, None, None] * Featuriser().encode(NUMBERS, dtype)) / sigma[:, None, None]
        seen.append(rest[0])
        assert x.sum(dim=1).abs().max() < 1e-5
    assert torch.stack(seen).square().mean().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("border", [1.0, 2.0])
@pytest.mark.parametrize("build", [KarrasDenoiser, NoisePredictor])
def test_near_and_far(build, positions, border):
    """Below the border, a noise level in angstrom, the first energy counts, from it on the other."""
    denoiser, near, far, sides = build(Fixed()), PairEnergy(), Harmonic(), set()

    def loss(energy, seed, **switch):
        return denoising_loss(denoiser, energy, positions[:1], NUMBERS[:1], seeded(seed), **switch).positions

    for seed in range(12):
        t = denoiser.schedule.draw(1, seeded(seed)).to(positions.dtype)
        sides.add(below := bool(denoiser.schedule.sigma(t) < border * denoiser.schedule.alpha(t)))
        assert loss(near, seed, far=(far, border)) == loss(near if below else far, seed)
        assert loss(near, seed) != loss(far, seed)
    assert sides == {True, False}


def test_near_and_far_in_one_batch(positions, dtype):
    """Each molecule by its own noise level: the mean of two, one on either side."""
    denoiser, near, far = KarrasDenoiser(Fixed()), PairEnergy(), Harmonic()
    seed = next(s for s in range(99) if (Karras().draw(2, seeded(s)) < 1).tolist() == [True, False])
    got = denoising_loss(denoiser, near, positions, NUMBERS, seeded(seed), far=(far, 1.0)).positions
    again, clean = seeded(seed), denoiser.encode(positions, NUMBERS)
    t = Karras().draw(2, again).to(dtype)
    x_t, _ = denoiser.add_noise(clean, t, MASK, again)
    x_hat = denoiser.denoise(x_t, t, MASK)[..., :3]
    one, two = (energy(x_hat, clean[..., :3], MASK) for energy in (near, far))
    torch.testing.assert_close(got, (Karras().weight(t) * torch.stack([one[0], two[1]])).mean())


def test_invariant_losses_do_not_see_the_pose(positions, dtype):
    """A prediction that is the target turned costs MSE and nothing else."""
    turn = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]], dtype=dtype)

    class Turned(KarrasDenoiser):
        def clean(self, x_t, answer, t, mask):
            state = self.encode(positions, NUMBERS)
            return torch.cat([state[..., :3] @ turn, state[..., 3:]], -1)

    def loss(energy):
        return denoising_loss(Turned(Fixed()), energy, positions, NUMBERS, seeded(0)).positions.item()

    assert loss(PairEnergy()) < 1e-4
    assert loss(AlignedHarmonic()) < 1e-4
    assert loss(Harmonic()) > 1
    torch.testing.assert_close(pairwise_distances(positions @ turn), pairwise_distances(positions))


@pytest.mark.parametrize("build", [EGNN, GNN])
def test_gradients_reach_every_weight(build, positions):
    predictor = NoisePredictor(build(channels=8, layers=2))
    sum(denoising_loss(predictor, PairEnergy(normalize="atoms"), positions.float(), NUMBERS, seeded(0))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in predictor.parameters())


def test_a_wrapped_denoiser_is_called_through_its_wrapping(positions):
    class Wrapping(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, *arguments: Tensor) -> Tensor:
            self.calls += 1
            return self.module(*arguments)

    predictor = NoisePredictor(EGNN(channels=8, layers=1))
    wrapped = Wrapping(predictor)
    plain = denoising_loss(predictor, Harmonic(), positions.float(), NUMBERS, seeded(0))
    assert denoising_loss(wrapped, Harmonic(), positions.float(), NUMBERS, seeded(0)) == plain
    assert wrapped.calls == 1
    with pytest.raises(TypeError, match="model is a Fixed; it should be a MoleculeDenoiser, or wrap one as `module`"):
        denoising_loss(Fixed(), Harmonic(), positions, NUMBERS, seeded(0))


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
@pytest.mark.parametrize(
    "build",
    [lambda: NoisePredictor(EGNN(channels=8, layers=1)), lambda: KarrasDenoiser(EquivariantTransformer(5, 8, 2, 1))],
)
def test_torchs_default_dtype_changes_nothing(build, default):
    denoiser, x = build(), torch.randn(2, 4, 3, generator=seeded(0))
    before = denoising_loss(denoiser, PairEnergy(), x, NUMBERS, seeded(1))
    torch.set_default_dtype(default)
    try:
        after = denoising_loss(denoiser, PairEnergy(), x, NUMBERS, seeded(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert after == before
    assert after.positions.dtype == torch.float32


@pytest.mark.parametrize("build", [NoisePredictor, KarrasDenoiser])
@pytest.mark.parametrize(
    ("positions", "numbers", "settings", "error", "message"),
    [
        (torch.zeros(1, 2, 3), torch.tensor([[0, 0]]), {}, ValueError, "mask leaves sample 0 without a real atom"),
        (torch.zeros(1, 2, 3), torch.tensor([[6, 17]]), {}, ValueError, r"unknown elements \[17\]"),
        (torch.zeros(1, 2, 3), torch.tensor([[6, -1]]), {}, ValueError, r"unknown elements \[-1\]"),
        (torch.full((1, 2, 3), torch.nan), torch.tensor([[6, 1]]), {}, ValueError, "holds 2 atoms with a NaN"),
        (torch.zeros(1, 2, 3), torch.tensor([[6, 1]]), {"degree": 3}, ValueError, "degree is 3; it should be 1 or 2"),
    ],
)  # fmt: skip
def test_errors(build, positions, numbers, settings, error, message):
    with pytest.raises(error, match=message):
        denoising_loss(build(Fixed()), Harmonic(), positions, numbers, torch.Generator(), **settings)


def test_one_atom_costs_nothing_in_space():
    predictor = NoisePredictor(EGNN(channels=8, layers=1))
    x, carbon = torch.zeros(1, 1, 3), torch.tensor([[6]])
    loss = denoising_loss(predictor, PairEnergy(normalize="atoms"), x, carbon, seeded(0))
    assert loss.positions.item() == 0
    assert loss.features.item() > 0
