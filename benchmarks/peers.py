"""The same answer from other packages, each beside ours in one run; where one is not installed, its row says so.

Before anything is timed, both have to give the same answer: their difference is in the row.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import elf
from benchmarks.timing import interleaved, rounded, samples
from elf.data.spin_glass import sample_couplings
from elf.generative import points
from elf.geometry import kabsch
from elf.geometry.graphs import random_regular_edges
from elf.geometry.rigidity import is_rigid
from elf.models.egnn import EGNN
from elf.spins import ground_state

Pair = tuple[Callable[[], object], Callable[[], object], float]
"""Ours, the peer's, and by how much their answers differ."""


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    """For each peer: milliseconds of both, their ratio, the difference of their answers; or that it is missing."""
    return [_row(name, *peer, 0.05 if tiny else 2.0, tiny) for name, peer in PEERS.items()]


def _row(
    name: str, package: str, what: str, make: Callable[[bool], Pair], seconds: float, tiny: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"peer": name, "what": what, "installed": find_spec(package) is not None}
    if not row["installed"]:
        return row
    ours, theirs, difference = make(tiny)
    times = interleaved({"ours": ours, "theirs": theirs}, seconds, least=3)
    found = {kind: 1e3 * time["seconds"] for kind, time in times.items()}
    return {
        **row,
        "milliseconds": {kind: rounded(value) for kind, value in found.items()},
        "theirs_over_ours": rounded(found["theirs"] / found["ours"], 3),
        "difference": rounded(difference, 3),
    }


def _torchcfm(tiny: bool) -> Pair:
    """Flow matching's squared error of the velocity, and its gradient in a network's weights."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    batch = 4 if tiny else 256
    matcher, network = ConditionalFlowMatcher(sigma=0.0), points.VelocityNetwork(4, 2)
    data = samples(batch, 4)[1][..., :2].contiguous()
    data = data - data.mean(1, keepdim=True)
    weights, energy = list(network.parameters()), elf.Harmonic()

    def ours() -> Tensor:
        loss = points.denoising_loss(network, energy, data, points.PATH, torch.Generator().manual_seed(0)).mean()
        return torch.stack([grad.norm() for grad in torch.autograd.grad(loss, weights)])

    def theirs() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        t = points.PATH.draw(batch, generator)
        noise = points.gaussian(data.shape, generator)
        # Their time runs from noise to data.
        _, x_t, velocity = matcher.sample_location_and_conditional_flow(noise, data, t=1 - t)
        loss = (network.velocity(x_t, t) + velocity).square().sum((1, 2)).mean()
        return torch.stack([grad.norm() for grad in torch.autograd.grad(loss, weights)])

    return ours, theirs, _apart(ours(), theirs())


def _edm(tiny: bool) -> Pair:
    """EDM's network from its formulas, with the pairs' features written side by side, on the same weights."""
    network = EGNN(channels=8, layers=2) if tiny else EGNN(channels=64, layers=4)
    x = samples(2 if tiny else 16, 5 if tiny else 15)[1]
    inputs = x, torch.zeros(*x.shape[:2], 6), torch.full((len(x),), 0.5), torch.ones(x.shape[:2], dtype=torch.bool)
    weights = list(network.parameters())

    def gradient(call: Callable[..., Tensor]) -> Tensor:
        found = torch.autograd.grad(call(*inputs).square().sum(), weights, allow_unused=True)
        return torch.stack([grad.norm() for grad in found if grad is not None])

    def ours() -> Tensor:
        return gradient(lambda *given: network(*given).displacements)

    def theirs() -> Tensor:
        return gradient(lambda *given: _edm_formula(network, *given))

    return ours, theirs, _apart(ours(), theirs())


def _edm_formula(network: EGNN, x: Tensor, features: Tensor, t: Tensor, mask: Tensor) -> Tensor:
    n, start = x.shape[1], x
    others = 1 - torch.eye(n)[..., None]

    def both(h: Tensor, edges: Tensor) -> Tensor:
        h_i, h_j = h[:, :, None].expand(-1, -1, n, -1), h[:, None].expand(-1, n, -1, -1)
        return torch.cat([h_i, h_j, edges], dim=-1)

    def squares(x: Tensor) -> Tensor:
        return (x[:, :, None] - x[:, None]).square().sum(-1, keepdim=True)

    h = network.embed(torch.cat([features, t[:, None, None].expand(-1, n, 1)], dim=-1))
    for message, move in zip(network.messages, network.moves, strict=True):
        edges = torch.cat([squares(x), squares(start)], dim=-1)
        m = F.silu(message.message(F.silu(_linear(message.pair, both(h, edges)))))
        heard = (m * message.attention(m).sigmoid() * others).sum(2)
        h = h + message.update(torch.cat([h, heard], dim=-1))
        pull = move.pull(F.silu(move.hidden(F.silu(_linear(move.pair, both(h, edges))))))
        directions = (x[:, :, None] - x[:, None]) / ((squares(x) + 1e-8).sqrt() + 1)
        x = x + (directions * move.reach * pull.tanh() * others).sum(2)
    return (x - start) - (x - start).mean(1, keepdim=True)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _clouds(tiny: bool) -> tuple[Tensor, Tensor]:
    prediction, target = samples(3 if tiny else 256, 29, dtype=torch.float64)
    return tuple(cloud.detach() - cloud.detach().mean(1, keepdim=True) for cloud in (prediction, target))  # type: ignore[return-value]


def _scipy(tiny: bool) -> Pair:
    """The rotation that turns each of a batch of clouds onto its target."""
    from scipy.spatial.transform import Rotation

    prediction, target = _clouds(tiny)
    pairs = list(zip(target.numpy(), prediction.numpy(), strict=True))

    def ours() -> Tensor:
        return kabsch(prediction, target).rotation

    def theirs() -> Tensor:
        return torch.from_numpy(np.stack([Rotation.align_vectors(x, y)[0].as_matrix() for y, x in pairs]))

    return ours, theirs, _apart(ours(), theirs())


def _rdkit(tiny: bool) -> Pair:
    """The root-mean-square deviation after alignment."""
    from rdkit.Numerics.rdAlignment import GetAlignmentTransform

    prediction, target = _clouds(tiny)
    pairs = list(zip(target.tolist(), prediction.tolist(), strict=True))
    energy = elf.AlignedHarmonic()

    def ours() -> Tensor:
        return energy(prediction, target)

    def theirs() -> Tensor:
        return torch.tensor([GetAlignmentTransform(y, x)[0] for y, x in pairs], dtype=torch.float64)

    return ours, theirs, _apart(ours(), theirs())


def _pyrigi(tiny: bool) -> Pair:
    """Whether a random regular graph is rigid in the plane."""
    import networkx
    from pyrigi import Graph

    n = 12 if tiny else 60
    edges = random_regular_edges(n, 4, 0)
    graph = Graph(networkx.Graph(edges.T.tolist()))
    return (
        lambda: is_rigid(n, edges, 2),
        lambda: graph.is_rigid(dim=2),
        float(bool(is_rigid(n, edges, 2)) != bool(graph.is_rigid(dim=2))),
    )


def _highs(tiny: bool) -> Pair:
    """Exact ground states of planar lattices, by matching (ours) and as integer programs."""
    couplings = sample_couplings(1, 4 if tiny else 8, seed=7)

    def ours() -> Tensor:
        return ground_state(couplings).energy

    def theirs() -> Tensor:
        return ground_state(couplings, "milp").energy

    return ours, theirs, _apart(ours(), theirs())


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


PEERS: dict[str, tuple[str, str, Callable[[bool], Pair]]] = {
    "torchcfm": ("torchcfm", "loss of flow matching with gradient, 256 clouds of 4", _torchcfm),
    "EDM's formulas": ("torch", "EGNN, forward and backward, 16 x 15, 64 channels, 4 layers", _edm),
    "scipy": ("scipy", "rotations of Kabsch, 256 x 29", _scipy),
    "RDKit": ("rdkit", "deviations after alignment, 256 x 29", _rdkit),
    "pyrigi": ("pyrigi", "rigidity in the plane, 60 points of degree 4", _pyrigi),
    "HiGHS": ("scipy", "ground state of an 8 x 8 lattice", _highs),
}
"""Peer -> its package, what is computed, and both programs."""
