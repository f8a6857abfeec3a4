"""What notebook 01b says, derived a second time."""

from __future__ import annotations

import math
import re

import pytest
import torch
from reading import ambiguous_names, notebook, printed, prose, widget

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


def test_cells_can_be_run_again(book):
    assert not ambiguous_names(book)
