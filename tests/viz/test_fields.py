from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor

import elf
from elf.viz import fields, landscapes


def configuration(particles: int, dim: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, particles, dim, generator=generator, dtype=torch.float64).to(dtype)
    return prediction, target


ENERGIES = {
    "mse": elf.Harmonic(),
    "constant": elf.PairEnergy(springs=elf.springs.Constant()),
    "exponential": elf.PairEnergy(springs=elf.springs.Exponential()),
}


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize(("dtype", "step", "tolerance"), [(torch.float64, 1e-5, 1e-8), (torch.float32, 1e-2, 5e-3)])
def test_forces_equal_finite_differences(name: str, dtype: torch.dtype, step: float, tolerance: float) -> None:
    prediction, target = configuration(4, 3, dtype)
    energy = ENERGIES[name]
    force = fields.forces(energy, prediction, target)
    for particle in range(4):
        for axis in range(3):
            shift = torch.zeros_like(prediction)
            shift[particle, axis] = step
            up, down = (
                energy((prediction + shift)[None], target[None]),
                energy((prediction - shift)[None], target[None]),
            )
            assert float(-(up - down) / (2 * step)) == pytest.approx(float(force[particle, axis]), abs=tolerance * 10)


def test_forces_of_mse_in_closed_form() -> None:
    prediction, target = configuration(5, 2, torch.float64)
    torch.testing.assert_close(fields.forces(elf.Harmonic(), prediction, target), 2 * (target - prediction))


def test_pair_forces_carry_no_push_and_no_twist() -> None:
    prediction, target = configuration(6, 3, torch.float64)
    force = fields.forces(ENERGIES["exponential"], prediction, target)
    torch.testing.assert_close(force.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        torch.linalg.cross(prediction, force).sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_forces_of_a_batch_are_forces_of_each() -> None:
    target = configuration(3, 2, torch.float64)[1]
    starts = torch.stack([configuration(3, 2, torch.float64, seed)[0] for seed in range(4)])
    batch = fields.forces(ENERGIES["constant"], starts, target)
    for start, force in zip(starts, batch, strict=True):
        torch.testing.assert_close(fields.forces(ENERGIES["constant"], start, target), force)


def test_forces_leave_the_input_alone_and_work_without_grad() -> None:
    prediction, target = configuration(3, 2, torch.float32)
    before = prediction.clone()
    with torch.no_grad():
        force = fields.forces(elf.Harmonic(), prediction, target)
    assert not force.requires_grad
    assert not prediction.requires_grad
    assert torch.equal(prediction, before)


@pytest.mark.parametrize(
    ("prediction", "target"), [((3, 2), (4, 2)), ((3, 2), (3, 3)), ((3,), (3,)), ((2, 2, 3, 2), (3, 2))]
)
def test_shapes_that_do_not_fit(prediction: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="prediction"):
        fields.forces(elf.Harmonic(), torch.zeros(prediction), torch.zeros(target))


@pytest.mark.parametrize("name", ENERGIES)
def test_descent_lowers_the_energy_at_every_step(name: str) -> None:
    start, target = configuration(5, 2, torch.float64)
    descent = fields.descent_path(ENERGIES[name], start, target, steps=300, step_size=0.05)
    assert descent.positions.shape == (301, 5, 2)
    assert bool((descent.energies.diff() <= 1e-15).all())
    assert float(descent.energies[-1]) < 0.2 * float(descent.energies[0])
    torch.testing.assert_close(descent.energies[-1], ENERGIES[name](descent.positions[-1][None], target[None])[0])


def test_descent_of_mse_in_closed_form() -> None:
    start, target = configuration(3, 2, torch.float64)
    descent = fields.descent_path(elf.Harmonic(), start, target, steps=20, step_size=0.1)
    torch.testing.assert_close(descent.positions[20], target + 0.8**20 * (start - target))


def test_pair_descent_keeps_the_centroid() -> None:
    start, target = configuration(4, 3, torch.float64)
    descent = fields.descent_path(ENERGIES["constant"], start, target, steps=100)
    torch.testing.assert_close(descent.positions.mean(-2), start.mean(0).expand(101, 3))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"step_size": 0.0}, {"step_size": math.nan}, {"step_size": -1.0}])
def test_descent_refuses_nonsense(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        fields.descent_path(elf.Harmonic(), torch.zeros(2, 2), torch.ones(2, 2), **settings)  # type: ignore[arg-type]


def test_landscape_of_two_particles_on_a_line() -> None:
    target = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
    field = landscapes.landscape(ENERGIES["constant"], target, ((0, 0), (1, 0)), points=9)
    expected = ((field.x[None, :] - field.y[:, None]).abs() - 1) ** 2
    torch.testing.assert_close(field.values, expected)


def test_landscape_keeps_the_base() -> None:
    target = torch.zeros(2, 2, dtype=torch.float64)
    base = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    limits = ((-1.0, 1.0), (0.0, 2.0))
    field = landscapes.landscape(elf.Harmonic(), target, ((0, 0), (0, 1)), limits, base=base, points=3)
    torch.testing.assert_close(field.values, 25 + field.x[None, :] ** 2 + field.y[:, None] ** 2)


@pytest.mark.parametrize("coordinates", [((0, 0), (2, 0)), ((0, 2), (1, 0)), ((0, 0), (0, 0)), ((-1, 0), (1, 0))])
def test_landscape_refuses_bad_coordinates(coordinates: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="coordinates"):
        landscapes.landscape(elf.Harmonic(), torch.zeros(2, 2), coordinates)


def test_pictures_draw() -> None:
    prediction, target = configuration(3, 2, torch.float32)
    fig, (left, right) = plt.subplots(1, 2)
    force = fields.plot_forces(left, prediction, target, elf.Harmonic(), unit="per angstrom")
    torch.testing.assert_close(force, fields.forces(elf.Harmonic(), prediction, target))
    field = landscapes.landscape(elf.Harmonic(), target, ((0, 0), (1, 0)), points=11)
    landscapes.plot_landscape(right, field, "#6F377F")
    descent = fields.descent_path(elf.Harmonic(), prediction, target, steps=5)
    landscapes.plot_descent(right, descent.positions, field.coordinates)
    fields.plot_paths(left, descent.positions, "#DF7C17")
    fig.canvas.draw()
    tips = prediction + 0.0 * force
    low, high = left.get_xlim()
    assert low < float(tips[:, 0].min()) < float(tips[:, 0].max()) < high
    plt.close(fig)
