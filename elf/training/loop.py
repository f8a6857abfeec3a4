"""One training loop for every experiment: plain PyTorch steps on Lightning Fabric."""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from elf.processes import keep_freed_memory
from elf.training.checkpoint import load_run, save_run, split_state
from elf.training.guards import Interrupts, Randomness
from elf.training.settings import FABRIC, FitSettings, learning_rate_at, with_fabric_options
from elf.training.state import Run, TrainRecord, TrainState

SYNC_EVERY = 25
"""Steps between two looks at the losses where each look would make an accelerator (or other processes) wait."""

LossFn = Callable[[nn.Module, Any, torch.Generator], Tensor]
BatchFn = Callable[[int], Any]
Callback = Callable[[TrainState], object]


def make_fabric(settings: FitSettings) -> Any:
    """A launched Lightning Fabric for the settings, silent but for warnings."""
    # Imported here: it takes seconds, and whoever only reads results needs none of it.
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.warnings import PossibleUserWarning

    # Its notes on precision and ranks go to stderr, which a committed notebook should not have.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)  # what it guesses of the machine, such as a use of SLURM
        fabric = Fabric(**{name: getattr(settings, name) for name in FABRIC})
    offered = fabric.strategy.precision.precision
    if offered != settings.precision or (fabric.device.type, offered) == ("mps", "64-true"):
        raise ValueError(
            f"precision is {settings.precision!r}, which Fabric does not offer on {fabric.device.type}; it should be "
            "another, such as 'bf16-mixed' or '32-true'"
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
    """average <- decay * average + (1 - decay) * model on parameters; buffers and extra states are copied."""
    mine = list(average.parameters())
    theirs = [new.to(old.dtype) for old, new in zip(mine, model.parameters(), strict=True)]
    get_ema_multi_avg_fn(decay)(mine, theirs, 0)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)
    for copied, module in zip(average.modules(), model.modules(), strict=True):
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            copied.set_extra_state(copy.deepcopy(module.get_extra_state()))


def compiled(model: nn.Module) -> Any:
    """The model under torch.compile, for Fabric to set up.

    Batches differ in width, so sizes are left open from the first batch on (`dynamic`). A graph for every width would
    take a compilation for each, up to torch's limit of eight, and be run uncompiled after that; left to itself, torch
    fixes the first width and opens the others, so that a resumed training would have another graph for the same step.
    What cannot be traced runs as it is. The molecule networks trace in one graph, and in another below 16 atoms.
    """
    torch.compiler.reset()  # graphs of trainings before this one count against the limit
    return torch.compile(model, dynamic=True)


def set_up(model: nn.Module, settings: FitSettings) -> Run:
    """Everything that a training needs, on its device, before the first step."""
    keep_freed_memory()
    fabric = make_fabric(settings)
    # Fabric compiles its own wrapping and leaves the model as it is: names in files stay, and samplers run as before.
    wrapped = fabric.setup_module(compiled(model) if settings.compile else model)
    ema_model = None
    if settings.ema_decay is not None:
        # Copied now: Fabric may have changed the precision, and DDP broadcast other weights.
        ema_model = copy.deepcopy(model).requires_grad_(False).eval()
    if ema_model is not None and settings.precision == "bf16-true":
        ema_model.float()  # in 8 bits, an average stands still
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("model has no parameters that require gradients; it should have at least one")
    adam = torch.optim.AdamW(
        trainable.values(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=settings.precision != "16-mixed",  # Fabric clips no scaled gradients of a fused optimizer
    )
    state = TrainState(settings, model, ema_model, fabric.global_rank, fabric.world_size > 1)
    random = Randomness(fabric.device, settings.seed, fabric.global_rank)
    return Run(fabric, state, wrapped, trainable, fabric.setup_optimizers(adam), random)


def one_step(run: Run, loss_fn: LossFn, batches: BatchFn, interrupts: Interrupts) -> None:
    """Batch, loss, gradient, clipping, AdamW, average. An interrupt leaves it before the weights change, or after."""
    fabric, state, settings = run.fabric, run.state, run.state.settings
    lr = learning_rate_at(state.step, settings)
    loss = loss_fn(run.wrapped, to_device(batches(state.step), fabric.to_device), run.random.generator)
    state.note_loss(_scalar(loss).detach(), lr)
    wait = run.distributed or fabric.device.type != "cpu"
    if not wait or (state.step + 1) % SYNC_EVERY == 0:
        state.read_losses(run.mean)
    run.optimizer.zero_grad()
    fabric.backward(loss)
    with interrupts.shield():
        if settings.gradient_clip is not None:
            fabric.clip_gradients(run.wrapped, run.optimizer, max_norm=settings.gradient_clip, error_if_nonfinite=False)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        run.optimizer.step()
        if state.ema_model is not None and settings.ema_decay is not None:
            update_average(state.ema_model, state.model, min(settings.ema_decay, (1 + state.step) / (10 + state.step)))
        run.random.keep()
        state.end_step()


def leave(run: Run, interrupts: Interrupts) -> bool:
    """Whether the training is over; processes leave it together, or they would wait for each other for ever."""
    state = run.state
    if state.step == state.steps or not run.distributed:
        return state.step == state.steps or state.stopping
    if state.step % SYNC_EVERY:
        return False
    stopping, state.interrupted = run.anyone(state.stopping, interrupts.asked)
    return stopping or state.interrupted


def save(run: Run, checkpoint: str | Path | None) -> None:
    """Read the losses, and write the checkpoint unless this step's is there."""
    run.state.read_losses(run.mean)
    if checkpoint is not None and run.state.step > run.state.saved:
        save_run(checkpoint, run)
        run.state.saved = run.state.step


def advance(run: Run, loss_fn: LossFn, batches: BatchFn, interrupts: Interrupts, checkpoint: str | Path | None) -> None:
    """One step and, when it is due, its checkpoint."""
    # A step that changes buffers (batch norm) or meets other processes in its middle cannot be left half-way.
    with interrupts.shield(run.distributed or any(True for _ in run.state.model.buffers())):
        one_step(run, loss_fn, batches, interrupts)
    with interrupts.shield():
        if run.state.step % run.state.settings.checkpoint_every == 0:
            save(run, checkpoint)


def fit(
    model: nn.Module,
    loss_fn: LossFn,
    batches: BatchFn,
    settings: FitSettings,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    callbacks: Sequence[Callback] = (),
) -> TrainRecord:
    """Train a model in place with AdamW.

    Killed at any moment and called again with the same arguments and checkpoint, it ends with the very weights of an
    uninterrupted run (on CPU bit for bit at the same number of threads, see torch.set_num_threads). Ctrl-C ends it
    cleanly, with a checkpoint and a record of what there is.

    Args:
        model: its parameters that require gradients are trained; moved to the device of `settings`.
        loss_fn: (model, batch, generator) -> scalar loss. The model it gets is Fabric's wrapping, whose forward does
            autocast and gradient averaging; the generator, on the model's device, is its only source of randomness.
        batches: step -> batch, a function of the step alone (see `shuffled_batches`); tensors in dicts, tuples and
            dataclasses are moved to the device.
        settings: see `FitSettings`. Inside `with fabric_options(...)`, which is how the command line says where to
            compute, its options take the place of the settings' own (accelerator, precision, compile, ...).
        checkpoint: file to save to and, with `resume`, to go on from if it is there.
        resume: False starts anew and overwrites the checkpoint.
        callbacks: called with the `TrainState` after every step; their methods `start(state)` and `finish(state)`,
            if any, before the first step and at the end, whatever ends it.

    Raises:
        FloatingPointError: a loss (or, at a checkpoint, a weight) is not finite; the last checkpoint is kept.
        ValueError: a damaged checkpoint, or one of another model or other settings; the message says what differs.
            Before the first step: a precision that the device does not offer, or a state that no checkpoint can hold.
        OSError: a checkpoint could not be written; the one before is intact.
    """
    settings = with_fabric_options(settings)
    run = set_up(model, settings)
    state = run.state
    if checkpoint is not None:
        split_state(model)  # says now what could not be saved later
    with Interrupts(raises=not run.distributed) as interrupts, run.random, _finishing(run) as started:
        if checkpoint is not None and resume and Path(checkpoint).exists():
            load_run(checkpoint, run)
        run.wrapped.train()
        try:
            for callback in callbacks:
                started.append(callback)
                _tell([callback], "start", state)
            while not leave(run, interrupts):
                advance(run, loss_fn, batches, interrupts, checkpoint)
                _tell(callbacks, "__call__", state)
            interrupts.mute()
        except KeyboardInterrupt:
            interrupts.mute()
            state.interrupted = True
        state.forget_unfinished_step()
        save(run, checkpoint)
        state.interrupted |= interrupts.asked
    return state.record


@contextmanager
def _finishing(run: Run) -> Iterator[list[Callback]]:
    """A list of callbacks to be told of the end, however it comes."""
    started: list[Callback] = []
    try:
        yield started
    finally:
        run.wrapped.eval()
        _tell(started, "finish", run.state)


def _tell(callbacks: Sequence[Callback], method: str, state: TrainState) -> None:
    for callback in callbacks:
        if hasattr(callback, method):
            getattr(callback, method)(state)


def _scalar(loss: object) -> Tensor:
    if isinstance(loss, Tensor) and loss.shape == ():
        return loss
    found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise ValueError(f"loss_fn returned {found}; it should return a scalar tensor, shape ()")
