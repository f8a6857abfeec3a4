"""Heights over neighbours' planes: against a plane fitted point by point, finite differences, and what they are for."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from elf import HeightEnergy, PairEnergy
from elf.data import qm9
from elf.energy import height as module
from elf.geometry import planes
from elf.geometry.alignment import random_rotations


def plain_loop(prediction: np.ndarray, target: np.ndarray, neighbours: int) -> float:
    """The energy of one sample, atom by atom: heights from the plane's equation, neighbours by plain sorting."""
    dim, total = target.shape[1], 0.0
    for i in range(len(target)):
        distance = np.linalg.norm(target - target[i], axis=1)
        others = sorted((d, j) for j, d in enumerate(distance) if j != i)
        last = others[neighbours - 1][0]
        share = {j: faded(d / last) for d, j in others if d < 1.01 * last}
        for base in itertools.combinations(share, dim):
            wanted, area, quality = measured(target, i, base, None)
            found, _, _ = measured(prediction, i, base, area)
            total += quality * math.prod(share[j] for j in base) * (found - wanted) ** 2
    return total


def faded(ratio: float) -> float:
    """One up to the last neighbour's distance, zero from 1.01 times that on, a cubic with flat ends between."""
    x = min(max((ratio - 1) / 0.01, 0.0), 1.0)
    return 1 - 3 * x**2 + 2 * x**3


def measured(x: np.ndarray, atom: int, base: tuple[int, ...], target_area: float | None) -> tuple[float, float, float]:
    corners = x[list(base)]
    if x.shape[1] == 3:
        # The plane n . x = c through the corners, with n as long as twice the triangle's area.
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        sides = [math.dist(corners[a], corners[b]) for a, b in ((0, 1), (1, 2), (2, 0))]
        half = sum(sides) / 2
        area = 2 * math.sqrt(max(half * (half - sides[0]) * (half - sides[1]) * (half - sides[2]), 0.0))  # Heron
        equilateral = math.sqrt(3) / 2 * sum(side**2 for side in sides) / 3
        quality = (area / equilateral) ** 2
    else:
        side = corners[1] - corners[0]
        normal, area, quality = np.array([-side[1], side[0]]), math.dist(*corners), 1.0
    floor = 0.1 * (area if target_area is None else target_area)
    return float((x[atom] - corners[0]) @ normal) / math.hypot(area, floor), area, quality


@pytest.mark.parametrize(("dim", "neighbours"), [(2, 2), (2, 4), (3, 3), (3, 4), (3, 6)])
def test_value_against_a_plain_loop(dim: int, neighbours: int, generator: torch.Generator) -> None:
    target = 2 * torch.randn(3, 9, dim, dtype=torch.float64, generator=generator)
    prediction = target + 0.3 * torch.randn(3, 9, dim, dtype=torch.float64, generator=generator)
    loop = [plain_loop(p, y, neighbours) for p, y in zip(prediction.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(HeightEnergy(neighbours=neighbours)(prediction, target), loop, rtol=1e-10)
    np.testing.assert_allclose(HeightEnergy(k=2.5, neighbours=neighbours)(prediction, target), np.multiply(2.5, loop))


@pytest.mark.parametrize("dim", [2, 3])
def test_value_of_a_prediction_far_larger_than_its_target(dim: int, generator: torch.Generator) -> None:
    """One atom flies off while its neighbours fall together: heights over bases a hundredth of the target's."""
    target = torch.randn(1, 7, dim, dtype=torch.float64, generator=generator)
    prediction = 0.01 * target + 0.001 * torch.randn(target.shape, dtype=torch.float64, generator=generator)
    prediction[0, 0] += 5000
    loop = plain_loop(prediction[0].numpy(), target[0].numpy(), 4)
    np.testing.assert_allclose(HeightEnergy()(prediction, target), [loop], rtol=1e-8)


@pytest.mark.parametrize("unit", [2.0**-30, 1.0, 2.0**10])
def test_squared_areas_of_a_prediction_far_larger_than_its_target_stay_finite(
    unit: float, generator: torch.Generator
) -> None:
    """Their squares alone would be beyond float32."""
    target = unit * torch.randn(1, 7, 3, dtype=torch.float64, generator=generator)
    prediction = 2.0**36 * target.flip(1)
    found = HeightEnergy()(prediction.float(), target.float())
    torch.testing.assert_close(found.double(), HeightEnergy()(prediction, target), rtol=1e-4, atol=0)


def test_second_derivatives_are_finite_where_a_base_of_the_target_is_a_point() -> None:
    target = torch.tensor([[[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0.5]]], dtype=torch.float32)
    hessian = torch.autograd.functional.hessian(lambda x: HeightEnergy()(x, target).sum(), target + 0.1)
    assert hessian.isfinite().all()
    assert HeightEnergy()(torch.zeros(1, 3, 3), target[:, :3]) == 0


@pytest.mark.parametrize("dim", [2, 3])
def test_gradient_against_finite_differences_and_autograd(dim: int, generator: torch.Generator) -> None:
    target = 2 * torch.randn(2, 7, dim, dtype=torch.float64, generator=generator)
    prediction = (target + 0.5 * torch.randn(target.shape, dtype=torch.float64, generator=generator)).requires_grad_()
    energy = HeightEnergy()
    assert torch.autograd.gradcheck(lambda x: energy(x, target), prediction)
    assert torch.autograd.gradgradcheck(lambda x: energy(x, target), prediction)
    (written_out,) = torch.autograd.grad(energy(prediction, target).sum(), prediction)
    vmapped = torch.func.vmap(torch.func.grad(lambda x, y: energy(x[None], y[None]).sum()))(prediction, target)
    torch.testing.assert_close(written_out, vmapped)
    # Several samples beside each other, in each of several calls.
    batches = [torch.stack((x, x.flip(0))).detach() for x in (prediction, target)]
    torch.testing.assert_close(torch.func.vmap(energy)(*batches)[1], energy(prediction, target).flip(0))


def test_precisions_agree(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 50)
    target = 2 * torch.randn(4, 12, 3, dtype=torch.float64, generator=generator)
    prediction = target + 0.2 * torch.randn(target.shape, dtype=torch.float64, generator=generator)
    results = []
    for dtype in (torch.float32, torch.float64):
        x = prediction.to(dtype).requires_grad_()
        value = HeightEnergy()(x, target.to(dtype))
        value.sum().backward()
        results.append((value.detach().double(), x.grad.double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def some_molecules():
    return qm9.load(heavy_atoms=(4, 7), limit=20, seed=1)


def test_symmetry(some_molecules, generator: torch.Generator) -> None:
    """SE(3) leaves it alone, a mirror does not, and it does not matter in which order the atoms stand."""
    y, mask = some_molecules.positions.double(), some_molecules.mask
    x = y + 0.1 * torch.randn(y.shape, dtype=y.dtype, generator=generator)
    energy = HeightEnergy()
    value = energy(x, y, mask)
    turn = random_rotations(len(y), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(energy(x @ turn.mT + 3.0, y, mask), value)
    torch.testing.assert_close(energy(x, y @ turn.mT - 1.0, mask), value)
    order = torch.randperm(y.shape[1], generator=generator)
    torch.testing.assert_close(energy(x[:, order], y[:, order], mask[:, order]), value)
    assert (energy(y, y, mask) == 0).all()


def test_mirror_images_cost(some_molecules) -> None:
    y, mask = some_molecules.positions.double(), some_molecules.mask
    mirrored = y * torch.tensor([1.0, 1.0, -1.0], dtype=y.dtype)
    cost = HeightEnergy()(mirrored, y, mask)
    flat = torch.linalg.svdvals(y - (y * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None])[:, 2] < 0.1
    assert (cost[~flat] > 0.1).all()
    assert (PairEnergy()(mirrored, y, mask) < 1e-20).all()


@pytest.mark.parametrize("name", ["benzene", "formamide", "pyrrole", "diazine"])
def test_flat_molecules_have_six_zero_modes(name: str) -> None:
    """The pair energy has n - 3 more at a flat molecule: the line that this energy was made for."""
    smiles = {"benzene": "benzene", "formamide": "NC=O", "pyrrole": "C1=CNC=C1", "diazine": "C1=CN=CN=C1"}[name]
    y = qm9.find(smiles).positions.double()
    y = flattened(y)
    n = y.shape[1]

    def zero_modes(energies: list) -> int:
        hessian = torch.autograd.functional.hessian(lambda x: sum(e(x, y).sum() for e in energies), y)
        values = torch.linalg.eigvalsh(hessian.reshape(3 * n, 3 * n))
        return int((values < 1e-6 * values[-1]).sum())

    assert zero_modes([PairEnergy()]) == 6 + n - 3
    assert zero_modes([PairEnergy(), HeightEnergy()]) == 6


def flattened(y: torch.Tensor) -> torch.Tensor:
    """The molecule in its own plane, exactly: QM9's flat molecules are flat to a few thousandths of an angstrom."""
    centred = y - y.mean(1, keepdim=True)
    _, _, axes = torch.linalg.svd(centred)
    flat = centred @ axes.mT
    assert flat[..., 2].abs().max() < 0.05
    return flat * torch.tensor([1.0, 1.0, 0.0], dtype=y.dtype)


@pytest.mark.parametrize("smiles", ["C", "C#C", "C#N", "O", "N", "C#CC#N"])
def test_lines_and_small_molecules_are_finite(smiles: str, dtype: torch.dtype) -> None:
    y = qm9.find(smiles).positions.to(dtype)
    x = (y + 0.05).requires_grad_()
    value = HeightEnergy()(x, y)
    value.sum().backward()
    assert value.isfinite().all()
    assert x.grad.isfinite().all()
    assert value.abs().max() < 1e-6


def test_equivalent_atoms_stay_equivalent() -> None:
    """Benzene squeezed towards its centre: six equal forces on carbon, six on hydrogen, in spite of rounded ties."""
    angle = torch.arange(6, dtype=torch.float64) * math.pi / 3
    ring = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), -1)
    y = torch.cat((1.396 * ring, 2.48 * ring))[None] + 1e-7 * torch.rand(1, 12, 3, dtype=torch.float64)
    buckled = torch.tensor([0.1, -0.1] * 6, dtype=torch.float64)
    x = (y + torch.stack((0 * buckled, 0 * buckled, buckled), -1)).requires_grad_()
    HeightEnergy(neighbours=3)(x, y).sum().backward()
    forces = x.grad[0].norm(dim=-1)
    torch.testing.assert_close(forces[:6], forces[:1].expand(6), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(forces[6:], forces[6:7].expand(6), rtol=1e-4, atol=1e-6)


def test_smooth_where_a_base_collapses() -> None:
    """Three neighbours pushed onto a line: value and gradient stay finite, and the gradient does not jump."""
    y = torch.tensor([[[0, 0, 1], [1, 0, 0], [-1, 0.2, 0], [0, 1, 0]]], dtype=torch.float64)
    gradients = []
    for height in (1e-3, 1e-9, 0.0, -1e-9, -1e-3):
        x = y.clone()
        x[0, 3] = torch.tensor([0.0, 0.1 + height, 0.0], dtype=torch.float64)
        x.requires_grad_()
        HeightEnergy(neighbours=3)(x, y).sum().backward()
        gradients.append(x.grad)
    assert all(g.isfinite().all() for g in gradients)
    torch.testing.assert_close(gradients[1], gradients[3], rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[4], rtol=0, atol=0.02 * gradients[2].abs().max())


def test_masks_flat_batches_and_batch_mates(some_molecules, generator: torch.Generator) -> None:
    y, mask = some_molecules.positions, some_molecules.mask
    x = y + 0.1 * torch.randn(y.shape, generator=generator)
    energy = HeightEnergy(normalize="atoms")
    value = energy(x, y, mask)
    alone = torch.cat([energy(x[i : i + 1, m], y[i : i + 1, m]) for i, m in enumerate(mask)])
    torch.testing.assert_close(alone, value)
    batch = torch.arange(len(y)).repeat_interleave(mask.sum(1))
    torch.testing.assert_close(energy(x[mask], y[mask], batch=batch), value)
    x[~mask], y[~mask] = torch.nan, torch.inf
    torch.testing.assert_close(energy(x, y, mask), value)


@pytest.mark.parametrize("flat", [False, True])
def test_the_unit_of_length_scales_the_energy_and_nothing_else(
    flat: bool, dtype: torch.dtype, generator: torch.Generator
) -> None:
    y = torch.randn(1, 8, 3, dtype=dtype, generator=generator)
    if flat:
        y[..., 2] = 0
    x = y + 0.2 * torch.randn(y.shape, dtype=dtype, generator=generator)
    value = HeightEnergy()(x, y)
    for unit in (2.0**-8, 2.0**20, 2.0**40):
        far = (unit * x).requires_grad_()
        found = HeightEnergy()(far, unit * y)
        torch.testing.assert_close(found / unit**2, value)
        (gradient,) = torch.autograd.grad(found.sum(), far)
        near = x.clone().requires_grad_()
        torch.testing.assert_close(gradient / unit, torch.autograd.grad(HeightEnergy()(near, y).sum(), near)[0])
    # A batch mate far away changes no bit.
    near, far = (HeightEnergy()(torch.cat((x, unit * x)), torch.cat((y, unit * y)))[0] for unit in (1.0, 2.0**40))
    assert torch.equal(near, far)


def test_many_equal_neighbours_all_count() -> None:
    """Twelve neighbours at one distance, as in a crystal, with four asked for: none is left out."""
    steps = [(a, b, 0) for a in (-1, 1) for b in (-1, 1)]
    shell = [tuple(step[i] for i in order) for step in steps for order in ((0, 1, 2), (0, 2, 1), (2, 0, 1))]
    y = torch.tensor([(0, 0, 0), *shell], dtype=torch.float64)[None]
    atoms, chains, weight = planes.near_bases(y.permute(2, 1, 0), None, 4)
    rows, columns = ((weight > 0) & (atoms == 0)).nonzero(as_tuple=True)
    bases = {frozenset(chains[row : row + 3, column].tolist()) for row, column in zip(rows, columns, strict=True)}
    assert len(bases) == len(rows) == math.comb(12, 3)
    assert (weight[rows, columns] == 1).all()


def test_neighbours_are_the_same_among_few_and_many_atoms(
    dtype: torch.dtype, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ways to find them; on a grid, where many stand equally far."""
    y = torch.randint(4, (3, 12, 3), generator=generator).to(dtype)
    x, mask = y + 0.1, torch.arange(12) < torch.tensor([[12], [7], [4]])
    x[:, ::2] += 0.2
    few = HeightEnergy()(x, y, mask)
    monkeypatch.setattr(planes, "FEW", 1)
    torch.testing.assert_close(HeightEnergy()(x, y, mask), few)
    assert (few > 0).all()


COUNTED = """
import resource, torch, elf
torch.set_num_threads(1)
x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
elf.HeightEnergy()(x, x)
holes, faults = [torch.ones(1) for _ in range(1000)][::2], []
for _ in range(20):
    blocks = [torch.ones(2**18) for _ in range(12)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[-1] - faults[9]) / 10)
"""


def test_after_a_call_freed_memory_is_kept_for_the_next() -> None:
    """Pages that the system hands out anew: 3072 each time where Linux' C library gives back what was freed.

    Holes take the small things that else, by chance, lie behind the large ones and keep these from being given back.
    """
    done = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"k is -1\.0; it should be finite and greater than zero"):
        HeightEnergy(k=-1.0)
    with pytest.raises(ValueError, match="neighbours is 0; it should be at least 1"):
        HeightEnergy(neighbours=0)
    x = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match="neighbours is 2; it should be at least 3 in 3 dimensions"):
        HeightEnergy(neighbours=2)(x, x)
    with pytest.raises(ValueError, match="prediction has 4 coordinates an atom; HeightEnergy should have 2 or 3"):
        HeightEnergy()(torch.zeros(1, 5, 4), torch.zeros(1, 5, 4))
    assert repr(HeightEnergy()) == "HeightEnergy(k=1.0, neighbours=4, normalize='sum')"
