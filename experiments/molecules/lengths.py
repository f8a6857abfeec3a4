"""What trained networks do against how long they were trained: "two_gifts" and the longer runs of the same recipe.

At 2,400 steps the equivariant network is not `calm`, in the longer runs it is (see `elf.models.transformer`).
"""

from __future__ import annotations

from collections import defaultdict

from experiments.framework.experiment import load_result
from experiments.framework.tables import enough

RUNS = {
    "plain": ("two_gifts", "two_gifts_mended", "two_gifts_long", "two_gifts_long_mended", "longest_plain"),
    "equivariant": ("two_gifts", "two_gifts_mended", "two_gifts_long_equivariant", "longest_equivariant"),
}
"""Network -> the results that hold its runs."""

Losses = dict[str, dict[int, list[float]]]


def against_steps(network: str, figure: str, losses: tuple[str, ...]) -> Losses:
    """Loss -> steps -> a figure of the trained networks, in the order of their seeds.

    At each number of steps only seeds that all of the losses trained there have, so that values are paired; networks
    whose figure rests on too few molecules (see `experiments.framework.tables.enough`) are left out with their pairs.
    """
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
