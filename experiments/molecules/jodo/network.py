"""JODO's diffusion graph transformer: atoms, bonds and positions as three streams (Huang et al., arXiv:2305.12347).

As its program has it (GRAPH-0/JODO): attention between atoms whose scores are multiplied by a gate of the pair, pairs
that learn from both of their atoms, positions that move along the unit vectors to the other atoms, all of it modulated
by the noise level. It answers with the clean molecule. Only distances and difference vectors enter: turned or mirrored,
the molecule gives the turned or mirrored answer. What concerns a molecule or an atom alone is computed once for it, and
not for each pair, which the program does not do; the mathematics is the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from elf.checks import require_counts, require_integer, require_positive
from elf.geometry.alignment import center
from elf.geometry.distances import norm

Mask = Bool[Tensor, "batch atoms"]
Nodes = Float[Tensor, "batch atoms channels"]
Pairs = Float[Tensor, "batch atoms atoms pair_channels"]
Square = Float[Tensor, "batch atoms atoms"]

CUT = 2.0
"""Of the SQUARED distance, as in JODO's program: 1.41 angstrom, which leaves out nine in ten of the C-C bonds."""
CLOSE = 1e-2
"""Angstrom; closer atoms push each other with less than a unit vector, so that coincident ones have a gradient."""


class GraphState(NamedTuple):
    """A molecule, noisy or clean, as three streams of numbers; zero where masked and from an atom to itself."""

    positions: Float[Tensor, "batch atoms 3"]
    atoms: Float[Tensor, "batch atoms atom_channels"]
    bonds: Float[Tensor, "batch atoms atoms bond_channels"]


class Context(NamedTuple):
    """What all blocks are told."""

    level: Float[Tensor, "batch level"]
    """The noise level's features after their SiLU."""
    mask: Mask
    pairs: Bool[Tensor, "batch atoms atoms"]
    near: Bool[Tensor, "batch atoms atoms extra"]
    """Whom the extra heads ask: the atoms bonded, and the atoms near, in the prediction before."""
    means: Float[Tensor, "batch atoms atoms extra"]
    """Their shares: equal ones, of all atoms where an atom has no such neighbour."""


def pairs_of(mask: Mask) -> Bool[Tensor, "batch atoms atoms"]:
    """True for two different real atoms."""
    return mask[:, :, None] & mask[:, None, :] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights of its own, then shifted and scaled."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class Distances(nn.Module):
    """Squared distances r = a d^2 + b and Gaussian densities of r, with learned centres and widths; a, b by the level.

    features, level: widths of the answer and of the noise level's features.
    """

    def __init__(self, features: int, level: int) -> None:
        super().__init__()
        self.affine = nn.Linear(level, 2)
        self.centres, self.widths = (nn.Parameter(3 * torch.rand(features - 1)) for _ in range(2))

    def forward(self, squared: Square, level: Float[Tensor, "batch level"]) -> Pairs:
        """`level` after its SiLU."""
        a, b = self.affine(level)[:, :, None, None].unbind(1)
        r = ((1 + a) * squared + b)[..., None]
        width = self.widths.abs() + 1e-5
        # exp(-(r - m)^2 / 2 w^2) / (w sqrt(2 pi))
        gaussians = ((r - self.centres) / (width * 2**0.5)).square().neg().exp() / (width * (2 * torch.pi) ** 0.5)
        return torch.cat([r, gaussians], dim=-1)


class Block(nn.Module):
    """One round: attend, then atoms, pairs and positions change.

    Args: as for `GraphTransformer`; pair and level are the widths E and T.
    """

    def __init__(
        self, channels: int, pair: int, level: int, heads: int, extra_heads: int, dropout: float, stride: float
    ) -> None:
        super().__init__()
        self.heads, self.extra_heads, content = heads, extra_heads, heads - extra_heads
        self.keys, self.width = content * (channels // content), channels
        self.distances = Distances(pair, level)
        self.mix = nn.Linear(2 * pair, pair)
        self.node_level, self.pair_level = nn.Linear(level, 6 * channels), nn.Linear(level, 6 * pair)
        self.query, self.key = nn.Linear(channels, self.keys), nn.Linear(channels, self.keys)
        self.value = nn.Linear(channels, channels)
        self.key_gate = nn.Linear(pair, self.keys, bias=False)
        self.value_gate = nn.Linear(pair, channels, bias=False)
        self.to_pair = nn.Linear(channels, pair)
        self.node_mlp, self.pair_mlp = (
            nn.Sequential(nn.Linear(n, 2 * n), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * n, n), nn.Dropout(dropout))
            for n in (channels, pair)
        )
        self.move_in = nn.Linear(2 * channels + 2 * pair, channels)
        self.move_level = nn.Linear(level, 2 * channels)
        self.move = nn.Sequential(
            nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1 + extra_heads, bias=False)
        )
        self.stride = nn.Parameter(torch.tensor(float(stride)))

    def forward(self, x: Nodes, h: Nodes, e: Pairs, context: Context) -> tuple[Nodes, Nodes, Pairs]:
        """Positions, atoms and pairs after the round."""
        level = context.level
        apart = x[:, :, None] - x[:, None]
        geometry = self.distances(apart.square().sum(-1), level)
        u = self.mix(torch.cat([geometry, e], dim=-1))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.node_level(level)[:, None].chunk(6, dim=-1)
        eshift1, escale1, egate1, eshift2, escale2, egate2 = self.pair_level(level)[:, None, None].chunk(6, dim=-1)
        gathered = self._attend(modulated(h, shift1, scale1), modulated(u, eshift1, escale1), context)
        y = modulated(h + gate1 * gathered, shift2, scale2)
        h = y + gate2 * self.node_mlp(y)
        told = F.linear(gathered, self.to_pair.weight)
        told = told[:, :, None] + told[:, None] + self.to_pair.bias
        y = modulated(e + egate1 * told, eshift2, escale2)
        e = y + egate2 * self.pair_mlp(y)
        return self._moved(x, apart, h, torch.cat([e, geometry], dim=-1), context), h, e

    def _attend(self, h: Nodes, u: Pairs, context: Context) -> Nodes:
        """What each atom gathers from the others; the extra heads take plain means over neighbours."""
        pairs = context.pairs
        batch, n, content = *h.shape[:2], self.heads - self.extra_heads
        scores = self.query(h)[:, :, None] * self.key(h)[:, None] * self.key_gate(u).tanh()
        scores = scores.view(batch, n, n, content, -1).sum(-1) / (self.width / self.heads) ** 0.5
        scores = scores.masked_fill(~pairs[..., None], torch.finfo(scores.dtype).min)
        shares = scores.softmax(dim=2) * pairs[..., None]
        shares = torch.cat([context.means, shares], dim=-1)
        values = (self.value(h)[:, None] * self.value_gate(u).tanh()).view(batch, n, n, self.heads, -1)
        return (shares[..., None] * values).sum(2).flatten(2)

    def _moved(self, x: Nodes, apart: Tensor, h: Nodes, pair: Pairs, context: Context) -> Nodes:
        # Linear([h_i, h_j, pair]), the parts of each atom once.
        first, second, rest = self.move_in.weight.split([self.width, self.width, pair.shape[-1]], dim=1)
        w = F.linear(pair, rest, self.move_in.bias)
        w = w + F.linear(h, first)[:, :, None] + F.linear(h, second)[:, None]
        shift, scale = self.move_level(context.level)[:, None, None].chunk(2, dim=-1)
        pushes = self.move(modulated(w, shift, scale)).tanh()
        allowed = torch.cat([context.pairs[..., None], context.near], dim=-1)
        push = (pushes * allowed).mean(dim=-1)
        directions = apart / norm(apart).clamp(min=CLOSE)[..., None]
        return center(x + self.stride * (push[..., None] * directions).sum(2), context.mask)


class GraphTransformer(nn.Module):
    """The network: noisy molecule and noise level in, clean molecule out.

    Args:
        atom_channels, bond_channels: numbers an atom and a pair has; the defaults are QM9's (five elements and the
            formal charge; whether there is a bond, and its order).
        channels: width H of the atoms' stream; pairs have E = H / 4 channels and E features of distances, the noise
            level 4 H.
        heads: of the attention; `extra_heads` of them, 0 or 2, are means over the atoms bonded, and near, in the
            prediction before.
        layers: blocks.
        dropout: of the feed-forward layers.
        stride: angstrom that a block first moves atoms apart by, at most, for each other atom; learned.

    Raises:
        ValueError: a width, a number of heads or of layers that does not fit.
    """

    def __init__(
        self,
        *,
        atom_channels: int = 6,
        bond_channels: int = 2,
        channels: int = 256,
        heads: int = 16,
        extra_heads: int = 2,
        layers: int = 8,
        dropout: float = 0.1,
        stride: float = 0.01,
    ) -> None:
        super().__init__()
        channels, heads, layers = require_counts(channels=channels, heads=heads, layers=layers)
        if require_integer("extra_heads", extra_heads) not in (0, 2) or extra_heads >= heads:
            raise ValueError(f"extra_heads is {extra_heads}; it should be 0 or 2, and less than heads={heads}")
        if channels % heads or channels % 4 or 2 * channels % layers:
            raise ValueError(
                f"channels is {channels}; it should be a multiple of heads={heads} and 4, and twice it of {layers=}"
            )
        require_positive("stride", stride)
        pair, level = channels // 4, 4 * channels
        self.frequencies = nn.Parameter(torch.randn(8))
        self.level = nn.Sequential(nn.Linear(17, level), nn.GELU(), nn.Linear(level, level))
        self.distances = Distances(pair, level)
        self.embed_atoms = nn.Linear(2 * atom_channels, channels)
        self.embed_bonds = nn.Linear(2 * bond_channels + pair, pair)
        self.blocks = nn.ModuleList(
            Block(channels, pair, level, heads, extra_heads, dropout, stride) for _ in range(layers)
        )
        self.atom_parts, self.bond_parts = (
            nn.ModuleList(nn.Linear(n, 2 * n // layers) for _ in range(layers)) for n in (channels, pair)
        )
        self.atom_head = _head(channels, atom_channels)
        self.bond_heads = nn.ModuleList(_head(pair, 1) for _ in range(bond_channels))
        self.extra_heads = extra_heads

    def forward(
        self, noisy: GraphState, log_snr: Float[Tensor, " batch"], mask: Mask, previous: GraphState | None = None
    ) -> GraphState:
        """The clean molecule; positions are centred, bonds symmetric.

        Args:
            noisy: with centred positions.
            log_snr: log(alpha^2 / sigma^2).
            previous: an earlier answer for the same molecules (self-conditioning), None if there is none.
        """
        pairs = pairs_of(mask)
        waves = 2 * torch.pi * log_snr[:, None] * self.frequencies
        level = F.silu(self.level(torch.cat([log_snr[:, None], waves.sin(), waves.cos()], dim=-1)))
        near = self._neighbours(pairs, previous)
        asked = near.where(near.any(2, keepdim=True), pairs[..., None]).to(log_snr.dtype)
        context = Context(level, mask, pairs, near, asked / asked.sum(2, keepdim=True).clamp(min=1))
        x, h, e = noisy.positions, *self._embedded(noisy, previous, level)
        atoms, bonds = [h], [e]
        for block, atom_part, bond_part in zip(self.blocks, self.atom_parts, self.bond_parts, strict=True):
            x, h, e = block(x, h, e, context)
            atoms.append(atom_part(h))
            bonds.append(bond_part(e))
        bond_states = torch.cat(bonds, dim=-1)
        drawn = torch.cat([head(bond_states) for head in self.bond_heads], dim=-1)
        return GraphState(
            x,
            self.atom_head(torch.cat(atoms, dim=-1)) * mask[..., None],
            (drawn + drawn.transpose(1, 2)) / 2 * pairs[..., None],
        )

    def _embedded(self, noisy: GraphState, previous: GraphState | None, level: Tensor) -> tuple[Nodes, Pairs]:
        seen = GraphState(*map(torch.zeros_like, noisy)) if previous is None else previous
        apart = seen.positions[:, :, None] - seen.positions[:, None]
        # Times zero, rather than left out: each weight has a gradient in every step, which several processes ask for.
        features = self.distances(apart.square().sum(-1), level) * (previous is not None)
        atoms = self.embed_atoms(torch.cat([noisy.atoms, seen.atoms], dim=-1))
        return atoms, self.embed_bonds(torch.cat([noisy.bonds, seen.bonds, features], dim=-1))

    def _neighbours(self, pairs: Tensor, previous: GraphState | None) -> Bool[Tensor, "batch atoms atoms extra"]:
        if not self.extra_heads:
            return pairs[..., None][..., :0]
        if previous is None:
            return pairs[..., None].expand(-1, -1, -1, 2)
        apart = previous.positions[:, :, None] - previous.positions[:, None]
        near = torch.stack([previous.bonds[..., 0] >= 0, apart.square().sum(-1) <= CUT], dim=-1)
        return near & pairs[..., None]


def _head(width: int, numbers: int) -> nn.Sequential:
    """From the states of all blocks (3 width) to the answer."""
    sizes = 3 * width, width, width // 2
    return nn.Sequential(
        *(part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())), nn.Linear(width // 2, numbers)
    )
