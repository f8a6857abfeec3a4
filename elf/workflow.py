"""Train on molecules of your own, and sample: what `elf train` and `elf sample` do.

A small version of the paper's molecules (Sec. 4.2): `elf.generative.molecules.KarrasDenoiser` around an equivariant
transformer, any elements, the loss on positions by choice. A run is a folder: `training.safetensors` is its checkpoint,
`weights.safetensors` (averaged weights, and how they came about) its end. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from elf import springs
from elf.checks import require_count, require_one_of, require_seed
from elf.chemistry import read, write
from elf.chemistry.record import Read
from elf.data.batching import bucketed_batches
from elf.data.molecules import Molecules, SmilesList
from elf.elements import PERIODIC_TABLE, VALENCE
from elf.energy import AlignedHarmonic, Energy, Harmonic, HeightEnergy, PairEnergy
from elf.files import load_tensors, locked, require_writable, tensors_sha256, write_atomically
from elf.generative.molecules import KarrasDenoiser, denoising_loss
from elf.generative.samplers import draw_counts, sample_molecules
from elf.generative.schedules import Karras
from elf.geometry.alignment import center
from elf.models.transformer import EquivariantTransformer
from elf.training import FitSettings, ProgressBar, fit, load_weights, save_weights
from elf.training.checkpoint import WEIGHTS_FORMAT

STEPS, BATCH = 500, 16
"""Half a minute on two cores with drug-like molecules."""
NETWORK = {"channels": 64, "heads": 4, "layers": 4, "calm": True}
LEARNING_RATE, EMA_DECAY, GRADIENT_CLIP, WARMUP = 2e-3, 0.998, 1.0, 100
SAMPLER_STEPS, CHURN = 50, 0.4
PICTURED = 8
WRITERS = {".sdf": write.to_sdf, ".xyz": write.to_xyz}

LOSSES: dict[str, Callable[[], Energy]] = {
    "energy": lambda: PairEnergy(springs.Exponential(k=5.0), normalize="atoms"),
    "mse": lambda: Harmonic(normalize="atoms"),
    "kabsch": lambda: AlignedHarmonic(normalize="atoms"),
    "heights": lambda: (
        PairEnergy(springs.Exponential(k=5.0), normalize="atoms") + 0.1 * HeightEnergy(normalize="atoms")
    ),
    "mended": lambda: 0.5 * (0.87 * LOSSES["heights"]()) + 0.5 * LOSSES["kabsch"](),
}
"""Losses on positions: pairs (Eq. 7), mean squared error, the same after alignment, pairs and heights together, and
half of these (as large as pairs alone on noisy molecules) with half Kabsch: notebook 07's mended energy."""


def train(
    path: Path,
    loss: str = "energy",
    *,
    steps: int | None = None,
    run: Path | None = None,
    seed: int = 0,
    largest_piece: bool = False,
) -> int:
    """Train on a file's molecules; the same call after a kill goes on, to the same weights. 130 where interrupted.

    Raises:
        ValueError: nothing in the file can be used; a loss that is none; `run` holds another run.
        OSError: a file cannot be read or written, or another process trains in `run`.
        FloatingPointError: the loss is no longer finite; the last checkpoint is kept.
    """
    require_one_of("loss", loss, tuple(LOSSES))
    steps, seed = require_count("steps", STEPS if steps is None else steps), require_seed("seed", seed)
    found = read.from_file(path, largest_piece=largest_piece)
    print(found, flush=True)
    run = run or Path("runs") / f"{path.stem}.{loss}"
    about = _about(found, loss, steps, seed)
    kinds = ", ".join(PERIODIC_TABLE[number] for number in about["elements"])
    print(f"elements {kinds}; loss {loss}, {steps} steps, in {run}", flush=True)
    with locked(run, "elf train"):
        _require_same(run, about)
        settings = FitSettings(
            steps=steps,
            learning_rate=LEARNING_RATE,
            warmup_steps=min(WARMUP, steps // 3),
            gradient_clip=GRADIENT_CLIP,
            ema_decay=EMA_DECAY,
            seed=seed,
            checkpoint_every=min(100, -(-steps // 10)),
        )
        watch = [ProgressBar(f"training {loss}", lines=10)]
        parts = _denoiser(about), *_task(found, LOSSES[loss](), seed), settings
        record = fit(*parts, checkpoint=run / "training.safetensors", callbacks=watch)
        if record.interrupted:
            print(f"stopped after step {record.steps} of {steps}; the same command goes on from there")
            return 130
        assert record.ema_model is not None
        save_weights(run / "weights.safetensors", record.ema_model, {"run": about})
    print(f"wrote {run / 'weights.safetensors'}; next: elf sample {run}")
    return 0


def _about(found: Read, loss: str, steps: int, seed: int) -> dict[str, Any]:
    """What a run is: all that its weights depend on, and what its samples need."""
    spread, elements, digest = 0.0, set[int](), hashlib.sha256()
    for part in found.batches():
        spread += float(center(part.positions, part.mask).square().sum())
        elements |= set(part.numbers.unique().tolist()) - {0}
        digest.update(tensors_sha256({"positions": part.positions, "numbers": part.numbers}).encode())
    sizes = found.counts.unique(return_counts=True)
    return {
        "file": found.source,
        "data": digest.hexdigest(),
        "loss": loss,
        "steps": steps,
        "seed": seed,
        "elements": sorted(elements),
        "size": round(math.sqrt(spread / (3 * int(found.counts.sum()))), 4),
        "sizes": [[int(size), int(count)] for size, count in zip(*sizes, strict=True)],
        "network": NETWORK,
    }


def _require_same(run: Path, about: dict[str, Any]) -> None:
    """Write down what the run is, or raise ValueError where the folder holds another one."""
    path = run / "run.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else about
        different = [f"{key} {before[key]!r}, not {value!r}" for key, value in about.items() if before[key] != value]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} is damaged; choose another folder by --run") from None
    if different:
        raise ValueError(f"{run} holds a run with {different[0]}; choose another folder by --run")
    write_atomically(path, json.dumps(about).encode())


def _denoiser(about: dict[str, Any]) -> KarrasDenoiser:
    """An untrained network for a run's elements and sizes."""
    size = about["size"]
    schedule = Karras(sigma_data=size, log_mean=-1.0, log_std=1.3, sigma_max=10 * size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(about["seed"])
        network = EquivariantTransformer(len(about["elements"]), size=size, **about["network"])
    return KarrasDenoiser(network, schedule, tuple(about["elements"]))


def _task(found: Read, energy: Energy, seed: int) -> tuple[Callable[..., Tensor], Callable[[int], Any]]:
    """The loss, and the batch of each step."""
    rows = bucketed_batches(found.counts, min(BATCH, len(found)), seed)

    def batch(step: int) -> dict[str, Tensor]:
        part = found.batch(rows(step))
        return {"positions": part.positions, "numbers": part.numbers}

    def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        parts = denoising_loss(model, energy, batch["positions"], batch["numbers"], generator)
        return parts.positions + parts.features

    return loss, batch


def sample(run: Path, n: int = 100, *, output: Path | None = None, seed: int = 0) -> int:
    """Draw molecules from a trained run, with sizes as in its file: SDF or XYZ, and a picture (PNG) of the first.

    Raises:
        FileNotFoundError: the run has no weights yet.
        ValueError: the weights are damaged, or of something else; another ending.
        OSError: the files cannot be written; said before the sampling.
    """
    path, n, seed = run / "weights.safetensors", require_count("n", n), require_seed("seed", seed)
    output = output or run / "samples.sdf"
    require_one_of("the ending of --output", output.suffix, tuple(WRITERS))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; a training that has ended (elf train) writes it")
    about = load_tensors(path, WEIGHTS_FORMAT)[1].get("run")
    if not isinstance(about, dict):
        raise ValueError(f"{path} holds weights of another kind; it should be one that elf train wrote")
    denoiser = _denoiser(about)
    load_weights(path, denoiser)
    require_writable(output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = torch.tensor(about["sizes"], dtype=torch.int64, device="cpu")
    samples = sample_molecules(
        denoiser.to(device),
        draw_counts(sizes[:, 0].repeat_interleave(sizes[:, 1]), n, seed),
        torch.Generator(device).manual_seed(seed),
        steps=SAMPLER_STEPS,
        churn=CHURN,
        closed_shell=set(about["elements"]) <= set(VALENCE),
        batch_size=32,
        progress=_progress(f"sampling {n}"),
    )
    rows = torch.arange(1, n + 1, dtype=torch.int64, device="cpu")
    drawn = Molecules(samples.positions.cpu(), samples.numbers.cpu(), SmilesList.from_strings([""] * n), rows)
    WRITERS[output.suffix](output, drawn)
    picture = output.with_suffix(".png")
    write_atomically(picture, _picture(drawn[:PICTURED]))
    print(f"wrote {output} and {picture}; next: elf evaluate {output} --reference {about['file']}")
    return 0


def _progress(label: str) -> Callable[[int, int], None]:
    """Steps done and time left: one line rewritten in a terminal, five lines elsewhere."""
    begun = monotonic()

    def tell(done: int, total: int) -> None:
        terminal = sys.stdout.isatty()
        if terminal or done * 5 // total > (done - 1) * 5 // total:
            left = round((monotonic() - begun) / done * (total - done))
            ends = "\r" if terminal and done < total else "\n"
            print(f"{label}: step {done}/{total}, {left // 60}:{left % 60:02d} left", end=ends, flush=True)

    return tell


def _picture(molecules: Molecules) -> bytes:
    from elf.viz.molecules import gallery

    positions = [x[real] for x, real in zip(molecules.positions, molecules.mask, strict=True)]
    numbers = [z[z > 0] for z in molecules.numbers]
    titles = [molecules.formula(i) for i in range(len(molecules))]
    return gallery(positions, numbers, titles=titles, width=1000).picture
