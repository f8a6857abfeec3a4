"""What a training run knows about itself while it runs, and what it leaves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elf.checks import widen
from elf.training.guards import Randomness
from elf.training.settings import FitSettings, learning_rate_at


@dataclass
class TrainRecord:
    """What a training run leaves.

    Attributes:
        model: the model given to `fit` itself, trained in place, in eval mode, on its device.
        ema_model: a copy with the averaged weights, in eval mode; None without `ema_decay`.
        history: one dict a finished step: step (from 0), loss, lr, seconds (of training, when the step ended).
        steps: finished steps.
        seconds: seconds of training, over all sessions of a resumed run.
        interrupted: whether a KeyboardInterrupt ended it.
    """

    model: nn.Module
    ema_model: nn.Module | None
    history: list[dict[str, float]]
    steps: int
    seconds: float
    interrupted: bool


class TrainState:
    """What callbacks see, after each step.

    Attributes:
        step, steps: finished steps, and all steps.
        lr: learning rate of the latest step.
        model, ema_model: the user's module (in train mode) and its averaged copy (in eval mode; None without EMA).
        rank: which process this is; 0 where something is to be shown.
    """

    def __init__(
        self, settings: FitSettings, model: nn.Module, ema_model: nn.Module | None, rank: int, distributed: bool
    ) -> None:
        self.settings, self.model, self.ema_model, self.rank = settings, model, ema_model, rank
        self.step, self.steps, self.lr, self.saved = 0, settings.steps, 0.0, 0
        self.interrupted = self.stopping = False
        self.losses: list[float] = []
        self.ended: list[float] = []
        self._unread: list[Tensor] = []
        self._history: list[dict[str, float]] = []
        self._distributed = distributed
        self._first, self._start = (0, 0.0), time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all sessions of a resumed run."""
        return self._first[1] + time.perf_counter() - self._start

    @property
    def seconds_left(self) -> float:
        """Seconds until the end at this session's mean speed; NaN before its first step."""
        done = self.step - self._first[0]
        return (time.perf_counter() - self._start) / done * (self.steps - self.step) if done else math.nan

    @property
    def loss(self) -> float:
        """Loss of the latest step in this process; reading it waits for the device. NaN before the first step."""
        if self._unread:
            return float(self._unread[-1])
        return self.losses[-1] if self.losses else math.nan

    @property
    def record(self) -> TrainRecord:
        """The record so far; distributed runs know their history up to the latest exchange between processes."""
        if not self._distributed:
            self.read_losses()
        for step in range(len(self._history), min(self.step, len(self.losses))):
            lr = learning_rate_at(step, self.settings)
            self._history.append({"step": step, "loss": self.losses[step], "lr": lr, "seconds": self.ended[step]})
        return TrainRecord(self.model, self.ema_model, self._history, self.step, self.seconds, self.interrupted)

    def stop(self) -> None:
        """End the training after this step, with a checkpoint."""
        self.stopping = True

    def begin(self, step: int, losses: list[float], ended: list[float]) -> None:
        """Start the clock at a saved step, with what earlier sessions measured."""
        self.step, self.saved, self.losses, self.ended = step, step, losses, ended
        self._first, self._start = (step, ended[-1] if ended else 0.0), time.perf_counter()

    def note_loss(self, loss: Tensor, lr: float) -> None:
        """Keep the loss of the step under way, on its device."""
        self._unread.append(loss)
        self.lr = lr

    def end_step(self) -> None:
        """Count the step under way as finished."""
        self.step += 1
        self.ended.append(self.seconds)

    def read_losses(self, reduce: Callable[[Tensor], Tensor] = lambda losses: losses) -> None:
        """Fetch the noted losses from the device; FloatingPointError at the first that is not finite."""
        if not self._unread:
            return
        losses = reduce(widen(torch.stack(self._unread))).tolist()
        self._unread.clear()
        for loss in losses:
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss of step {len(self.losses)} is {loss}; training stops, and the last checkpoint, if any, "
                    "is kept. A lower learning_rate, warmup_steps or gradient_clip may help"
                )
            self.losses.append(loss)

    def forget_unfinished_step(self) -> None:
        """Drop the loss of a step that was interrupted before its weights changed."""
        del self._unread[max(0, self.step - len(self.losses)) :]
        del self.losses[self.step :]


@dataclass(frozen=True)
class Run:
    """The parts of a training run."""

    fabric: Any  # Lightning's: devices, precision, processes
    state: TrainState
    wrapped: Any  # Fabric's wrapping of the model, which the loss is given
    trainable: dict[str, nn.Parameter]  # by name, in the optimizer's order
    optimizer: Any  # Fabric's wrapping of AdamW
    random: Randomness

    @property
    def distributed(self) -> bool:
        """Whether other processes take part."""
        return self.fabric.world_size > 1

    @property
    def modules(self) -> nn.ModuleDict:
        """The model and, if there is one, its average."""
        average = self.state.ema_model
        return nn.ModuleDict({"model": self.state.model} | ({} if average is None else {"ema": average}))

    def gather(self, tensor: Tensor) -> Tensor:
        """The processes' 1-d tensors as rows; each has to call it."""
        parts = [tensor.to(self.fabric.device) for _ in range(self.fabric.world_size)]
        if self.distributed:
            torch.distributed.all_gather(parts, parts[0].clone())
        return torch.stack(parts)

    def mean(self, losses: Tensor) -> Tensor:
        """The mean over all processes; each has to call it."""
        return self.fabric.all_reduce(losses, reduce_op="mean") if self.distributed else losses

    def anyone(self, *wishes: bool) -> list[bool]:
        """For each wish, whether any process has it; each has to call it."""
        counts = torch.tensor(wishes, dtype=torch.float32, device=self.fabric.device)
        return (self.fabric.all_reduce(counts, reduce_op="sum") > 0).tolist()
