"""A small training with noise, dropout, clipping and EMA; as a script, one that can be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from elf.training import FitSettings, TrainRecord, fit, save_weights, shuffled_batches

SETTINGS = FitSettings(
    steps=60,
    learning_rate=1e-2,
    warmup_steps=5,
    gradient_clip=0.5,
    ema_decay=0.9,
    seed=3,
    checkpoint_every=7,
    accelerator="cpu",
)


def data(n: int = 96) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return inputs, inputs.sin().sum(1, keepdim=True)


def toy_model(seed: int = 0, width: int = 16, dropout: float = 0.2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, 1))


def noisy_loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    noise = torch.randn(batch["x"].shape, generator=generator, device=batch["x"].device)
    return (model(batch["x"] + 0.1 * noise) - batch["y"]).square().mean()


def plain_loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    return (model(batch["x"]) - batch["y"]).square().mean()


def toy_batches(batch_size: int = 16):
    inputs, targets = data()
    pick = shuffled_batches(len(inputs), batch_size, seed=1)

    def batch(step: int) -> dict[str, Tensor]:
        chosen = pick(step)
        return {"x": inputs[chosen], "y": targets[chosen]}

    return batch


def train(settings: FitSettings = SETTINGS, **kwargs) -> TrainRecord:
    return fit(toy_model(), noisy_loss, toy_batches(), settings, **kwargs)


def main(mode: str, checkpoint: str, final: str) -> None:
    torch.set_num_threads(1)

    def announce(state) -> None:
        if mode == "announce" and state.step == 24:
            print("step 24", flush=True)
            time.sleep(60)

    if mode == "half a save":
        from elf import files

        write = files._write_new

        def half(path: Path, content: bytes) -> None:
            if resumed and record_step[0] >= 42:
                path.write_bytes(content[: len(content) // 2])
                print("half written", flush=True)
                time.sleep(60)
            write(path, content)

        files._write_new = half
    resumed, record_step = Path(checkpoint).exists(), [0]

    def count(state) -> None:
        record_step[0] = state.step + 1

    record = train(checkpoint=checkpoint, callbacks=[announce, count])
    save_weights(final, nn.ModuleList([record.model, record.ema_model]), {"steps": record.steps})
    print("history", len(record.history), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
