"""Guess, then see: the answer opens after the reader's own, and nothing is kept."""

from __future__ import annotations

import json

import pytest
from browser import settle
from moving import assert_moves
from widget_page import placed

from course.widgets import Guess, web

ROOT = ".elf-guess"
CHOICE = {"question": "Which?", "answer": 1, "choices": ["this", "that"], "why": "That is why."}
NUMBER = {"question": "How many?", "answer": 3.5, "low": 0.0, "high": 10.0, "step": 0.5, "unit": "kcal/mol"}


def test_a_choice_opens_the_answer_and_tells_nobody(show):
    page = show(Guess(**CHOICE))
    see, result = page.get_by_role("button", name="See"), page.locator(f"{ROOT} .elf-result")
    told = page.locator(f"{ROOT} [aria-live]")
    assert see.is_disabled()
    assert page.get_by_role("group", name="Which?").count() == 1
    before = page.evaluate("JSON.stringify(document.querySelector('[data-elf-widget]').widget.model.get('answer'))")
    page.get_by_role("radio", name="this").check()
    assert result.inner_text() == told.inner_text() == ""
    see.click()
    assert result.inner_text() == "You said this: that. That is why."
    page.get_by_role("radio", name="that").check()
    assert result.inner_text() == "Yes: that. That is why."
    assert told.inner_text() == result.inner_text()
    assert page.locator(f"{ROOT} [data-elf-right='true']").inner_text() == "that"
    assert (
        page.evaluate("JSON.stringify(document.querySelector('[data-elf-widget]').widget.model.get('answer'))")
        == before
    )


def test_a_number_moves_its_mark_and_then_shows_the_truth(show):
    page = show(Guess(**NUMBER))
    slider = page.get_by_role("slider", name="my guess")
    assert_moves(page, "guess", lambda: slider.fill("9"))
    assert_moves(page, "guess", page.get_by_role("button", name="See").click)
    assert page.locator(f"{ROOT} .elf-result").inner_text().startswith("You said 9 kcal/mol: 3.5 kcal/mol.")
    assert "3.5 kcal/mol" in page.locator(f"{ROOT} [aria-live]").inner_text()
    slider.fill("3.5")
    settle(page)
    for place in (".elf-result", "[aria-live]"):
        assert page.locator(f"{ROOT} {place}").inner_text().startswith("Yes: 3.5")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"question": ""}, "words"), ({"choices": ["a"]}, "two and more"), ({"answer": 7}, "one of the")],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("guess", json.dumps({**web.state(Guess(**CHOICE)), **change})))
    assert words in page.get_by_role("alert").inner_text()


def test_bad_values_are_refused():
    for wrong in ({"answer": 2}, {"answer": 0.5}, {"choices": ["a"]}, {"question": ""}):
        with pytest.raises(ValueError, match=r"answer is|question is"):
            Guess(**{**CHOICE, **wrong})
    for wrong in ({"answer": 11}, {"low": 20.0}, {"step": 0.0}):
        with pytest.raises(ValueError, match=r"answer is|low, high, step"):
            Guess(**{**NUMBER, **wrong})


def test_words_and_still_picture_do_not_tell():
    assert Guess(**CHOICE).alt == "Guess, then see. Which? (this; that)"
    assert Guess(**NUMBER).alt == "Guess, then see. How many? (a number from 0 to 10 kcal/mol)"
    assert Guess(**CHOICE).still()[:4] == b"\x89PNG"
