"""EDM's two networks: their symmetries, their masks, and their equality with the layers written out edge by edge."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from elf.geometry import random_rotations
from elf.models.egnn import EGNN, GNN, PairLinear, require_shapes
from elf.models.transformer import EquivariantTransformer, NetworkOutput

NETWORKS = {"EGNN": EGNN, "GNN": GNN}


@pytest.fixture
def molecules(generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    return {
        "positions": torch.randn(3, 7, 3, generator=generator, dtype=dtype) * 2 * mask[..., None],
        "features": torch.randn(3, 7, 6, generator=generator, dtype=dtype),
        "level": torch.tensor([0.0, 0.4, 1.0], dtype=dtype),
        "mask": mask,
    }


def build(name: str, dtype: torch.dtype) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    network = NETWORKS[name](features=6, channels=16, layers=3)
    with torch.no_grad():  # EDM starts with positions nearly untouched, which would hide them
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.to(dtype)


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 2e-4, torch.float64: 1e-10}[dtype]
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("determinant", [1, -1])
def test_egnn_turns_with_the_molecule_and_gnn_does_not(molecules, generator, dtype, determinant):
    rotation = determinant * random_rotations(1, 3, generator=generator, dtype=dtype)[0]
    turned = {**molecules, "positions": molecules["positions"] @ rotation.T}
    egnn, gnn = build("EGNN", dtype), build("GNN", dtype)
    here, there = egnn(**molecules), egnn(**turned)
    close(there.displacements, here.displacements @ rotation.T, dtype)
    close(there.logits, here.logits, dtype)
    assert (there.displacements - here.displacements).abs().max() > 0.01
    here, there = gnn(**molecules), gnn(**turned)
    assert (there.displacements - here.displacements @ rotation.T)[0].abs().max() > 0.01
    assert (there.logits - here.logits)[0].abs().max() > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_shifting_changes_nothing(name, molecules, dtype):
    network = build(name, dtype)
    shift = torch.tensor([3.0, -5.0, 7.0], dtype=dtype)
    here = network(**molecules)
    there = network(**{**molecules, "positions": molecules["positions"] + shift})
    for a, b in zip(here, there, strict=True):
        close(a, b, dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_renumbering_renumbers(name, molecules, dtype):
    network, order = build(name, dtype), torch.tensor([3, 1, 6, 0, 5, 2, 4])
    here = network(**molecules)
    moved = {key: value if key == "level" else value[:, order] for key, value in molecules.items()}
    for a, b in zip(here, network(**moved), strict=True):
        close(a[:, order], b, dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_nothing_and_gets_nothing(name, molecules, generator, dtype):
    network, mask = build(name, dtype), molecules["mask"][..., None]
    noise = torch.randn(3, 7, 3, generator=generator, dtype=dtype)
    moved = {**molecules, "positions": molecules["positions"] + 9 * noise * ~mask}
    moved["features"] = moved["features"] + 9 * ~mask
    for a, b in zip(network(**molecules), network(**moved), strict=True):
        close(a, b, dtype)
        assert not (b * ~mask).any()
    alone = network(
        *(molecules[key][1:2, :4] for key in ("positions", "features")), molecules["level"][1:2], mask[1:2, :4, 0]
    )
    close(alone.displacements[0], network(**molecules).displacements[1, :4], dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_displacements_have_no_net_motion_and_one_atom_none(name, molecules, dtype):
    out = build(name, dtype)(**molecules)
    close(out.displacements.sum(dim=1), torch.zeros(3, 3, dtype=dtype), dtype)
    assert not out.displacements[2].any()
    assert out.logits[2, 0].abs().max() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_noise_level_is_seen(name, molecules, dtype):
    network = build(name, dtype)
    later = {**molecules, "level": molecules["level"] + 0.3}
    assert (network(**later).displacements - network(**molecules).displacements)[0].abs().max() > 1e-3


def test_pair_linear_is_the_linear_layer_of_the_concatenation(generator, dtype):
    layer = PairLinear(5, 2, 4).to(dtype)
    h, edges = (
        torch.randn(2, 3, 5, generator=generator, dtype=dtype),
        torch.randn(2, 3, 3, 2, generator=generator, dtype=dtype),
    )
    joined = torch.cat([h[:, :, None].expand(-1, -1, 3, -1), h[:, None].expand(-1, 3, -1, -1), edges], dim=-1)
    torch.testing.assert_close(layer(h, edges), F.linear(joined, layer.weight, layer.bias))


def edge_by_edge(network: EGNN, x: Tensor, features: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """EDM's EGNN for one molecule without padding, as its code has it: edge lists, concatenation, sums by index."""
    n = len(x)
    row, col = torch.tensor([(i, j) for i in range(n) for j in range(n) if i != j]).T
    start, h = x, network.embed(torch.cat([features, level.expand(n, 1)], dim=1))
    distances = ((x[row] - x[col]) ** 2).sum(1, keepdim=True)
    for message, move in zip(network.messages, network.moves, strict=True):
        difference = x[row] - x[col]
        radial = (difference**2).sum(1, keepdim=True)
        difference = difference / (torch.sqrt(radial + 1e-8) + 1)
        attributes = torch.cat([radial, distances], dim=1)

        def first(layer, h=h, attributes=attributes):
            return F.silu(F.linear(torch.cat([h[row], h[col], attributes], dim=1), layer.pair.weight, layer.pair.bias))

        m = F.silu(message.message(first(message)))
        m = m * torch.sigmoid(message.attention(m))
        h = h + message.update(torch.cat([h, torch.zeros_like(h).index_add(0, row, m)], dim=1))
        moved = F.silu(move.hidden(first(move, h=h)))
        x = x + torch.zeros_like(x).index_add(0, row, difference * torch.tanh(move.pull(moved)) * 15.0)
    velocity = x - start
    return velocity - velocity.mean(0), network.out(h)


def test_egnn_equals_edm_edge_by_edge(molecules, dtype):
    network = build("EGNN", dtype)
    out = network(**molecules)
    for b, n in ((0, 7), (1, 4)):
        velocity, h = edge_by_edge(
            network, *(molecules[k][b, :n] for k in ("positions", "features")), molecules["level"][b]
        )
        close(out.displacements[b, :n], velocity, dtype)
        close(out.logits[b, :n], h, dtype)


def test_coincident_atoms_have_finite_gradients(dtype):
    positions = torch.zeros(1, 3, 3, dtype=dtype, requires_grad=True)
    out = build("EGNN", dtype)(
        positions, torch.ones(1, 3, 6, dtype=dtype), torch.ones(1, dtype=dtype), torch.ones(1, 3).bool()
    )
    (out.displacements.square().sum() + out.logits.sum()).backward()
    assert positions.grad.isfinite().all()


def test_three_networks_have_one_call(molecules):
    arguments = {k: v.float() if v.is_floating_point() else v for k, v in molecules.items()}
    for network in (EGNN(channels=8, layers=1), GNN(channels=8, layers=1), EquivariantTransformer(6, 8, 2, 1)):
        out = network(arguments["positions"], arguments["features"], arguments["level"] + 0.1, arguments["mask"])
        assert isinstance(out, NetworkOutput)
        assert out.displacements.shape == (3, 7, 3)
        assert out.logits.shape == (3, 7, 6)


@pytest.mark.parametrize(("name", "millions"), [("EGNN", 5.34), ("GNN", 3.56)])
def test_paper_size(name, millions):
    c, layers, features = 256, 9, 6

    def linear(i, o):
        return i * o + o

    edges, extra = (2, 0) if name == "EGNN" else (0, 3)
    message = linear(2 * c + edges, c) + linear(c, c) + linear(c, 1) + linear(2 * c, c) + linear(c, c)
    move = linear(2 * c + 2, c) + linear(c, c) + c
    wanted = linear(features + 1 + extra, c) + linear(c, features + extra) + layers * message
    wanted += layers * move if name == "EGNN" else 0
    assert sum(p.numel() for p in NETWORKS[name]().parameters()) == wanted
    assert wanted / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", NETWORKS)
def test_errors(name):
    network, mask = NETWORKS[name](channels=4, layers=1), torch.ones(3, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"features has shape \(3, 7, 5\); it should be \(3, 7, 6\), as mask has"):
        network(torch.zeros(3, 7, 3), torch.zeros(3, 7, 5), torch.zeros(3), mask)
    with pytest.raises(ValueError, match="channels is 0; it should be at least 1"):
        NETWORKS[name](channels=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positions": torch.zeros(3, 7, 2)}, r"positions has shape \(3, 7, 2\); it should be \(3, 7, 3\)"),
        ({"level": torch.zeros(1)}, r"level has shape \(1,\); it should be \(3,\)"),
    ],
)
def test_shapes(wrong, message):
    mask = torch.ones(3, 7, dtype=torch.bool)
    good = {"positions": torch.zeros(3, 7, 3), "features": torch.zeros(3, 7, 6), "level": torch.zeros(3), "mask": mask}
    require_shapes(**good, width=6)
    with pytest.raises(ValueError, match=message):
        require_shapes(**{**good, **wrong}, width=6)
