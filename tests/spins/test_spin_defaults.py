"""Nothing is made on the default device or in the default precision."""

from collections.abc import Iterator

import pytest
import torch

from elf.data import spin_glass
from elf.metrics.spins import bond_accuracy, overlap, wall_distance
from elf.spins import SYMMETRIES, anneal, descend, flip_energies, graph_ground_state, ground_state
from experiments.clouds import polygons
from experiments.spins import table5
from experiments.spins.mean_field import MeanFieldNet
from experiments.spins.resnet import SpinResNet


@pytest.fixture
def foreign_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("periodic", [False, True])
def test_lattices(foreign_defaults, periodic):
    couplings = spin_glass.sample_couplings(2, 3, 4, periodic=periodic)
    for method in ("auto", "milp", "annealing", "exhaustive"):
        found = ground_state(couplings, method)
        assert found.spins.dtype == torch.int8
        assert found.energy.dtype == torch.float32
        assert {found.spins.device.type, found.energy.device.type, found.optimal.device.type} == {"cpu"}
    spins = anneal(couplings, sweeps=2, copies=2)
    other = descend(-spins, couplings)
    for value in (spins, other, flip_energies(spins, couplings), overlap(spins, other, couplings)):
        assert (value.device.type, value.dtype) == ("cpu", torch.float32)
    assert bond_accuracy(spins, other, couplings).dtype == torch.float32
    assert wall_distance(spins, other, couplings).device.type == "cpu"
    for symmetry in SYMMETRIES:
        assert symmetry.undo(symmetry.of_spins(spins)).equal(spins)
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]], device="cpu")
    assert graph_ground_state(matrix).spins.tolist() == [1, 1]


def test_data_and_predictions(foreign_defaults, tmp_path):
    for _ in range(2):
        data = spin_glass.load(3, 3, cache_dir=tmp_path)
        assert (data.spins.device.type, data.energy.dtype) == ("cpu", torch.float32)
    drawn = polygons.sample(2, 3, 0.5)
    assert (drawn.vertices.device.type, drawn.vertices.dtype) == ("cpu", torch.float32)
    with torch.device("cpu"):
        networks = [MeanFieldNet(4, 2, 1).float(), SpinResNet(4, 2).float()]
    for network in networks:
        assert network(data.couplings).dtype == torch.float32
        for gauges in (0, 2):
            assert table5.best_of(network, data.couplings, gauges).dtype == torch.float32
    generator = torch.Generator("cpu").manual_seed(0)
    assert table5.augmented(data, generator).spins.device.type == "cpu"
