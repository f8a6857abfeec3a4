import math

import pytest
import torch

from elf.chemistry.vibrations import (
    mode_displacements,
    normal_modes,
    random_displacements,
    remove_rigid_motions,
    rigid_motions,
    thermal_displacements,
)
from elf.energy import AlignedHarmonic, Harmonic

MASSES = [12.0, 1.0, 16.0, 14.0, 1.0]


@pytest.fixture
def atoms(dtype):
    return 1.5 * torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)


def network_hessian(x, k=300.0):
    """Of sum_{i<j} k/2 (r - r0)^2 at its minimum, by hand: k u u^T for each pair, u along the pair."""
    n = len(x)
    hessian = x.new_zeros(n, 3, n, 3)
    for i in range(n):
        for j in range(i):
            u = (x[i] - x[j]) / (x[i] - x[j]).norm()
            block = k * (i + 1) * torch.outer(u, u)
            hessian[i, :, i] += block
            hessian[j, :, j] += block
            hessian[i, :, j] -= block
            hessian[j, :, i] -= block
    return hessian.view(3 * n, 3 * n)


@pytest.fixture
def modes(atoms):
    return normal_modes(network_hessian(atoms), atoms, atoms.new_tensor(MASSES))


def test_rigid_motions_are_five_of_a_rod_six_of_a_body_three_of_a_point(atoms, dtype):
    rod = torch.outer(torch.arange(4, dtype=dtype), torch.tensor([1.0, 2.0, -1.0], dtype=dtype))
    for x, expected in ((atoms, 6), (rod, 5), (atoms[:1], 3)):
        basis = rigid_motions(x)
        assert len(basis) == expected
        torch.testing.assert_close(basis @ basis.T, torch.eye(expected, dtype=dtype), rtol=1e-4, atol=1e-5)


def test_what_is_left_needs_no_alignment(atoms, rtol):
    noise = 0.2 * torch.randn(20, 5, 3, generator=torch.Generator().manual_seed(2), dtype=atoms.dtype)
    target = atoms.expand_as(noise)
    clean = target + remove_rigid_motions(noise, atoms)
    torch.testing.assert_close(AlignedHarmonic()(clean, target), Harmonic()(clean, target), rtol=100 * rtol, atol=0)
    raw = target + noise
    assert float(AlignedHarmonic()(raw, target).mean()) < 0.9 * float(Harmonic()(raw, target).mean())


def test_diatomic_rings_at_the_textbook_wavenumber(dtype):
    # 1302.79 sqrt(k / mu) in 1/cm, k in mdyn/angstrom = 143.9325 kcal/mol/angstrom^2, mu in dalton: carbon monoxide.
    x = torch.tensor([[0.0, 0, 0], [0, 0, 1.13]], dtype=dtype)
    k = 18.6
    block = torch.zeros(3, 3, dtype=dtype)
    block[2, 2] = 143.9325 * k
    hessian = torch.cat([torch.cat([block, -block], 1), torch.cat([-block, block], 1)])
    modes = normal_modes(hessian, x, torch.tensor([12.0, 15.9949], dtype=dtype))
    assert modes.directions.shape == (1, 2, 3)
    mu = 12 * 15.9949 / (12 + 15.9949)
    assert float(modes.wavenumbers[0]) == pytest.approx(1302.79 * math.sqrt(k / mu), rel=1e-4)
    # The centre of mass stays.
    assert float(12 * modes.directions[0, 0, 2] + 15.9949 * modes.directions[0, 1, 2]) == pytest.approx(0, abs=1e-5)


def test_modes_are_independent_vibrations(atoms, modes, dtype):
    hessian, masses = network_hessian(atoms), atoms.new_tensor(MASSES)
    assert modes.directions.shape == (9, 5, 3)
    assert bool((modes.wavenumbers.diff() >= 0).all())
    flat = modes.directions.flatten(1)
    torch.testing.assert_close(flat.norm(dim=1), torch.ones(9, dtype=dtype))
    for matrix in (hessian, masses.repeat_interleave(3).diag()):
        product = flat @ matrix @ flat.T
        scale = product.diag().sqrt()
        close = 1e-3 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(product / scale / scale[:, None], torch.eye(9, dtype=dtype), rtol=0, atol=close)
    torch.testing.assert_close((flat @ hessian @ flat.T).diag(), modes.stiffness, rtol=1e-3, atol=1e-3)


def test_a_saddle_has_a_negative_wavenumber(atoms):
    hessian = network_hessian(atoms)
    soft = normal_modes(hessian, atoms, atoms.new_ones(5)).directions[0].flatten()
    modes = normal_modes(hessian - 1e4 * torch.outer(soft, soft), atoms, atoms.new_ones(5))
    assert float(modes.wavenumbers[0]) < 0 < float(modes.wavenumbers[1])
    with pytest.raises(ValueError, match="stiffness"):
        thermal_displacements(modes, atoms, 0.1, 3, torch.Generator())


def test_thermal_covariance_is_kt_over_the_hessian_whatever_the_masses(atoms):
    hessian = network_hessian(atoms)
    for masses in (MASSES, [1.0] * 5):
        modes = normal_modes(hessian, atoms, atoms.new_tensor(masses))
        moves, kt = thermal_displacements(modes, atoms, 0.1, 40_000, torch.Generator().manual_seed(3))
        flat = moves.flatten(1)
        expected = kt * torch.linalg.pinv(hessian.double(), rtol=1e-5).to(atoms.dtype)
        torch.testing.assert_close(
            flat.T @ flat / len(flat), expected, rtol=0, atol=0.03 * float(expected.diag().max())
        )
        assert float(moves.square().sum(-1).mean().sqrt()) == pytest.approx(0.1, rel=0.01)
        energy = torch.einsum("ni,ij,nj->n", flat, hessian, flat).mean() / 2
        assert float(energy) == pytest.approx(9 * kt / 2, rel=0.02)


def test_sizes(atoms, modes):
    drawn = random_displacements(atoms, 0.3, 20_000, torch.Generator().manual_seed(4))
    assert float(drawn.square().sum(-1).mean().sqrt()) == pytest.approx(0.3, rel=0.01)
    assert float((drawn.flatten(1) @ rigid_motions(atoms).T).abs().max()) < 1e-5
    each = mode_displacements(modes, atoms, 0.2)
    assert each.shape == (18, 5, 3)
    torch.testing.assert_close(each.square().sum(-1).mean(-1).sqrt(), atoms.new_full((18,), 0.2))
    torch.testing.assert_close(each[:9], -each[9:])


def test_same_seed_same_displacements(atoms, modes):
    for draw in (
        lambda seed: random_displacements(atoms, 0.1, 4, torch.Generator().manual_seed(seed)),
        lambda seed: thermal_displacements(modes, atoms, 0.1, 4, torch.Generator().manual_seed(seed))[0],
    ):
        torch.testing.assert_close(draw(5), draw(5), rtol=0, atol=0)
        assert not torch.allclose(draw(5), draw(6))


def test_bad_arguments(atoms, modes):
    generator = torch.Generator()
    with pytest.raises(ValueError, match="size"):
        random_displacements(atoms, 0.0, 3, generator)
    with pytest.raises(ValueError, match="n is 0"):
        thermal_displacements(modes, atoms, 0.1, 0, generator)
    with pytest.raises(ValueError, match="size"):
        mode_displacements(modes, atoms, -1.0)
    with pytest.raises(ValueError, match=r"hessian has shape \(12, 12\)"):
        normal_modes(network_hessian(atoms[:4]), atoms, atoms.new_ones(5))
    with pytest.raises(ValueError, match="hessian holds a NaN"):
        normal_modes(network_hessian(atoms) * math.nan, atoms, atoms.new_ones(5))
    with pytest.raises(ValueError, match="masses"):
        normal_modes(network_hessian(atoms), atoms, atoms.new_zeros(5))
    with pytest.raises(ValueError, match="positions"):
        rigid_motions(atoms * math.inf)
