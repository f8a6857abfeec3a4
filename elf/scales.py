"""The five scales at which every experiment and notebook can run: smoke, live, laptop, gpu, paper.

`smoke` proves that everything executes, `live` is what a reader watches in a notebook (more on a GPU, where a cell says
how much: `live_cuda` of `pick`), `laptop` makes the committed results on two cores, `gpu` is half an hour a training on
one GPU, `paper` has the paper's settings. The environment variable ELF_SCALE chooses; the default is `live`.
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


def pick(
    *,
    smoke: T,
    live: T,
    live_cuda: T | None = None,
    laptop: T | None = None,
    gpu: T | None = None,
    paper: T | None = None,
) -> T:
    """The setting for the current scale, or for the nearest smaller scale that has one.

    Args:
        smoke, live, laptop, gpu, paper: of each scale.
        live_cuda: in place of `live`, at that scale alone, where PyTorch sees a CUDA device: what a reader can watch
            grows with the machine. Other scales, and those that fall back on `live`, do not look.

    >>> steps = pick(smoke=2, live=500, paper=100_000)   # laptop runs 500 steps
    >>> steps = pick(smoke=2, live=500, live_cuda=5000)  # live runs 5000 on a GPU
    """
    scale = current_scale()
    if scale == "live" and live_cuda is not None and _sees_cuda():
        return live_cuda
    given = dict(zip(SCALES, (smoke, live, laptop, gpu, paper), strict=True))
    return nearest({name: value for name, value in given.items() if value is not None}, scale)


def _sees_cuda() -> bool:
    import torch  # here, as to ask for a scale should not take the seconds that PyTorch takes to load

    return torch.cuda.is_available()
