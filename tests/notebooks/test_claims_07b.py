"""Notebook 07b's sentences, from the networks one by one."""

from __future__ import annotations

import math
import re
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from reading import code, notebook, printed, prose
from scipy.spatial.transform import Rotation

from experiments import load_result

BOOK = notebook("07b_conformers")
TEXT = prose(BOOK)
RESULT = load_result("conformers")
LOSSES = ("energy", "heights_1", "kabsch", "mse")


TOLD = load_result("conformers_told")


def networks(loss: str, key: str, factor: float = 1.0, result: dict[str, Any] = RESULT) -> list[float]:
    values = [factor * c["result"][key] for c in result["cells"] if c["cell"]["loss"] == loss]
    assert len(values) == 3
    return values


def said(values: list[float], digits: int) -> str:
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def test_a_tenth_of_the_heights_keeps_bonds_and_tells_no_hands():
    runs = load_result("conformers_tenth")
    bonds, hands, stable = (
        networks("heights_0.1", key, factor, runs)
        for key, factor in (("error_1", 1), ("hands_wrong", 100), ("stable", 100))
    )
    assert (
        f"{said(bonds, 3)} Å and {said(stable, 1)} % stable conformers, and tells no hands: {said(hands, 1)} %" in TEXT
    )
    told = {loss: networks(loss, "error_1", 1, TOLD) for loss in ("energy", "heights_1")}
    assert max(told["energy"]) < min(bonds) < max(bonds) < min(told["heights_1"])
    assert runs["settings"]["steps"] == TOLD["settings"]["steps"]
    assert f"`{runs['command']}`" in TEXT


def test_the_three_lines():
    """The mean over rotations by another way: the corners of a cube's rotation group, which is a design for vectors."""
    turns = Rotation.create_group("O").as_matrix()
    y = np.random.default_rng(0).normal(size=(7, 3))
    y -= y.mean(0)
    turned = np.einsum("rij,nj->rni", turns, y)
    assert np.allclose(turned.mean(0), 0)
    for scale in (1.0, 0.5, 0.0):
        error = np.square(scale * y - turned).sum((1, 2)).mean()
        assert error == pytest.approx((scale**2 + 1) * np.square(y).sum())


def test_settings_are_those_of_the_networks():
    assert f"trained for {RESULT['settings']['steps']} steps" in TEXT
    assert f"`{RESULT['command']}`" in TEXT
    assert RESULT["seeds"] == 3
    assert "asked for 379 molecules" in TEXT
    assert "379 molecules, 97 with several stereo centres" in printed(BOOK)


@pytest.mark.parametrize(
    ("loss", "key", "factor", "digits"),
    [
        ("energy", "distance_error", 1, 3),
        ("kabsch", "distance_error", 1, 3),
        ("energy", "error_1", 1, 3),
        ("kabsch", "error_1", 1, 3),
        ("mse", "radius", 100, 2),
        *((loss, "relative_wrong", 100, 1) for loss in (*LOSSES, "etkdg")),
        *((loss, "hands_wrong", 100, 1) for loss in LOSSES),
        ("energy", "error_3", 1, 3),
        ("etkdg", "error_3", 1, 3),
        ("energy", "stable", 100, 1),
        ("etkdg", "stable", 100, 1),
    ],
)
def test_numbers_are_those_of_three_networks(loss, key, factor, digits):
    assert said(networks(loss, key, factor), digits) in TEXT


def test_where_kabsch_is_better_is_said():
    assert max(networks("kabsch", "relative_wrong")) < min(networks("energy", "relative_wrong"))
    assert "All three networks of Kabsch are below all three of the energy" in TEXT
    assert "fewer wrong isomers" in TEXT


def test_how_far_from_chemistry():
    assert mean(networks("etkdg", "error_1")) == pytest.approx(0.025, abs=5e-4)
    assert "ETKDG's bonds are off by 0.025 Å" in TEXT
    assert mean(networks("data", "stable", 100)) == pytest.approx(97.4, abs=0.05)
    assert "QM9's own, for whose quantum-chemical lengths that table was made, 97.4 %" in TEXT
    for loss in set(LOSSES) - {"energy"}:
        assert max(networks(loss, "stable")) == 0
    assert "of the other networks' none" in TEXT


def test_bonds_of_kabsch_are_five_times_worse():
    assert 4.5 < mean(networks("kabsch", "error_1")) / mean(networks("energy", "error_1")) < 5.5
    assert "bonds five times worse" in TEXT


def test_every_number_of_the_evidence_names_its_networks():
    """No paragraph with a mean and a spread is silent on how many networks it speaks of."""
    for cell in BOOK.cells:
        if cell.cell_type == "markdown" and "±" in cell.source:
            assert "three networks each" in cell.source.lower()


def test_predictions_are_laid_over_the_truth():
    assert "targets=truth" in code(BOOK)["d09"]


def test_mean_errors_of_shrunken_answers_are_one_number_and_its_multiples():
    """|y|^2 (1 + s^2) for MSE, as the three lines say; (1 - s)^2 for the pair energy, whose distances shrink with s."""
    found = re.findall(r"answer (\S+) y: mean MSE +(\S+), mean pair energy +(\S+)", printed(BOOK))
    rows = {float(s): (float(mse), float(pair)) for s, mse, pair in found}
    assert sorted(rows) == [0.0, 0.5, 1.0]
    for s, (mse, pair) in rows.items():
        assert mse == pytest.approx(rows[0.0][0] * (1 + s**2), abs=0.015)
        assert pair == pytest.approx(rows[0.0][1] * (1 - s) ** 2, abs=0.01)


def test_turns_by_up_to_ninety_degrees_squash_by_two_over_pi():
    angles = np.linspace(-np.pi / 2, np.pi / 2, 100_001)
    matrix = np.array([[np.cos(angles).mean(), -np.sin(angles).mean()], [np.sin(angles).mean(), np.cos(angles).mean()]])
    np.testing.assert_allclose(matrix, np.eye(2) * 2 / math.pi, atol=1e-4)
    assert f"MSE learns a squashed molecule: {100 * matrix[0, 0]:.0f} % of it across the axis" in printed(BOOK)


def test_half_of_the_hands_are_wrong_with_every_loss():
    for loss in LOSSES:
        assert mean(networks(loss, "hands_wrong")) == pytest.approx(0.5, abs=0.04)
    assert "So half of the hands come out wrong" in TEXT


@pytest.mark.parametrize("loss", ["energy", "heights_1", "kabsch"])
def test_numbers_of_networks_that_are_told_are_those_of_three(loss):
    for key, factor, digits in (("hands_wrong", 100, 1), ("relative_wrong", 100, 1), ("error_1", 1, 3)):
        assert said(networks(loss, key, factor, TOLD), digits) in TEXT
    assert said(networks(loss, "stable", 100, TOLD), 1) in TEXT


def test_hands_are_heard_where_the_loss_asks_for_them():
    silent = networks("energy", "hands_wrong", 1, TOLD)
    for loss in ("heights_1", "kabsch"):
        assert max(networks(loss, "hands_wrong", 1, TOLD)) < 0.25 * min(silent)
        assert 5 <= round(mean(networks(loss, "hands_wrong", 100, TOLD))) <= 7
        assert max(networks(loss, "relative_wrong", 1, TOLD)) < min(networks("energy", "relative_wrong", 1, TOLD))
    assert mean(silent) == pytest.approx(0.5, abs=0.02)
    assert "get 5 to 7 % wrong, and those of the pair energy half" in TEXT
    assert f"`{TOLD['command']}`" in TEXT
    assert TOLD["settings"]["steps"] == 4 * RESULT["settings"]["steps"]
    assert "They train four times as long as the others" in TEXT


def test_etkdg_told_the_hands():
    assert max(networks("etkdg", "hands_wrong", 1, TOLD)) == 0
    assert f"finds no conformer for {mean(networks('etkdg', 'missing', 100, TOLD)):.1f} % of the molecules" in TEXT


def test_a_mirror_image_has_every_distance_and_no_hand():
    y = np.random.default_rng(1).normal(size=(6, 3))
    mirrored = y * [1, 1, -1]
    lengths = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (y, mirrored)]
    np.testing.assert_allclose(*lengths, atol=1e-12)
    volumes = [np.linalg.det(x[1:4] - x[0]) for x in (y, mirrored)]
    assert volumes[0] == pytest.approx(-volumes[1])
    assert "mirror images: distance error 0.000 Å, 100 % wrong hands, 0 % wrong isomers" in printed(BOOK)
