"""How a report card looks, whatever it reports on."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Card(ABC):
    """Rows of a question, a figure and a remark, as a table on a terminal and in a notebook."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str, str]]:
        """(question, figure, remark) of each line of the table."""

    def __str__(self) -> str:
        return "\n".join(f"{question:<40} {figure:<12} {remark}".rstrip() for question, figure, remark in self.rows())

    def _repr_markdown_(self) -> str:
        lines = [f"| {question} | {figure} | {remark} |" for question, figure, remark in self.rows()]
        return "\n".join(["| | | |", "|---|---|---|", *lines])
