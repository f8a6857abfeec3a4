"""The plain transformer: what its formulas say; it knows permutations and padding, and knows no rotation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from elf.geometry import random_rotations
from elf.models.transformer import EquivariantTransformer, NetworkOutput, PlainTransformer


@pytest.fixture
def molecules(generator: torch.Generator) -> dict[str, torch.Tensor]:
    mask = torch.arange(6) < torch.tensor([[6], [3], [1]])
    return {
        "positions": torch.randn(3, 6, 3, generator=generator, dtype=torch.float64) * 2 * mask[..., None],
        "features": torch.randn(3, 6, 5, generator=generator, dtype=torch.float64),
        "sigma": torch.tensor([0.02, 1.0, 15.0], dtype=torch.float64),
        "mask": mask,
    }


@pytest.fixture
def network(generator: torch.Generator) -> PlainTransformer:
    network = PlainTransformer(channels=16, heads=2, layers=2, radial=8).double()
    with torch.no_grad():  # the initial weights hide much of the network behind near-zero layers
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def written_out(network: PlainTransformer, x, features, sigma: float) -> NetworkOutput:
    """The same for one molecule without padding, one head at a time."""
    n, heads = len(x), network.heads
    d = (x[:, None] - x[None]).norm(dim=-1)
    smaller = network.size / math.sqrt(sigma**2 + network.size**2)
    seen = [torch.exp(-(((r[..., None] - network.centers) / network.width) ** 2) / 2) for r in (d, d * smaller)]
    pair = network.pair(torch.cat(seen, -1)).view(n, n, -1, heads)
    phase = 0.5 * math.log(sigma) * network.frequencies
    noise = network.noise(torch.cat([phase.sin(), phase.cos()]))
    h = network.embed(torch.cat([x / math.sqrt(sigma**2 + network.size**2), features], -1)) + noise
    for layer, block in enumerate(network.blocks):
        scale, shift, mixing_scale, mixing_shift = block.modulation(noise).chunk(4)
        q, k, value = block.project(block.attention_norm(h) * (1 + scale) + shift).chunk(3, -1)
        size, arrived = q.shape[-1] // heads, torch.zeros_like(h)
        for head in range(heads):
            of = slice(head * size, (head + 1) * size)
            weights = (q[:, of] @ k[:, of].T / math.sqrt(size) + pair[:, :, layer, head]).softmax(-1)
            arrived[:, of] = weights @ value[:, of]
        h = h + block.attended(arrived)
        h = h + block.mixed(F.silu(block.hidden(block.mixing_norm(h) * (1 + mixing_scale) + mixing_shift)))
    out = network.out(network.final_norm(h))
    return NetworkOutput(out[:, :3], out[:, 3:])


def test_network_is_what_its_formulas_say_and_padding_does_not_exist(network, molecules):
    out = network(**molecules)
    for b, n in ((0, 6), (1, 3), (2, 1)):
        x, features = (molecules[key][b, :n] for key in ("positions", "features"))
        one = written_out(network, x, features, float(molecules["sigma"][b]))
        torch.testing.assert_close(out.displacements[b, :n], one.displacements, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out.logits[b, :n], one.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("atoms", [15, 16, 23])  # softmax is padded below 16
def test_larger_molecules_are_what_the_formulas_say_too(network, generator, atoms):
    x, features = (torch.randn(1, atoms, n, generator=generator, dtype=torch.float64) for n in (3, 5))
    mask, sigma = torch.ones(1, atoms, dtype=torch.bool), torch.tensor([0.7], dtype=torch.float64)
    out, one = network(4 * x, features, sigma, mask), written_out(network, 4 * x[0], features[0], 0.7)
    torch.testing.assert_close(out.displacements[0], one.displacements, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.logits[0], one.logits, rtol=1e-9, atol=1e-9)
    ours, theirs = (
        torch.autograd.grad(found.displacements.square().sum(), network.pair.weight) for found in (out, one)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_single_precision_agrees(network, molecules):
    double = network(**molecules)
    single = {key: part.float() if part.is_floating_point() else part for key, part in molecules.items()}
    out = network.float()(**single)
    mask = molecules["mask"]
    assert out.displacements.dtype == torch.float32
    torch.testing.assert_close(out.displacements.double()[mask], double.displacements[mask], rtol=1e-3, atol=1e-3)


def test_permuting_atoms_permutes_the_answer(network, molecules):
    order, everyone = torch.tensor([3, 1, 0, 5, 2, 4]), torch.ones_like(molecules["mask"])
    here = network(**{**molecules, "mask": everyone})
    moved = {key: molecules[key][:, order] for key in ("positions", "features")}
    there = network(**moved, sigma=molecules["sigma"], mask=everyone)
    torch.testing.assert_close(there.displacements, here.displacements[:, order])
    torch.testing.assert_close(there.logits, here.logits[:, order])


def test_it_knows_no_rotation_and_the_other_one_does(network, molecules, generator):
    """What the two gifts differ in; without this, their comparison would compare nothing."""
    turn = random_rotations(1, 3, generator=generator, dtype=torch.float64)[0]
    turned = {**molecules, "positions": molecules["positions"] @ turn.T}
    for model, knows in ((network, False), (EquivariantTransformer(channels=16, heads=2, layers=2).double(), True)):
        here, there = model(**molecules).displacements[0], model(**turned).displacements[0]
        assert torch.allclose(there, here @ turn.T, atol=1e-6) == knows


def test_channels_must_fit_heads():
    with pytest.raises(ValueError, match="channels is 10; it should be a multiple of heads=4"):
        PlainTransformer(channels=10, heads=4)
