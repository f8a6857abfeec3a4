"""Molecules from both samplers on Gaussian data, where flow and variances are known, and the sampler's bookkeeping."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

from elf.elements import ELEMENTS, GEOM_ELEMENTS, PERIODIC_TABLE, VALENCE
from elf.energy import PairEnergy
from elf.generative.molecules import Featuriser, KarrasDenoiser, NoisePredictor, denoising_loss
from elf.generative.samplers import (
    SETTLE_BELOW,
    ClosedShell,
    Level,
    closed_shell_types,
    draw_counts,
    heun,
    sample_molecules,
)
from elf.generative.schedules import Karras, Polynomial, Schedule
from elf.models.egnn import EGNN, GNN
from elf.models.transformer import EquivariantTransformer

SIZE, SPREAD = 0.7, 0.2
CARBON = 50.0 * (torch.tensor(ELEMENTS) == 6)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Gaussian(NoisePredictor):
    """Knows E[x | x_t] where coordinates are N(0, SIZE^2) and features N(0, SPREAD^2); counts its evaluations."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(nn.Identity(), schedule, Featuriser((6,), True))
        self.calls, self.last = 0, Tensor()

    def denoise(self, x_t: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        self.calls += 1
        a, s = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
        shrink = [a * size**2 / (a.square() * size**2 + s.square()) for size in (SIZE, SPREAD)]
        self.last = shrink[1] * x_t[..., 3:]
        return torch.cat([shrink[0] * x_t[..., :3], self.last], -1)


class Oracle(KarrasDenoiser):
    """The exact posterior mean where clean coordinates are N(0, size^2) and every atom is carbon."""

    def __init__(self, size: float = 1.5) -> None:
        super().__init__(nn.Identity(), Karras(sigma_data=size))

    def forward(self, x_t: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x_t[..., :3]), CARBON.expand(*mask.shape, 5)], -1)


def variance(schedule: Schedule, steps: int, size: float) -> float:
    """What the ancestral sampler must leave: V_s = c^2 V_t + b^2, step by step in float64."""
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
def test_ancestral_variance_of_positions_and_features(schedule):
    n, atoms, steps = 6000, 4, 100
    oracle = Gaussian(schedule)
    counts = torch.full((n,), atoms)
    drawn = sample_molecules(oracle, counts, seeded(0), method="ancestral", steps=steps, batch_size=n)
    found = (drawn.positions.square().sum() / (3 * (atoms - 1) * n)).item()
    assert found == pytest.approx(variance(schedule, steps, SIZE), rel=4 * math.sqrt(2 / (9 * n)))
    assert drawn.positions.sum(dim=1).abs().max() < 1e-5
    found = oracle.last.square().mean().item()
    assert found == pytest.approx(variance(schedule, steps, SPREAD), rel=4 * math.sqrt(2 / (8 * n)))
    # A thousand steps leave the data's variance, to half a per cent.
    assert variance(schedule, 1000, SIZE) == pytest.approx(SIZE**2, rel=0.01)


def test_heun_solves_the_probability_flow(generator):
    """For Gaussian data the flow is x(sigma) = x(sigma_max) sqrt((s^2 + sigma^2) / (s^2 + sigma_max^2))."""
    oracle, counts = Oracle(), torch.full((400,), 6)
    out = sample_molecules(oracle, counts, generator, steps=60, batch_size=150)
    # 6 atoms without net displacement have 5 * 3 free coordinates.
    spread = (out.positions.square().sum() / (400 * 15)).sqrt()
    exact = 1.5 * 15 / math.hypot(1.5, 15)
    assert spread.item() == pytest.approx(exact, rel=3 / math.sqrt(2 * 400 * 15))
    assert out.positions.mean(dim=1).abs().max() < 1e-4
    assert (out.numbers == 6).all()


def test_heun_is_second_order():
    errors = []
    for steps in (20, 40, 80):
        out = sample_molecules(Oracle(), torch.full((8,), 5), seeded(5), steps=steps)
        start = seeded(5)
        torch.randn(8, 5, 5, generator=start)  # the noise of the types comes first
        noise = torch.randn(8, 5, 3, generator=start)
        exact = 15.0 * (noise - noise.mean(dim=1, keepdim=True)) * 1.5 / math.hypot(1.5, 15.0)
        errors.append((out.positions - exact).abs().max().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.5, errors


def test_churn_keeps_the_distribution(generator):
    out = sample_molecules(Oracle(), torch.full((400,), 6), generator, steps=60, churn=0.4)
    spread = (out.positions.square().sum() / (400 * 15)).sqrt()
    assert spread.item() == pytest.approx(1.5, rel=3 / math.sqrt(2 * 400 * 15) + 0.01)


def test_churn_raises_the_noise_as_alg_2_has_it():
    """Each level above 0.05 is asked for 1 + churn times higher, with the state's variance raised to match."""
    schedule, churn, n = Karras(sigma_min=0.01, sigma_max=2.0), 0.3, 4000
    noise, asked = torch.randn(n, 1, 1, generator=seeded(0), dtype=torch.float64), []
    heun(
        lambda x_t, t: 0 * x_t, schedule, noise, 5, lambda t, x_t, x_hat: asked.append((t.item(), x_t)),
        churn=churn, draw=partial(torch.randn, n, 1, 1, generator=seeded(1), dtype=torch.float64),
    )  # fmt: skip
    times = schedule.grid(5)[:-1].tolist()
    raised = [t * 1.3 if t > 0.05 else t for t in times]
    assert [t for t, _ in asked] == pytest.approx(raised, rel=1e-5)
    assert times[-1] < 0.05 < times[-2]
    # Nothing is denoised here: where the data are at the origin, x_t is noise of sigma_t.
    spreads = [x_t.square().mean().sqrt().item() for _, x_t in asked]
    assert spreads == pytest.approx(raised, rel=4 / math.sqrt(2 * n))
    # What is added, draw by draw: its sign is seen in no distribution.
    fresh = torch.randn(n, 1, 1, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close(asked[0][1], 2 * noise + 2 * math.sqrt(1.3**2 - 1) * fresh, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("schedule", "extra"), [(Karras(), 0), (Polynomial(), 1)], ids=["Karras", "Polynomial"])
def test_evaluations_progress_and_frames(schedule, extra):
    oracle, told = Gaussian(schedule), []
    drawn = sample_molecules(
        oracle, torch.tensor([3, 5, 2]), seeded(0), method="ancestral", steps=20, batch_size=2, frames=4,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert oracle.calls == 2 * (20 + extra)
    assert told == [(i + 1, 40) for i in range(40)]
    assert drawn.trajectory.shape == (4, 3, 5, 3)
    torch.testing.assert_close(drawn.trajectory[-1], drawn.positions, rtol=0.1, atol=0.05)
    assert (drawn.numbers > 0).sum(dim=1).tolist() == [3, 5, 2]
    assert not drawn.positions[2, 2:].any()


@pytest.mark.parametrize(("closed", "evaluations"), [(False, 9), (True, 10)])
def test_heun_evaluates_twice_a_step_but_for_the_last(closed, evaluations):
    class Counting(Oracle):
        calls = 0

        def forward(self, *arguments):
            self.calls += 1
            return super().forward(*arguments)

    told, oracle = [], Counting()
    drawn = sample_molecules(
        oracle, torch.tensor([2, 3]), seeded(0), steps=5, closed_shell=closed, frames=5,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert oracle.calls == evaluations
    assert told == [(i + 1, 5) for i in range(5)]
    assert drawn.trajectory.shape == (5, 2, 3, 3)
    torch.testing.assert_close(drawn.trajectory[-1], drawn.positions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["heun", "multistep", "ancestral"])
@pytest.mark.parametrize(
    "denoiser",
    [NoisePredictor(EGNN(channels=8, layers=1)), KarrasDenoiser(EquivariantTransformer(5, 8, 2, 1))],
    ids=["NoisePredictor", "KarrasDenoiser"],
)
def test_same_seed_same_molecules_in_order(method, denoiser):
    """Both samplers with both denoisers; sizes come back in the order asked for, padding is zero."""
    counts = torch.tensor([4, 1, 5, 2])
    draws = [
        sample_molecules(denoiser, counts, seeded(s), method=method, steps=5, batch_size=3, frames=2) for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0].positions, draws[1].positions)
    assert torch.equal(draws[0].numbers, draws[1].numbers)
    assert not torch.equal(draws[0].positions, draws[2].positions)
    assert set(draws[0].numbers.unique().tolist()) <= {0, 1, 6, 7, 8, 9}
    assert torch.equal((draws[0].numbers > 0).sum(1), counts)
    assert not draws[0].positions[1, 1:].any()
    assert draws[0].trajectory.shape == (2, 4, 5, 3)
    assert sample_molecules(denoiser, counts, seeded(0), method=method, steps=2).trajectory is None


def test_one_certain_molecule_is_found_by_either_sampler():
    target = torch.tensor([[[0.0, 0, 0.5], [0, 0, -0.5]]])

    class Certain(KarrasDenoiser):
        def denoise(self, x_t, t, mask):
            types = 4 * torch.eye(5)[2].expand(*mask.shape, 5)
            return torch.cat([target.expand(len(mask), -1, -1), types], -1)

    for method in ("heun", "ancestral"):
        drawn = sample_molecules(Certain(nn.Identity()), torch.tensor([2, 2]), seeded(0), method=method, steps=7)
        torch.testing.assert_close(drawn.positions, target.expand(2, -1, -1))
        assert drawn.numbers.tolist() == [[7, 7], [7, 7]]


def test_dropout_is_off_and_every_mode_comes_back():
    class Noisy(EGNN):
        def forward(self, *args):
            assert not self.training
            return super().forward(*args)

    predictor = NoisePredictor(Noisy(channels=8, layers=1)).train()
    predictor.network.embed.eval()  # a part that is meant to stay so
    sample_molecules(predictor, torch.tensor([2]), torch.Generator(), method="ancestral", steps=2)
    assert predictor.training
    assert predictor.network.training
    assert not predictor.network.embed.training


def test_double_precision_networks_sample_in_double_precision():
    predictor = NoisePredictor(EGNN(channels=8, layers=1)).double()
    drawn = sample_molecules(predictor, torch.tensor([3, 2]), seeded(0), steps=3, frames=1)
    assert drawn.positions.dtype == drawn.trajectory.dtype == torch.float64


def test_torchs_defaults_change_nothing():
    denoiser, counts = KarrasDenoiser(EquivariantTransformer(5, 8, 2, 1)), torch.tensor([3, 2])
    settings = {"steps": 4, "closed_shell": True, "churn": 0.4}
    before = sample_molecules(denoiser, counts, seeded(0), **settings)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            after = sample_molecules(denoiser, counts, torch.Generator("cpu").manual_seed(0), **settings)
            again = draw_counts(counts, 5, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(after.positions, before.positions)
    assert torch.equal(after.numbers, before.numbers)
    assert torch.equal(again, draw_counts(counts, 5, 1))


# --- closed shells


@pytest.mark.parametrize(("elements", "odd"), [(ELEMENTS, "HNF"), ((1, 6, 16, 17, 35), ("H", "Cl", "Br"))])
def test_closed_shell_types_are_the_likeliest_of_an_even_number_of_electrons(elements, odd, generator):
    """By brute force over all assignments of four atoms."""
    logits = torch.randn(40, 5, 5, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([4, 3] * 20)[:, None]
    chosen = closed_shell_types(logits, mask, elements)
    valences = torch.tensor([PERIODIC_TABLE[z] in odd for z in elements]).long()
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
        def forward(self, x_t, t, mask):
            return torch.cat([0 * x_t[..., :3], x_t[..., 3:] / (0.1 + t[:, None, None])], -1)

    counts = torch.full((200,), 7)
    valence = torch.tensor([VALENCE.get(z, 0) for z in range(10)])
    odd = {}
    for asked in (False, True):
        out = sample_molecules(Undecided(), counts, generator, steps=20, closed_shell=asked)
        assert (out.numbers > 0).all()
        odd[asked] = (valence[out.numbers].sum(1) % 2).double().mean().item()
    assert odd[True] == 0
    assert 0.3 < odd[False] < 0.7


def test_types_are_settled_once_as_if_they_had_been_so_all_along():
    """From SETTLE_BELOW on, the network sees noisy one-hots of the settled types, with the right noise."""
    seen = []

    class Watching(Oracle):
        def forward(self, x_t, t, mask):
            seen.append((t[0].item(), x_t[..., 3:]))
            return super().forward(x_t, t, mask)

    sample_molecules(Watching(), torch.full((500,), 4), seeded(0), steps=30, closed_shell=True, batch_size=500)
    carbon = 4 * torch.eye(5)[1]
    first = next(i for i, (t, _) in enumerate(seen) if t <= SETTLE_BELOW)
    # At this level it is asked at the end of one step, to settle, and at the beginning of the next step.
    assert [t for t, _ in seen].count(seen[first][0]) == 3
    for t, types in seen[first + 2 :]:
        assert (types - carbon).mean().abs() < 5 * t / 100
        assert (types - carbon).std().item() == pytest.approx(t, rel=0.05)


def test_a_settled_state_by_hand():
    """One-hots of length 4 plus 1.5 times the draw's features; positions, and states of more noise, as they were."""
    mask, kick = torch.ones(1, 2, dtype=torch.bool), torch.arange(16.0).view(1, 2, 8)
    shell, x_t = ClosedShell(Oracle(), mask, lambda: kick), torch.ones(1, 2, 8)
    for sigma in (2.5, 1.5):
        settled = shell.settle(x_t, Level(torch.tensor(sigma), torch.tensor(1.0), torch.tensor(sigma)))
        assert torch.equal(settled[..., :3], x_t[..., :3])
        assert torch.equal(settled, x_t) == (sigma > 2)
    assert torch.equal(settled[..., 3:], 4 * torch.eye(5)[1] + 1.5 * kick[..., 3:])


# --- bookkeeping


def test_sizes_are_drawn_from_the_data():
    counts = torch.tensor([3, 3, 3, 9])
    drawn = draw_counts(counts, 4000, seed=1)
    assert set(drawn.tolist()) == {3, 9}
    assert (drawn == 9).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drawn, draw_counts(counts, 4000, seed=1))


@pytest.mark.parametrize("build", [EGNN, GNN])
@pytest.mark.parametrize("method", ["heun", "multistep", "ancestral"])
def test_model_loss_and_sampler_run_on_the_meta_device(build, method):
    with torch.device("meta"):
        predictor = NoisePredictor(build(channels=16, layers=2))
    positions = torch.zeros(2, 4, 3, device="meta")
    numbers = torch.zeros(2, 4, dtype=torch.long, device="meta")
    loss = sum(denoising_loss(predictor, PairEnergy(), positions, numbers, seeded(0)))
    loss.backward()
    assert loss.is_meta
    assert all(p.grad.is_meta for p in predictor.parameters())
    drawn = sample_molecules(
        predictor, torch.tensor([3, 4]), seeded(0), method=method, steps=3, device="meta", frames=2
    )
    assert all(part.is_meta for part in (drawn.positions, drawn.numbers, drawn.trajectory))
    assert drawn.positions.shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("counts", "arguments", "error", "message"),
    [
        (torch.tensor([0]), {}, ValueError, r"counts has shape \(1,\); it should be \(n,\) with n >= 1 and"),
        (torch.tensor([2, 0]), {}, ValueError, r"counts has shape \(2,\)"),
        (torch.tensor([], dtype=torch.long), {}, ValueError, r"counts has shape \(0,\)"),
        (torch.ones(2, 2, dtype=torch.long), {}, ValueError, r"counts has shape \(2, 2\)"),
        (torch.tensor([2]), {"steps": 0}, ValueError, "steps is 0"),
        (torch.tensor([2]), {"batch_size": 0}, ValueError, "batch_size is 0"),
        (torch.tensor([2]), {"steps": 3, "frames": 4}, ValueError, "frames is 4; it should be between 0 and steps=3"),
        (torch.tensor([2]), {"churn": 0.5}, ValueError, r"churn is 0\.5; it should be between 0 and sqrt\(2\) - 1"),
        (torch.tensor([2]), {"churn": -0.1}, ValueError, r"churn is -0\.1"),
        (torch.tensor([2]), {"churn": math.nan}, ValueError, "churn is nan"),
        (torch.tensor([2]), {"churn": 0.2}, ValueError, "churn is 0.2; it should be 0 without draw and for sch"),
        (torch.tensor([2]), {"method": "multistep", "churn": 0.2}, ValueError, "it should be 0 for multistep sampling"),
        (torch.tensor([2]), {"method": "ancestral", "churn": 0.2}, ValueError, "it should be 0 for ancestral sampling"),
        (torch.tensor([2]), {"closed_shell": True}, ValueError, "closed_shell is True; it should be False for anc"),
    ],
)  # fmt: skip
def test_errors(counts, arguments, error, message):
    with pytest.raises(error, match=message):
        sample_molecules(Gaussian(Polynomial()), counts, torch.Generator(), **arguments)


def test_featuriser_width_reaches_the_sampler():
    elements = tuple(range(1, 17))
    predictor = NoisePredictor(EGNN(features=16, channels=8, layers=1), featuriser=Featuriser(elements, False))
    drawn = sample_molecules(predictor, torch.tensor([3]), seeded(0), method="ancestral", steps=2)
    assert drawn.numbers.shape == (1, 3)
    wide = KarrasDenoiser(EquivariantTransformer(16, 8, 2, 1), elements=GEOM_ELEMENTS)
    assert set(sample_molecules(wide, torch.tensor([5]), seeded(0), steps=2).numbers[0].tolist()) <= set(GEOM_ELEMENTS)
