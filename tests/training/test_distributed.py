"""Two processes with gloo do what one process does with the whole batch."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, plain_loss, toy_batches, toy_model

from elf.training import fit, load_weights
from elf.training.loop import set_up
from elf.training.state import Run

SCRIPT = Path(__file__).with_name("toy_ddp.py")


def test_processes_exchange_losses_and_wishes_every_25_steps(monkeypatch):
    """In one process that takes itself for one of many: losses are read, and wishes heard, at 25, 50 and the end."""
    monkeypatch.setattr(Run, "distributed", property(lambda run: True))
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1000)

    def train(*callbacks):
        return fit(toy_model(0, dropout=0.0), plain_loss, toy_batches(), settings, callbacks=callbacks)

    known = []
    record = train(lambda state: known.append(len(state.losses)))
    assert known == [step // 25 * 25 for step in range(1, 61)]
    assert len(record.history) == record.steps == 60
    assert train(lambda state: state.stop() if state.step == 30 else None).steps == 50


def test_a_process_alone_knows_all_of_its_losses():
    state = set_up(toy_model(), SETTINGS).state
    state.note_loss(torch.tensor(2.0), 0.1)
    state.end_step()
    assert [entry["loss"] for entry in state.record.history] == [2.0]


def test_two_processes_equal_one(tmp_path):
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), "2", str(tmp_path)],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2]), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    pair = nn.ModuleList([toy_model(3), toy_model(4)])
    about = load_weights(tmp_path / "final.safetensors", pair)
    assert about["sizes"] == [8]
    # Asked to stop at step 10 in one process, both stop at the next exchange.
    assert about["first"] == 25

    one = fit(toy_model(0, dropout=0.0), plain_loss, toy_batches(), SETTINGS)
    assert about["losses"] == pytest.approx([h["loss"] for h in one.history], rel=1e-4)
    for two, whole in ((pair[0], one.model), (pair[1], one.ema_model)):
        for a, b in zip(two.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
