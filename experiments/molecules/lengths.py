"""What trained networks do against how long they were trained: "two_gifts" and the longer runs of the same recipe.

At 2,400 steps the equivariant network is not `calm`, in the longer runs it is (see `elf.models.transformer`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean, stdev

from experiments.framework.experiment import load_result
from experiments.framework.tables import enough
from experiments.molecules.gifts import interval

RUNS = {
    "plain": ("two_gifts", "two_gifts_mended", "two_gifts_long", "two_gifts_long_mended", "longest_plain"),
    "equivariant": ("two_gifts", "two_gifts_mended", "two_gifts_long_equivariant", "longest_equivariant"),
}
"""Network -> the results that hold its runs."""

Losses = dict[str, dict[int, list[float]]]


def against_steps(network: str, figure: str, losses: Iterable[str]) -> Losses:
    """Loss -> steps -> a figure of the trained networks, in the order of their seeds.

    At each number of steps only seeds that all of the losses trained there have, so that values are paired; networks
    whose figure rests on too few molecules (see `experiments.framework.tables.enough`) are left out with their pairs.
    """
    losses = tuple(losses)
    found: dict[int, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for name in RUNS[network]:
        for cell in map(enough, load_result(name)["cells"]):
            about, value = cell["cell"], cell["result"][figure]
            if about["network"] == network and about["loss"] in losses:
                found[about["steps"]][about["loss"]][about["seed"]] = value
    paired: Losses = {loss: {} for loss in losses}
    for steps in sorted(found):
        seeds = set.intersection(*({s for s, v in runs.items() if v is not None} for runs in found[steps].values()))
        for loss, runs in found[steps].items():
            if seeds:
                paired[loss][steps] = [runs[seed] for seed in sorted(seeds)]
    return paired


def comparison(figures: Mapping[str, tuple[str, float]], words: Mapping[str, str]) -> str:
    """Every figure of every loss, for each network and length: Markdown, folded.

    Args:
        figures: name -> its heading, and the factor it is printed with.
        words: loss -> its heading; "mse" is what the others are compared with.

    Returns:
        Tables of means ± standard deviations over networks; below each, in brackets, the interval (see
        `experiments.molecules.gifts.interval`) of the lead over MSE, in bold where all pairs agree.
    """
    found = {(n, f): against_steps(n, f, words) for n in RUNS for f in figures}
    parts = []
    for network in RUNS:
        for steps in sorted({n for by_loss in found[network, next(iter(figures))].values() for n in by_loss}):
            losses = [loss for loss in words if steps in found[network, next(iter(figures))][loss]]
            rows = [["", *(words[loss] for loss in losses)], ["---"] * (len(losses) + 1)]
            for figure, (title, factor) in figures.items():
                runs = {loss: [factor * v for v in found[network, figure][loss].get(steps, ())] for loss in losses}
                rows.append([title, *(_entry(runs[loss], runs["mse"], loss == "mse") for loss in losses)])
            table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
            parts.append(f"<details><summary>{network} network, {steps:,} steps</summary>\n\n{table}\n\n</details>")
    return "\n".join(parts)


def _entry(own: list[float], mse: list[float], alone: bool) -> str:
    if not own:
        return "too few molecules"
    digits = 1 if max(map(abs, own + mse)) > 2 else 3
    if len(own) == 1:
        return f"{own[0]:.{digits}f} (one network)"
    text = f"{fmean(own):.{digits}f} ± {stdev(own):.{digits}f}"
    if alone:
        return text
    leads = [a - b for a, b in zip(own, mse, strict=True)]
    low, high = interval(leads)
    bold = "**" if min(leads) * max(leads) > 0 else ""
    return f"{text}<br>({bold}{low:+.{digits}f} to {high:+.{digits}f}{bold})"
