from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from widget_page import placed

from course.widgets import SpinBoard, web
from elf.data.spin_glass import sample_couplings
from elf.metrics.spins import overlap
from elf.spins import (
    Couplings,
    descend,
    frustrated_plaquettes,
    ground_state,
    ising_energy,
    local_fields,
    unsatisfied_bonds,
)

ROOT = ".elf-board"
SHAPES = [(1, 1), (1, 5), (4, 1), (2, 2), (5, 4), (8, 8), (12, 3)]


def lattice(height: int, width: int, seed: int = 0, kind: str = "gaussian") -> tuple[Couplings, torch.Tensor]:
    couplings = sample_couplings(1, height, width, kind=kind, seed=seed).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return couplings, torch.randint(2, couplings.shape, generator=generator) * 2 - 1


def data(page: Any, name: str) -> Any:
    return page.locator(ROOT).first.get_attribute(f"data-elf-{name}")


def rest(page: Any) -> None:
    # A function: an expression would be evaluated in the page, which the policy forbids.
    page.wait_for_function(f"() => document.querySelector('{ROOT}').dataset.elfBusy === ''")


def spins_of(page: Any) -> torch.Tensor:
    return torch.tensor(page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('spins')"))


# --- in Python ---------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_elf_spins():
    couplings, spins = lattice(4, 5)
    board = SpinBoard(couplings, spins)
    best = ground_state(couplings)
    assert board.energy == pytest.approx(float(ising_energy(spins, couplings)))
    assert board.excess == pytest.approx(board.energy - float(best.energy))
    assert board.overlap == pytest.approx(float(overlap(spins, best.spins, couplings)))
    torch.testing.assert_close(board.local_fields, local_fields(spins, couplings)[0])
    assert board.tensor.shape == (1, 4, 5)
    board.spins = best.spins[0].tolist()
    assert board.excess == pytest.approx(0, abs=1e-12)
    assert "4 x 5" in repr(board)


def test_state_travels_as_plain_json_and_back():
    board = SpinBoard(lattice(3, 3)[0], seed=2)
    sent = json.loads(json.dumps(web.state(board)))
    flipped = [[-s for s in row] for row in sent["spins"]]
    energy = board.energy
    board.set_state({"spins": flipped})
    assert board.energy == pytest.approx(energy)
    assert board.spins == flipped


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((sample_couplings(2, 3),), "2 lattices with free boundaries"),
        ((sample_couplings(1, 3, periodic=True),), "periodic boundaries"),
        ((sample_couplings(1, 25, 3),), "25 x 3 spins"),
        ((sample_couplings(1, 3), torch.ones(3, 4)), r"spins has shape \(3, 4\)"),
        ((sample_couplings(1, 3), torch.zeros(3, 3)), "spins holds 0.0"),
        ((sample_couplings(1, 3), "up"), "spins is a str"),
    ],
)
def test_bad_boards_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        SpinBoard(*arguments)


def test_bad_spins_are_refused_later_too():
    board = SpinBoard(sample_couplings(1, 3))
    before = board.spins
    with pytest.raises(ValueError, match="spins holds NaN"):
        board.spins = [[float("nan")] * 3] * 3
    assert board.spins == before


# --- in the browser ----------------------------------------------------------------------------------------------

ANSWERS = """async (cases) => {
  const board = await import(new URL("elf/board.js", location.href).href);
  return cases.map(({ spins, right, down, ground }) => ({
    energy: board.isingEnergy(spins, right, down), fields: board.localFields(spins, right, down),
    frustrated: board.frustrated(right, down), overlap: board.overlap(spins, ground),
    steepest: board.steepest(spins, right, down),
  }));
}"""


# Pressed and looked at from inside the page: a test that is slow would find the motion at its end.
BUSY = """(button) => {
  button.click();
  return button.closest(".elf-board").dataset.elfBusy;
}"""
STOPPED = """async (button) => {
  const { dataset } = button.closest(".elf-board"), first = Number(dataset.elfDraws);
  button.click();
  while (Number(dataset.elfDraws) < first + 3) await new Promise((soon) => setTimeout(soon, 1));
  const words = button.textContent;
  button.click();
  return words;
}"""


def test_javascript_agrees_with_elf_spins(show):
    lattices = [lattice(*shape, seed=seed) for seed, shape in enumerate(SHAPES)]
    boards = [SpinBoard(*entry) for entry in lattices]
    page = show(boards[4])
    answers = page.evaluate(ANSWERS, [web.state(board) for board in boards])
    for (couplings, spins), board, answer in zip(lattices, boards, answers, strict=True):
        assert answer["energy"] == pytest.approx(float(ising_energy(spins, couplings)), rel=1e-12, abs=1e-12)
        torch.testing.assert_close(torch.tensor(answer["fields"], dtype=torch.float64), board.local_fields)
        assert answer["frustrated"] == frustrated_plaquettes(couplings)[0].tolist()
        assert abs(answer["overlap"]) == pytest.approx(board.overlap)
        gains = (2 * spins[0] * board.local_fields).flatten()
        row, column = divmod(int(gains.argmin()), spins.shape[2])
        assert answer["steepest"] == ([row, column] if gains.min() < 0 else None)


def test_click_touch_and_keyboard_flip_and_numbers_follow(show):
    couplings, spins = lattice(3, 4, seed=1)
    board = SpinBoard(couplings, spins)
    page = show(board, touch=True)
    expected = spins.clone()

    def check(flips: int) -> None:
        broken = sum(int(x.sum()) for x in unsatisfied_bonds(expected, couplings))
        assert float(data(page, "energy")) == pytest.approx(float(ising_energy(expected, couplings)), abs=1e-6)
        assert int(data(page, "broken")) == broken == page.locator(".elf-broken").count()
        assert int(data(page, "flips")) == flips
        assert torch.equal(spins_of(page), expected[0])

    check(0)
    page.locator("[data-elf-site='1,2']").click()
    expected[0, 1, 2] *= -1
    check(1)
    page.locator("[data-elf-site='0,0']").tap()
    expected[0, 0, 0] *= -1
    check(2)
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowUp", "ArrowDown", "End", "Space", "Home", "Enter"):
        page.keyboard.press(key)
    expected[0, 1, 3] *= -1
    expected[0, 1, 0] *= -1
    check(4)
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    state = "up" if expected[0, 1, 0] > 0 else "down"
    assert page.locator("[data-elf-site='1,0']").get_attribute("aria-label").startswith(f"Row 2, column 1: {state}")
    assert f"Row 2, column 1 is now {state}. Energy" in page.locator(f"{ROOT} [aria-live]").inner_text()


def test_buttons_show_the_ground_state_and_reset(show):
    couplings, spins = lattice(4, 4, seed=3)
    page = show(SpinBoard(couplings, spins))
    ground = page.get_by_role("button", name="Show ground state")
    ground.click()
    assert float(data(page, "excess")) == pytest.approx(0, abs=1e-9)
    assert float(data(page, "overlap")) == 1
    assert ground.get_attribute("aria-pressed") == "true"
    assert "This is the ground state" in page.locator(ROOT).inner_text()
    ground.click()
    assert torch.equal(spins_of(page), spins[0])
    page.locator("[data-elf-site='2,2']").click()
    page.get_by_role("button", name="Reset").click()
    assert torch.equal(spins_of(page), spins[0])
    assert data(page, "flips") == "0"
    fields = page.get_by_role("button", name="Local fields")
    fields.click()
    assert fields.get_attribute("aria-pressed") == "false"
    assert page.locator("[data-elf-site] text").first.text_content() == ""


@pytest.mark.parametrize("reduced_motion", [False, True])
def test_descent_and_annealing_end_in_minima(show, reduced_motion):
    couplings, spins = lattice(5, 5, seed=5)
    page = show(SpinBoard(couplings, spins), reduced_motion=reduced_motion)
    start = float(data(page, "energy"))
    busy = page.get_by_role("button", name="Greedy descent").evaluate(BUSY)
    assert busy == ("" if reduced_motion else "greedy")
    rest(page)
    greedy = spins_of(page)[None]
    assert torch.equal(descend(greedy, couplings).long(), greedy)
    assert float(data(page, "energy")) < start
    page.get_by_role("button", name="Anneal").click()
    rest(page)
    annealed = spins_of(page)[None]
    assert torch.equal(descend(annealed, couplings).long(), annealed)
    assert float(data(page, "excess")) < 0.1 * abs(float(ising_energy(annealed, couplings)))


def test_an_animation_can_be_stopped(show):
    page = show(SpinBoard(lattice(6, 6, seed=6)[0]))
    assert page.get_by_role("button", name="Anneal").evaluate(STOPPED) == "Stop"
    assert data(page, "busy") == ""
    resting = spins_of(page)
    page.wait_for_timeout(150)
    assert torch.equal(spins_of(page), resting)


def test_spins_set_from_outside_are_drawn(show):
    couplings, spins = lattice(3, 3)
    page = show(SpinBoard(couplings, spins))
    page.evaluate("s => document.querySelector('[data-elf-widget]').widget.model.set('spins', s)", (-spins[0]).tolist())
    label = page.locator("[data-elf-site='0,0']").get_attribute("aria-label")
    assert ("down" if spins[0, 0, 0] > 0 else "up") in label


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spins": []}, "spins should have 1 to 24 rows"),
        ({"spins": [[1] * 25]}, "spins should have 1 to 24 rows"),
        ({"spins": [[1, None], [1, 1]]}, "spins should be 2 x 2"),
        ({"spins": [[1, 0.5], [1, 1]]}, "each +1 or -1"),
        ({"right": [[1.0], [None]]}, "right should be 2 x 1 finite numbers"),
        ({"down": [[1.0, "<img src=x onerror=alert(1)>"]]}, "down should be 1 x 2 finite numbers"),
    ],
)
def test_bad_state_is_answered_by_a_message_in_place_of_the_figure(show, change, words):
    state = {**web.state(SpinBoard(lattice(2, 2)[0])), **change}
    page = show(placed("board", json.dumps(state)))
    assert words in page.get_by_role("alert").inner_text()
    assert page.locator("svg").count() == 0
    assert data(page, "state") == "error"
