"""What notebook 08 claims of traps, of what the network can see, and of the aligned label, derived a second way."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch
from torch import Tensor

from elf.data import spin_glass
from elf.spins import Couplings, descend, flip_energies
from experiments import load_result
from experiments.spins.mean_field import MeanFieldNet
from experiments.spins.resnet import coupling_planes

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "08_spins.ipynb"


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
