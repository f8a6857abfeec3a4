"""Trains in as many processes as it is told, stopping once on the way; the first process saves the weights."""

from __future__ import annotations

import dataclasses
import sys

import torch
from torch import nn
from toy_training import SETTINGS, plain_loss, toy_batches, toy_model

from elf.data.batching import process_rank
from elf.training import fit, save_weights


def stop_early_on_the_first_process(state) -> None:
    if state.rank == 0 and state.step == 10:
        state.stop()


def main(devices: str, folder: str) -> None:
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, devices=int(devices), strategy="ddp" if devices != "1" else "auto")
    sizes = []

    def loss(model, batch, generator):
        sizes.append(len(batch["x"]))
        return plain_loss(model, batch, generator)

    def train(seed, **kwargs):
        return fit(toy_model(seed, dropout=0.0), loss, toy_batches(), settings, **kwargs)

    checkpoint = f"{folder}/run.safetensors"
    first = train(0, checkpoint=checkpoint, callbacks=[stop_early_on_the_first_process])
    record = train(1, checkpoint=checkpoint)
    # Fabric hands over the user's own module, not DistributedDataParallel's wrapping.
    assert type(record.model) is nn.Sequential
    if process_rank()[0] == 0:
        about = {"first": first.steps, "sizes": sorted(set(sizes)), "losses": [h["loss"] for h in record.history]}
        save_weights(f"{folder}/final.safetensors", nn.ModuleList([record.model, record.ema_model]), about)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
