"""How a report card looks: that of any system, and that of points in space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor


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


@dataclass(frozen=True)
class ReportCard(Card):
    """What an energy does, in numbers; `print` it for a table with a remark a line.

    Attributes:
        at_target: largest |E(y, y)|, over the median energy of targets displaced by 0.2 angstrom; 0 is right.
        ignores: the change of energy, relative to its median, when the prediction is moved: "translation", "rotation",
            "reflection"; in a cell "translation", "lattice vector" (another for each atom), "point reflection"; below
            1e-6 the energy does not see it.
        relabellings: of the relabellings that leave a target's distances as they are (equivalent atoms; the identity
            apart), how many the energy ignores, how many there are, and how many of these a rotation can undo (in a
            cell, a translation): the others need a mirror.
        free_modes: the most zero modes of the Hessian at a target beyond its rigid motions.
        soft_share: share of the targets with a mode (rigid motions apart) softer than 1 % of the median mode.
        condition: stiffest over softest mode that is not free, the median over targets.
        softest: displacement (N, D) of the softest mode that is no rigid motion, of target `softest_target`.
        growth: exponent p of |gradient| ~ displacement^p between 1 and 100 angstrom: 0 is bounded, 1 a harmonic trap.
        steepest: largest |gradient| while one atom passes through another, over that at a displacement of 0.2 angstrom.
        kink: whether the gradient jumps on that way.
        dead_starts: |gradient| at "collapsed" (all atoms at a point) and out of the plane at "flat" (the target pressed
            flat) over that at a displacement of 0.2 angstrom: 0 is a start that never leaves.
        arrivals: share of random starts from which 500 steps of Adam find the target's distances within 0.1 angstrom.
        rank_correlation: Spearman's, with the reference energy over distortions of 0.1 angstrom, the median; or None.
        agreement: relative change of the value when computed "padded" (with a mask), "flat" (with a batch index), in
            "float32", in "bfloat16", "compiled", "vmapped"; or what was raised, in words.
        cost: time of value and gradient over that of mean squared error.
        stiffness: eigenvalues of the Hessian at each target, ascending, for a figure.
    """

    at_target: float
    ignores: dict[str, float]
    relabellings: tuple[int, int, int]
    free_modes: int
    soft_share: float
    condition: float
    softest: Float[Tensor, "atoms dim"]
    softest_target: int
    growth: float
    steepest: float
    kink: bool
    dead_starts: dict[str, float]
    arrivals: float
    rank_correlation: float | None
    agreement: dict[str, float | str]
    cost: float
    stiffness: list[Tensor]

    def as_dict(self) -> dict[str, Any]:
        """The numbers, JSON-able; without the tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in ("softest", "stiffness")}

    def rows(self) -> list[tuple[str, str, str]]:
        """(question, figure, remark) of each line of the table."""
        (kept, found, proper), free = self.relabellings, self.free_modes
        bounded = _said(self.growth, self.growth < 0.05, "bounded", "unbounded")
        undo = "rotations" if "rotation" in self.ignores else "translations"
        rows = [("zero at the target", f"{self.at_target:.1e}", "yes" if self.at_target < 1e-6 else "NO")]
        rows += [(f"sees a {name}", f"{x:.1e}", _said(x, x > 1e-6, "yes", "no")) for name, x in self.ignores.items()]
        rows += [
            ("ignores relabelled equivalent atoms", f"{kept} of {found}", f"{proper} of them are {undo}"),
            ("free modes beyond rigid motions", str(free), "some shapes cost nothing" if free else ""),
            ("targets with a soft mode", f"{self.soft_share:.0%}", "a mode below 1 % of the median"),
            ("condition number", f"{self.condition:.0f}", "stiffest over softest mode"),
            ("gradient grows as displacement to the", f"{round(self.growth, 2) + 0.0:.2f}", bounded),
            ("steepest where atoms meet", f"{self.steepest:.3g}", "explodes" if self.steepest > 1e3 else ""),
            ("gradient jumps where atoms meet", str(self.kink), "a kink" if self.kink else "smooth"),
        ]
        rows += [
            (f"{name} start", f"{size:.2g}", "dead: no gradient leads out" if size < 1e-6 else "alive")
            for name, size in self.dead_starts.items()
        ]
        rows += [("random starts that arrive", f"{self.arrivals:.0%}", "")]
        if self.rank_correlation is not None:
            rows += [("rank correlation with the reference", f"{self.rank_correlation:.2f}", "")]
        for name, change in self.agreement.items():
            figure, remark = (change, "refused") if isinstance(change, str) else (f"{change:.1e}", "")
            rows += [(f"change when {name}", figure, remark)]
        return [*rows, ("cost against mean squared error", f"{self.cost:.1f}x", "value and gradient")]


def _said(figure: float, holds: bool, yes: str, no: str) -> str:
    return "not finite" if not math.isfinite(figure) else yes if holds else no
