"""What notebook 01 says, derived a second time."""

from __future__ import annotations

import math
import re

import pytest
import torch
from reading import code, notebook, printed, prose, widget

import elf

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def book():
    return notebook("01_boltzmann_and_reverse_kl")


def _lowest(values: torch.Tensor, at: torch.Tensor) -> float:
    """Where a curve is lowest, between the nodes: the vertex of the parabola through the lowest three."""
    i = int(values.argmin())
    a, b, c = values[i - 1 : i + 2].tolist()
    return float(at[i] + (at[1] - at[0]) * 0.5 * (a - c) / (a - 2 * b + c))


def _forward_bond(r: float, T: float) -> float:
    """The length that forward KL answers with, the ring's Z as an integral over the radius."""
    radius, lengths = torch.linspace(0, 6, 6001, **DOUBLE), torch.linspace(1.3, 1.6, 61, **DOUBLE)
    log_z = torch.log(torch.trapezoid(radius * torch.exp(-((radius - lengths[:, None]) ** 2) / T), radius))
    return _lowest((lengths - r) ** 2 / T + log_z, lengths)


def _forward_triangle(side: float, T: float) -> float:
    """The same of a triangle in the plane: one atom pinned, the second on the axis (its angle is a factor), a third."""
    r, x = torch.linspace(1e-6, 3.4, 61, **DOUBLE), torch.linspace(-3.4, 3.4, 121, **DOUBLE)
    second, along, across = torch.meshgrid(r, x, r, indexing="ij")
    found = (second, (along**2 + across**2).sqrt(), ((along - second) ** 2 + across**2).sqrt())
    sides = torch.linspace(1.3, 1.6, 7, **DOUBLE)
    energies = (sum((d - s) ** 2 for d in found) for s in sides)
    log_z = torch.stack([torch.logsumexp((second.log() - energy / T).flatten(), 0) for energy in energies])
    return _lowest(3 * (sides - side) ** 2 / T + log_z, sides)


def test_the_four_answers_to_a_bond_at_every_angle(book):
    (line,) = re.findall(r"HEADLINE: .*", printed(book))
    shown = [float(number) for number in re.findall(r"\d\.\d\d", line)]
    assert shown == [0, 0, 1.5, pytest.approx(_forward_bond(1.5, 0.08), abs=0.006), 1.5]
    # On paper: d/dr of (r - 1.5)^2 / T + log r.
    assert _forward_bond(1.5, 0.08) == pytest.approx((1.5 + math.sqrt(1.5**2 - 2 * 0.08)) / 2, abs=1e-4)
    assert "about $T/2r = 0.03$ angstrom" in prose(book)


def test_a_triangle_keeps_its_size_in_both_directions_too(book):
    assert "side 1.5 at $T = 0.2$ comes out at 1.48 forwards and at 1.50 in reverse" in prose(book)
    assert round(_forward_triangle(1.5, 0.2), 2) == 1.48


def test_without_log_z_the_directions_are_one_loss_for_symmetric_energies():
    a, b = torch.randn(2, 7, 3, 2, generator=torch.Generator().manual_seed(0), **DOUBLE)
    for energy in (elf.Harmonic(), elf.PairEnergy(springs=elf.springs.Constant())):
        torch.testing.assert_close(energy(a, b), energy(b, a))


def test_a_narrow_bump_compares_energies_and_a_point_is_infinitely_far(book):
    assert "*narrow bump of fixed width*" in prose(book)
    x, T = torch.linspace(-6, 6, 60001, **DOUBLE), 0.5
    energy = (x**2 - 1) ** 2
    log_p = -energy / T - torch.log(torch.trapezoid(torch.exp(-energy / T), x))

    def divergence(place: float, width: float) -> float:
        log_q = -((x - place) ** 2) / (2 * width**2) - math.log(width * math.sqrt(2 * math.pi))
        return float(torch.trapezoid(log_q.exp() * (log_q - log_p), x))

    difference = divergence(0.3, 0.01) - divergence(0.9, 0.01)
    assert difference == pytest.approx(((0.3**2 - 1) ** 2 - (0.9**2 - 1) ** 2) / T, abs=1e-2)
    assert divergence(0.3, 0.001) - divergence(0.3, 0.01) == pytest.approx(math.log(10), abs=1e-2)  # and on for ever


def test_a_pair_costs_k_and_a_mechanical_spring_is_twice_that(book):
    assert "so that $K = 2k$" in prose(book)
    y, d = torch.tensor([[[0.0, 0.0], [1.5, 0.0]]], **DOUBLE), torch.tensor(1.5, requires_grad=True, **DOUBLE)
    y_hat = torch.stack([torch.zeros(2, **DOUBLE), torch.stack([d, 0 * d])])[None]
    (slope,) = torch.autograd.grad(elf.PairEnergy(springs=elf.springs.Constant())(y_hat, y).sum(), d, create_graph=True)
    assert float(torch.autograd.grad(slope, d)[0]) == pytest.approx(2)
    s = (1.5 / d) ** 6
    (slope,) = torch.autograd.grad(s**2 - 2 * s, d, create_graph=True)
    big_k = float(elf.springs.LennardJones(eps=1.0)(torch.tensor(1.5, **DOUBLE)))
    assert float(torch.autograd.grad(slope, d)[0]) == pytest.approx(big_k)


def test_the_time_on_the_barrier(book):
    said = re.search(r"spends (\d+) % of its time at T = 0.3, (\d+) % at 0.5 and (\d+) % at 1", prose(book))
    assert said
    y = torch.linspace(-4, 4, 8001, **DOUBLE)
    for percent, T in zip(said.groups(), (0.3, 0.5, 1.0), strict=True):
        p = torch.exp(-((y**2 - 1) ** 2 + 0.15 * y) / T)
        assert round(100 * float(p[y.abs() < 0.5].sum() / p.sum())) == int(percent)


def test_speed_is_left_to_the_benchmarks(book):
    assert not [id for id, source in code(book).items() if "perf_counter" in source]
    assert "slower one" not in prose(book)


def test_orange_is_for_mse_alone(book):
    gaussian = [source for source in code(book).values() if '"forward", style.INK' in source or "theta_hat" in source]
    assert len(gaussian) >= 3
    assert not [source for source in gaussian if 'COLORS["mse"]' in source]


def test_mixed_energies_answer_on_a_slope(book):
    """By hand: the mean over angles of (1 - w)(r - 1.5)^2 + w(r^2 + 1.5^2) is lowest at 1.5 (1 - w)."""
    (cell,) = [cell for cell in book.cells if cell.get("id") == "mixed-solution"]
    found = re.findall(r"([\d.]+): '([\d.]+) Å'", cell.outputs[0].text)
    assert len(found) == 5
    r = torch.linspace(0, 2, 20_001, **DOUBLE)
    for w, length in found:
        weight = float(w)
        loss = (1 - weight) * (r - 1.5) ** 2 + weight * (r**2 + 1.5**2)
        assert float(length) == pytest.approx(float(r[loss.argmin()]), abs=0.0051)


def test_the_bath_of_the_page_has_the_temperature_of_its_first_picture(book):
    state = widget(book, "bath")
    assert (state["world"], state["temperature"]) == ("bond", 0.08)
    assert "temperature=0.08" in code(book)["cell-04"]


def test_partition_functions_are_gamma_functions(book):
    """The integral of exp(-|y|^n / T) is 2 Gamma(1 + 1 / n) T^(1 / n), here with T = 1 / 2."""
    for power, name in ((2, "trap  y^2"), (4, "quartic y^4")):
        z = 2 * math.gamma(1 + 1 / power) * 0.5 ** (1 / power)
        assert f"{name}: Z = {z:.9f} by hand, {z:.9f} by elf, {z:.9f} on paper" in printed(book)


def test_a_bond_that_points_up_is_far_to_mse_and_no_way_at_all_to_the_pair_energy(book):
    (up, right), T = (1.5j, 1.5), 0.08
    assert f"costs ${abs(up - right) ** 2:.1f} = {abs(up - right) ** 2 / T:.0f}\\, T$" in prose(book)
    assert abs(up) == abs(right)


def test_lopsided_energies_answer_on_paper(book):
    said = dict(re.findall(r"(\w[\w\- ]+): reverse ([\d.]+), forward [\d.]+", printed(book)))
    ahead = dict(re.findall(r"(\w[\w\- ]+): reverse [\d.]+, forward ([\d.]+)", printed(book)))
    assert said["lopsided"] == f"{-math.log((math.exp(-1) + math.exp(-2)) / 2):.2f}"
    assert ahead["lopsided"] == f"{math.log((math.exp(1) + math.exp(2)) / 2):.2f}"
    assert said["Lennard-Jones spring"] == f"{(1 + 1 / 2) / (1 + 1 / 4):.2f}"
    # Forwards Z is a Gaussian's, proportional to f: d/df of 14.4 mean((y / f - 1)^2) + log f.
    f = torch.linspace(1.2, 2.2, 10_001, **DOUBLE)
    loss = 7.2 / 0.5 * ((1 / f - 1) ** 2 + (2 / f - 1) ** 2) / 2 + f.log()
    assert float(ahead["Lennard-Jones spring"]) == pytest.approx(_lowest(loss, f), abs=0.006)


def test_a_forward_fit_has_the_moments_and_a_reverse_one_sits_in_a_well(book):
    """Reverse: E_q of (y^2 - 1)^2 is a polynomial in mean and width, so the fit is a small minimisation."""
    T, y = 0.15, torch.linspace(-3, 3, 20_001, **DOUBLE)
    p = torch.exp(-((y**2 - 1) ** 2) / T)
    width = float((torch.trapezoid(y**2 * p, y) / torch.trapezoid(p, y)).sqrt())
    assert f"forward from +0.4: mean +0.000, std {width:.3f}, energy at the mean {1 / T:.2f} T" in printed(book)
    mean, s = torch.meshgrid(
        torch.linspace(0.9, 1, 201, **DOUBLE), torch.linspace(0.1, 0.2, 201, **DOUBLE), indexing="ij"
    )
    energy = mean**4 + 6 * mean**2 * s**2 + 3 * s**4 - 2 * (mean**2 + s**2) + 1
    best = int((energy / T - s.log()).argmin())
    found = re.search(r"reverse from \+0.4: mean \+([\d.]+), std ([\d.]+)", printed(book))
    assert float(found[1]) == pytest.approx(float(mean.flatten()[best]), abs=1.5e-3)
    assert float(found[2]) == pytest.approx(float(s.flatten()[best]), abs=1.5e-3)


def test_equipartition_counts_the_directions_that_cost(book):
    T, r = 0.08, torch.linspace(0, 6, 60_001, **DOUBLE)
    for name, energy, directions in (("mse", r**2, 2), ("energy", (r - 1.5) ** 2, 1)):
        mass = r * torch.exp(-energy / T)  # polar: about the datum for MSE, about the first atom for the pair
        mean = float(torch.trapezoid(energy * mass, r) / torch.trapezoid(mass, r)) / T
        assert mean == pytest.approx(directions / 2, abs=0.03)
        assert f"'{name}': {directions / 2}" in printed(book)


def test_absolute_errors_answer_with_the_median_both_ways(book):
    f, data = torch.linspace(-1, 4, 5001, **DOUBLE), torch.tensor([0.0, 0.0, 3.0], **DOUBLE)
    assert float(f[(f[:, None] - data).abs().sum(1).argmin()]) == pytest.approx(float(data.median()), abs=1e-6)
    y = torch.linspace(-60, 60, 240_001, **DOUBLE)
    z = torch.stack([torch.trapezoid(torch.exp(-(y - at).abs() / 0.5), y) for at in (-2.0, 0.0, 3.0)])
    torch.testing.assert_close(z, torch.full_like(z, 2 * 0.5), atol=1e-6, rtol=0)  # no place has more: both ways agree
    assert "absolute: reverse 0.00, forward 0.00" in printed(book)


def test_the_slip_in_the_notation_costs_a_turned_bond_all_of_its_square(book):
    turned, bond = complex(0, 1.5), complex(1.5, 0)
    of_difference = (abs(turned - bond) - 0) ** 2  # a bond whose target has no length
    said = f"pair: E(prediction, target) = 0.00, E(prediction - target, 0) = {of_difference:.2f}"
    assert said in printed(book)
