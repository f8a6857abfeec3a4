"""What the loss means for a day's work: training steps, sampled molecules, ground states a second, padding saved."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import elf
from benchmarks.timing import interleaved, rounded
from elf.data import qm9
from elf.data.batching import bucketed_batches, padding_share
from elf.data.molecules import Molecules
from elf.data.spin_glass import sample_couplings
from elf.generative.molecules import NoisePredictor, denoising_loss
from elf.generative.samplers import sample_molecules
from elf.models.egnn import EGNN
from elf.spins import ground_state
from elf.training import shuffled_batches
from experiments.molecules import small as experiment

ENERGIES: dict[str, Callable[[], elf.Energy]] = {
    "pair": lambda: elf.PairEnergy(elf.springs.Exponential(k=5.0), normalize="atoms"),
    "mse": lambda: elf.Harmonic(normalize="atoms"),
    "kabsch": lambda: elf.AlignedHarmonic(normalize="atoms"),
}


class Spy:
    """An energy that remembers what it was last called with."""

    def __init__(self, energy: elf.Energy) -> None:
        self.energy = energy

    def __call__(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        self.arguments = prediction.detach(), target, mask
        return self.energy(prediction, target, mask)


def training(tiny: bool = False) -> list[dict[str, Any]]:
    """Steps a second with each loss, and the loss's share, for a laptop's model and for the paper's."""
    settings = experiment.SETTINGS["smoke" if tiny else "laptop"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        paper = NoisePredictor(EGNN(channels=16, layers=2) if tiny else EGNN())
    setups = (
        (
            "laptop",
            experiment.make_denoiser(settings, 0),
            settings,
            settings.batch_size,
            10.0,
        ),
        ("paper", paper, experiment.SETTINGS["paper"], 2 if tiny else 8, 20.0),
    )
    return [_training_row(*setup[:-1], seconds=0.05 if tiny else setup[-1]) for setup in setups]


def _training_row(
    name: str,
    model: nn.Module,
    settings: experiment.Settings,
    batch_size: int,
    seconds: float,
) -> dict[str, Any]:
    molecules = experiment.training_molecules(settings)
    batch = molecules[shuffled_batches(len(molecules), batch_size, 0)(0)].trimmed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    generator = torch.Generator()
    functions: dict[str, Callable[[], object]] = {}
    for kind, make in ENERGIES.items():
        spy = Spy(make())

        def train(spy: Spy = spy) -> None:
            generator.manual_seed(0)
            optimizer.zero_grad()
            sum(denoising_loss(model, spy, batch.positions, batch.numbers.long(), generator)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        def alone(spy: Spy = spy) -> None:
            prediction, target, mask = spy.arguments
            prediction = prediction.requires_grad_()
            torch.autograd.grad(spy.energy(prediction, target, mask).sum(), prediction)

        functions |= {f"{kind} step": train, f"{kind} loss": alone}
    times = {which: found["seconds"] for which, found in interleaved(functions, seconds, least=3).items()}
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "batch": batch_size,
        "atoms": list(settings.atoms),
        "steps_a_second": {kind: rounded(1 / times[f"{kind} step"], 3) for kind in ENERGIES},
        "loss_milliseconds": {kind: rounded(1e3 * times[f"{kind} loss"], 3) for kind in ENERGIES},
        "loss_share": {kind: rounded(times[f"{kind} loss"] / times[f"{kind} step"], 3) for kind in ENERGIES},
    }


def sampling(tiny: bool = False) -> dict[str, Any]:
    """Molecules a second from the laptop's model (its speed does not depend on its weights)."""
    settings = experiment.SETTINGS["smoke" if tiny else "laptop"]
    counts = experiment.training_molecules(settings).counts
    counts = counts[torch.randperm(len(counts), generator=torch.Generator().manual_seed(0))[: 4 if tiny else 256]]
    denoiser = experiment.make_denoiser(settings, 0)
    begin = time.process_time()
    sample_molecules(
        denoiser,
        counts,
        torch.Generator().manual_seed(0),
        steps=settings.sampler_steps,
        churn=settings.sampler_churn,
    )
    seconds = time.process_time() - begin
    return {
        "molecules": len(counts),
        "atoms": list(settings.atoms),
        "steps": settings.sampler_steps,
        "molecules_a_second": rounded(len(counts) / seconds, 3),
    }


def ground_states(tiny: bool = False) -> dict[str, Any]:
    """Exact ground states a second by matching; ground_states.py compares methods."""
    lattices, side = (4, 4) if tiny else (500, 16)
    couplings = sample_couplings(lattices, side, seed=7)
    ground_state(couplings[:2])
    begin = time.process_time()
    ground_state(couplings)
    seconds = time.process_time() - begin
    return {"lattice": [side, side], "ground_states_a_second": round(lattices / seconds)}


def batches(tiny: bool = False) -> list[dict[str, Any]]:
    """Share of padding, and milliseconds to make a batch, with and without buckets."""
    molecules = qm9.load(atoms=(3, 29), split="train")
    molecules = molecules[:500] if tiny else molecules
    sizes = molecules.counts
    rows = []
    for batch_size in (32,) if tiny else (32, 512):
        steps = min(len(molecules) // batch_size, 1_000)
        for name, order in (
            ("shuffled", shuffled_batches(len(molecules), batch_size, 0)),
            ("bucketed", bucketed_batches(sizes, batch_size, 0)),
        ):
            share = padding_share(sizes, map(order, range(steps)))
            begin = time.process_time()
            for step in range(steps):
                _collate(molecules, sizes, order(step))
            seconds = (time.process_time() - begin) / steps
            rows.append(
                {
                    "order": name,
                    "batch": batch_size,
                    "padding_share": rounded(share, 3),
                    "milliseconds_a_batch": rounded(1e3 * seconds, 3),
                }
            )
    return rows


def _collate(molecules: Molecules, sizes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    widest = int(sizes[rows].max())
    return molecules.positions[rows, :widest], molecules.numbers[rows, :widest]
