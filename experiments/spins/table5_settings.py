"""What Table 5 holds fixed: training-set size, network, temperature, h0 and w0; and how far the good losses go.

Seed 0 only. Part "best" trains a deeper network for longer with pair and true energy, and leaves its weights: those
that come with the repository (`trained`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from elf.data.spin_glass import load
from elf.scales import nearest
from elf.training import save_weights
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.published import Published
from experiments.framework.tables import format_mean, summarise_by, text_table
from experiments.spins.table5 import (
    OFFSET,
    SHOWN,
    SMOKE,
    TEST_SEED,
    TITLES,
    Training,
    build,
    make_loss,
    more_scores,
    train_and_test,
)
from experiments.spins.table5 import SETTINGS as TABLE5
from experiments.spins.table5 import Settings as Table5Settings


@dataclass(frozen=True)
class Settings:
    """One scale of the studies.

    Attributes:
        table5: sizes and test sets, as in Table 5.
        study: training in all parts but "best".
        best: training of part "best", pair and true energy.
        samples: smaller training sets, with and without `augmented`.
        depths: other numbers of layers.
        residual_blocks: of a plain residual network (`SpinResNet`) beside them.
        temperatures: T of pair and true energy.
        field_offsets: h0 of the local field.
        pair_offsets: w0 of the pair energy.
        gauges: in part "best", random gauges of each symmetric image that the best of many predictions is taken from.
    """

    table5: Table5Settings
    study: Training
    best: Training
    samples: tuple[int, ...]
    depths: tuple[int, ...]
    residual_blocks: int
    temperatures: tuple[float, ...]
    field_offsets: tuple[float, ...]
    pair_offsets: tuple[float, ...]
    gauges: int = 8


_LIVE = TABLE5["live"].training
_LAPTOP = TABLE5["laptop"].training
SETTINGS = {
    "smoke": Settings(TABLE5["smoke"], SMOKE, SMOKE, (16,), (1,), 1, (0.3,), (4.5,), (2.0,), gauges=1),
    "live": Settings(TABLE5["live"], replace(_LIVE, steps=60), _LIVE, (300,), (4,), 6, (0.4,), (4.5,), (2.0,)),
    "laptop": Settings(
        TABLE5["laptop"],
        study=replace(_LAPTOP, steps=400),
        best=replace(_LAPTOP, steps=2000, blocks=48),
        samples=(100, 1000),
        depths=(4, 12),
        residual_blocks=6,
        temperatures=(0.0, 0.3, 1.0),
        field_offsets=(0.05, 0.5, 4.5),
        pair_offsets=(0.02, 4.0),
    ),
    "paper": Settings(
        TABLE5["paper"],
        study=replace(_LAPTOP, steps=20_000, channels=128, batch_size=256, learning_rate=1e-3),
        best=replace(_LAPTOP, steps=60_000, channels=128, blocks=64, batch_size=256, learning_rate=1e-3),
        samples=(100, 300, 1000, 3000),
        depths=(4, 8, 16),
        residual_blocks=6,
        temperatures=(0.0, 0.03, 0.3, 1.0),
        field_offsets=(0.05, 0.5, 4.5),
        pair_offsets=(0.02, 0.2, 4.0),
    ),
}


def _training(settings: Settings, part: str) -> Training:
    return settings.best if part == "best" else settings.study


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """Seed 0 whatever `seeds` says; part "best", which takes longest, comes last."""

    def cell(part: str, loss: str, **changes: Any) -> dict[str, Any]:
        how = _training(settings, part)
        usual = {name: getattr(how, name) for name in ("samples", "augment", "network", "blocks")}
        usual |= {"temperature": settings.table5.temperature, "offset": OFFSET.get(loss, 0.0)}
        return {"part": part, "loss": loss, **usual, "seed": 0, **changes}

    few, both = settings.samples, ("pair", "ising")
    return [
        *(cell("usual", loss) for loss in both),
        *(cell("samples", loss, samples=n, augment=False) for n in few for loss in both),
        *(cell("samples", "pair", samples=n) for n in few),
        *(cell("samples", loss, augment=False) for loss in both),
        *(cell("network", "pair", blocks=blocks) for blocks in settings.depths),
        cell("network", "pair", network="residual", blocks=settings.residual_blocks),
        *(cell("temperature", loss, temperature=t) for t in settings.temperatures for loss in both),
        *(cell("offset", "local_field", offset=h0) for h0 in settings.field_offsets),
        *(cell("offset", "pair", offset=w0) for w0 in settings.pair_offsets),
        *(cell("best", loss) for loss in both),
    ]


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train one network and test it; part "best" also tries many gauges, and leaves its weights."""
    how = _training(settings, cell["part"])
    largest = max(how.samples, *settings.samples)
    how = replace(how, **{name: cell[name] for name in ("samples", "augment", "network", "blocks")})
    loss = make_loss(cell["loss"], cell["temperature"], cell["offset"] or None)
    result, model = train_and_test(settings.table5, how, loss, cell["seed"], workdir, callbacks, largest)
    if cell["part"] == "best":
        few = load(-(-settings.table5.evaluated // 5), settings.table5.size, seed=TEST_SEED)
        result |= {k: float(f"{v:.6g}") for k, v in more_scores(model, few, settings.gauges).items()}
        save_weights(workdir / "weights.safetensors", model, {"cell": cell, "energy": result["energy"]})
    return result


KEYS = ("part", "loss", "samples", "augment", "network", "blocks", "temperature", "offset")


def table(result: dict[str, Any]) -> str:
    """Scores as in Table 5, one row for each setting."""
    return text_table(
        [
            {
                **{key: row[key] for key in KEYS},
                "loss": TITLES[row["loss"]],
                **{name: format_mean(row, name, n) for name, n in SHOWN.items()},
            }
            for row in result["summary"]
        ]
    )


EXPERIMENT = Experiment(
    name="table5_settings",
    title="Spin glasses: data, network, temperature, offsets, longer training",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, *KEYS),
    table=table,
)

PUBLISHED: Published[nn.Module] = Published(
    "spins",
    {loss: f"table5_settings.laptop/part=best,loss={loss},*" for loss in ("pair", "ising")},
    "elf reproduce table5_settings --scale laptop",
    lambda: build(SETTINGS["laptop"].best, 0),
)

publish, trained = PUBLISHED.publish, PUBLISHED.trained
