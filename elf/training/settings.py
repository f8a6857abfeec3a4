"""Settings of one training run, its learning-rate schedule, and where it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any

from elf.checks import require_bool, require_count, require_number, require_one_of, require_positive, require_seed

FABRIC = ("accelerator", "devices", "num_nodes", "strategy", "precision")
"""The settings that Fabric takes."""
WHERE = (*FABRIC, "compile")
"""The settings that say where and how a run is computed; `fabric_options` may override them from outside."""

_options: ContextVar[dict[str, Any] | None] = ContextVar("elf_fabric_options", default=None)

# Not "16-true": the squares of gradients, which AdamW keeps, vanish in float16.
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed")
_ALIASES = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}

_REQUIRE: dict[str, Callable[[str, Any], float]] = {
    **dict.fromkeys(("steps", "checkpoint_every", "devices", "num_nodes"), require_count),
    **dict.fromkeys(("seed", "warmup_steps"), require_seed),
    **dict.fromkeys(("weight_decay", "gradient_clip", "ema_decay"), require_number),
    "learning_rate": require_positive,
}


def _need(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"FitSettings.{name} is {value!r}; it should be {what}")


@dataclass(frozen=True)
class FitSettings:
    """Everything `fit` needs besides the model, the loss and the data.

    Args:
        steps: number of optimizer steps.
        learning_rate: peak learning rate of AdamW.
        warmup_steps: linear warm-up from learning_rate / warmup_steps.
        schedule: "cosine" decays to zero at `steps`, "constant" stays.
        weight_decay: AdamW's decoupled decay, on all parameters.
        gradient_clip: largest gradient norm, None for no clipping.
        ema_decay: decay of the exponential moving average of the weights, None for none. Step t uses
            min(ema_decay, (1 + t) / (10 + t)), so that the average forgets the initial weights.
        seed: seeds the generator handed to the loss and the dropout masks of the model.
        checkpoint_every: steps between checkpoints (one is always written at the end).
        accelerator, devices, num_nodes, strategy: as in `lightning_fabric.Fabric`.
        precision: one of `PRECISIONS`, as in Fabric. "16-mixed" scales the loss, and needs a GPU; with "bf16-true" the
            average is kept in float32.
        compile: whether the network is compiled, see `elf.training.loop.compiled`. The same training within rounding;
            faster on some devices and slower on others, and the first steps take longer.

    Numbers may be NumPy's; they are kept as Python's.

    Raises:
        ValueError: a number out of range, or another choice than those named; the message names it.
        TypeError: no number, no integer, or neither True nor False, where one is needed.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    ema_decay: float | None = None
    seed: int = 0
    checkpoint_every: int = 1000
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool = False

    def __post_init__(self) -> None:
        for name, require in _REQUIRE.items():
            value = getattr(self, name)
            if value is not None or name not in ("gradient_clip", "ema_decay"):
                object.__setattr__(self, name, require(f"FitSettings.{name}", value))
        decay, clip, ema = self.weight_decay, self.gradient_clip, self.ema_decay
        _need("weight_decay", decay, 0 <= decay < math.inf, "non-negative and finite")
        _need("gradient_clip", clip, clip is None or clip > 0, "positive or None")
        _need("ema_decay", ema, ema is None or 0 <= ema < 1, "in [0, 1) or None")
        _need("warmup_steps", self.warmup_steps, self.warmup_steps <= self.steps, f"between 0 and steps={self.steps}")
        object.__setattr__(self, "precision", _ALIASES.get(str(self.precision), self.precision))
        require_one_of("FitSettings.precision", self.precision, PRECISIONS)
        require_bool("FitSettings.compile", self.compile)
        require_one_of("FitSettings.schedule", self.schedule, ("cosine", "constant"))
        for name in ("accelerator", "strategy"):
            _need(name, getattr(self, name), isinstance(getattr(self, name), str), "a name that Fabric knows")
        # The moving average and the one-file checkpoint need the whole weights in every process.
        sharded = any(word in self.strategy for word in ("fsdp", "deepspeed", "model_parallel"))
        _need("strategy", self.strategy, not sharded, "one that keeps whole weights in every process: 'auto' or 'ddp'")


@contextmanager
def fabric_options(**options: Any) -> Iterator[None]:
    """Every `fit` inside runs with these of `WHERE` (accelerator, devices, ...) instead of its settings' own.

    So an experiment's settings say what is trained, and the command line says where.

    Raises:
        ValueError: an option that is not one of `WHERE`.
    """
    unknown = sorted(set(options) - set(WHERE))
    if unknown:
        raise ValueError(f"fabric options {unknown} are unknown; they should be among {list(WHERE)}")
    token = _options.set({**(_options.get() or {}), **options})
    try:
        yield
    finally:
        _options.reset(token)


def with_fabric_options(settings: FitSettings) -> FitSettings:
    """The settings with the surrounding `fabric_options` applied."""
    options = _options.get()
    return replace(settings, **options) if options else settings


def learning_rate_at(step: int, settings: FitSettings) -> float:
    """Learning rate of step 0, 1, ..., steps - 1: linear warm-up, then cosine to zero or constant."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def resume_differences(saved: dict[str, Any], settings: FitSettings) -> list[str]:
    """What of the settings would make a resumed run differ from an uninterrupted one."""
    saved = {"compile": False, **saved}  # no checkpoint named it before there was a choice
    free = ("checkpoint_every", "accelerator", "devices", "num_nodes", "strategy")
    return [
        f"{name}={saved.get(name)!r} in the checkpoint, {value!r} now"
        for name, value in asdict(settings).items()
        if name not in free and saved.get(name) != value
    ]
