"""What notebook 08 claims of traps, of what the network can see, and of the aligned label, derived a second way."""

from __future__ import annotations

import math
import re
from itertools import pairwise, product
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from reading import notebook, printed
from torch import Tensor

from elf.data import spin_glass
from elf.spins import Couplings, descend, flip_energies, ising_energy
from experiments import load_result
from experiments.spins.mean_field import MeanFieldNet
from experiments.spins.resnet import coupling_planes

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "08_spins.ipynb"
PRINTED = printed(notebook("08_spins"))


@pytest.fixture(scope="module")
def text() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return " ".join(" ".join(cell.source.split()) for cell in cells if cell.cell_type == "markdown")


def ferromagnet(couplings: Couplings) -> Couplings:
    """The pair energy around y in the variables y_i m_i."""
    return Couplings(couplings.right.abs() + 0.5, couplings.down.abs() + 0.5)


def stable_by_energies(couplings: Couplings) -> list[int]:
    """One-flip-stable states of each lattice, from the energies of all configurations and no local field."""
    _, height, width = couplings.shape
    number = torch.arange(2 ** (height * width))
    spins = 1.0 - 2.0 * (number[:, None] >> torch.arange(height * width) & 1).double()
    first, second = couplings.edges
    energy = -(spins[:, first] * spins[:, second]) @ couplings.values.double().T
    stable = torch.ones_like(energy, dtype=torch.bool)
    for site in range(height * width):
        stable &= energy[number ^ (1 << site)] > energy
    return stable.sum(0).tolist()


def test_the_pair_energy_has_fewer_traps_but_not_none(text):
    couplings = spin_glass.sample_couplings(40, 4, seed=1)
    of_true, of_pair = stable_by_energies(couplings), stable_by_energies(ferromagnet(couplings))
    assert sum(of_true) / 40 == pytest.approx(34.2)
    assert sum(of_pair) / 40 == pytest.approx(21.65)
    assert min(of_pair) > 2  # never just y and -y
    assert sum(pair < true for pair, true in zip(of_pair, of_true, strict=True)) == 35
    assert "21.6 stable states on average" in text
    assert "the true energy 34.2" in text


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_descent_of_the_pair_energy_ends_at_domain_walls(text, seed):
    magnet = ferromagnet(spin_glass.sample_couplings(200, 16, seed=5))
    start = torch.randint(2, magnet.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    end = descend(start, magnet)
    assert (flip_energies(end, magnet) > 0).all()
    assert int((end.mean((1, 2)).abs() == 1).sum()) == 0
    # Walls, not confetti: no spin stands alone against all of its neighbours.
    assert not bool(alone(end).any())
    assert "greedy descent never arrived" in text


def alone(spins: Tensor) -> Tensor:
    """Sites that differ from every neighbour."""
    padded = torch.nn.functional.pad(spins, (1, 1, 1, 1))
    around = (padded[:, 1:-1, :-2], padded[:, 1:-1, 2:], padded[:, :-2, 1:-1], padded[:, 2:, 1:-1])
    return torch.stack([side * spins <= 0 for side in around]).all(0)


@pytest.mark.parametrize(("layers", "blind"), [(16, 78), (24, 10)])
def test_how_many_spins_cannot_see_the_marked_corner(text, layers, blind):
    couplings = spin_glass.sample_couplings(1, 16, seed=0).to(torch.float64)
    network = MeanFieldNet(layers=layers).double()
    planes = coupling_planes(couplings)
    marker = torch.zeros_like(planes)
    marker[:, -1, 0, 0] = 1

    def answer(seen: Tensor) -> Tensor:
        x = network.stem(seen)
        for layer in network.layers:
            x = layer(x, planes[:, :4])
        return network.head(x)[0, 0]

    # By derivative: the news arrives so weakened that a difference would lose it in rounding.
    backward = torch.zeros_like(answer(planes), requires_grad=True)
    (pulled,) = torch.autograd.grad(answer(planes.requires_grad_()), planes, backward, create_graph=True)
    (change,) = torch.autograd.grad(pulled, backward, marker)
    same = change == 0
    row = torch.arange(16)
    assert torch.equal(same, row[:, None] + row > layers + 2)
    assert int(same.sum()) == blind
    assert "30 % of the spins" in text
    assert "with 24 layers, 4 % cannot" in text
    assert (round(100 * 78 / 256), round(100 * 10 / 256)) == (30, 4)


def test_the_aligned_label_lies_between_labels_and_bonds():
    rows = {row["loss"]: row["energy"] for row in load_result("table5")["summary"]}
    (aligned,) = load_result("table5_aligned")["summary"]
    assert load_result("table5_aligned")["settings"] == load_result("table5")["settings"]
    assert aligned["n"] == 3
    mean = aligned["energy"]["mean"]
    assert mean < 0.8 * min(rows[name]["mean"] for name in ("cross_entropy", "margin", "local_field"))
    assert mean > 3 * max(rows[name]["mean"] for name in ("pair", "ising"))


def ground_energy(couplings: Couplings) -> float:
    """Lowest energy of one lattice by dynamic programming over its last row, a spin at a time."""
    (right, down), (_, height, width) = (
        (x[0].double().numpy() for x in (couplings.right, couplings.down)),
        couplings.shape,
    )
    rows = np.arange(2**width)
    spin = 1.0 - 2.0 * (rows[:, None] >> np.arange(width) & 1)
    best = -(spin[:, :-1] * spin[:, 1:]) @ right[0]
    for r in range(1, height):
        for c in range(width):  # the spin above c is replaced by the new one
            other = best[rows ^ (1 << c)]  # the same row, but with the spin above turned over
            best = np.minimum(best - down[r - 1, c], other + down[r - 1, c])
            if c:
                best = best - right[r, c - 1] * spin[:, c - 1] * spin[:, c]
    return float(best.min())


def test_one_bond_of_an_odd_square_stays_broken():
    bonds = (1, 1, 1, -1)
    energies = []
    for spins in product((1, -1), repeat=4):
        around = zip(bonds, spins, (*spins[1:], spins[0]), strict=True)
        energies.append(-sum(bond * a * b for bond, a, b in around))
    assert sorted(energies) == [-2] * 8 + [2] * 8
    assert "energy -2: 8 of 16 configurations" in PRINTED


@pytest.mark.parametrize(("height", "width", "count"), [(4, 5, 20), (16, 16, 2)])
def test_matching_is_exact_by_dynamic_programming(height, width, count):
    drawn = spin_glass.load(count, height, width, seed=77)
    for i in range(count):
        index = torch.tensor([i])
        exact = ground_energy(drawn.couplings[index])
        found = float(ising_energy(drawn.spins[index], drawn.couplings[index]))
        assert found == pytest.approx(exact, abs=1e-4)
        if width == 16:
            assert exact == pytest.approx(-194.3, abs=4 * 4.5)  # the page's mean; a lattice is off by about 4.5


def test_averaged_over_both_labels_cross_entropy_wants_nothing():
    """softplus(-2z) and softplus(2z), half each, by hand; a coefficient of the local field appears with both signs."""
    for z, said in ((0.0, "0.69"), (0.5, "0.81"), (4.0, "4.00")):
        both = (math.log1p(math.exp(-2 * z)) + math.log1p(math.exp(2 * z))) / 2
        assert f"{both:.2f}" == said
    assert "cross-entropy, mean over both labels, at logits 0, y/2, 4y: 0.69, 0.81, 4.00" in PRINTED
    assert "local field, mean over both labels, at logits 0, y/2, 4y: 2.06, 2.06, 2.06" in PRINTED


def test_the_pair_energy_of_labels_falls_with_the_square_of_the_tanh():
    """Every bond costs w (1 - t^2) at logits of size z, t = tanh z: three numbers are one and its shares."""
    values = re.search(r"pair energy, mean over both labels, at logits 0, y/2, 4y: (\S+), (\S+), (\S+)", PRINTED)
    nothing, half, sure = map(float, values.groups())
    assert half == pytest.approx(nothing * (1 - math.tanh(0.5) ** 2), abs=0.01)
    assert sure == pytest.approx(nothing * (1 - math.tanh(4) ** 2), abs=0.01)


def test_the_corrected_field_points_along_every_ground_state():
    drawn = spin_glass.load(20, 4, 5, seed=77)
    for i in range(20):
        y = drawn.spins[i].double().numpy()
        right, down = (x[i].double().numpy() for x in (drawn.couplings.right, drawn.couplings.down))
        field = np.zeros_like(y)
        field[:, :-1] += right * y[:, 1:]
        field[:, 1:] += right * y[:, :-1]
        field[:-1] += down * y[1:]
        field[1:] += down * y[:-1]
        assert (y * field > 0).all()  # no flip gains, so any h_0 > 0 leaves the sign of the field
        assert (abs(field) <= 4).all()  # so that h_0 > 4 does it for any y
    for h0 in ("0.5", "4.5"):
        assert f"h0 = {h0},      corrected: 100 % of the spins of the minimiser are those of y" in PRINTED
        assert f"h0 = {h0},   printed sign:   0 % of the spins of the minimiser are those of y" in PRINTED


def test_half_a_lattice_turned_over_is_a_wall_of_few_bonds(text):
    for size, wall, bonds in ((16, 16, 480), (8, 8, 112)):
        spins = np.ones((size, size))
        spins[:, size // 2 :] = -1
        assert (spins[:, :-1] != spins[:, 1:]).sum() + (spins[:-1] != spins[1:]).sum() == wall
        assert 2 * size * (size - 1) == bonds
        assert spins.mean() == 0
    assert "16 of its 480 bonds, at $q = 0$" in text
    assert "8 of 112 bonds are wrong, and 32 of 64 spins" in text


def test_the_table_orders_losses_as_the_page_reads_it(text):
    rows = {row["loss"]: row for name in ("table5", "table5_aligned") for row in load_result(name)["summary"]}
    mean = {loss: row["energy"]["mean"] for loss, row in rows.items()}
    order = ["cross_entropy", "margin", "local_field", "aligned", "ising", "pair"]
    assert sorted(mean, key=mean.get, reverse=True) == order
    for worse, better in pairwise(order[:3]):
        assert mean[worse] - rows[worse]["energy"]["std"] > mean[better] + rows[better]["energy"]["std"]
    assert mean["aligned"] > 4 * mean["pair"]
    assert mean["pair"] / mean["local_field"] == pytest.approx(1 / 6, abs=0.02)
    assert f"*below* the true energy: {mean['pair']:.1f} against {mean['ising']:.1f}" in text


def test_what_the_table_holds_fixed_is_in_the_file(text):
    runs = load_result("table5_settings")["summary"]

    def energy(**wanted):
        (row,) = [r for r in runs if all(r[key] == value for key, value in wanted.items())]
        return row["energy"]["mean"]

    few = {turned: energy(part="samples", loss="pair", samples=100, augment=turned) for turned in (True, False)}
    assert few[True] == pytest.approx(energy(part="usual", loss="pair"), abs=0.1)
    assert f"without gauges they give {few[False]:.1f}" in text
    depth = [energy(part="network", network="mean_field", blocks=blocks) for blocks in (4, 12)]
    assert (
        f"Four give {depth[0]:.0f}, twelve {depth[1]:.0f}, twenty-four {energy(part='usual', loss='pair'):.1f}" in text
    )
    assert f"two thirds of the time): {energy(part='network', network='residual'):.0f}." in text
    fields = [energy(part="offset", loss="local_field", offset=h) for h in (0.05, 0.5, 4.5)]
    assert max(fields[:2]) > 1.2 * fields[2]
    pairs = [energy(part="offset", loss="pair", offset=w) for w in (0.02, 4.0)]
    assert max(pairs) - min(pairs) < 1


def test_gauges_give_as_many_ground_states_as_there_are_halves_of_their_number():
    """Names of 64 spins, and the whole lattice turned over renames nothing: 2^63 lattices of the same energy."""
    drawn, draw = spin_glass.load(1, 8, seed=4), np.random.default_rng(3)
    y, right, down = (x[0].double().numpy() for x in (drawn.spins, drawn.couplings.right, drawn.couplings.down))
    energies = set()
    for _ in range(5):
        g = draw.choice([-1.0, 1.0], size=y.shape)
        renamed, z = (right * g[:, :-1] * g[:, 1:], down * g[:-1] * g[1:]), g * y
        energies.add(round(-(renamed[0] * z[:, :-1] * z[:, 1:]).sum() - (renamed[1] * z[:-1] * z[1:]).sum(), 6))
    assert len(energies) == 1
    assert "a ground state gives 2^63 others for free" in PRINTED
