"""The network turns with the molecule, and padding does not exist for it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from elf.geometry import random_rotations
from elf.models.transformer import EquivariantTransformer, NetworkOutput


@pytest.fixture
def molecules(generator: torch.Generator) -> dict[str, torch.Tensor]:
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    return {
        "positions": torch.randn(3, 7, 3, generator=generator, dtype=torch.float64) * 2 * mask[..., None],
        "features": torch.randn(3, 7, 5, generator=generator, dtype=torch.float64),
        "sigma": torch.tensor([0.02, 1.0, 15.0], dtype=torch.float64),
        "mask": mask,
    }


@pytest.fixture
def network(generator: torch.Generator) -> EquivariantTransformer:
    network = EquivariantTransformer(channels=16, heads=2, layers=2, radial=8).double()
    with torch.no_grad():  # the initial weights hide much of the network behind near-zero layers
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def run(network: EquivariantTransformer, molecules: dict[str, torch.Tensor], **changes: torch.Tensor) -> NetworkOutput:
    out = network(**{**molecules, **changes})
    mask = molecules["mask"][..., None]
    return NetworkOutput(out.displacements * mask, out.logits * mask)


@pytest.mark.parametrize("determinant", [1, -1])
def test_displacements_turn_and_logits_stay(network, molecules, generator, determinant):
    rotation = determinant * random_rotations(1, 3, generator=generator, dtype=torch.float64)[0]
    shift = torch.tensor([3.0, -5.0, 7.0], dtype=torch.float64)
    here = run(network, molecules)
    there = run(network, molecules, positions=molecules["positions"] @ rotation.T + shift)
    torch.testing.assert_close(there.displacements, here.displacements @ rotation.T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(there.logits, here.logits, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(there.displacements, here.displacements, atol=1e-3)


@pytest.mark.parametrize("determinant", [1, -1])
def test_single_precision_turns_too(network, molecules, generator, determinant):
    """The network is trained in float32: there the error of a turn is rounding, not a broken symmetry."""
    single = {key: part.float() if part.is_floating_point() else part for key, part in molecules.items()}
    network = network.float()
    rotation = determinant * random_rotations(1, 3, generator=generator)[0]
    here = run(network, single)
    there = run(network, single, positions=single["positions"] @ rotation.T + 1)
    torch.testing.assert_close(there.displacements, here.displacements @ rotation.T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(there.logits, here.logits, rtol=1e-3, atol=1e-3)
    assert there.displacements.dtype == torch.float32


def test_permuting_atoms_permutes_the_answer(network, molecules):
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    here = network(**{**molecules, "mask": torch.ones_like(molecules["mask"])})
    there = network(
        molecules["positions"][:, order],
        molecules["features"][:, order],
        molecules["sigma"],
        torch.ones_like(molecules["mask"]),
    )
    torch.testing.assert_close(there.displacements, here.displacements[:, order])
    torch.testing.assert_close(there.logits, here.logits[:, order])


def test_padding_changes_nothing(network, molecules, generator):
    padding = ~molecules["mask"][..., None]
    noise = torch.randn(3, 7, 3, generator=generator, dtype=torch.float64)
    moved = run(network, molecules, positions=molecules["positions"] + 9 * noise * padding)
    kept = run(network, molecules)
    torch.testing.assert_close(moved.displacements, kept.displacements)
    torch.testing.assert_close(moved.logits, kept.logits)


def test_size_of_the_batch_changes_nothing(network, molecules):
    alone = network(
        *(molecules[key][1:2, :4] for key in ("positions", "features")),
        molecules["sigma"][1:2],
        molecules["mask"][1:2, :4],
    )
    together = network(**molecules)
    torch.testing.assert_close(alone.displacements[0], together.displacements[1, :4])
    torch.testing.assert_close(alone.logits[0], together.logits[1, :4])


def test_coincident_atoms_have_finite_gradients(network):
    positions = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    out = network(
        positions,
        torch.ones(1, 3, 5, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.ones(1, 3, dtype=torch.bool),
    )
    (out.displacements.square().sum() + out.logits.sum()).backward()
    assert positions.grad.isfinite().all()


def written_out(network: EquivariantTransformer, x, features, sigma, pairs=None) -> NetworkOutput:
    """The same for one molecule without padding, in the order of the formulas, one head and one axis at a time."""
    n, heads = len(x), network.heads
    rods = x[:, None] - x[None]
    d = rods.norm(dim=-1)
    u = rods / (1 + d[..., None])
    seen = [d, d * network.size / math.sqrt(sigma**2 + network.size**2)]
    basis = torch.cat([torch.exp(-(((r[..., None] - network.centers) / network.width) ** 2) / 2) for r in seen], -1)
    pair = network.pair(basis) if pairs is None else network.pair(basis) + network.pair_embed(pairs)
    pair = pair.view(n, n, -1, heads)
    layers = len(network.blocks)
    phase = 0.5 * math.log(sigma) * network.frequencies
    noise = network.noise(torch.cat([phase.sin(), phase.cos()]))
    h, v = network.embed(features) + noise, torch.zeros(3, n, noise.shape[0], dtype=x.dtype)
    for layer, block in enumerate(network.blocks):
        scale, shift = block.modulation(noise).chunk(2)
        q, k, value, push = block.project(block.attention_norm(h) * (1 + scale) + shift).chunk(4, -1)
        size = q.shape[-1] // heads
        turning = block.vector_values(v)
        arrived, message = torch.zeros_like(h), torch.zeros_like(v)
        for head in range(heads):
            of = slice(head * size, (head + 1) * size)
            weights = (q[:, of] @ k[:, of].T / math.sqrt(size) + pair[:, :, layer, head]).softmax(-1)
            arrived[:, of] = weights @ value[:, of]
            gated = weights * pair[:, :, layers + layer, head]
            for axis in range(3):
                message[axis, :, of] = (gated * u[..., axis]) @ push[:, of] + weights @ turning[axis][:, of]
        h = h + block.attended(arrived)
        v = v + message
        first, second = block.vector_pairs(v).chunk(2, -1)
        products = (first * second).sum(0) / math.sqrt(h.shape[-1])
        if block.calm:
            products = products.sign() * (products.abs() + (products.square() + 1).sqrt()).log()
        update, gate = block.mixed(F.silu(block.hidden(torch.cat([block.mixing_norm(h), products], -1)))).chunk(2, -1)
        h, v = h + update, v + gate * first
    h = network.final_norm(h)
    q, k = network.query(h), network.key(h)
    pull = torch.zeros(n, n, dtype=x.dtype)
    for head in range(heads):
        of = slice(head * size, (head + 1) * size)
        pull = pull + q[:, of] @ k[:, of].T / math.sqrt(size) * pair[:, :, -1, head] / heads
    pull = (pull + pull.T) / math.sqrt(n)
    along = (pull[..., None] * u).sum(1)
    return NetworkOutput(torch.stack([network.vector_out(v[a])[:, 0] for a in range(3)], -1) + along, network.logits(h))


@pytest.mark.parametrize("calm", [False, True])
def test_network_is_what_its_formulas_say(network, molecules, calm):
    for block in network.blocks:
        block.calm = calm
    out = network(**molecules)
    for b, n in ((0, 7), (1, 4), (2, 1)):
        x, features = (molecules[key][b, :n] for key in ("positions", "features"))
        one = written_out(network, x, features, float(molecules["sigma"][b]))
        torch.testing.assert_close(out.displacements[b, :n], one.displacements, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out.logits[b, :n], one.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("atoms", [15, 16, 23])  # softmax is padded below 16
def test_larger_molecules_are_what_the_formulas_say_too(network, generator, atoms):
    x, features = (torch.randn(1, atoms, n, generator=generator, dtype=torch.float64) for n in (3, 5))
    mask, sigma = torch.ones(1, atoms, dtype=torch.bool), torch.tensor([0.7], dtype=torch.float64)
    x.requires_grad_()
    out, one = network(4 * x, features, sigma, mask), written_out(network, 4 * x[0], features[0], 0.7)
    torch.testing.assert_close(out.displacements[0], one.displacements, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.logits[0], one.logits, rtol=1e-9, atol=1e-9)
    ours, theirs = (
        torch.autograd.grad(found.displacements.square().sum(), network.pair.weight) for found in (out, one)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_every_weight_has_a_gradient_as_several_processes_ask(network, molecules):
    out = run(network, molecules)
    (out.displacements.sum() + out.logits.sum()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_pair_features_are_added_to_what_distances_say(generator):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EquivariantTransformer(channels=8, heads=2, layers=2, radial=4, pair_features=3).double()
    torch.nn.init.normal_(network.logits.weight, generator=generator)
    x, features = (torch.randn(4, n, generator=generator, dtype=torch.float64) for n in (3, 5))
    pairs = torch.randn(4, 4, 3, generator=generator, dtype=torch.float64)
    mask, sigma = torch.ones(1, 4, dtype=torch.bool), torch.tensor([0.7], dtype=torch.float64)
    out, one = network(x[None], features[None], sigma, mask, pairs[None]), written_out(network, x, features, 0.7, pairs)
    torch.testing.assert_close(out.displacements[0], one.displacements)
    torch.testing.assert_close(out.logits[0], one.logits)


def test_rounds_of_a_calm_network_do_not_outdo_each_other(generator):
    """Vectors a thousand times as long leave a round about a thousand times as long, not the cube of that."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    scalars, vectors, directions = normal(2, 5, 8), normal(2, 3, 5, 8), normal(3, 2, 5, 5)
    rest = directions, normal(2, 2, 5, 5), normal(2, 2, 5, 5), normal(2, 1, 16)
    grown = {}
    for calm in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            block = EquivariantTransformer(channels=8, heads=2, layers=1, calm=calm).double().blocks[0]
            torch.nn.init.normal_(block.mixed.weight)
        turn = random_rotations(1, 3, generator=generator, dtype=torch.float64)[0]
        with torch.no_grad():
            once, far = (block(scalars, factor * vectors, *rest)[1] for factor in (1, 1000))
            turned = block(
                scalars,
                torch.einsum("ij,bjnc->binc", turn, vectors),
                torch.einsum("ij,jbnm->ibnm", turn, directions),
                *rest[1:],
            )[1]
        torch.testing.assert_close(turned, torch.einsum("ij,bjnc->binc", turn, once))
        grown[calm] = float(far.norm() / once.norm())
    assert grown[False] > 1e8
    assert 300 < grown[True] < 1e5
    with pytest.raises(TypeError, match="calm"):
        EquivariantTransformer(calm=1)


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_torchs_default_dtype_changes_nothing(molecules, default):
    network = EquivariantTransformer(channels=8, heads=2, layers=1)
    single = {key: part.float() if part.is_floating_point() else part for key, part in molecules.items()}
    before = network(**single)
    torch.set_default_dtype(default)
    try:
        after = network(**single)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(after.displacements, before.displacements)
    assert after.displacements.dtype == torch.float32


def test_channels_must_fit_heads():
    with pytest.raises(ValueError, match="channels is 10; it should be a multiple of heads=4"):
        EquivariantTransformer(channels=10, heads=4)


def test_distances_and_noise_are_seen_on_their_grids():
    """Gaussians from 0 to the cutoff, a grid step wide; frequencies from 1/4 to 8, five octaves in equal ratios."""
    network = EquivariantTransformer(channels=8, heads=2, layers=1, radial=5, cutoff=10.0)
    assert network.centers.tolist() == [0, 2.5, 5, 7.5, 10]
    assert network.width == 2
    assert network.frequencies.tolist() == pytest.approx([0.25 * 2 ** (k / 3) for k in range(16)], rel=1e-5)
