"""What users meet: NumPy's numbers pass, and what fits no annotation is refused in words.

Without the tests' import hook, which checks annotations before our own checks can.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import re
import numpy as np
import torch
from elf.energy import Harmonic
from elf.generative.molecules import KarrasDenoiser, NoisePredictor, denoising_loss
from elf.generative.samplers import draw_counts, sample_molecules
from elf.generative.schedules import Karras, Polynomial, Straight
from elf.models.egnn import EGNN, GNN
from experiments.molecules.conformer_network import ConformerNetwork
from elf.models.mlp import MLP
from elf.models.transformer import EquivariantTransformer

assert Karras(sigma_data=np.float32(0.5), sigma_max=np.int64(3)) == Karras(sigma_data=0.5, sigma_max=3.0)
assert type(Karras(log_mean=np.float64(0.5)).log_mean) is float
assert type(Polynomial(levels=np.int64(10)).levels) is int
for schedule in (Karras(), Polynomial(), Straight()):
    assert len(schedule.grid(np.int64(7))) == 8
predictor = NoisePredictor(EGNN(channels=np.int64(4), layers=np.int32(1)))
denoiser = KarrasDenoiser(EquivariantTransformer(np.int64(5), np.int64(8), np.int64(2), np.int64(1), np.int64(4)))
generator, two = torch.Generator().manual_seed(0), torch.tensor([2, 3])
drawn = sample_molecules(
    denoiser, two, generator, steps=np.int64(2), batch_size=np.int32(1), frames=np.int64(1), churn=np.float64(0.1)
)
assert drawn.trajectory.shape == (1, 2, 3, 3)
assert len(draw_counts(two, np.int64(4), np.int64(1))) == 4
x, z = torch.zeros(1, 2, 3), torch.tensor([[6, 1]])


def loss(x=x, z=z, **settings):
    return denoising_loss(predictor, Harmonic(), x, z, generator, **settings)


def sample(counts=two, **settings):
    return sample_molecules(denoiser, counts, generator, **{"steps": 1, **settings})


REFUSED = [
    (lambda: sample(torch.tensor([2.5])), TypeError, "counts is a torch.float32; it should be a tensor of integers"),
    (lambda: sample(torch.tensor([True])), TypeError, "counts is a torch.bool"),
    (lambda: sample([2, 3]), TypeError, "counts is a list; it should be a tensor of integers"),
    (lambda: draw_counts(torch.tensor([2.5]), 1, 0), TypeError, "counts is a torch.float32"),
    (lambda: draw_counts(two, 1, -1), ValueError, "seed is -1"),
    (lambda: sample(method="euler"), ValueError, "method is 'euler'; it should be one of 'heun', 'multi"),
    (lambda: sample(steps=1.5), TypeError, "steps is 1.5; it should be an integer"),
    (lambda: sample(steps=True), TypeError, "steps is True"),
    (lambda: sample(frames=-1), ValueError, "frames is -1"),
    (lambda: sample(churn="0"), TypeError, "churn is '0'; it should be a number"),
    (lambda: sample(closed_shell=1), TypeError, "closed_shell is 1; it should be True or False"),
    (lambda: sample_molecules(denoiser, two, 0), TypeError, "generator is a int; it should be a torch.Generator"),
    (lambda: sample_molecules(lambda x: x, two, generator), TypeError, "denoiser is a function; it should be a Mol"),
    (lambda: loss(x.long()), TypeError, "positions has dtype torch.int64"),
    (lambda: loss(z=z.float()), TypeError, "numbers has dtype torch.float32"),
    (lambda: loss(z=z[0]), ValueError, r"positions has shape \\(1, 2, 3\\); it should be \\(2, 3\\), as numbers has"),
    (lambda: loss(x[..., :2]), ValueError, r"positions has shape \\(1, 2, 2\\); it should be \\(1, 2, 3\\)"),
    (lambda: loss(x.expand(4, -1, -1)), ValueError, r"positions has shape \\(4, 2, 3\\); it should be \\(1, 2, 3\\)"),
    (lambda: loss(features_over="all"), ValueError, "features_over is 'all'; it should be 'atoms' or 'edm'"),
    (lambda: loss(degree="2"), ValueError, "degree is '2'; it should be 1 or 2"),
    (lambda: loss(far=(Harmonic(), "a")), TypeError, "far is 'a'; it should be a number"),
    (lambda: Karras(log_std=0), ValueError, "Karras.log_std is 0; it should be finite and greater than zero"),
    (lambda: Karras(log_mean=np.inf), ValueError, "Karras.log_mean is inf; it should be finite"),
    (lambda: Karras(rho="7"), TypeError, "Karras.rho is '7'; it should be a number"),
    (lambda: Karras().draw(-1, generator), ValueError, "n is -1; it should be at least 0"),
    (lambda: Straight().draw(1.5, generator), TypeError, "n is 1.5; it should be an integer"),
    (lambda: EGNN(channels=2.5), TypeError, "channels is 2.5; it should be an integer"),
    (lambda: EGNN(reach=-1.0), ValueError, "reach is -1.0; it should be finite and greater than zero"),
    (lambda: GNN(layers=0), ValueError, "layers is 0; it should be at least 1"),
    (lambda: EquivariantTransformer(layers=0), ValueError, "layers is 0; it should be at least 1"),
    (lambda: EquivariantTransformer(heads=0), ValueError, "heads is 0; it should be at least 1"),
    (lambda: EquivariantTransformer(size=0.0), ValueError, "size is 0.0; it should be finite and greater than zero"),
    (lambda: EquivariantTransformer(pair_features=-1), ValueError, "pair_features is -1; it should be at least 0"),
    (lambda: ConformerNetwork(torch.nn.Identity(), 1.5), TypeError, "passes is 1.5; it should be an integer"),
    (lambda: MLP(1, (2,), seed=-1), ValueError, "seed is -1"),
]
for call, error, message in REFUSED:
    try:
        call()
    except error as found:
        assert re.search(message, str(found)), (message, str(found))
    else:
        raise AssertionError(f"not refused: {message}")
print("all")
"""


def test_numbers_of_numpy_and_refusals_in_words() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "all\n", ran.stderr[-2000:]
