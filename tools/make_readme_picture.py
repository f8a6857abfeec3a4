"""Draw assets/same_mse.png, the moving picture of the README: two predictions with the same MSE, one of them right.

An animated PNG, whose first frame tells the story alone. Then the two predictions follow the forces of the pair energy,
and, from the same start, those of MSE.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

import elf
from elf.viz import style

ARROW, SHORT = 0.55, 0.07  # lengths on paper: of each loss' longest arrow at the start, and of the shortest drawn
ARROWS = {"arrowstyle": "-|>,head_width=0.3,head_length=0.5", "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0}
ENERGIES = {
    "MSE": elf.Harmonic(normalize="atoms"),
    "pair energy": elf.PairEnergy(elf.springs.Constant(), normalize="atoms"),
}
FRAMES, STEPS, STEP = 12, 7, 0.06
HOLD, MOVE = 2500, 90
"""Milliseconds of a frame that stands, and of one that moves."""
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


def panel(ax: Axes, title: str, prediction: Tensor, target: Tensor, scales: dict[str, float]) -> None:
    for points, name, line in ((target, "target", "--"), (prediction, "prediction", "-")):
        ax.plot(*torch.cat([points, points[:1]]).T, line, color=style.COLORS[name], linewidth=2, zorder=2)
        ax.scatter(*points.T, s=70, color=style.COLORS[name], zorder=3)
    for (label, energy), name, y in zip(ENERGIES.items(), ("mse", "energy"), (-1.5, -1.78), strict=True):
        color, value = style.COLORS[name], energy(prediction[None], target[None]).item()
        ax.text(0, y, f"{label} {abs(value):.2f}", color=color, ha="center", fontsize=13, weight="bold")
        forces = force(energy, prediction, target)
        tips = prediction + forces * scales[label]
        for start, tip in zip(prediction, tips, strict=True):
            if (tip - start).norm() < SHORT:
                continue
            ax.annotate("", tip.tolist(), start.tolist(), arrowprops=ARROWS | {"color": color}, zorder=4)
    ax.set_title(title, loc="center", fontsize=12.5, weight="normal")
    ax.set(xlim=(-1.8, 1.8), ylim=(-1.9, 1.15), aspect="equal")
    ax.axis("off")


def descent(name: str, prediction: Tensor, target: Tensor) -> list[Tensor]:
    """`FRAMES` configurations along the gradient flow of an energy, the first of them after a while."""
    path, energy = [], ENERGIES[name]
    for _ in range(FRAMES):
        for _ in range(STEPS):
            prediction = prediction + STEP * force(energy, prediction, target)
        path.append(prediction)
    return path


def frame(right: Tensor, wrong: Tensor, target: Tensor, says: str) -> bytes:
    """Both predictions, and a line below that says what they do."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.3))
    start = distorted(target, ENERGIES["MSE"](turned(target, 40)[None], target[None]).item() * len(target))
    longest = {name: force(energy, start, target).norm(dim=-1).max() for name, energy in ENERGIES.items()}
    scales = {name: ARROW / float(length) for name, length in longest.items()}
    panel(axes[0], " " if says else "The target, turned by 40 degrees", right, target, scales)
    panel(axes[1], " " if says else "Not the target", wrong, target, scales)
    if not says:
        style.label(axes[1], "target", 0.45, 0.4, style.COLORS["target"], fontsize=11)
        style.label(axes[0], "prediction", 0.5, 0.42, style.COLORS["prediction"], fontsize=11)
    color = style.COLORS["mse" if says.endswith("MSE") else "energy"]
    figure.supxlabel(says or " ", fontsize=12, color=color)
    picture = style.png(figure, dpi=92, tight=False, colors=32)
    plt.close(figure)
    return picture


def main() -> None:
    style.use()
    target = triangle()
    right = turned(target, 40)
    wrong = distorted(target, ENERGIES["MSE"](right[None], target[None]).item() * len(target))
    frames, waits = [frame(right, wrong, target, "")], [HOLD]
    for name in ("pair energy", "MSE"):
        for a, b in zip(*(descent(name, start, target) for start in (right, wrong)), strict=True):
            frames.append(frame(a, b, target, f"following the {name}" if name != "MSE" else "following MSE"))
            waits.append(MOVE)
        waits[-1] = HOLD
    pictures = [Image.open(io.BytesIO(data)).convert("P") for data in frames]
    PICTURE.parent.mkdir(exist_ok=True)
    pictures[0].save(PICTURE, save_all=True, append_images=pictures[1:], duration=waits, loop=0, optimize=True)


if __name__ == "__main__":
    main()
