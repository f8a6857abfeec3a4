"""One training loop for every experiment: plain PyTorch steps on Lightning Fabric."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elf.training.checkpoint import Run, load_run, save_run
from elf.training.guards import Interrupts, Randomness
from elf.training.settings import FitSettings, learning_rate_at, with_fabric_options
from elf.training.state import TrainRecord, TrainState

SYNC_EVERY = 25
"""Steps between two looks at the losses where each look would make an accelerator (or other processes) wait."""

LossFn = Callable[[nn.Module, Any, torch.Generator], Tensor]
BatchFn = Callable[[int], Any]


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
        torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    )
    distributed = fabric.world_size > 1
    look_every = SYNC_EVERY if distributed or fabric.device.type != "cpu" else 1
    state = TrainState(settings, model, ema_model, fabric.global_rank, distributed)
    run = Run(fabric, settings, model, ema_model, optimizer.optimizer)
    clip = settings.gradient_clip
    # A step that changes buffers (batch norm) or meets other processes in its middle cannot be left half-way.
    whole_steps = distributed or any(True for _ in model.buffers())

    def mean_over_processes(losses: Tensor) -> Tensor:
        return fabric.all_reduce(losses, reduce_op="mean") if distributed else losses

    def agree(*wishes: bool) -> list[bool]:
        return (fabric.all_reduce(torch.tensor(wishes, device=fabric.device).float(), reduce_op="sum") > 0).tolist()

    with (
        Interrupts(raises=not distributed) as interrupts,
        Randomness(fabric.device, settings.seed, fabric.global_rank) as randomness,
    ):
        saved_at, random_state = 0, randomness.state()

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
            saved_at, random_state = step, randomness.state()
        wrapped.train()
        started: list[Callable[[TrainState], object]] = []
        try:
            try:
                state.begin(state.step, state.losses, state.ended)
                for callback in callbacks:
                    started.append(callback)
                    _tell(callback, "start", state)
                over = state.step == state.steps
                while not over:
                    with interrupts.shield(whole_steps):
                        step, lr = state.step, learning_rate_at(state.step, settings)
                        loss = loss_fn(wrapped, to_device(batches(step), fabric.to_device), randomness.generator)
                        _check_scalar(loss)
                        state.note_loss(loss.detach(), lr)
                        look = (step + 1) % look_every == 0
                        if look:
                            state.read_losses(mean_over_processes)
                        optimizer.zero_grad()
                        fabric.backward(loss)
                        with interrupts.shield():
                            if clip is not None:
                                fabric.clip_gradients(wrapped, optimizer, max_norm=clip, error_if_nonfinite=False)
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
                    stopping = state.stopping
                    if distributed:
                        # Processes leave the loop together or wait for each other for ever.
                        stopping, state.interrupted = (
                            agree(state.stopping, interrupts.asked) if look else (False, False)
                        )
                    over = state.step == state.steps or stopping or state.interrupted
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


def _check_scalar(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.shape != ():
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn returned {found}; it should return a scalar tensor, shape ()")


def _tell(callback: Callable[[TrainState], object], method: str, state: TrainState) -> None:
    if hasattr(callback, method):
        getattr(callback, method)(state)
