"""Where sparse edges lose quality, and why springs that decay slowly help (the end of Sec. 4.3).

Chains that meander through space are perturbed, then pulled back by gradient descent on the pair energy: with all
pairs, with a random globally rigid 6-regular graph, and with that graph plus all near pairs (this one is not in the
paper). All three have the same global minimisers; they differ in what a fixed number of steps can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elf import springs
from elf.energy import PairEnergy
from elf.geometry import align, edge_distances, pairwise_distances
from elf.geometry.graphs import complete_edges
from elf.geometry.rigidity import draw_rigid_graph
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment, grid
from experiments.framework.tables import format_mean, summarise_by, text_table

SPRINGS: dict[str, springs.Spring] = {
    "exponential": springs.Exponential(),
    "inverse_square": springs.InverseSquare(),
    "inverse": springs.Inverse(),
}
EDGES = ("dense", "sparse", "sparse_near")
BOND = 1.5
NEAR = 4.0


@dataclass(frozen=True)
class Settings:
    """Chains a cell, their lengths, the size of the perturbation (angstrom), steps of Adam and their first length."""

    chains: int
    atoms: tuple[int, ...]
    springs: tuple[str, ...] = tuple(SPRINGS)
    edges: tuple[str, ...] = EDGES
    noise: float = 0.5
    steps: int = 300
    learning_rate: float = 0.05


SETTINGS = {
    "smoke": Settings(chains=1, atoms=(12,), steps=3),
    "live": Settings(
        chains=2, atoms=(20, 80), springs=("exponential", "inverse"), edges=("dense", "sparse"), steps=150
    ),
    "laptop": Settings(chains=2, atoms=(20, 40, 80, 160)),
    "paper": Settings(chains=32, atoms=(20, 40, 80, 160, 320, 640), steps=3000),
}


def random_chains(count: int, atoms: int, generator: torch.Generator) -> Float[Tensor, "count atoms 3"]:
    """Chains of bonds of 1.5 angstrom whose direction turns a little at each atom."""
    direction = torch.randn(count, 3, generator=generator)
    steps = []
    for _ in range(atoms - 1):
        direction = torch.nn.functional.normalize(direction, dim=-1)
        steps.append(BOND * direction)
        direction = direction + 0.8 * torch.randn(count, 3, generator=generator)
    return torch.stack([torch.zeros(count, 3), *steps], 1).cumsum(1)


@cache
def rigid_graph(atoms: int, seed: int) -> Int[Tensor, "2 edges"]:
    """A globally rigid 6-regular graph, one for all chains of this length and seed."""
    return draw_rigid_graph(atoms, 3, seed).edges


def edge_list(kind: str, target: Float[Tensor, "atoms 3"], seed: int) -> Int[Tensor, "2 edges"]:
    """Edges of one chain: "dense", "sparse" or "sparse_near"."""
    if kind == "dense":
        return complete_edges(len(target))
    sparse = rigid_graph(len(target), seed)
    if kind == "sparse":
        return sparse
    near = (pairwise_distances(target) < NEAR).triu(1).nonzero().T
    return torch.cat([sparse, near], 1).unique(dim=1)


def restore(
    target: Float[Tensor, "chains atoms 3"], energy: PairEnergy, settings: Settings, generator: torch.Generator
) -> Float[Tensor, "chains atoms 3"]:
    """Perturb the target and descend with Adam, its step decaying to zero along a cosine."""
    noise = torch.randn(target.shape, generator=generator, dtype=target.dtype)
    moving = (target + settings.noise * noise).requires_grad_()
    optimizer = torch.optim.Adam([moving], settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        energy(moving, target).sum().backward()
        optimizer.step()
        schedule.step()
    return moving.detach()


def shape_errors(
    result: Float[Tensor, "chains atoms 3"], target: Float[Tensor, "chains atoms 3"]
) -> tuple[float, float]:
    """Global error: RMSD after the best superposition, mirror images allowed. Local error: the mean change of distances
    below 5 angstrom. Both in angstrom, averaged over chains."""
    aligned = align(result, target, allow_reflection=True)
    rmsd = (aligned - result).square().sum(-1).mean(-1).sqrt().mean()
    rest, now = pairwise_distances(target), pairwise_distances(result)
    near = (rest < 5) & (rest > 0)
    return float(rmsd), float((rest - now)[near].abs().mean())


def held_by(target: Float[Tensor, "atoms 3"], edges: Int[Tensor, "2 edges"], spring: springs.Spring) -> float:
    """How well the worst-held atoms are held: the tenth percentile over atoms of the sum of their spring constants,
    relative to the strongest spring there could be, that of one bond."""
    constants = spring(edge_distances(target, edges))
    total = target.new_zeros(len(target)).index_add(0, edges[0], constants).index_add(0, edges[1], constants)
    return float(total.quantile(0.1) / spring(target.new_tensor(BOND)))


def cells(settings: Settings, seeds: int) -> list[Cell]:
    """One for each length, spring, edge set and seed."""
    return grid(atoms=settings.atoms, springs=settings.springs, edges=settings.edges, seed=range(seeds))


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Errors after the descent; chains, perturbations and graphs depend on length and seed alone."""
    generator = torch.Generator().manual_seed(cell["seed"])
    target = random_chains(settings.chains, cell["atoms"], generator)
    spring = SPRINGS[cell["springs"]]
    lists = [edge_list(cell["edges"], chain, cell["seed"]) for chain in target]
    padded = torch.nn.utils.rnn.pad_sequence([edges.T for edges in lists], batch_first=True, padding_value=-1).mT
    # All pairs at once, without a list, are faster.
    energy = PairEnergy(spring, edges=None if cell["edges"] == "dense" else padded)
    rmsd, local = shape_errors(restore(target, energy, settings, generator), target)
    held = sum(held_by(chain, edges, spring) for chain, edges in zip(target, lists, strict=True)) / len(lists)
    count = sum(edges.shape[1] for edges in lists) / len(lists)
    return {"rmsd": round(rmsd, 5), "local": round(local, 5), "held": float(f"{held:.4g}"), "pairs": round(count, 1)}


def table(result: dict[str, Any]) -> str:
    """Errors in angstrom."""
    return text_table(
        [
            {
                "atoms": row["atoms"],
                "springs": row["springs"],
                "edges": row["edges"],
                "pairs": f"{row['pairs']['mean']:.0f}",
                "RMSD": format_mean(row, "rmsd"),
                "local": format_mean(row, "local"),
                "held by": f"{row['held']['mean']:.2g}",
            }
            for row in result["summary"]
        ]
    )


EXPERIMENT = Experiment(
    name="sparse_springs",
    title="Chains pulled back into shape: dense and sparse edges, three springs",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "atoms", "springs", "edges"),
    table=table,
)
