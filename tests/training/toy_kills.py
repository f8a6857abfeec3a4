"""A training in a process of its own, slow enough to be killed anywhere, in the middle of a write too."""

from __future__ import annotations

import dataclasses
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn
from toy_training import SETTINGS, train

from elf import files
from elf.training import save_weights

STEPS = 60
write = files._write_new


def _write_slowly(path: Path, data: bytes) -> None:
    write(path, data[: len(data) // 2])
    time.sleep(0.003)
    with open(path, "ab") as file:
        file.write(data[len(data) // 2 :])


def training(folder: Path, progress: Connection, doomed: bool) -> None:
    """Train and publish the weights, telling of each step; a doomed process then waits for its signal."""
    os.setsid()
    torch.set_num_threads(1)
    if doomed:
        files._write_new = _write_slowly

    def tell(state: object) -> None:
        if doomed:
            progress.send_bytes(b".")
            time.sleep(0.002)

    settings = dataclasses.replace(SETTINGS, steps=STEPS, checkpoint_every=3)
    record = train(settings, checkpoint=folder / "run.safetensors", callbacks=[tell])
    if record.interrupted:
        return
    about = {"losses": [entry["loss"] for entry in record.history]}
    save_weights(folder / "final.safetensors", nn.ModuleList([record.model, record.ema_model]), about)
    if doomed:
        progress.recv_bytes()
