"""What the standalone notebook says, with its own cells on one side and the library or a formula on the other."""

from __future__ import annotations

import re
from statistics import mean
from types import SimpleNamespace

import pytest
import torch
from reading import code, notebook, printed, prose

import elf
from elf.chemistry.bonds import QM9
from elf.metrics.molecules import stability

BOOK = notebook("standalone")
CELLS = ["standalone-01", "standalone-03", "standalone-05-a", "standalone-05", "standalone-09", "standalone-11-a"]
CELLS += ["standalone-11-b", "standalone-14-a", "standalone-14"]


@pytest.fixture(scope="module")
def page():
    """Data, losses, network, sampler and yardstick, as the notebook makes them; nothing is trained."""
    made: dict[str, object] = {}
    for id in CELLS:
        exec(code(BOOK)[id], made)
    return SimpleNamespace(**made)


@pytest.fixture
def pair(page):
    """A prediction and a target: two molecules each."""
    return page.data[:2] + 0.1 * torch.randn(2, 17, 3, generator=torch.Generator().manual_seed(0)), page.data[:2]


def shares() -> dict[str, list[float]]:
    found = re.findall(r"^ *(\w[\w ]*): ((?:\d+ %(?:, )?)+)$", printed(BOOK), re.MULTILINE)
    return {name: [float(x.rstrip(" %")) for x in values.split(", ")] for name, values in found}


def test_there_are_2525_isomers_of_the_formula(page):
    assert len(page.data) == 2525
    assert "The data: 2,525 molecules" in prose(BOOK)
    assert page.numbers.bincount()[[1, 6, 8]].tolist() == [8, 6, 3]
    assert float(page.data.mean(1).abs().max()) < 1e-4
    assert float(page.data.square().mean().sqrt()) == pytest.approx(page.SIZE, rel=0.15)  # about


def test_losses_are_those_of_the_library(page, pair):
    torch.testing.assert_close(page.mse(*pair), elf.Harmonic()(*pair) / 17)
    springs = elf.PairEnergy(elf.springs.Exponential())
    torch.testing.assert_close(page.pair_energy(*pair), 5 * springs(*pair) / 17, rtol=1e-4, atol=1e-6)


def test_a_quarter_turn_costs_mse_twice_the_squares_across_the_axis(page):
    """|Ry - y|^2 = 2 (x^2 + y^2) for a quarter turn about z."""
    across = page.data[:100, :, :2].square().sum((1, 2)).mean() * 2 / 17
    assert f"mse {float(across):.2f}, pair_energy 0.00" in printed(BOOK)


def test_turns_at_random_are_rotations_and_none_comes_oftener_than_another(page):
    """Over all turns alike, the mean of a turn is zero, and that of its squared trace one: (1 + 2 cos a)^2."""
    turned = page.turned_at_random(torch.eye(3).expand(4000, 3, 3))
    torch.testing.assert_close(turned.mT @ turned, torch.eye(3).expand_as(turned), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(4000), atol=1e-4, rtol=0)
    assert float(turned.mean(0).abs().max()) < 5 / (3 * 4000) ** 0.5
    assert float(turned.diagonal(dim1=1, dim2=2).sum(1).square().mean()) == pytest.approx(1, abs=0.1)
    assert "signs that prefer no turn to another" in prose(BOOK)


def test_the_network_is_no_equivariant_one_and_names_do_not_matter(page):
    torch.manual_seed(0)
    network, sigma = page.Network().eval(), torch.full((4,), 0.5)
    x = page.data[:4]
    with torch.no_grad():
        plain, turn = network(x, sigma), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        assert float((network(x @ turn, sigma) - plain @ turn).norm()) > 0.1 * float(plain.norm())
        swapped = torch.arange(17)
        swapped[[6, 13]] = swapped[[13, 6]]  # two hydrogens
        torch.testing.assert_close(network(x[:, swapped], sigma), plain[:, swapped], atol=1e-5, rtol=1e-4)


def test_noise_and_answers_are_mixed_so_that_every_level_weighs_one(page):
    """Karras: with weight (s^2 + S^2) / (s S)^2 and the output scaled by s S / sqrt(s^2 + S^2) the product is one."""
    sigma, x = torch.tensor([0.02, 0.5, 3.0, 40.0]), page.data[:4]
    spread = (sigma**2 + page.SIZE**2).sqrt()
    scale = sigma * page.SIZE / spread
    torch.testing.assert_close((sigma**2 + page.SIZE**2) / (sigma * page.SIZE) ** 2 * scale**2, torch.ones(4))
    # Without a network, the best linear guess of a Gaussian of that size: x S^2 / (S^2 + sigma^2).
    best = x * (page.SIZE**2 / (page.SIZE**2 + sigma**2))[:, None, None]
    torch.testing.assert_close(page.denoise(lambda x, s: torch.zeros_like(x), x, sigma), best)


def test_the_sampler_ends_at_what_a_network_that_knows_would_say(page):
    truth = page.data[:3]

    def oracle(x, sigma):  # the displacement after which `denoise` answers with the truth
        s = sigma[:, None, None]
        spread = (s**2 + page.SIZE**2).sqrt()
        return (truth - (page.SIZE / spread) ** 2 * x) * spread / (s * page.SIZE)

    torch.testing.assert_close(page.sample(oracle, 3), truth, atol=1e-4, rtol=0)


def test_the_yardstick_is_that_of_the_library(page):
    noisy = page.data[:200] + 0.03 * torch.randn(200, 17, 3, generator=torch.Generator().manual_seed(1))
    for x in (page.data[:200], noisy):
        assert torch.equal(page.stable_atoms(x), stability(x, page.numbers.expand(len(x), -1), rules=QM9).atom_stable)
    assert shares()["the data"] == [round(100 * float(page.stable_atoms(page.data).float().mean()))]


def test_the_energy_wins_in_every_pair_of_networks():
    found = shares()
    assert len(found["mse"]) == len(found["pair_energy"]) == 3
    leads = [b - a for a, b in zip(found["mse"], found["pair_energy"], strict=True)]
    assert min(leads) > 5
    assert "three networks for each loss" in prose(BOOK).lower()
    said = re.search(r"in every pair, by (\d+) to (\d+) points", prose(BOOK))
    assert [float(x) for x in said.groups()] == [min(leads), max(leads)]
    (headline,) = re.findall(r"HEADLINE: .*mse (\d+) %, pair_energy (\d+) %", printed(BOOK))
    # The mean of what was not yet rounded.
    assert [float(x) for x in headline] == pytest.approx([mean(found["mse"]), mean(found["pair_energy"])], abs=1)


def test_constant_springs_weigh_far_pairs_as_near_ones(page):
    """Of five times e^(-r) most lies on short distances; of a constant, on the many long ones."""
    r = page.distances(page.data[:200])
    near = r < 1.7
    assert float(near.float().mean()) < 0.2
    assert float(((-r).exp() * near).sum() / (-r).exp().sum()) > 2 * float(near.float().mean())


def test_a_mirror_image_costs_the_pair_energy_nothing(page):
    mirrored = page.data[:10] * torch.tensor([1.0, 1, -1])
    assert float(page.pair_energy(mirrored, page.data[:10]).max()) < 1e-6
    apart = 4 * page.data[:10, :, 2].square().sum(1) / 17
    torch.testing.assert_close(page.mse(mirrored, page.data[:10]), apart)
