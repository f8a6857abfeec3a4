"""The losses of the molecule experiments: alike in size, and the sparse one an energy like any other."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from elf.energy import PairEnergy, springs
from elf.geometry import center, random_rotations
from experiments.molecules import small as molecules
from experiments.molecules.losses import GRAPHS, LOSSES, MENDED, SparsePairEnergy, rigid_graphs

SPRINGS = springs.Exponential(k=2.0)


@pytest.fixture
def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = torch.arange(12) < torch.tensor([[12], [9], [5]])
    target = center(2 * torch.randn(3, 12, 3, generator=generator, dtype=torch.float64), mask)
    return target + 0.3 * torch.randn(target.shape, generator=generator, dtype=torch.float64), target, mask


def test_losses_are_alike_in_size_on_noisy_molecules(generator):
    data = molecules.training_molecules(molecules.SETTINGS["laptop"])[torch.arange(0, 3000, 10).tolist()]
    noise = 0.3 * torch.randn(data.positions.shape, generator=generator) * data.mask[..., None]
    size = {
        name: make()(data.positions + noise, data.positions, data.mask).mean().item() for name, make in LOSSES.items()
    }
    loud = ("half_kabsch", "fifth_kabsch")  # between the pair energy and Kabsch
    for name in {"sparse", "short", "inverse_square", "inverse", "constant", *MENDED} - {*loud}:
        assert size[name] == pytest.approx(size["energy"], rel=0.15)
    assert size["kabsch"] < size["half_kabsch"] < size["fifth_kabsch"] < size["energy"]
    for name in ("mse", "kabsch"):
        assert 0.3 < size[name] / size["energy"] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_energy_is_that_of_one_of_its_graphs(batch, dtype):
    prediction, target, mask = (part.to(dtype) if part.is_floating_point() else part for part in batch)
    value = SparsePairEnergy(SPRINGS)(prediction, target, mask)
    for i, n in enumerate(mask.sum(1).tolist()):
        each = torch.stack(
            [PairEnergy(SPRINGS, edges=e)(prediction[i : i + 1, :n], target[i : i + 1, :n]) for e in rigid_graphs(n)]
        )
        assert (each - value[i]).abs().min() < 1e-5 * value[i]
        assert value[i] <= PairEnergy(SPRINGS)(prediction[i : i + 1, :n], target[i : i + 1, :n])[0] * (1 + 1e-6)
    assert rigid_graphs(12).shape == (GRAPHS, 2, 36)
    assert rigid_graphs(5).shape == (1, 2, 10)


def test_sparse_energy_changes_its_graph_with_the_prediction(batch):
    prediction, target, mask = batch
    energy = SparsePairEnergy(SPRINGS)
    stretched = [energy(target + (prediction - target) * (1 + 1e-3 * k), target, mask)[0].item() for k in range(8)]
    assert energy(prediction, target, mask).tolist() == energy(prediction, target, mask).tolist()
    # One graph would give a smooth line; another graph at each step gives jumps of both signs.
    jumps = [b - a for a, b in pairwise(stretched)]
    assert min(jumps) < 0 < max(jumps)


def test_sparse_energy_is_invariant_and_zero_at_the_target(batch, generator):
    _, target, mask = batch
    rotation = random_rotations(1, 3, generator=generator, dtype=torch.float64)[0]
    moved = (target @ rotation.T + 1).requires_grad_()
    value = SparsePairEnergy(SPRINGS, normalize="atoms")(moved, target, mask)
    assert value.abs().max() < 1e-20
    assert torch.autograd.grad(value.sum(), moved)[0].isfinite().all()


def test_sparse_energy_wants_the_real_atoms_first(batch):
    prediction, target, mask = batch
    with pytest.raises(ValueError, match="mask has holes; it should mark the first atoms"):
        SparsePairEnergy(SPRINGS)(prediction, target, mask.flip(1))
