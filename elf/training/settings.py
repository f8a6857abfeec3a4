"""Settings of one training run, its learning-rate schedule, and where it is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

WHERE = ("accelerator", "devices", "num_nodes", "strategy", "precision")
"""The settings that say where a run is computed; `fabric_options` may override them from outside."""

_options: ContextVar[dict[str, Any] | None] = ContextVar("elf_fabric_options", default=None)


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
        accelerator, devices, num_nodes, strategy, precision: as in `lightning_fabric.Fabric`.

    Raises:
        ValueError: a number out of range; the message names it.
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

    def __post_init__(self) -> None:
        def need(name: str, holds: bool, what: str) -> None:
            if not holds:
                raise ValueError(f"FitSettings.{name} is {getattr(self, name)!r}; it should be {what}")

        need("steps", self.steps >= 1, "at least 1")
        need("learning_rate", 0 < self.learning_rate < math.inf, "positive and finite")
        need("warmup_steps", 0 <= self.warmup_steps <= self.steps, f"between 0 and steps={self.steps}")
        need("schedule", self.schedule in ("cosine", "constant"), "'cosine' or 'constant'")
        need("weight_decay", 0 <= self.weight_decay < math.inf, "non-negative and finite")
        need("gradient_clip", self.gradient_clip is None or self.gradient_clip > 0, "positive or None")
        need("ema_decay", self.ema_decay is None or 0 <= self.ema_decay < 1, "in [0, 1) or None")
        need("seed", self.seed >= 0, "a non-negative integer")
        need("checkpoint_every", self.checkpoint_every >= 1, "at least 1")
        need("devices", self.devices >= 1, "at least 1")
        need("num_nodes", self.num_nodes >= 1, "at least 1")
        # The moving average and the one-file checkpoint need the whole weights in every process.
        sharded = any(word in self.strategy for word in ("fsdp", "deepspeed", "model_parallel"))
        need("strategy", not sharded, "one that keeps whole weights in every process, such as 'auto' or 'ddp'")

    def as_dict(self) -> dict[str, Any]:
        """The settings as a JSON-able dict."""
        return asdict(self)


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
    free = {"checkpoint_every", "accelerator", "devices", "num_nodes", "strategy"}
    names = [f.name for f in fields(FitSettings) if f.name not in free]
    return [
        f"{name}={saved.get(name)!r} in the checkpoint, {getattr(settings, name)!r} now"
        for name in names
        if saved.get(name) != getattr(settings, name)
    ]
