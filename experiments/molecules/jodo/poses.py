"""What an energy of distances leaves free, the pose of the answer, and what turning its target changes: nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from elf.checks import require_seed
from elf.generative.schedules import add_noise
from elf.geometry.alignment import align
from experiments.molecules.jodo.data import Graphs
from experiments.molecules.jodo.diffusion import JointDiffusion, joint_loss, packed, position_loss
from experiments.molecules.jodo.network import Mask

TIMES = (0.1, 0.3, 0.5)
"""At which poses are looked at."""


def rmsd(x_hat: Tensor, x: Tensor, mask: Mask) -> Tensor:
    """Root-mean-square distance of each molecule's atoms, in angstrom."""
    return ((x_hat - x).square().sum((1, 2)) / mask.sum(1)).sqrt()


@torch.no_grad()
def pose_figures(model: JointDiffusion, graphs: Graphs, seed: int) -> dict[str, float]:
    """Mean RMSD of x_hat to the molecule, in angstrom, as it stands ("placed@t"), and after the best turn ("turned@t").

    graphs: molecules that the model was not trained on.
    """
    model.eval()
    clean, mask, figures = model.encoding.encode(graphs), graphs.mask, {}
    for time in TIMES:
        generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
        t = torch.full((len(graphs),), time, dtype=clean.positions.dtype, device="cpu")
        x_t = add_noise(packed(clean), model.noise(mask, generator, clean.positions.dtype), t, model.schedule)
        x_hat = model(x_t, t, mask)[..., :3]
        figures[f"placed@{time}"] = float(rmsd(x_hat, clean.positions, mask).mean())
        figures[f"turned@{time}"] = float(rmsd(x_hat, align(x_hat, clean.positions, mask), mask).mean())
    return figures


def turning_changes(model: JointDiffusion, graphs: Graphs, loss: str, seed: int) -> float:
    """By how much turning the target onto the noisy molecule changes the gradient to the weights, relative to its norm.

    The energy program turns it, as JODO's own loss does (erratum 8 of our list). For an energy of distances: rounding.

    Args:
        loss: one of `POSITION_LOSSES` whose name with "_turned" is one, too; or "mse", whose turned one is "kabsch".
    """
    clean, mask = model.encoding.encode(graphs), graphs.mask
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = []
    for name in (loss, "kabsch" if loss == "mse" else f"{loss}_turned"):
        generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
        parts = joint_loss(model, position_loss(name), clean, mask, generator, conditioned=0.0)
        found = torch.autograd.grad(parts.positions, weights, allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
    return float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
