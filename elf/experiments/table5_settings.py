"""What Table 5 holds fixed: training-set size, temperature, the offsets h0 and w0; and how far the good losses go.

Seed 0 only. Part "best" trains pair and true energy for longer, on gauge-transformed lattices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elf.experiments.base import Experiment
from elf.experiments.table5 import OFFSET, PAPER, SHOWN, SMOKE, TITLES, Training, make_loss, train_and_test
from elf.experiments.table5 import SETTINGS as TABLE5
from elf.experiments.table5 import Settings as Table5Settings
from elf.experiments.tables import format_mean, summarise_by, text_table
from elf.training import save_weights


@dataclass(frozen=True)
class Settings:
    """One scale of the studies.

    Attributes:
        table5: sizes and test sets, as in Table 5.
        study: training of parts "usual", "samples", "temperature" and "offset".
        longer: training of part "longer", margin and local field.
        best: training of part "best", pair and true energy.
        samples: training-set sizes for pair and true energy.
        temperatures: T for the pair energy.
        field_offsets: h0 for the local field.
        pair_offsets: w0 for the pair energy.
    """

    table5: Table5Settings
    study: Training
    longer: Training
    best: Training
    samples: tuple[int, ...]
    temperatures: tuple[float, ...]
    field_offsets: tuple[float, ...]
    pair_offsets: tuple[float, ...]


_LIVE = TABLE5["live"].training
SETTINGS = {
    "smoke": Settings(TABLE5["smoke"], SMOKE, SMOKE, replace(SMOKE, augment=True), (16,), (0.3,), (4.5,), (2.0,)),
    "live": Settings(
        TABLE5["live"], replace(_LIVE, steps=60), _LIVE, replace(_LIVE, augment=True), (300,), (0.4,), (4.5,), (2.0,)
    ),
    "laptop": Settings(
        TABLE5["laptop"],
        study=Training(steps=150, samples=10_000, channels=16),
        longer=Training(steps=1000, samples=10_000, channels=16),
        best=Training(steps=1200, samples=10_000, augment=True),
        samples=(300,),
        temperatures=(0.0, 0.4),
        field_offsets=(0.1, 4.5),
        pair_offsets=(0.05, 2.0),
    ),
    "paper": Settings(
        TABLE5["paper"],
        study=PAPER,
        longer=replace(PAPER, steps=3 * PAPER.steps),
        best=replace(PAPER, steps=3 * PAPER.steps, augment=True),
        samples=(300, 1000, 3000),
        temperatures=(0.0, 0.03, 0.3),
        field_offsets=(0.1, 1.0, 4.5),
        pair_offsets=(0.05, 0.2, 2.0),
    ),
}


def _training(settings: Settings, part: str) -> Training:
    return {"longer": settings.longer, "best": settings.best}.get(part, settings.study)


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """Seed 0 whatever `seeds` says; part "best", which takes longest, comes last."""

    def cell(part: str, loss: str, **changes: Any) -> dict[str, Any]:
        how = _training(settings, part)
        usual = {"samples": how.samples, "augment": how.augment, "temperature": settings.table5.temperature}
        return {"part": part, "loss": loss, **usual, "offset": OFFSET.get(loss, 0.0), "seed": 0, **changes}

    return [
        *(cell("usual", loss) for loss in ("local_field", "pair", "ising")),
        *(cell("samples", loss, samples=n) for n in settings.samples for loss in ("pair", "ising")),
        *(cell("samples", "pair", samples=n, augment=True) for n in settings.samples),
        *(cell("temperature", "pair", temperature=t) for t in settings.temperatures),
        *(cell("offset", "local_field", offset=h0) for h0 in settings.field_offsets),
        *(cell("offset", "pair", offset=w0) for w0 in settings.pair_offsets),
        *(cell("longer", loss) for loss in ("margin", "local_field")),
        *(cell("best", loss) for loss in ("pair", "ising")),
    ]


def run_cell(
    settings: Settings, cell: dict[str, Any], workdir: Path, callbacks: Sequence[Callable[[Any], object]]
) -> dict[str, Any]:
    """Train one network and test it; part "best" also leaves its weights."""
    how = _training(settings, cell["part"])
    largest = max(how.samples, *settings.samples)
    how = replace(how, samples=cell["samples"], augment=cell["augment"])
    loss = make_loss(cell["loss"], cell["temperature"], cell["offset"] or None)
    result, model = train_and_test(settings.table5, how, loss, cell["seed"], workdir, callbacks, largest)
    if cell["part"] == "best":
        save_weights(workdir / "weights.safetensors", model, {"cell": cell, "energy": result["energy"]})
    return result


KEYS = ("part", "loss", "samples", "augment", "temperature", "offset")


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
    title="Spin glasses: data, temperature, offsets, longer training",
    settings=SETTINGS.__getitem__,
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, *KEYS),
    table=table,
)
