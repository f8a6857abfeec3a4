"""The loop against a loop written by hand, and its promises one by one."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import re
import signal
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import SETTINGS, noisy_loss, plain_loss, toy_batches, toy_model, train

from elf import files
from elf.training import FitSettings, fabric_options, fit, learning_rate_at, shuffled_batches
from elf.training import checkpoint as ckpt


def test_equals_a_loop_by_hand():
    settings = dataclasses.replace(SETTINGS, weight_decay=0.1)
    model = toy_model(dropout=0.0)
    theirs = copy.deepcopy(model)
    record = fit(model, plain_loss, toy_batches(), settings)

    optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.1)
    average = [p.detach().double().clone() for p in theirs.parameters()]
    losses = []
    for step in range(60):
        lr = 1e-2 * (step + 1) / 5 if step < 5 else 1e-2 * math.cos(math.pi / 2 * (step - 5) / 55) ** 2
        optimizer.param_groups[0]["lr"] = lr
        loss = plain_loss(theirs, toy_batches()(step), None)
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in theirs.parameters()))
        for p in theirs.parameters():
            p.grad *= min(1.0, 0.5 / norm)
        optimizer.step()
        decay = min(0.9, (1 + step) / (10 + step))
        average = [
            decay * a + (1 - decay) * p.detach().double() for a, p in zip(average, theirs.parameters(), strict=True)
        ]
        losses.append(loss.item())
        assert record.history[step]["lr"] == pytest.approx(lr, rel=1e-12)

    assert [h["loss"] for h in record.history] == pytest.approx(losses, rel=1e-4)
    for mine, p in zip(record.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, p, rtol=1e-3, atol=1e-5)
    for mine, a in zip(record.ema_model.parameters(), average, strict=True):
        torch.testing.assert_close(mine.double(), a, rtol=1e-3, atol=1e-5)


def test_record():
    model = toy_model()
    record = fit(model, noisy_loss, toy_batches(), SETTINGS)
    assert record.model is model
    assert record.steps == len(record.history) == 60
    assert not record.interrupted
    assert not record.model.training
    assert not record.ema_model.training
    assert not any(p.requires_grad for p in record.ema_model.parameters())
    assert all(p.requires_grad for p in record.model.parameters())
    assert set(record.history[0]) == {"step", "loss", "lr", "seconds"}
    assert sum(h["loss"] for h in record.history[-10:]) < 0.6 * sum(h["loss"] for h in record.history[:10])


def test_same_seed_same_result_and_the_callers_randomness_is_left_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = train()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    second, third = train(), train(dataclasses.replace(SETTINGS, seed=4))
    losses = [[h["loss"] for h in r.history] for r in (first, second, third)]
    assert losses[0] == losses[1] != losses[2]


def test_no_ema_and_float64():
    settings = FitSettings(3, 1e-3, accelerator="cpu", precision="64-true")
    record = fit(toy_model().double(), plain_loss, toy_batches(), settings)
    assert record.ema_model is None
    assert next(record.model.parameters()).dtype == torch.float64


def test_bfloat16_autocast_is_near_float32():
    def seen_dtype(model, batch, generator):
        dtypes.add(model.module[0](batch["x"]).dtype)
        return plain_loss(model, batch, generator)

    dtypes = set()
    inside = set()
    model = toy_model(dropout=0.0)
    model[0].register_forward_hook(lambda module, args, out: inside.add(out.dtype))
    mixed = fit(model, seen_dtype, toy_batches(), dataclasses.replace(SETTINGS, precision="bf16-mixed"))
    full = fit(toy_model(dropout=0.0), plain_loss, toy_batches(), SETTINGS)
    assert torch.bfloat16 in inside
    assert next(mixed.model.parameters()).dtype == torch.float32
    ends = [sum(h["loss"] for h in r.history[-10:]) / 10 for r in (mixed, full)]
    assert ends[0] == pytest.approx(ends[1], rel=0.1)
    assert mixed.history[-1]["loss"] != full.history[-1]["loss"]


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    name: str
    rest: list[torch.Tensor]


def test_batches_of_any_container():
    kinds = []

    def loss_fn(model, batch, generator):
        kinds.append((type(batch), type(batch[0]), type(batch[1]), batch[1].name))
        return (model(batch[0].x) - batch[0].y).square().mean() + batch[1].rest[0].sum()

    def batches(step):
        b = toy_batches()(step)
        return Pair(b["x"], b["y"]), Frozen(b["x"], "water", [b["y"]])

    fit(toy_model(), loss_fn, batches, dataclasses.replace(SETTINGS, steps=5))
    assert kinds == [(tuple, Pair, Frozen, "water")] * 5


def test_loss_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    model = toy_model()

    def loss_fn(model, batch, generator):
        calls.append(1)
        return plain_loss(model, batch, generator) * (math.nan if len(calls) == 18 else 1.0)

    calls = []
    with pytest.raises(FloatingPointError, match=r"the loss of step 17 is nan.*checkpoint"):
        fit(model, loss_fn, toy_batches(), SETTINGS, checkpoint=path)
    assert files.load_tensors(path, ckpt.FORMAT)[1]["step"] == 14
    assert all(p.isfinite().all() for p in model.parameters())


def test_weights_not_finite_are_never_saved(tmp_path):
    path = tmp_path / "run.safetensors"

    def loss_fn(model, batch, generator):
        calls.append(1)
        # The gradient of sqrt at 0 is infinite although its value is finite.
        zero = model(batch["x"]).sum() * 0.0
        return plain_loss(model, batch, generator) + (zero.abs().sqrt() if len(calls) == 14 else 0.0)

    calls = []
    with pytest.raises(FloatingPointError, match=r"model\.0\.weight is not finite after step 13"):
        fit(toy_model(), loss_fn, toy_batches(), SETTINGS, checkpoint=path)
    assert files.load_tensors(path, ckpt.FORMAT)[1]["step"] == 7


@pytest.mark.parametrize(
    ("loss", "message"), [(lambda p: p.sum(1), r"a tensor of shape \(16,\)"), (lambda p: 1.0, "returned float")]
)
def test_loss_not_a_scalar(loss, message):
    with pytest.raises(ValueError, match=message):
        fit(toy_model(), lambda m, b, g: loss(m(b["x"])), toy_batches(), SETTINGS)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="no parameters that require gradients"):
        fit(toy_model().requires_grad_(False), plain_loss, toy_batches(), SETTINGS)


def test_frozen_parameters_stay():
    model = toy_model()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    record = fit(model, noisy_loss, toy_batches(), SETTINGS)
    assert torch.equal(record.model[0].weight, before)
    torch.testing.assert_close(record.ema_model[0].weight, before)


def interrupt(state):
    if state.step == 20:
        signal.raise_signal(signal.SIGINT)


class TestInterrupt:
    def test_between_steps(self, tmp_path):
        path = tmp_path / "run.safetensors"
        record = train(checkpoint=path, callbacks=[interrupt])
        assert (record.steps, len(record.history), record.interrupted) == (20, 20, True)
        resumed, whole = train(checkpoint=path), train()
        assert not resumed.interrupted
        for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("how", ["signal", "exception"])
    def test_inside_the_loss(self, tmp_path, how):
        def loss_fn(model, batch, generator):
            loss = noisy_loss(model, batch, generator)
            calls.append(1)
            if len(calls) == 24:
                if how == "exception":
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGINT)
            return loss

        calls = []
        path = tmp_path / "run.safetensors"
        record = fit(toy_model(), loss_fn, toy_batches(), SETTINGS, checkpoint=path)
        assert (record.steps, len(record.history), record.interrupted) == (23, 23, True)
        resumed, whole = train(checkpoint=path), train()
        for a, b in zip(resumed.ema_model.parameters(), whole.ema_model.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_inside_the_update_waits_for_its_end(self, monkeypatch):
        step = torch.optim.AdamW.step

        def interrupted_step(self, *args, **kwargs):
            signal.raise_signal(signal.SIGINT)
            return step(self, *args, **kwargs)

        model = toy_model()
        before = copy.deepcopy(model)
        monkeypatch.setattr(torch.optim.AdamW, "step", interrupted_step)
        record = fit(model, noisy_loss, toy_batches(), SETTINGS)
        assert (record.steps, record.interrupted) == (1, True)
        assert not torch.equal(model[0].weight, before[0].weight)

    def test_again_during_the_save(self, tmp_path, monkeypatch):
        path = tmp_path / "run.safetensors"
        write = files._write_new

        def impatient(target, content):
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            write(target, content)

        monkeypatch.setattr(files, "_write_new", impatient)
        record = train(dataclasses.replace(SETTINGS, checkpoint_every=1000), checkpoint=path, callbacks=[interrupt])
        assert record.interrupted
        assert files.load_tensors(path, ckpt.FORMAT)[1]["step"] == 20

    def test_during_a_regular_save(self, tmp_path, monkeypatch):
        path = tmp_path / "run.safetensors"
        write = files._write_new

        def impatient(target, content):
            signal.raise_signal(signal.SIGINT)
            write(target, content)

        monkeypatch.setattr(files, "_write_new", impatient)
        record = train(checkpoint=path)
        assert (record.steps, record.interrupted) == (7, True)
        assert files.load_tensors(path, ckpt.FORMAT)[1]["step"] == 7

    def test_before_the_first_step(self, tmp_path):
        def batches(step):
            raise KeyboardInterrupt

        record = fit(toy_model(), noisy_loss, batches, SETTINGS, checkpoint=tmp_path / "run.safetensors")
        assert (record.steps, record.history, record.interrupted) == (0, [], True)

    def test_batch_norm_is_left_between_steps(self):
        def loss_fn(model, batch, generator):
            loss = plain_loss(model, batch, generator)
            signal.raise_signal(signal.SIGINT)
            return loss

        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        record = fit(model, loss_fn, toy_batches(), SETTINGS)
        assert record.steps == record.model[1].num_batches_tracked == 1

    def test_the_handler_of_the_caller_comes_back(self):
        def mine(*_):
            pass

        before = signal.signal(signal.SIGINT, mine)
        try:
            train(callbacks=[interrupt])
            assert signal.getsignal(signal.SIGINT) is mine
        finally:
            signal.signal(signal.SIGINT, before)

    def test_fit_in_a_thread(self):
        records = []
        thread = threading.Thread(target=lambda: records.append(train()))
        thread.start()
        thread.join()
        assert records[0].steps == 60


def test_settings_out_of_range():
    good = {"steps": 10, "learning_rate": 1e-3}
    bad = {
        "steps": 0,
        "learning_rate": -1.0,
        "warmup_steps": 11,
        "schedule": "linear",
        "weight_decay": -0.1,
        "gradient_clip": 0.0,
        "ema_decay": 1.0,
        "seed": -1,
        "checkpoint_every": 0,
        "devices": 0,
        "num_nodes": 0,
        "strategy": "fsdp",
    }
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"FitSettings.{name} is {value!r}"):
            FitSettings(**{**good, name: value})


def unchecked(**values):
    """FitSettings as a user makes them: without the checker of annotations, which is on in tests alone."""
    settings = object.__new__(FitSettings)
    inspect.unwrap(FitSettings.__init__)(settings, **values)
    return settings


NUMBERS = {
    "steps": np.int32(10),
    "learning_rate": np.float32(0.5),
    "warmup_steps": np.int64(3),
    "weight_decay": np.float64(0.25),
    "gradient_clip": np.int8(1),
    "ema_decay": np.float16(0.5),
    "seed": np.uint64(7),
    "checkpoint_every": np.int64(4),
    "devices": np.int64(1),
    "num_nodes": np.int64(1),
}
INTEGERS = ("steps", "warmup_steps", "seed", "checkpoint_every", "devices", "num_nodes")


def test_settings_take_numpys_numbers_and_keep_pythons(tmp_path):
    settings = unchecked(**NUMBERS, accelerator="cpu")
    for name, value in NUMBERS.items():
        kept = getattr(settings, name)
        assert type(kept) is (int if name in INTEGERS else float)
        assert kept == value
    path = tmp_path / "run.safetensors"
    losses = [
        [entry["loss"] for entry in fit(toy_model(), noisy_loss, toy_batches(), s, checkpoint=c).history]
        for s, c in ((settings, path), (settings, path), (FitSettings(**dataclasses.asdict(settings)), None))
    ]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("name", NUMBERS)
def test_settings_that_are_no_numbers_are_refused(name):
    good = {"steps": 10, "learning_rate": 1e-3}
    fractions = (3.0, 2.5, math.nan, np.float64(3.0)) if name in INTEGERS else ()
    required = () if name in ("gradient_clip", "ema_decay") else (None,)
    for value in ("3", b"3", [3], object(), True, np.True_, torch.tensor(3), 1j, *fractions, *required):
        with pytest.raises(TypeError, match=re.escape(f"FitSettings.{name} is {value!r}; it should be a")):
            unchecked(**{**good, name: value})
    if name not in INTEGERS:
        for value in (math.nan, -math.inf, -1e-300, np.float32("nan")):
            with pytest.raises(ValueError, match=re.escape(f"FitSettings.{name} is ")):
                unchecked(**{**good, name: value})


@pytest.mark.parametrize("value", [None, 1, "True", np.True_, torch.tensor(True)], ids=repr)
def test_compile_is_true_or_false(value):
    with pytest.raises(TypeError, match=re.escape(f"FitSettings.compile is {value!r}; it should be True or False")):
        unchecked(steps=10, learning_rate=1e-3, compile=value)


@pytest.mark.parametrize("name", ["schedule", "accelerator", "strategy", "precision"])
def test_settings_that_are_no_names_are_refused(name):
    for value in (None, 3.5, ["auto"], "", "ddp fsdp" if name == "strategy" else 7):
        if not (value == "" and name in ("accelerator", "strategy")):  # Fabric says which names it knows
            with pytest.raises(ValueError, match=re.escape(f"FitSettings.{name} is {value!r}; it should be")):
                unchecked(steps=10, learning_rate=1e-3, **{name: value})


def test_the_first_loss_by_hand():
    """From the definition alone: the seed's streams, the warm-up, the batch of step 0, dropout off."""
    settings = dataclasses.replace(SETTINGS, steps=1, warmup_steps=1)
    start = toy_model(dropout=0.0)
    (w, b), (v, c) = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in (start[0], start[3])]
    mixed = int(np.random.SeedSequence([settings.seed, 0]).generate_state(1)[0])
    inputs = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
    chosen = np.random.default_rng([1, 0]).permutation(96)[:16]
    noise = torch.randn(16, 3, generator=torch.Generator().manual_seed(mixed))
    x = (inputs[chosen] + 0.1 * noise).double()
    hidden = x @ w.T + b
    output = (hidden / (1 + (-hidden).exp())) @ v.T + c
    expected = (output - inputs[chosen].double().sin().sum(1, keepdim=True)).square().mean()

    record = fit(start, noisy_loss, toy_batches(), settings)
    assert record.history[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_first_step_by_hand():
    """One weight, loss g w: clipped gradient, AdamW's first step (lr times the sign) with decay, average."""
    g, w, lr, decay = -3.0, 2.0, 0.01, 0.5
    settings = FitSettings(
        8, 0.08, warmup_steps=8, weight_decay=decay, gradient_clip=0.5, ema_decay=0.7, accelerator="cpu"
    )
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, w)
    seen = []

    def note(state):
        weight = state.model.weight
        seen.append((weight.item(), state.ema_model.weight.item(), state.lr, weight.grad.item()))

    fit(model, lambda m, batch, rng: m(batch).sum(), lambda step: torch.full((1, 1), g), settings, callbacks=[note])
    after = w * (1 - lr * decay) + lr  # against the negative gradient
    assert seen[0] == pytest.approx((after, 0.1 * w + 0.9 * after, lr, -0.5), rel=1e-5)
    again = after * (1 - 2 * lr * decay) + 2 * lr
    average = 2 / 11 * seen[0][1] + 9 / 11 * again
    assert seen[1] == pytest.approx((again, average, 2 * lr, -0.5), rel=1e-5)


def test_a_callback_may_end_the_run_before_its_first_step():
    class Never:
        def start(self, state):
            state.stop()

        def __call__(self, state):
            raise AssertionError("a step was made")

    assert train(callbacks=[Never()]).steps == 0


def test_an_interrupt_while_callbacks_start_ends_the_run_cleanly():
    class Slow:
        def start(self, state):
            signal.raise_signal(signal.SIGINT)

        def __call__(self, state):
            raise AssertionError("a step was made")

        def finish(self, state):
            told.append(state.step)

    told = []
    record = train(callbacks=[Slow()])
    assert (record.steps, record.interrupted, told) == (0, True, [0])


def test_schedule():
    cosine = FitSettings(100, 2.0, warmup_steps=10)
    assert learning_rate_at(0, cosine) == pytest.approx(0.2)
    assert learning_rate_at(9, cosine) == learning_rate_at(10, cosine) == 2.0
    assert learning_rate_at(55, cosine) == pytest.approx(1.0)
    assert 0 < learning_rate_at(99, cosine) < 1e-3
    constant = dataclasses.replace(cosine, schedule="constant")
    assert [learning_rate_at(s, constant) for s in (4, 50, 99)] == [1.0, 2.0, 2.0]
    assert learning_rate_at(9, FitSettings(10, 2.0, warmup_steps=10)) == 2.0


class TestShuffledBatches:
    def test_every_epoch_is_a_permutation(self):
        pick = shuffled_batches(30, 7, seed=0)
        epochs = [torch.cat([pick(4 * e + i) for i in range(4)]) for e in range(3)]
        for epoch in epochs:
            assert len(epoch.unique()) == 28
        assert not torch.equal(epochs[0], epochs[1])
        assert epochs[0].dtype == torch.long

    def test_ranks_share_out_the_batch(self):
        whole = shuffled_batches(30, 8, seed=0)
        parts = [shuffled_batches(30, 8, seed=0, rank=r, world_size=2) for r in range(2)]
        for step in range(9):
            both = torch.cat([part(step) for part in parts])
            assert torch.equal(both.sort().values, whole(step).sort().values)

    def test_seed(self):
        assert not torch.equal(shuffled_batches(30, 8, seed=0)(0), shuffled_batches(30, 8, seed=1)(0))

    def test_whole_set_as_one_batch(self):
        assert torch.equal(shuffled_batches(5, 5, seed=0)(3).sort().values, torch.arange(5))

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"batch_size is 31; it should be between 1 and .* n=30"):
            shuffled_batches(30, 31, seed=0)
        with pytest.raises(ValueError, match="batch_size is 0"):
            shuffled_batches(30, 0, seed=0)
        with pytest.raises(ValueError, match="seed is -1"):
            shuffled_batches(30, 3, seed=-1)
        with pytest.raises(ValueError, match="batch_size=7, rank=0, world_size=2"):
            shuffled_batches(30, 7, seed=0, rank=0, world_size=2)(0)


def test_fabric_options_override_where_not_what():
    with fabric_options(precision="bf16-mixed"):
        inside = fit(toy_model(dropout=0.0), plain_loss, toy_batches(), SETTINGS)
    asked = fit(
        toy_model(dropout=0.0), plain_loss, toy_batches(), dataclasses.replace(SETTINGS, precision="bf16-mixed")
    )
    outside = fit(toy_model(dropout=0.0), plain_loss, toy_batches(), SETTINGS)
    losses = [[h["loss"] for h in r.history] for r in (inside, asked, outside)]
    assert losses[0] == losses[1] != losses[2]
    with pytest.raises(ValueError, match=r"\['steps'\] are unknown"), fabric_options(steps=3):
        pass


def test_overhead_over_a_bare_loop_is_small():
    """A tenth of a second for 60 steps would be felt at 100,000 steps."""
    model, batch = nn.Linear(1, 1), {"x": torch.ones(1, 1), "y": torch.ones(1, 1)}
    settings = FitSettings(300, 1e-3, accelerator="cpu")
    fit(model, plain_loss, lambda step: batch, dataclasses.replace(settings, steps=1))
    optimizer = torch.optim.AdamW(model.parameters())
    begin = time.thread_time()
    for _ in range(300):
        optimizer.zero_grad()
        plain_loss(model, batch, None).backward()
        optimizer.step()
    bare = time.thread_time() - begin
    begin = time.thread_time()
    fit(model, plain_loss, lambda step: batch, settings)
    assert time.thread_time() - begin < 4 * bare + 0.2
