"""What notebook 00 says, derived a second time."""

from __future__ import annotations

import cmath
import math
import re
from itertools import combinations

import pytest
import torch
from reading import FOLDER, code, notebook, printed, prose

from course.widgets.playground import polygon, rotate


@pytest.fixture(scope="module")
def book():
    return notebook("00_start_here")


def test_both_attempts_have_the_squared_error_that_the_text_names(book):
    made = {"target": (target := polygon(3)), "rotate": rotate, "torch": torch}
    exec(code(book)["cell-04"], made)  # the cell that makes the attempts, and no more
    errors = [float((made[name] - target).square().sum()) for name in "AB"]
    assert errors[0] == pytest.approx(errors[1], rel=1e-12)
    assert f"are **equal**: {errors[0]:.3f}" in prose(book)
    assert errors[0] == pytest.approx(3 * (2 - 2 * 0.7660444431), rel=1e-9)  # three chords of 40 degrees


def test_the_map_is_one_table_and_has_every_notebook(book):
    (table,) = (cell.source for cell in book.cells if cell.source.startswith("## The map of the course"))
    assert table.count("|---|---|") == 1
    linked = set(re.findall(r"\]\((\w+)\.ipynb\)", table))
    assert linked | {"00_start_here"} == {path.stem for path in FOLDER.glob("*.ipynb")}


def test_the_time_of_the_course_is_that_of_the_readme_and_no_machine_s_guess(book):
    minutes = re.search(r"All notebooks take ([\d.]+ to [\d.]+ minutes)", prose(book))
    assert minutes
    assert minutes.group(1) in (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert "minutes" not in printed(book)


def test_the_answer_is_drawn_in_the_middle_of_the_data(book):
    assert "answer - answer.mean(0)" in code(book)["cell-16"]


# The same points as complex numbers, so that a turn is a multiplication and nothing of elf is asked.
TARGET = [cmath.rect(1, math.pi / 2 + 2 * math.pi * k / 3) for k in range(3)]
SQUASH = [-1.4j, -0.3 + 0.1j, 0.3 + 0.1j]


def _turned(points, degrees):
    return [z * cmath.rect(1, math.radians(degrees)) for z in points]


def _apart(one, other):
    return sum(abs(a - b) ** 2 for a, b in zip(one, other, strict=True))


def _sides(points):
    return [abs(a - b) for a, b in combinations(points, 2)]


def _aligned(one, other):
    """Least squared distance over all turns: the best turn lines the complex overlap up with the real axis."""
    a, b = ([z - sum(points) / len(points) for z in points] for points in (one, other))
    overlap = sum(x.conjugate() * y for x, y in zip(a, b, strict=True))
    return sum(abs(z) ** 2 for z in a + b) - 2 * abs(overlap)


def _squashed():
    stretch = math.sqrt(_apart(_turned(TARGET, 40), TARGET) / sum(abs(z) ** 2 for z in SQUASH))
    return [z + stretch * s for z, s in zip(TARGET, SQUASH, strict=True)]


def test_the_squashed_attempt_costs_what_its_sides_say(book):
    energy = sum((a - b) ** 2 for a, b in zip(_sides(_squashed()), _sides(TARGET), strict=True))
    assert f"B:  squared error 1.404   pair energy {energy:.3f}" in printed(book)


def test_a_turn_costs_up_to_twelve_and_no_distance(book):
    costs = {degrees: _apart(_turned(TARGET, degrees), TARGET) for degrees in range(0, 361, 5)}
    for degrees, cost in costs.items():
        assert cost == pytest.approx(12 * math.sin(math.radians(degrees) / 2) ** 2, abs=1e-12)
        assert _sides(_turned(TARGET, degrees)) == pytest.approx(_sides(TARGET))
    assert max(costs, key=costs.get) == 180
    said = re.search(r"180 degrees costs 4 \* 3 = (\d+); by 40 degrees ([\d.]+)", printed(book))
    assert [float(x) for x in said.groups()] == pytest.approx([costs[180], costs[40]], abs=5e-4)


def test_the_mean_of_all_turned_triangles_is_a_point_and_the_energy_s_answer_has_its_sides(book):
    turned = [_turned(TARGET, 2 * k) for k in range(180)]
    assert max(abs(sum(corner)) for corner in zip(*turned, strict=True)) < 1e-12
    said = dict(re.findall(r"(\w+): mean side ([\d.]+)", printed(book)))
    assert said == {"mse": "0.0", "energy": f"{math.sqrt(3):.1f}", "target": f"{math.sqrt(3):.1f}"}


def test_a_point_costs_mse_least_and_the_target_in_any_pose_costs_the_energy_nothing():
    """Of all answers shrunk by s, mean squared error is 3 (1 + s^2) whatever the pose: least at s = 0."""
    for s in (0.0, 0.5, 1.0):
        answer = [s * z for z in TARGET]
        mean = sum(_apart(_turned(TARGET, 2 * k), answer) for k in range(180)) / 180
        assert mean == pytest.approx(3 * (1 + s**2))


@pytest.mark.parametrize("name", ["A", "B", "mirror image"])
def test_aligned_errors_are_those_of_the_best_turn(name, book):
    uneven = [0, 2, 0.5 + 1j]
    pairs = {
        "A": (_turned(TARGET, 40), TARGET),
        "B": (_squashed(), TARGET),
        "mirror image": ([-complex(z).conjugate() for z in uneven], uneven),
    }
    assert f"{name}: aligned squared error {abs(_aligned(*pairs[name])):.3f}," in printed(book)


def test_the_pair_energy_takes_a_mirror_image_for_the_target(book):
    uneven = [0, 2, 0.5 + 1j]
    assert _sides([-complex(z).conjugate() for z in uneven]) == pytest.approx(_sides(uneven))
    assert "(mirror images apart)" in prose(book)


def test_a_squared_error_is_the_energy_of_a_gaussian_and_its_partition_function_has_no_prediction_in_it():
    """-log p - E / T is the same number for every prediction, log Z, with T = 2 sigma^2."""
    sigma, y = 0.3, torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
    found = [
        float(-torch.distributions.Normal(y, sigma).log_prob(guess).sum() - (guess - y).square().sum() / (2 * sigma**2))
        for guess in torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ]
    assert found == pytest.approx([1.5 * math.log(2 * math.pi * sigma**2)] * 4)


def test_the_signed_area_costs_a_mirror_image_four_times_its_square(book):
    """The shoelace formula gives 1 and -1, so the term is 4: well above the 1 that the solution asserts."""
    corners = [(0.0, 0.0), (2.0, 0.0), (0.5, 1.0)]
    wound = sum((x * v - u * y) / 2 for (x, y), (u, v) in zip(corners, [*corners[1:], corners[0]], strict=True))
    assert wound == 1.0
    assert "float(handed(mirror[None], uneven[None]))\n    > 1\n" in code(book)["cell-31"]
    made = {}
    exec(code(book)["cell-31"].split("\n\n\ndef handed")[0], made)
    mirrored = torch.tensor([[-x, y] for x, y in corners])
    assert [float(made["signed_area"](t)) for t in (torch.tensor(corners), mirrored)] == [wound, -wound]


def test_the_playground_opens_on_attempt_a(book):
    (cell,) = [cell for cell in book.cells if cell.id == "cell-13"]
    assert cell.outputs[0].data["text/plain"] == f"{{'mse': {_apart(_turned(TARGET, 40), TARGET):.3f}, 'energy': 0.0}}"
