"""Molecules with their bonds from noise: JODO's ancestral sampler, and a faster one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from elf.checks import require_count, require_one_of
from elf.generative.samplers import ancestral, closed_shell_types, euler, heun
from elf.geometry.alignment import align
from experiments.molecules.jodo.data import Graphs
from experiments.molecules.jodo.diffusion import JointDiffusion, Packed, Times, unpacked
from experiments.molecules.jodo.network import Mask

Answer = Callable[[Packed, Times], Packed]
Charges = dict[int, frozenset[int]]
Method = Literal["ancestral", "heun", "ddim"]
SETTLE_BELOW = 0.5
"""Of sigma / alpha. The elements of `closed_shells` are settled here; chosen without trying others."""


def self_conditioned(model: JointDiffusion, mask: Mask, *, turned: bool = False) -> Answer:
    """x_hat(x_t, t) of a model that is told its own answer of the call before.

    turned: the positions of x_hat are turned onto those of x_t. An energy of distances leaves their pose free, and a
    sampler adds the two number by number.
    """
    previous: Packed | None = None

    def denoise(x_t: Packed, t: Times) -> Packed:
        nonlocal previous
        x_hat = previous = model(x_t, t, mask, previous)
        if turned:
            x_hat = torch.cat([align(x_t[..., :3], x_hat[..., :3], mask), x_hat[..., 3:]], dim=-1)
        return x_hat

    return denoise


def closed_shells(answer: Answer, model: JointDiffusion, mask: Mask, draw: Callable[[], Packed]) -> Answer:
    """An answer with elements that are settled once the noise is small, as `elf.generative.samplers.ClosedShell` does.

    They become the likeliest ones with an even number of electrons, without charges, and stay; from then on the network
    sees noisy elements as if all along they had been those. JODO's sampler lets half of the molecules have an odd
    number, and those cannot be stable wherever their atoms go.
    """
    elements = model.encoding.elements
    last = 3 + model.encoding.atom_channels
    settled: tuple[Tensor, Tensor] | None = None

    def denoise(x_t: Packed, t: Times) -> Packed:
        nonlocal settled
        alpha, sigma = (value[:, None, None] for value in (model.schedule.alpha(t), model.schedule.sigma(t)))
        if settled is None and bool((sigma <= SETTLE_BELOW * alpha).all()):
            hot = closed_shell_types(answer(x_t, t)[..., 3 : last - 1], mask, elements)
            types = F.pad((2 * hot - 1) / 4, (0, 1)) * mask[..., None]
            settled = types, draw()[..., 3:last]
        if settled is None:
            return answer(x_t, t)
        types, noise = settled
        x_t = torch.cat([x_t[..., :3], alpha * types + sigma * noise, x_t[..., last:]], dim=-1)
        x_hat = answer(x_t, t)
        return torch.cat([x_hat[..., :3], types, x_hat[..., last:]], dim=-1)

    return denoise


@torch.no_grad()
def sample_graphs(
    model: JointDiffusion,
    counts: Int[Tensor, " n"],
    generator: torch.Generator,
    *,
    method: Method = "ancestral",
    steps: int = 1000,
    batch_size: int = 64,
    charges: Charges | None = None,
    turned: bool = False,
    closed_shell: bool = False,
) -> Graphs:
    """Molecules of so many atoms; those of similar size share a batch, the answer is in the order of `counts`.

    Args:
        model: trained; it is left in the mode for evaluation.
        counts: atoms of each molecule.
        generator: of all noise.
        method: "ancestral", JODO's; "ddim", Euler's steps of the probability flow; "heun", two evaluations a step.
        steps: times visited; JODO takes 1,000.
        batch_size: molecules a batch.
        charges: those that an element may have, see `Encoding.decode`.
        turned: see `self_conditioned`.
        closed_shell: see `closed_shells`.

    Raises:
        ValueError: an unknown method; steps or a batch size below one.
    """
    require_one_of("method", method, ("ancestral", "heun", "ddim"))
    model.eval()
    dtype = next(model.parameters()).dtype
    n, largest = len(counts), int(counts.max())
    sizes = (n, largest), (n, largest, largest), (n, largest)
    found = Graphs(
        torch.zeros(n, largest, 3, dtype=dtype, device="cpu"),
        *[torch.zeros(size, dtype=torch.long, device="cpu") for size in sizes],
    )
    for rows in counts.argsort(stable=True).split(require_count("batch_size", batch_size)):
        mask = first_atoms(counts[rows]).to(generator.device)
        draw = partial(model.noise, mask, generator, dtype)
        denoise = self_conditioned(model, mask, turned=turned)
        if closed_shell:
            denoise = closed_shells(denoise, model, mask, draw)
        if method == "ancestral":
            x = ancestral(denoise, model.schedule, draw(), steps, draw)
        else:
            x = (heun if method == "heun" else euler)(denoise, model.schedule, draw(), steps)
        drawn = model.encoding.decode(unpacked(x, model.encoding.atom_channels), mask, charges).map(Tensor.cpu)
        width = mask.shape[1]
        found.positions[rows, :width], found.numbers[rows, :width] = drawn.positions, drawn.numbers
        found.orders[rows, :width, :width], found.charges[rows, :width] = drawn.orders, drawn.charges
    return found


def first_atoms(counts: Int[Tensor, " n"]) -> Mask:
    """The first atoms of each molecule are real."""
    return torch.arange(int(counts.max()), dtype=torch.long, device=counts.device) < counts[:, None]
