"""Guess, then see: a question that takes the reader's number or choice, and then opens its answer."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import traitlets
from matplotlib.figure import Figure

from course.widgets import web
from course.widgets.widget import Checked, Widget
from elf.viz import style


class Guess(Widget):
    """A question with choices, or with a range of numbers; nothing of what the reader says is kept or sent.

    Args:
        question: in words.
        answer: the number, or the index of the right choice.
        choices: two or more texts; none for a number.
        low, high, step: the numbers to choose from.
        unit: of the number.
        why: a sentence that the answer opens with it.

    Raises:
        ValueError: an answer that is not among the choices or in the range; also when they are set later.
    """

    module_name = "guess"
    _esm = web.module("guess")

    question = Checked(str, "")
    choices = Checked([str], [])
    low = Checked(float, 0.0)
    high = Checked(float, 1.0)
    step = Checked(float, 0.1)
    unit = Checked(str, "")
    answer = Checked(float, 0.0)
    why = Checked(str, "")

    def __init__(self, question: str, answer: float, choices: Sequence[str] = (), **others: Any) -> None:
        super().__init__(question=question, answer=answer, choices=list(choices), **others)

    def fit(self, state: dict[str, Any]) -> None:
        """The answer is one that the reader can give."""
        answer, count = state["answer"], len(state["choices"])
        if not state["question"] or count == 1:
            raise ValueError(
                f"question is {state['question']!r} with {count} choices; it should be words, with two or more"
            )
        if count and answer not in range(count):
            raise ValueError(f"answer is {answer}; it should be the index of one of {count} choices")
        if not count and not (state["low"] < state["high"] and state["step"] > 0):
            raise ValueError(
                f"low, high, step are {state['low']}, {state['high']}, {state['step']}; no numbers to choose"
            )
        if not count and not state["low"] <= answer <= state["high"]:
            raise ValueError(f"answer is {answer}; it should be from {state['low']} to {state['high']}")

    @traitlets.validate("question", "choices", "low", "high", "step", "answer")
    def _validate(self, proposal: Any) -> Any:
        return self.proposed(proposal)

    @property
    def alt(self) -> str:
        """The question and what may be chosen, in words; not the answer."""
        offered = "; ".join(self.choices) or f"a number from {self.low:g} to {self.high:g} {self.unit}".strip()
        return f"Guess, then see. {self.question} ({offered})"

    def still(self) -> bytes:
        """The question as a PNG, without its answer: that follows on the page."""
        figure = Figure(figsize=(6.6, 0.5 + 0.22 * (2 + len(self.choices))), facecolor=style.PAPER)
        words = "\n".join([fill(self.question, 80), *(f"   ○ {text}" for text in self.choices)])
        figure.text(0.02, 0.92, words, va="top", fontsize=10, color=style.INK, parse_math=False)
        return style.png(figure, dpi=style.CSS_PIXELS_PER_INCH, tight=False)

    def __repr__(self) -> str:
        return f"Guess({self.question!r})"
