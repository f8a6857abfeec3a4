"""What notebook 01b says, derived a second time."""

from __future__ import annotations

import math
import re

import pytest
import torch
from reading import notebook, printed, prose, widget

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def book():
    return notebook("01b_heat_bath")


def test_steps_of_length_h_multiply_the_variance(book):
    """y becomes (1 - 2h) y + sqrt(2 T h) xi, and its variance what that leaves as it is."""
    assert r"by the factor $1/(1 - h)$" in prose(book)
    T = 0.5
    for h in (0.05, 0.2, 0.5, 0.8):
        variance = 0.0
        for _ in range(2000):
            variance = (1 - 2 * h) ** 2 * variance + 2 * T * h
        assert variance == pytest.approx(T / 2 / (1 - h))
    said = re.search(r"at h = 1/2 the variance is ([\d.]+) times", printed(book))
    assert said
    assert float(said[1]) == pytest.approx(2, abs=0.1)


def _first_passage(T: float) -> float:
    """Mean time from the left well to the top of the barrier: the textbook's double integral."""
    y = torch.linspace(-3, 0, 6001, **DOUBLE)
    energy = (y**2 - 1) ** 2
    below = torch.cumulative_trapezoid(torch.exp(-energy / T), y)
    rise = torch.exp(energy[1:] / T) * below
    return float(torch.trapezoid(rise[y[1:] >= -1], y[1:][y[1:] >= -1])) / T


def test_half_the_temperature_takes_about_ten_times_as_long(book):
    said = re.search(r"([\d.]+) against ([\d.]+): (\d+) times as long", printed(book))
    assert said
    ratio = float(said[2]) / float(said[1])
    assert ratio == pytest.approx(int(said[3]), abs=0.51)
    assert ratio == pytest.approx(_first_passage(0.2) / _first_passage(0.4), rel=0.3)
    assert f"the exponential alone says {math.exp(1 / 0.2 - 1 / 0.4):.0f}" in printed(book)


def test_one_well_is_one_bit_short(book):
    found = re.search(r"KL ([\d.]+) at t = 0.2;.*", printed(book))
    assert found
    assert float(found[1]) == pytest.approx(math.log(2), abs=0.05)


def test_the_headline_has_the_noise_of_counting(book):
    """(bins - 1) / (2 particles), and the last quarter is above it by less than the bias and as much again."""
    found = re.search(r"HEADLINE: .* to ([\d.]+); noise of counting ([\d.]+), bias of the step ([\d.]+)", printed(book))
    assert found
    last, noise, bias = map(float, found.groups())
    assert noise < last < noise + 2 * bias


def test_the_widget_is_the_well_of_the_page(book):
    state = widget(book, "well")
    assert (state["world"], state["temperature"], state["step"]) == ("well", 0.4, 0.01)


def _well():
    y = torch.linspace(-2.5, 2.5, 20_001, **DOUBLE).requires_grad_()
    energy = (y**2 - 1) ** 2
    (slope,) = torch.autograd.grad(energy.sum(), y, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), y)
    return y.detach(), energy.detach(), slope.detach(), curvature.detach()


def test_the_noise_of_counting_is_that_of_the_bins_that_hold_a_particle(book):
    """Bins of an eighth, integrated finely; those with less than one particle in 8,000 do not count."""
    y, energy, _, _ = _well()
    p = torch.exp(-energy / 0.4)
    p = p / torch.trapezoid(p, y)
    masses = [float(torch.trapezoid(p[i : i + 501], y[i : i + 501])) for i in range(0, 20_000, 500)]
    bins = sum(mass > 1 / 8000 for mass in masses)
    assert f"noise of counting {(bins - 1) / 16_000:.4f}, bias" in printed(book)


def test_the_bias_of_the_step_is_that_of_the_modified_energy(book):
    """To first order in h the steps sample E - h (E'^2 / 4 - T E'' / 2); for y^2 that is (1 - h) y^2."""
    y, energy, slope, curvature = _well()
    T, h = 0.4, 0.01
    log_p, log_q = -energy / T, -(energy - h * (slope**2 / 4 - T * curvature / 2)) / T
    log_p, log_q = (log - torch.trapezoid(log.exp(), y).log() for log in (log_p, log_q))
    kl = float(torch.trapezoid(log_q.exp() * (log_q - log_p), y))
    said = re.search(r"bias of the step ([\d.]+); one well", printed(book))
    assert float(said[1]) == pytest.approx(kl, rel=0.2)


def test_a_well_fills_within_a_fifth_and_its_barrier_is_one():
    y, energy, _, curvature = _well()
    assert float(energy[y.abs().argmin()]) - float(energy.min()) == pytest.approx(1)
    relaxation = 1 / float(curvature[(y + 1).abs().argmin()])
    assert relaxation == pytest.approx(1 / 8, rel=1e-3)
    assert relaxation < 0.2 < 20 * relaxation < _first_passage(0.4) * 2


def test_the_last_quarter_has_nothing_left_of_the_start(book):
    """The slowest mode decays as one over the time to the barrier; its KL has shrunk below the noise by t = 30."""
    found = re.search(r"noise of counting ([\d.]+)", printed(book))
    left = 0.5 * math.exp(-2 * 30 / _first_passage(0.4))
    assert left < float(found[1]) < 0.5 * math.exp(-2 * 5 / _first_passage(0.4))


def test_how_long_until_the_histogram_is_right(book):
    """When the slowest mode alone would be below the noise of counting; what the page says is what it computed."""
    (when,) = re.findall(r"KL is below the noise from t = (\d+)", printed(book))
    noise = float(re.search(r"noise of counting ([\d.]+)", printed(book))[1])
    assert float(when) == pytest.approx(_first_passage(0.4) / 2 * math.log(0.5 / noise), rel=0.25)
    assert f"by about $t = {when}$" in prose(book)


def test_a_bond_forgets_its_direction_while_the_page_watches(book):
    """The angle on the ring diffuses with T / r^2: by t = 50 as wide as a uniform one, at t = 1 far from it."""
    spread = {t: 2 * 0.08 / 1.5**2 * t for t in (1, 50)}
    assert spread[50] > math.pi**2 / 3 > 20 * spread[1]
    assert '"steps": pick(smoke=100, live=1000), "keep_every": 20' in {c.id: c.source for c in book.cells}["cell-54"]


@pytest.mark.parametrize(("name", "rank"), [("pair energy", 3), ("MSE", 6)])
def test_a_triangle_has_as_many_stiff_directions_as_its_hessian_has_rank(name, rank, book):
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]], **DOUBLE)

    def energy(flat):
        moved = flat.view(3, 2)
        if name == "MSE":
            return (moved - corners).square().sum()
        i, j = [0, 0, 1], [1, 2, 2]
        return ((moved[i] - moved[j]).norm(dim=1) - (corners[i] - corners[j]).norm(dim=1)).square().sum()

    hessian = torch.autograd.functional.hessian(energy, corners.flatten())
    assert int(torch.linalg.matrix_rank(hessian, tol=1e-6)) == rank
    said = re.search(rf"{name}: ([\d.]+) stiff directions of 6", printed(book))
    assert float(said[1]) == pytest.approx(rank, abs=5 * rank * math.sqrt(2 / (rank * 2000)))
