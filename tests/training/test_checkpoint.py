"""A checkpoint is the whole truth about a run or no checkpoint: flipped bits, missing parts, impossible numbers."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_training import SETTINGS, noisy_loss, plain_loss, toy_batches, toy_model, train

from elf import files
from elf.training import FitSettings, TrainRecord, fit, load_weights, save_weights
from elf.training.checkpoint import FORMAT, load_run, save_run
from elf.training.loop import set_up

TINY = FitSettings(4, 1e-2, ema_decay=0.9, checkpoint_every=2, accelerator="cpu")


def tiny(**changes: Any) -> tuple[nn.Module, FitSettings]:
    model = nn.Linear(3, 1)
    nn.init.constant_(model.weight, 0.5)
    nn.init.zeros_(model.bias)
    return model, dataclasses.replace(TINY, **changes)


def fit_tiny(path: Path | None, **changes: Any) -> TrainRecord:
    model, settings = tiny(**changes)
    return fit(model, noisy_loss, toy_batches(), settings, checkpoint=path)


def stop_at(step: int) -> Callable[[Any], None]:
    return lambda state: state.stop() if state.step == step else None


@pytest.fixture
def half_way(tmp_path: Path) -> Path:
    """A checkpoint of the tiny run after 2 of its 4 steps."""
    path = tmp_path / "run.safetensors"
    model, settings = tiny()
    fit(model, noisy_loss, toy_batches(), settings, checkpoint=path, callbacks=[stop_at(2)])
    return path


def everything(run: Any) -> list[Any]:
    """All that a checkpoint restores."""
    tensors = [*run.modules.state_dict().values(), *run.random.kept]
    tensors += [v for moments in run.optimizer.state_dict()["state"].values() for _, v in sorted(moments.items())]
    state = run.state
    return [[t.tolist() for t in tensors], state.step, state.losses, state.ended, run.optimizer.state_dict()]


def test_any_flipped_bit_is_refused_or_changes_nothing(half_way):
    content = half_way.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    run = set_up(*tiny())
    accepted, refusals = 0, set()
    with run.random:
        load_run(half_way, run)
        right = repr(everything(run))
        # Every bit of the lengths and the header, and every 97th of the tensors.
        for bit in (*range(8 * end), *range(8 * end, 8 * len(content), 97)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            half_way.write_bytes(flipped)
            try:
                load_run(half_way, run)
            except ValueError as error:
                refusals.add("run.safetensors" in str(error))
            else:
                accepted += 1
                assert repr(everything(run)) == right
    assert refusals == {True}
    assert accepted < 10


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def put(name: str, value: Any) -> Change:
    return lambda tensors, about: about.__setitem__(name, value)


def spoil(name: str, value: float) -> Change:
    return lambda tensors, about: tensors[name].view(-1)[:1].fill_(value)


def drop(name: str) -> Change:
    return lambda tensors, about: tensors.pop(name, None) if name in tensors else about.pop(name)


def swap(name: str, value: Tensor) -> Change:
    return lambda tensors, about: tensors.__setitem__(name, value)


FAULTS: dict[str, tuple[Change, str]] = {
    "step beyond the end": (put("step", 61), "step is 61; it should be between 0 and steps=4"),
    "step below zero": (put("step", -1), "step is -1"),
    "another step": (put("step", 3), r"history.loss is \(2,\) in the file, \(3,\)"),
    "step no integer": (put("step", 2.0), "step is 2.0; it should be of type int"),
    "step a truth": (put("step", True), "step is True"),
    "NaN weights": (spoil("model.weight", math.nan), "model.weight is not finite"),
    "infinite weights": (spoil("model.weight", math.inf), "model.weight is not finite"),
    "NaN average": (spoil("ema.bias", math.nan), "ema.bias is not finite"),
    "NaN moment": (spoil("optimizer.weight.exp_avg", math.nan), "exp_avg is not finite"),
    "NaN loss": (spoil("history.loss", math.nan), "history.loss is not finite"),
    "short history": (swap("history.loss", torch.ones(1).double()), r"history.loss is \(1,\) in the file, \(2,\)"),
    "short times": (swap("history.seconds", torch.ones(0).double()), r"history.seconds is \(0,\)"),
    "no history": (drop("history.loss"), "history.loss is missing"),
    "no moment": (drop("optimizer.weight.exp_avg_sq"), "optimizer.weight.exp_avg_sq is missing"),
    "no count": (drop("optimizer.bias.step"), "optimizer.bias.step is missing"),
    "moment of another shape": (swap("optimizer.bias.exp_avg", torch.ones(2)), r"exp_avg is \(2,\) in the file"),
    "no weight": (drop("model.weight"), "model.weight is missing"),
    "no average": (drop("ema.weight"), "ema.weight is missing"),
    "too much": (swap("model.more", torch.ones(1)), r"model.more is \(1,\) in the file, missing in the model"),
    "no randomness": (drop("random.1"), "random.1 is missing"),
    "short randomness": (swap("random.0", torch.ones(1, 7).byte()), r"random.0 is \(1, 7\)"),
    "randomness of zeros": (lambda tensors, about: tensors["random.0"].zero_(), "state of randomness is refused"),
    "randomness of floats": (
        lambda tensors, about: tensors.update({"random.0": tensors["random.0"].float()}),
        "state of randomness is refused",
    ),
    "a scaler": (put("scaler", {"scale": 2.0}), "scaler is"),
    "an extra state": (put("extra_state", {"model.x": 1}), "model.x is no tensor in the file, missing in the model"),
    **{f"no {key}": (drop(key), f"{key} is None") for key in ("step", "settings", "model", "device", "world_size")},
    "no threads": (drop("threads"), "threads is None"),
    "no list": (put("untouched", "weight"), "untouched is 'weight'; it should be of type list"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_no_run_can_go_on_from_is_refused(half_way, fault):
    change, message = FAULTS[fault]
    tensors, about = files.load_tensors(half_way, FORMAT)
    change(tensors, about)
    files.save_tensors(half_way, tensors, about, format=FORMAT)
    model, settings = tiny()
    before = model.weight.clone()
    with pytest.raises(ValueError, match=f"checkpoint run.safetensors is damaged.*{message}"):
        fit(model, noisy_loss, toy_batches(), settings, checkpoint=half_way)
    assert torch.equal(before, model.weight)


def test_parameters_in_another_order_are_not_mixed_up(tmp_path):
    """Two layers of the same shape: their moments go by name."""

    class Two(nn.Module):
        def __init__(self, *order: str):
            super().__init__()
            for name in order:
                self.add_module(name, nn.Linear(3, 3))
            for i, name in enumerate(sorted(order)):
                nn.init.constant_(self.get_submodule(name).weight, i + 1.0)

        def forward(self, x):
            return (self.a(x) * self.b(x).sigmoid()).sum(1, keepdim=True)

    def end(*order, **kwargs):
        torch.manual_seed(0)
        return fit(Two(*order), plain_loss, toy_batches(), dataclasses.replace(TINY, steps=20), **kwargs).model

    path = tmp_path / "run.safetensors"
    with torch.random.fork_rng():
        whole = end("a", "b").state_dict()
        end("a", "b", checkpoint=path, callbacks=[stop_at(7)])
        resumed = end("b", "a", checkpoint=path).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_parameter_without_gradient_has_no_moments_and_none_is_missed(tmp_path):
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"used": nn.Linear(3, 1), "spare": nn.Linear(3, 1)})

    def loss(model, batch, generator):
        return plain_loss(model.module["used"], batch, generator)

    path = tmp_path / "run.safetensors"
    with torch.random.fork_rng():
        whole = fit(model(), loss, toy_batches(), TINY)
        fit(model(), loss, toy_batches(), TINY, checkpoint=path, callbacks=[stop_at(2)])
        resumed = fit(model(), loss, toy_batches(), TINY, checkpoint=path)
    assert files.load_tensors(path, FORMAT)[1]["untouched"] == ["spare.weight", "spare.bias"]
    assert torch.equal(resumed.model["used"].weight, whole.model["used"].weight)


def test_infinite_masks_are_kept_and_nan_statistics_are_not(tmp_path):
    class Masked(nn.Linear):
        def __init__(self, value):
            super().__init__(3, 1)
            self.register_buffer("mask", torch.full((2,), value))

    path = tmp_path / "run.safetensors"
    for _ in range(2):
        record = fit(Masked(-math.inf), plain_loss, toy_batches(), TINY, checkpoint=path)
    assert record.model.mask.tolist() == [-math.inf] * 2
    with pytest.raises(FloatingPointError, match=r"model\.mask is not finite after step 1"):
        fit(Masked(math.nan), plain_loss, toy_batches(), TINY, checkpoint=tmp_path / "other.safetensors")


def test_overflown_moments_are_never_saved(tmp_path):
    """A square that overflows would hold its weight still for ever after."""

    def loss(model, batch, generator):
        return plain_loss(model, batch, generator) + 1e25 * model(batch["x"]).sum()

    with pytest.raises(FloatingPointError, match="exp_avg_sq is not finite after step 1"):
        fit(nn.Linear(3, 1), loss, toy_batches(), TINY, checkpoint=tmp_path / "run.safetensors")


class Counting(nn.Linear):
    """Keeps what is no tensor in its state."""

    def __init__(self, extra: Any) -> None:
        super().__init__(3, 1)
        nn.init.constant_(self.weight, 0.1)
        nn.init.zeros_(self.bias)
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        if self.training and isinstance(self.extra, dict):
            self.extra["calls"] += 1
        return super().forward(x)

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


@pytest.mark.parametrize(
    "make", [lambda: {"calls": 0, "name": "water"}, lambda: torch.arange(3)], ids=["json", "tensor"]
)
def test_extra_state_is_kept(tmp_path, make):
    path, final = tmp_path / "run.safetensors", tmp_path / "final.safetensors"
    fit(Counting(make()), noisy_loss, toy_batches(), TINY, checkpoint=path, callbacks=[stop_at(2)])
    resumed = fit(Counting(make()), noisy_loss, toy_batches(), TINY, checkpoint=path)
    whole = fit(Counting(make()), noisy_loss, toy_batches(), TINY)
    for a, b in ((resumed.model, whole.model), (resumed.ema_model, whole.ema_model)):
        assert torch.equal(a.weight, b.weight)
        assert str(a.extra) == str(b.extra)
    if isinstance(whole.model.extra, dict):
        assert whole.model.extra["calls"] == whole.ema_model.extra["calls"] == 4
    save_weights(final, resumed.model, {})
    other = Counting(make())
    load_weights(final, other)
    assert str(other.extra) == str(resumed.model.extra)
    with pytest.raises(ValueError, match=r"_extra_state is .* in the file, missing in the model"):
        load_weights(final, nn.Linear(3, 1))


@pytest.mark.parametrize(
    "extra",
    [b"bytes", {1: "a key that JSON makes a string"}, (1, 2), {"x": math.nan}, object()],
    ids=lambda extra: type(extra).__name__,
)
def test_extra_state_that_no_file_holds_is_refused_before_the_first_step(tmp_path, extra):
    def never(step):
        raise AssertionError("a step was begun")

    model = Counting(extra)
    with pytest.raises(ValueError, match=r"_extra_state is a \w+; it should be a tensor, or what JSON gives back"):
        fit(model, noisy_loss, never, dataclasses.replace(TINY, ema_decay=None), checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="_extra_state is a"):
        save_weights(tmp_path / "weights", model, {})
    assert list(tmp_path.iterdir()) == []


def test_a_type_that_no_file_holds_is_refused_before_the_first_step(tmp_path):
    def never(step):
        raise AssertionError("a step was begun")

    model = nn.Linear(3, 1)
    model.register_buffer("turn", torch.ones(2, dtype=torch.complex128))
    with pytest.raises(ValueError, match=r"turn is of torch.complex128; it should be of a type that safetensors knows"):
        fit(model, noisy_loss, never, TINY, checkpoint=tmp_path / "run")


def test_another_number_of_threads_is_said(half_way):
    """The bits of a CPU's sums depend on the number of threads."""
    tensors, about = files.load_tensors(half_way, FORMAT)
    now = torch.get_num_threads()
    assert about["threads"] == now
    files.save_tensors(half_way, tensors, {**about, "threads": now + 1}, format=FORMAT)
    with pytest.warns(UserWarning, match=f"written by a training on {now + 1} threads, which goes on with {now}"):
        fit_tiny(half_way)


def test_settings_of_the_checkpoint_may_be_numpys_or_pythons(half_way):
    assert fit_tiny(half_way, learning_rate=SETTINGS.learning_rate, seed=0).steps == 4


def test_a_finished_step_is_saved_once(tmp_path, monkeypatch):
    saved = []

    def note(path, run):
        saved.append(run.state.step)
        save_run(path, run)

    monkeypatch.setattr("elf.training.loop.save_run", note)
    train(dataclasses.replace(SETTINGS, steps=10, checkpoint_every=5), checkpoint=tmp_path / "run")
    assert saved == [5, 10]
    fit(toy_model(), noisy_loss, toy_batches(), dataclasses.replace(SETTINGS, steps=10), checkpoint=tmp_path / "run")
    assert saved == [5, 10]
