"""One training loop for every experiment: plain PyTorch steps on Lightning Fabric."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elf.training.run import Run, load_run, save_run
from elf.training.settings import FitSettings, learning_rate_at, with_fabric_options

SYNC_EVERY = 25
"""Steps between two looks at the losses where each look would make an accelerator (or other processes) wait."""

LossFn = Callable[[nn.Module, Any, torch.Generator], Tensor]
BatchFn = Callable[[int], Any]


@dataclasses.dataclass
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
        self.step, self.steps, self.lr = 0, settings.steps, 0.0
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
        """The record so far; distributed runs know their history up to the latest multiple of SYNC_EVERY steps."""
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
        """Start the clock at a step, with what earlier sessions measured."""
        self.step, self.losses, self.ended = step, losses, ended
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
        losses = reduce(torch.stack(self._unread).float()).tolist()
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


class _Interrupts:
    """Ctrl-C (Jupyter's stop button) raises one KeyboardInterrupt, and none inside a shield: there it waits.

    With `raises` off (several processes) it only sets `asked`, for the processes to agree on where to stop.
    """

    def __init__(self, raises: bool) -> None:
        self.raises, self.asked, self.shielded = raises, False, False

    def __enter__(self) -> _Interrupts:
        # Python lets only the main thread of a process handle signals.
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, self._before or signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self.raises and not again and not self.shielded:
            raise KeyboardInterrupt

    def mute(self) -> None:
        """From now on only note that Ctrl-C was pressed."""
        self.raises = False

    @contextmanager
    def shield(self, on: bool = True) -> Iterator[None]:
        """Let a Ctrl-C wait until the end of the (outermost) block; `on=False` makes no shield."""
        outer, asked = self.shielded, self.asked
        self.shielded = outer or on
        try:
            yield
        finally:
            self.shielded = outer
        if self.raises and self.asked and not asked and not outer:
            raise KeyboardInterrupt


class _Randomness:
    """The loss's generator and the process's own streams (dropout), seeded for one run; the latter given back after."""

    def __init__(self, device: torch.device, seed: int, rank: int) -> None:
        self.device = device
        # Mixed because the CPU generator keeps 32 bits only, and seed + rank would repeat the next seed's rank 0.
        self.seed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def __enter__(self) -> _Randomness:
        self._before = self._streams()
        torch.manual_seed(self.seed)
        return self

    def __exit__(self, *_: object) -> None:
        self._set_streams(self._before)

    def _streams(self) -> list[Tensor]:
        device = [] if self.device.type == "cpu" else [getattr(torch, self.device.type).get_rng_state()]
        return [torch.get_rng_state(), *device]

    def _set_streams(self, states: Sequence[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type != "cpu":
            getattr(torch, self.device.type).set_rng_state(states[1])

    def state(self) -> list[Tensor]:
        return [self.generator.get_state(), *self._streams()]

    def set_state(self, states: Sequence[Tensor]) -> None:
        self.generator.set_state(states[0])
        self._set_streams(states[1:])


def make_fabric(settings: FitSettings) -> Any:
    """A launched Lightning Fabric for the settings, silent but for warnings."""
    # Imported here: it takes seconds, and whoever only reads results needs none of it.
    from lightning_fabric import Fabric

    # Its notes on precision and ranks go to stderr, which a committed notebook should not have.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def to_device(batch: Any, move: Callable[[Any], Any]) -> Any:
    """Apply `move` to every tensor in dicts, lists, (named) tuples and dataclasses, frozen ones too."""
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        parts = {f.name: to_device(getattr(batch, f.name), move) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **parts)
    if isinstance(batch, dict):
        return {key: to_device(value, move) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts_list = [to_device(value, move) for value in batch]
        return type(batch)(*parts_list) if hasattr(batch, "_fields") else type(batch)(parts_list)
    return move(batch) if isinstance(batch, Tensor) else batch


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model on parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)


def fit(
    model: nn.Module,
    loss_fn: LossFn,
    batches: BatchFn,
    settings: FitSettings,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    callbacks: Sequence[Callable[[TrainState], object]] = (),
) -> TrainRecord:
    """Train a model in place with AdamW.

    Killed at any moment and called again with the same arguments and checkpoint, it ends with the very weights of an
    uninterrupted run (bit for bit on CPU). Ctrl-C ends it cleanly, with a checkpoint and a record of what there is.

    Args:
        model: its parameters that require gradients are trained; moved to the device of `settings`.
        loss_fn: (model, batch, generator) -> scalar loss. The model it gets is Fabric's wrapping, whose forward does
            autocast and gradient averaging; the generator, on the model's device, is its only source of randomness.
        batches: step -> batch, a function of the step alone (see `shuffled_batches`); tensors in dicts, tuples and
            dataclasses are moved to the device.
        settings: see `FitSettings`.
        checkpoint: file to save to and, with `resume`, to go on from if it is there.
        resume: False starts anew and overwrites the checkpoint.
        callbacks: called with the `TrainState` after every step; their methods `start(state)` and `finish(state)`,
            if any, before the first step and at the end, whatever ends it.

    Raises:
        FloatingPointError: a loss (or, at a checkpoint, a weight) is not finite; the last checkpoint is kept.
        ValueError: a damaged checkpoint, or one of another model or other settings; the message says what differs.
        OSError: a checkpoint could not be written; the one before is intact.
    """
    settings = with_fabric_options(settings)
    fabric = make_fabric(settings)
    ema_model = None if settings.ema_decay is None else copy.deepcopy(model).requires_grad_(False).eval()
    wrapped = fabric.setup_module(model)
    if ema_model is not None:
        ema_model.to(fabric.device).load_state_dict(model.state_dict())  # DDP may have broadcast other weights
    trainable = [p for p in wrapped.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("model has no parameters that require gradients; it should have at least one")
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    )
    distributed = fabric.world_size > 1
    look_every = SYNC_EVERY if distributed or fabric.device.type != "cpu" else 1
    state = TrainState(settings, model, ema_model, fabric.global_rank, distributed)
    run = Run(fabric, settings, model, ema_model, optimizer.optimizer)
    # A step that changes buffers (batch norm) or meets other processes in its middle cannot be left half-way.
    whole_steps = distributed or any(True for _ in model.buffers())

    def mean_over_processes(losses: Tensor) -> Tensor:
        return fabric.all_reduce(losses, reduce_op="mean") if distributed else losses

    with (
        _Interrupts(raises=not distributed) as interrupts,
        _Randomness(fabric.device, settings.seed, fabric.global_rank) as randomness,
    ):

        def save() -> None:
            nonlocal saved_at
            state.read_losses(mean_over_processes)
            if checkpoint is not None and state.step > saved_at:
                save_run(checkpoint, run, state.step, state.losses, state.ended, random_state)
                saved_at = state.step

        if checkpoint is not None and resume and Path(checkpoint).exists():
            step, losses, ended, states = load_run(checkpoint, run)
            randomness.set_state(states)
            state.begin(step, losses, ended)
        saved_at = state.step
        random_state = randomness.state()
        wrapped.train()
        started: list[Callable[[TrainState], object]] = []
        try:
            try:
                state.begin(state.step, state.losses, state.ended)
                for callback in callbacks:
                    started.append(callback)
                    _tell(callback, "start", state)
                while state.step < state.steps and not state.stopping:
                    with interrupts.shield(whole_steps):
                        step = state.step
                        lr = learning_rate_at(step, settings)
                        loss = loss_fn(wrapped, to_device(batches(step), fabric.to_device), randomness.generator)
                        if not isinstance(loss, Tensor) or loss.shape != ():
                            found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                            raise ValueError(f"loss_fn returned {found}; it should return a scalar tensor, shape ()")
                        state.note_loss(loss.detach(), lr)
                        look = (step + 1) % look_every == 0
                        if look:
                            state.read_losses(mean_over_processes)
                        optimizer.zero_grad()
                        fabric.backward(loss)
                        with interrupts.shield():
                            if settings.gradient_clip is not None:
                                fabric.clip_gradients(
                                    wrapped, optimizer, max_norm=settings.gradient_clip, error_if_nonfinite=False
                                )
                            for group in optimizer.param_groups:
                                group["lr"] = lr
                            optimizer.step()
                            if ema_model is not None and settings.ema_decay is not None:
                                update_average(ema_model, model, min(settings.ema_decay, (1 + step) / (10 + step)))
                            random_state = randomness.state()
                            state.end_step()
                            if state.step % settings.checkpoint_every == 0:
                                save()
                    for callback in callbacks:
                        callback(state)
                    if distributed and look:
                        wishes = torch.tensor([state.stopping, interrupts.asked], dtype=torch.float32)
                        wishes = fabric.all_reduce(wishes.to(fabric.device), reduce_op="sum")
                        state.interrupted = bool(wishes[1] > 0)
                        state.stopping = bool(wishes.sum() > 0)
                interrupts.mute()
            except KeyboardInterrupt:
                interrupts.mute()
                state.interrupted = True
            state.forget_unfinished_step()
            save()
            state.interrupted |= interrupts.asked
        finally:
            wrapped.eval()
            for callback in started:
                _tell(callback, "finish", state)
        return state.record


def _tell(callback: Callable[[TrainState], object], method: str, state: TrainState) -> None:
    if hasattr(callback, method):
        getattr(callback, method)(state)
