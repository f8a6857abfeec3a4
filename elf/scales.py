"""The five scales at which every experiment and notebook can run: smoke, live, laptop, gpu, paper.

`smoke` proves that everything executes, `live` is what a reader watches in a notebook, `laptop` makes the committed
results on two cores, `gpu` is half an hour a training on one GPU, `paper` has the paper's settings. The environment
variable ELF_SCALE chooses; the default is `live`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

SCALES = ("smoke", "live", "laptop", "gpu", "paper")

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


def nearest(settings: Mapping[str, T], scale: str) -> T:
    """The setting of this scale, or of the nearest smaller scale that has one."""
    return settings[[known for known in SCALES[: SCALES.index(scale) + 1] if known in settings][-1]]


def pick(*, smoke: T, live: T, laptop: T | None = None, gpu: T | None = None, paper: T | None = None) -> T:
    """The setting for the current scale, or for the nearest smaller scale that has one.

    >>> steps = pick(smoke=2, live=500, paper=100_000)   # laptop runs 500 steps
    """
    given = dict(zip(SCALES, (smoke, live, laptop, gpu, paper), strict=True))
    return nearest({scale: value for scale, value in given.items() if value is not None}, current_scale())
