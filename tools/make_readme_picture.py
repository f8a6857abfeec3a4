"""Draw assets/same_mse.png, the picture of the README: two predictions with the same MSE, one of them right."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

import elf
from elf.viz import style

ARROW = 0.55  # length on paper of the longest arrow of each panel
ARROWS = {"arrowstyle": "-|>,head_width=0.3,head_length=0.5", "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0}
ENERGIES = {
    "MSE": elf.Harmonic(normalize="atoms"),
    "pair energy": elf.PairEnergy(elf.springs.Constant(), normalize="atoms"),
}
PICTURE = Path(__file__).resolve().parent.parent / "assets" / "same_mse.png"


def triangle() -> Tensor:
    angle = torch.tensor([90.0, 210.0, 330.0]).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def turned(points: Tensor, degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ torch.tensor([[c, s], [-s, c]])


def distorted(points: Tensor, total: float) -> Tensor:
    """One corner pushed in, the two others apart, so far that the squares sum up to `total`."""
    push = torch.tensor([[0.0, -1.0], [-0.55, 0.25], [0.55, 0.25]])
    return points + push * math.sqrt(total / push.square().sum())


def force(energy: elf.Energy, prediction: Tensor, target: Tensor) -> Tensor:
    moving = prediction.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(moving[None], target[None]).sum(), moving)
    return -gradient


def panel(ax: Axes, title: str, prediction: Tensor, target: Tensor) -> None:
    for points, name, line in ((target, "target", "--"), (prediction, "prediction", "-")):
        ax.plot(*torch.cat([points, points[:1]]).T, line, color=style.COLORS[name], linewidth=2, zorder=2)
        ax.scatter(*points.T, s=70, color=style.COLORS[name], zorder=3)
    for (label, energy), name, y in zip(ENERGIES.items(), ("mse", "energy"), (-1.5, -1.78), strict=True):
        color, value = style.COLORS[name], energy(prediction[None], target[None]).item()
        ax.text(0, y, f"{label} {abs(value):.2f}", color=color, ha="center", fontsize=13, weight="bold")
        if value < 1e-6:
            continue
        forces = force(energy, prediction, target)
        tips = prediction + forces * ARROW / forces.norm(dim=-1).max()
        for start, tip in zip(prediction, tips, strict=True):
            ax.annotate("", tip.tolist(), start.tolist(), arrowprops=ARROWS | {"color": color}, zorder=4)
    ax.set_title(title, loc="center", fontsize=12.5, weight="normal")
    ax.set(xlim=(-1.8, 1.8), ylim=(-1.9, 1.15), aspect="equal")
    ax.axis("off")


def main() -> None:
    style.use()
    target = triangle()
    right = turned(target, 40)
    wrong = distorted(target, ENERGIES["MSE"](right[None], target[None]).item() * len(target))
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.1))
    panel(axes[0], "The target, turned by 40 degrees", right, target)
    panel(axes[1], "Not the target", wrong, target)
    style.label(axes[1], "target", 0.45, 0.4, style.COLORS["target"], fontsize=11)
    style.label(axes[0], "prediction", 0.5, 0.42, style.COLORS["prediction"], fontsize=11)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(style.png(figure))


if __name__ == "__main__":
    main()
