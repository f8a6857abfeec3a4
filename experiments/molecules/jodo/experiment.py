"""JODO with the pair energy (Table 3): "table3", and "jodo_rates", its learning rates on a seed of their own.

One network that draws atoms, bonds and positions together, trained at equal compute with four losses on positions: MSE
after turning the target onto the noisy molecule (JODO's own), the pair energy with inverse and exponential springs, and
MSE. The mathematics is JODO's at every scale; what differs is in `Settings`: size, steps, no dropout, a larger first
stride, times within the sampler's range, energies as loud as MSE. At all scales AdamW has no amsgrad, and clipping and
averaging are the repository's. The gpu scale is an estimate, not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elf.checks import require_seed
from elf.data.batching import bucketed_batches
from elf.generative.samplers import draw_counts
from elf.metrics.molecules import canonical_smiles, evaluate
from elf.scales import nearest
from elf.training import FitSettings, TrainRecord, fit, save_weights
from experiments.framework.experiment import Callbacks, Cell, Experiment, Row
from experiments.framework.tables import mean_table, rounded, summarise_by, text_table
from experiments.molecules.jodo.data import Graphs, charges_of, load
from experiments.molecules.jodo.diffusion import (
    BOND_WEIGHT,
    POSITION_LOSSES,
    Cosine,
    Encoding,
    JointDiffusion,
    joint_loss,
    position_loss,
)
from experiments.molecules.jodo.metrics import all_figures, graph_figures
from experiments.molecules.jodo.network import GraphTransformer
from experiments.molecules.jodo.poses import pose_figures, turning_changes
from experiments.molecules.jodo.sampling import Method, sample_graphs
from experiments.molecules.paper_tables import table_3_lines
from experiments.molecules.small import loss_curve


@dataclass(frozen=True)
class Settings:
    """One scale.

    Attributes:
        losses: names of `diffusion.POSITION_LOSSES`; a cell for each of them and of `rates`.
        steps, epochs: of training; epochs count where there are any.
        samples, method, sampler_steps: molecules drawn from each network, see `sampling.sample_graphs`.
        changes: what else is tried when molecules are drawn, one at a time, with the same noise, see `sample_graphs`.
        heavy_atoms, atoms: inclusive ranges of the molecules taken from QM9.
        channels, heads, extra_heads, layers, dropout, stride: of the network.
        conditioned, bond_weight: see `diffusion.joint_loss`.
        within: whether training times are those of the sampler, see `diffusion.Cosine`.
        first_seed: the seeds are first_seed, first_seed + 1, ...
        reference: molecules of the test split that samples are compared with, at most.
        probed: molecules of the validation split that `poses` looks at.
    """

    losses: tuple[str, ...]
    samples: int
    steps: int = 0
    epochs: int = 0
    rates: tuple[float, ...] = (2e-4,)
    heavy_atoms: tuple[int, int] = (1, 9)
    atoms: tuple[int, int] = (3, 29)
    batch_size: int = 192
    channels: int = 256
    heads: int = 16
    extra_heads: int = 2
    layers: int = 8
    dropout: float = 0.1
    stride: float = 0.01
    conditioned: float = 0.5
    bond_weight: float = BOND_WEIGHT
    within: bool = True
    warmup_steps: int = 100_000
    schedule: str = "constant"
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    method: Method = "ancestral"
    sampler_steps: int = 1000
    sample_batch: int = 128
    changes: tuple[str, ...] = ("closed_shell", "turned")
    first_seed: int = 0
    reference: int = 10_000
    probed: int = 200


CHANGED = (
    *("atom_stability", "molecule_stability", "connected", "stable_connected"),
    *("graph_stable_atoms", "graph_stable", "graph_saturated", "graph_right", "graph_right_both"),
)
"""The figures that are kept of molecules drawn otherwise, see `Settings.changes`."""
PUBLISHED = ("kabsch", "inverse", "exponential", "mse")
EVEN = ("kabsch", "inverse_even", "exponential_even", "mse")
LAPTOP = Settings(
    losses=EVEN,
    samples=256,
    steps=2400,
    rates=(2e-3,),
    heavy_atoms=(1, 7),
    atoms=(5, 29),
    batch_size=32,
    channels=64,
    heads=8,
    layers=4,
    dropout=0.0,
    stride=0.3,
    warmup_steps=100,
    schedule="cosine",
    ema_decay=0.998,
    sampler_steps=50,
    sample_batch=64,
    reference=2000,
)
SETTINGS = {
    "smoke": replace(
        LAPTOP,
        losses=("kabsch", "inverse_even"),
        heavy_atoms=(1, 5),
        steps=3,
        samples=4,
        batch_size=4,
        channels=16,
        heads=4,
        layers=2,
        warmup_steps=1,
        sampler_steps=3,
        reference=20,
        probed=8,
    ),
    "live": replace(LAPTOP, losses=("kabsch", "inverse_even"), steps=300, samples=64),
    "laptop": LAPTOP,
    "gpu": Settings(
        losses=EVEN,
        samples=2000,
        epochs=60,
        channels=128,
        layers=6,
        rates=(5e-4,),
        warmup_steps=2000,
        schedule="cosine",
        sampler_steps=200,
    ),
    "paper": Settings(losses=PUBLISHED, samples=10_000, steps=1_500_000, within=False, gradient_clip=10.0),
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "table3": ("atoms, bonds and positions together: MSE, turned MSE, pair energies (Table 3)", {}),
    "jodo_rates": (
        "JODO: learning rates for each loss, short runs on a seed of their own",
        {"rates": (1e-3, 2e-3, 4e-3), "steps": 400, "samples": 128, "changes": (), "first_seed": 10},
    ),
}
"""Experiment -> its title, and what it has of its own at laptop scale."""


def settings_of(name: str, scale: str) -> Settings:
    """The settings of one of the `VARIANTS`."""
    own = VARIANTS[name][1]
    found = nearest(SETTINGS, scale)
    return replace(found, **own) if scale == "laptop" else replace(found, first_seed=own.get("first_seed", 0))


@cache
def training_set(settings: Settings) -> tuple[Graphs, frozenset[str]]:
    """The training molecules with their bonds, and their canonical SMILES."""
    graphs, molecules = load(settings.heavy_atoms, settings.atoms, "train")
    return graphs, canonical_smiles(molecules.smiles)


@cache
def probes(settings: Settings) -> Graphs:
    """Molecules of the validation split."""
    return load(settings.heavy_atoms, settings.atoms, "validation", limit=settings.probed)[0]


def make_model(settings: Settings, seed: int) -> JointDiffusion:
    """An untrained model; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoding = Encoding()
        network = GraphTransformer(
            atom_channels=encoding.atom_channels,
            bond_channels=encoding.bond_channels,
            channels=settings.channels,
            heads=settings.heads,
            extra_heads=settings.extra_heads,
            layers=settings.layers,
            dropout=settings.dropout,
            stride=settings.stride,
        )
    return JointDiffusion(network, Cosine(within=settings.within), encoding)


def train(
    settings: Settings,
    loss: str,
    *,
    seed: int,
    learning_rate: float | None = None,
    checkpoint: Path | None = None,
    callbacks: Callbacks = (),
) -> TrainRecord:
    """Train with this loss on positions; weights, batches, times and noise are the same for all losses of a seed."""
    graphs, _ = training_set(settings)
    rows, placed = bucketed_batches(graphs.counts, settings.batch_size, seed), position_loss(loss)
    steps = settings.epochs * (len(graphs) // settings.batch_size) if settings.epochs else settings.steps

    def batch(step: int) -> dict[str, Tensor]:
        return vars(graphs[rows(step)].trimmed())

    def objective(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        own = Graphs(**batch)
        parts = joint_loss(
            model,
            placed,
            Encoding().encode(own),
            own.mask,
            generator,
            conditioned=settings.conditioned,
            bond_weight=settings.bond_weight,
        )
        return parts.positions + parts.atoms + parts.bonds

    fit_settings = FitSettings(
        steps=steps,
        learning_rate=learning_rate or settings.rates[0],
        warmup_steps=min(settings.warmup_steps, steps),
        schedule=settings.schedule,
        gradient_clip=settings.gradient_clip,
        ema_decay=settings.ema_decay,
        seed=seed,
        checkpoint_every=min(2000, max(100, steps // 20)),
    )
    return fit(make_model(settings, seed), objective, batch, fit_settings, checkpoint=checkpoint, callbacks=callbacks)


def sample(
    model: JointDiffusion, settings: Settings, *, n: int | None = None, seed: int = 0, **changes: bool
) -> Graphs:
    """Molecules from a trained model, with sizes and charges of the training set; `changes` are `sample_graphs`'."""
    graphs, _ = training_set(settings)
    device = next(model.parameters()).device
    return sample_graphs(
        model,
        draw_counts(graphs.counts, n or settings.samples, seed),
        torch.Generator(device).manual_seed(require_seed("seed", seed)),
        method=settings.method,
        steps=settings.sampler_steps,
        batch_size=settings.sample_batch,
        charges=charges_of(graphs),
        **changes,
    )


def measure(settings: Settings, graphs: Graphs) -> dict[str, Any]:
    """All figures of molecules."""
    _, known = training_set(settings)
    return all_figures(graphs, known, heavy_atoms=settings.heavy_atoms, atoms=settings.atoms, n=settings.reference)


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train, draw, measure; or, for the loss "data", measure as many molecules of the training set."""
    if cell["loss"] == "data":
        graphs, _ = training_set(settings)
        generator = torch.Generator("cpu").manual_seed(cell["seed"])
        chosen = torch.randperm(len(graphs), generator=generator, device="cpu")[: settings.samples]
        return rounded(measure(settings, graphs[chosen]))
    record = train(
        settings,
        cell["loss"],
        seed=cell["seed"],
        learning_rate=cell["learning_rate"],
        checkpoint=workdir / "training.safetensors",
        callbacks=callbacks,
    )
    model = record.ema_model
    assert isinstance(model, JointDiffusion)
    save_weights(workdir / "weights.safetensors", model, {"cell": str(cell)})
    figures = measure(settings, sample(model, settings, seed=cell["seed"]))
    for change in settings.changes:
        drawn = sample(model, settings, seed=cell["seed"], **{change: True})
        found = {**evaluate(drawn.positions, drawn.numbers.long()), **graph_figures(drawn, ())[0]}
        figures |= {f"{change}:{figure}": found[figure] for figure in CHANGED}
    probed, base = probes(settings), cell["loss"].removesuffix("_even")
    figures = rounded({**figures, **pose_figures(model.cpu(), probed, cell["seed"])})
    if f"{base}_turned" in POSITION_LOSSES:
        network = record.model.cpu()
        assert isinstance(network, JointDiffusion)
        figures["turning_changes"] = float(f"{turning_changes(network, probed, base, cell['seed']):.2g}")
    curve = loss_curve([row["loss"] for row in record.history])
    return {**figures, "seconds": round(record.seconds, 1), "loss_curve": curve}


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """For every seed the data themselves, then a run for each loss and learning rate."""
    return [
        {"loss": loss, "learning_rate": rate, "seed": settings.first_seed + seed}
        for seed in range(seeds)
        for loss, rates in [("data", (0.0,)), *((loss, settings.rates) for loss in settings.losses)]
        for rate in rates
    ]


KEYS = ("loss", "learning_rate")
"""What tells the rows of the table apart."""
NAMES = {
    "data": "QM9, training molecules",
    "mse": "MSE",
    "kabsch": "MSE, target turned (JODO's own)",
    **{f"inverse{end}": "energy, inverse springs" for end in ("", "_even")},
    **{f"exponential{end}": "energy, exponential springs" for end in ("", "_even")},
}
"""What the tables call the losses."""
GRAPH_COLUMNS = {
    "graph_stable_atoms": ("2D stable atoms (%)", 1, 100),
    "graph_stable": ("2D stable (%)", 1, 100),
    "graph_saturated": ("2D saturated (%)", 1, 100),
    "graph_completeness": ("2D complete (%)", 1, 100),
    "graph_fcd": ("2D FCD", 2, 1),
    "graph_right": ("2D right (%)", 1, 100),
    "graph_contradicted": ("contradicted by 3D (%)", 1, 100),
    "graph_right_both": ("right in both (%)", 1, 100),
    **{
        f"{change}:{figure}": (f"{'3D' if figure[0] == 'm' else '2D'} {words} (%), {told}", 1, 100)
        for change, told in (("closed_shell", "even electrons"), ("turned", "turned"))
        for figure, words in (("molecule_stability", "stable"), ("graph_right", "right"))
    },
    "placed@0.3": ("error at t = 0.3 (Å)", 2, 1),
    "turned@0.3": ("after a turn (Å)", 2, 1),
}
"""Figure -> its heading, digits, factor: what the bonds that were drawn say, and `poses`."""


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Mean and standard deviation over networks."""
    return summarise_by(rows, *KEYS)


def table(result: dict[str, Any]) -> str:
    """From distances, ours (mean over networks) above the paper's; then from the bonds drawn, ± over networks."""
    rows = [{**row, "loss": NAMES.get(row["loss"], row["loss"])} for row in result["summary"]]
    lines = table_3_lines([(f"ours, {row['loss']} ({row['n']})", row) for row in rows])
    settings = result["settings"]
    turned = [f"{row['loss']} {row['turning_changes']['mean']:.1g}" for row in rows if "turning_changes" in row]
    return (
        f"{text_table(lines)}\n\n{mean_table(rows, KEYS, GRAPH_COLUMNS)}\nours: {result['scale']} scale, "
        f"{settings['layers']} layers x {settings['channels']}, {settings['samples']} molecules a network of up to "
        f"{settings['heavy_atoms'][1]} heavy atoms (FCD and MMD fall with their number); paper: 8 x 256, 1.5 million "
        "steps, 10,000 molecules; QM9 itself, all sizes, by the 3D rules: 99.4, 95.3, 97.7, 97.7\n"
        f"turning the target onto the noisy molecule changes the gradient by, of its norm: {'; '.join(turned) or '-'}"
    )


EXPERIMENTS = {
    name: Experiment(
        name=name,
        title=f"QM9: {title}",
        settings=partial(settings_of, name),
        cells=cells,
        run_cell=run_cell,
        summarise=summarise,
        table=table,
    )
    for name, (title, _) in VARIANTS.items()
}
