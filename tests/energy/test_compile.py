"""torch.compile in one graph: in a fresh process, as the run-time type checks of this one cannot be traced."""

import subprocess
import sys

CODE = """
import torch, elf
generator = torch.Generator().manual_seed(0)
prediction, target = torch.randn(2, 3, 5, 3, generator=generator)
prediction.requires_grad_()
mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
edges = torch.tensor([[0, 1, 2], [1, 2, 4]])
for energy in (
    elf.AlignedHarmonic("atoms"),
    elf.PairEnergy(elf.springs.BondAware()),
    elf.PairEnergy(chunk_size=2),
    elf.PairEnergy(lambda r: 1 / (1 + r), edges=edges),
    elf.HeightEnergy(),
    elf.PairEnergy(None, normalize="pairs", nonfinite="nan") + 0.5 * elf.Harmonic(nonfinite="nan"),
):
    torch.compiler.reset()
    compiled = torch.compile(energy, backend="eager", fullgraph=True)
    values = [call(prediction, target, mask) for call in (energy, compiled)]
    gradients = [torch.autograd.grad(value.sum(), prediction)[0] for value in values]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    # torch.export knows no checkpoints, which chunk_size is made of.
    whole = isinstance(energy, elf.PairEnergy) and energy.chunk_size is None and energy.edges is None
    for strict in (False, True) if whole else ():
        exported = torch.export.export(energy, (prediction.detach(), target, mask), strict=strict).module()
        torch.testing.assert_close(exported(prediction.detach(), target, mask), values[0].detach())
    print("compiled")
constants = torch.rand(3, 5, 5, generator=generator)
constants = (constants + constants.mT).requires_grad_()
for options in (
    {"k": constants},
    {"k": constants[0]},
    {"k": constants[0, 0, :3], "edges": edges},
    {"cell": torch.tensor([2.0, 3.0, 2.0])},
    {"cell": torch.tensor([[2.0, 0, 0], [1.0, 1.8, 0], [0, 0, 2.0]])},
):
    torch.compiler.reset()
    energy = elf.PairEnergy()
    compiled = torch.compile(energy, backend="eager", fullgraph=True)
    values = [call(prediction, target, mask, **options) for call in (energy, compiled)]
    torch.testing.assert_close(*values)
    wanted = [prediction, constants] if "k" in options else [prediction]
    gradients = [torch.autograd.grad(value.sum(), wanted) for value in values]
    torch.testing.assert_close(*gradients)
    print("compiled")
"""


def test_energies_compile_to_one_graph() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compiled"] * 11
