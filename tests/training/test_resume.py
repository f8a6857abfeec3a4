"""A killed run, resumed, ends where an uninterrupted one ends, to the last bit."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, noisy_loss, plain_loss, toy_batches, toy_model, train

from elf import files
from elf.training import checkpoint as ckpt
from elf.training import fit, load_weights, loop, save_weights, shuffled_batches

SCRIPT = Path(__file__).with_name("toy_training.py")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def start(mode: str, *paths: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), mode, *map(str, paths)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])},
    )


def test_killed_twice_once_in_the_middle_of_a_save(tmp_path):
    checkpoint, final = tmp_path / "run.safetensors", tmp_path / "final.safetensors"
    for mode, line in (("announce", "step 24"), ("half a save", "half written")):
        with start(mode, checkpoint, final) as process:
            assert process.stdout.readline().strip() == line
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    assert files.load_tensors(checkpoint, ckpt.FORMAT)[1]["step"] == 35
    assert not final.exists()
    with start("to the end", checkpoint, final) as process:
        assert process.communicate()[0].strip() == "history 60"
        assert process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final.safetensors", "run.safetensors"]

    uninterrupted = train()
    found = nn.ModuleList([toy_model(seed=7), toy_model(seed=8)])
    load_weights(final, found)
    assert same(found[0], uninterrupted.model)
    assert same(found[1], uninterrupted.ema_model)
    assert not same(found[0], found[1])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_stopped_and_resumed_in_one_process(tmp_path, dropout):
    def stop(state):
        if state.step == 11:
            state.stop()

    whole = fit(toy_model(dropout=dropout), noisy_loss, toy_batches(), SETTINGS)
    path = tmp_path / "run.safetensors"
    first = fit(toy_model(dropout=dropout), noisy_loss, toy_batches(), SETTINGS, checkpoint=path, callbacks=[stop])
    assert (first.steps, len(first.history), first.interrupted) == (11, 11, False)
    second = fit(toy_model(seed=5, dropout=dropout), noisy_loss, toy_batches(), SETTINGS, checkpoint=path)
    assert same(second.model, whole.model)
    assert same(second.ema_model, whole.ema_model)
    assert [h["loss"] for h in second.history] == [h["loss"] for h in whole.history]
    assert [h["step"] for h in second.history] == list(range(60))
    seconds = [h["seconds"] for h in second.history]
    assert seconds == sorted(seconds)
    assert second.seconds >= seconds[-1] > first.history[-1]["seconds"]


def test_finished_run_is_not_trained_again(tmp_path):
    path = tmp_path / "run.safetensors"
    first = train(checkpoint=path)

    def never(*_):
        raise AssertionError("a finished run asked for a batch or a loss")

    again = fit(toy_model(seed=9), never, never, SETTINGS, checkpoint=path)
    assert same(first.model, again.model)
    assert again.history == first.history


def test_resume_false_starts_anew(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    calls = []
    train(checkpoint=path, resume=False, callbacks=[lambda state: calls.append(state.step)])
    assert calls == list(range(1, 61))


def test_batch_norm_buffers_and_tied_weights_resume(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.norm(self.a(x))).sum(1, keepdim=True)

    def tied(seed):
        torch.manual_seed(seed)
        return Tied()

    def stop(state):
        if state.step == 10:
            state.stop()

    with torch.random.fork_rng():
        whole = fit(tied(0), noisy_loss, toy_batches(), SETTINGS)
        path = tmp_path / "run.safetensors"
        fit(tied(0), noisy_loss, toy_batches(), SETTINGS, checkpoint=path, callbacks=[stop])
        resumed = fit(tied(1), noisy_loss, toy_batches(), SETTINGS, checkpoint=path)
    assert same(resumed.model, whole.model)
    assert same(resumed.ema_model, whole.ema_model)
    assert resumed.model.norm.num_batches_tracked == 60
    assert resumed.model.b.weight is resumed.model.a.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 2e-2}, "learning_rate=0.01 in the checkpoint, 0.02 now"),
        ({"steps": 80}, "steps=60 in the checkpoint, 80 now"),
        ({"ema_decay": None}, "ema_decay=0.9 in the checkpoint, None now"),
        ({"precision": "bf16-mixed"}, "precision='32-true' in the checkpoint, 'bf16-mixed' now"),
    ],
)
def test_other_settings(tmp_path, change, message):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=re.escape(message)):
        train(dataclasses.replace(SETTINGS, **change), checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_from_before_there_was_compile_is_of_one_without(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "compiled", lambda model: model)
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    assert files.load_tensors(path, ckpt.FORMAT)[1]["settings"]["compile"] is False
    tensors, about = files.load_tensors(path, ckpt.FORMAT)
    del about["settings"]["compile"]
    files.save_tensors(path, tensors, about, format=ckpt.FORMAT)
    assert train(checkpoint=path).steps == 60
    with pytest.raises(ValueError, match="compile=False in the checkpoint, True now"):
        train(dataclasses.replace(SETTINGS, compile=True), checkpoint=path)


def test_checkpoint_every_may_change(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    assert train(dataclasses.replace(SETTINGS, checkpoint_every=50), checkpoint=path).steps == 60


def test_other_model(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    with pytest.raises(ValueError, match=r"another run.*0\.weight is \(16, 3\) in the file, \(8, 3\) in the model"):
        fit(toy_model(width=8), noisy_loss, toy_batches(), SETTINGS, checkpoint=path)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    elif how == "one bit":
        content[-100] ^= 1
    elif how == "text":
        content = bytearray(b"these are not the weights you are looking for")
    elif how == "header":
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"] = {"elf": "no json"}
        text = json.dumps(header).encode()
        content = bytearray(struct.pack("<Q", len(text)) + text + content[8 + length :])
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit", "text", "header"])
def test_damaged_checkpoint(tmp_path, how):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    damage(path, how)
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged"):
        train(checkpoint=path)


def test_foreign_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    save_weights(path, toy_model(), {})
    with pytest.raises(ValueError, match=r"format 'elf\.weights/2'; it should have 'elf\.training\.checkpoint/2'"):
        train(checkpoint=path)


def test_disk_full_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    write, saves = files._write_new, []

    def full_at_third(target, content):
        saves.append(target)
        if len(saves) == 3:
            target.write_bytes(content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(target, content)

    monkeypatch.setattr(files, "_write_new", full_at_third)
    with pytest.raises(OSError, match=r"cannot write .*run\.safetensors: no space left.*is intact") as caught:
        train(checkpoint=path)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    assert files.load_tensors(path, ckpt.FORMAT)[1]["step"] == 14
    assert same(train(checkpoint=path).model, train().model)


def test_weights_round_trip(tmp_path):
    path = tmp_path / "small.safetensors"
    model = toy_model(seed=2)
    digest = save_weights(path, model, {"settings": {"steps": 3}})
    files.check_sha256(path, digest)
    other = toy_model(seed=4)
    metadata = load_weights(path, other)
    assert same(model, other)
    assert metadata["settings"] == {"steps": 3}
    with pytest.raises(ValueError, match=r"another Sequential: 0\.weight is \(16, 3\) in the file"):
        load_weights(path, toy_model(width=4))
    damage(path, "one bit")
    with pytest.raises(ValueError, match="has SHA-256"):
        files.check_sha256(path, digest)
    with pytest.raises(ValueError, match="damaged"):
        load_weights(path, other)
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        load_weights(tmp_path / "absent.safetensors", other)


def test_checkpoint_holds_no_pickle_and_no_path(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(toy_model(), plain_loss, toy_batches(), dataclasses.replace(SETTINGS, steps=7), checkpoint=path)
    tensors, metadata = files.load_tensors(path, ckpt.FORMAT)
    assert metadata["settings"]["learning_rate"] == 1e-2
    assert str(tmp_path) not in json.dumps(metadata)
    assert {"model.0.weight", "ema.0.weight", "optimizer.0.weight.exp_avg", "random.0", "history.loss"} <= set(tensors)


def test_batches_do_not_depend_on_what_was_asked_before():
    a, b = shuffled_batches(50, 8, seed=5), shuffled_batches(50, 8, seed=5)
    forward = [a(step) for step in range(20)]
    backward = [b(step) for step in reversed(range(20))][::-1]
    assert all(torch.equal(x, y) for x, y in zip(forward, backward, strict=True))
