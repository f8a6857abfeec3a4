"""The four scales at which every experiment and notebook can run: smoke, live, laptop, paper.

`smoke` proves that everything executes, `live` is what a reader watches in a notebook, `laptop` makes the committed
results on two cores, `paper` has the paper's settings. The environment variable ELF_SCALE chooses; the default is
`live`.
"""

from __future__ import annotations

import os
from typing import TypeVar

SCALES = ("smoke", "live", "laptop", "paper")

T = TypeVar("T")


def current_scale() -> str:
    """The scale named by ELF_SCALE, or "live" where it is unset or empty.

    Raises:
        ValueError: ELF_SCALE is not one of `SCALES`.
    """
    scale = os.environ.get("ELF_SCALE") or "live"
    if scale not in SCALES:
        raise ValueError(f"the environment variable ELF_SCALE is {scale!r}; it should be one of {', '.join(SCALES)}")
    return scale


def pick(*, smoke: T, live: T, laptop: T | None = None, paper: T | None = None) -> T:
    """The setting for the current scale, or for the nearest smaller scale that has one.

    >>> steps = pick(smoke=2, live=500, paper=100_000)   # laptop runs 500 steps
    """
    chosen = smoke
    for scale, value in zip(SCALES, (smoke, live, laptop, paper), strict=True):
        chosen = chosen if value is None else value
        if scale == current_scale():
            break
    return chosen
