"""The losses of the molecule experiments: alike in size, and the sparse one an energy like any other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from elf import springs
from elf.energy import PairEnergy
from elf.geometry import center, random_rotations
from experiments.framework.experiment import load_result
from experiments.molecules import druglike
from experiments.molecules import small as molecules
from experiments.molecules.losses import (
    GRAPHS,
    LOSSES,
    MENDED,
    STAIRCASE,
    RootPairEnergy,
    SparsePairEnergy,
    pair_hessian,
    rigid_graphs,
    staircase,
)

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
    loud = ("half_kabsch", "fifth_kabsch", "half_heights")  # between the pair energy and Kabsch
    for name in {"sparse", "sparse_inverse", "short", "inverse_square", "inverse", "constant", *MENDED} - {*loud}:
        assert size[name] == pytest.approx(size["energy"], rel=0.15)
    assert size["kabsch"] < size["half_kabsch"] < size["fifth_kabsch"] < size["energy"]
    for name, share, other in (("half", 0.5, "energy"), ("fifth", 0.2, "energy"), ("half", 0.5, "heights_0.1")):
        mixed = size["half_heights" if other == "heights_0.1" else f"{name}_kabsch"]
        assert mixed == pytest.approx(share * size["kabsch"] + (1 - share) * size[other])
    for name in ("mse", "kabsch"):
        assert 0.3 < size[name] / size["energy"] < 1
        assert size[f"{name}_loud"] == pytest.approx(size["energy"], rel=0.05)


@pytest.mark.parametrize(("sigma", "share"), [(0.05, 1), (0.3, 1), (1.0, 0.8)])
def test_mse_and_kabsch_are_as_loud_for_small_errors_and_quieter_for_large_ones(sigma, share, generator):
    data = molecules.training_molecules(molecules.SETTINGS["laptop"])[torch.arange(0, 3000, 10).tolist()]
    noisy = data.positions + sigma * torch.randn(data.positions.shape, generator=generator) * data.mask[..., None]
    energy, *others = (
        LOSSES[name]()(noisy, data.positions, data.mask).mean().item() for name in ("energy", "mse_loud", "kabsch_loud")
    )
    assert others == pytest.approx([share * energy] * 2, rel=0.05)


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_losses_of_drug_like_molecules_are_as_loud_as_the_energy_there(sigma, generator):
    data = molecules.training_molecules(druglike.settings_of("druglike", "laptop").recipe)[torch.arange(0, 8000, 80)]
    noise = sigma * torch.randn(data.positions.shape, generator=generator) * data.mask[..., None]
    noisy, target = data.positions + noise, data.positions
    size = {name: make()(noisy, target, data.mask).mean().item() for name, make in LOSSES.items()}
    for name in ("sparse", "inverse", "sparse_inverse"):
        assert abs(size[name] / size["energy"] - 1) > 0.3
        assert size[f"{name}_even"] == pytest.approx(size["energy"], rel=0.1)


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


def flexible(dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    return center(1.5 * torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)).to(dtype)


def test_hessian_of_the_pair_energy_is_that_of_autograd(generator):
    target = flexible(torch.float64, generator)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    found = pair_hessian(SPRINGS, target, mask)
    for i, n in enumerate(mask.sum(1).tolist()):
        y = target[i, :n]
        by_hand = torch.autograd.functional.hessian(
            lambda x, y=y: PairEnergy(SPRINGS)(x.view(1, -1, 3), y[None])[0], y.flatten()
        )
        torch.testing.assert_close(found[i, : 3 * n, : 3 * n], by_hand, atol=1e-10, rtol=1e-8)
        assert found[i, 3 * n :].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_root_energy_is_half_way_between_kabsch_and_the_pair_energy(dtype, generator):
    """Along an eigenvector of the pair energy's Hessian, by scipy's matrix root; rigid motions cost nothing."""
    target, softest = flexible(dtype, generator), 0.3
    mask = torch.ones(2, 6, dtype=torch.bool)
    energy = RootPairEnergy(SPRINGS, softest)
    hessian = pair_hessian(SPRINGS, target.double(), mask)
    values, modes = torch.linalg.eigh(hessian)
    for mode in (6, 9, 17):
        step = 1e-2 * modes[:, :, mode].view(2, 6, 3).to(dtype)
        root = torch.stack([torch.from_numpy(sqrtm(h.numpy() + softest * np.eye(18)).real) for h in hessian])
        expected = torch.einsum("bi,bij,bj->b", step.double().flatten(1), root, step.double().flatten(1))
        torch.testing.assert_close(expected, 1e-4 * (values[:, mode] + softest).sqrt(), atol=1e-9, rtol=1e-4)
        moved = (target + step) @ random_rotations(2, generator=generator, dtype=dtype) + 3
        torch.testing.assert_close(energy(moved, target).double(), expected, atol=1e-7, rtol=2e-2)
    mirrored = target * torch.tensor([1, 1, -1], dtype=dtype)
    assert (energy(mirrored, target) > 0.1).all()


def test_root_energy_s_gradient_is_that_of_finite_differences(generator):
    target = flexible(torch.float64, generator)
    energy = RootPairEnergy(SPRINGS, 0.3)
    prediction = (target + 1e-3 * torch.randn(target.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    (found,) = torch.autograd.grad(energy(prediction, target).sum(), prediction)
    eps = 1e-6
    for i, j, k in ((0, 0, 0), (0, 5, 2), (1, 3, 1)):
        step = torch.zeros_like(target)
        step[i, j, k] = eps
        ends = [float(energy(prediction.detach() + s * step, target).sum()) for s in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(float(found[i, j, k]), rel=2e-2, abs=2e-5)


def test_root_energy_takes_masked_samples_alone(generator):
    target = flexible(torch.float64, generator)
    prediction = target + 0.1 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    energy = RootPairEnergy(SPRINGS, 0.3)
    together = energy(prediction, target, mask)
    alone = energy(prediction[1:, :4], target[1:, :4])
    torch.testing.assert_close(together[1:], alone)


def test_fitted_springs_are_those_of_the_committed_result():
    edges, k = STAIRCASE
    cells = [c["result"] for c in load_result("springs")["cells"] if c["cell"]["part"] == "fit"]
    assert list(edges[1:]) == cells[0]["edges"][1 : len(edges)]
    means = np.mean([c["k"] for c in cells], axis=0)
    np.testing.assert_allclose(means[: len(k) - 1], k[:-1], rtol=5e-3)
    assert means[len(k) - 1 :].max() < 0.3
    r = torch.tensor([0.9, 1.14, 1.16, 1.9, 7.0], dtype=torch.float64)
    assert staircase(r).tolist() == [k[0], k[0], k[1], k[2], k[-1]]
