"""Transformers for point clouds: an equivariant one, and a plain one that has to learn what a rotation is.

In the first every atom has `channels` numbers that do not change under rotation and `channels` vectors that turn with
the molecule. Attention weights come from the invariant part and from distances only, so the output turns exactly as the
input does (the tests check it). Close to TorchMD-NET (arXiv:2202.02541) and PaiNN (arXiv:2102.03150), reduced to what
small molecules need. The second sees coordinates as features like any others; only its attention is told the distances.
Both are dense: for up to some thirty atoms a masked N x N matrix beats an edge list.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from elf.checks import require_bool, require_counts, require_integer, require_positive
from elf.geometry.distances import norm

Positions = Float[Tensor, "batch atoms 3"]
Features = Float[Tensor, "batch atoms features"]
Levels = Float[Tensor, " batch"]
Mask = Bool[Tensor, "batch atoms"]
"""True for a real atom."""

Channels = Float[Tensor, "batch atoms channels"]
PairFeatures = Float[Tensor, "batch atoms atoms pair_features"]
Pairs = Float[Tensor, "heads batch atoms atoms"]
"""Numbers of a pair with the heads in front, as attention has them: nothing is copied on the way there."""


class NetworkOutput(NamedTuple):
    """displacements: vectors that turn with the molecule. logits: one a feature, invariant."""

    displacements: Positions
    logits: Features


class Block(nn.Module):
    """One round: attend (scalars and vectors), then mix the channels of each atom."""

    def __init__(self, channels: int, heads: int, calm: bool) -> None:
        super().__init__()
        self.heads, self.calm = heads, calm
        self.attention_norm, self.mixing_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.modulation = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, 4 * channels, bias=False)
        self.attended = nn.Linear(channels, channels)
        self.vector_values = nn.Linear(channels, channels, bias=False)
        self.vector_pairs = nn.Linear(channels, 2 * channels, bias=False)
        self.hidden = nn.Linear(2 * channels, 3 * channels)
        self.mixed = nn.Linear(3 * channels, 2 * channels)
        for layer in (self.attended, self.mixed):  # each block starts close to the identity
            nn.init.normal_(layer.weight, std=0.03 / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        scalars: Float[Tensor, "batch atoms channels"],
        vectors: Float[Tensor, "batch 3 atoms channels"] | None,
        directions: Float[Tensor, "3 batch atoms atoms"],
        bias: Pairs,
        gate: Pairs,
        modulation: Float[Tensor, "batch 1 modulation"],
    ) -> tuple[Float[Tensor, "batch atoms channels"], Float[Tensor, "batch 3 atoms channels"]]:
        """The scalars and vectors after this round; `vectors` is None in the first."""
        batch, atoms, channels = scalars.shape
        scale, shift = modulation.chunk(2, dim=-1)
        normed = self.attention_norm(scalars) * (1 + scale) + shift
        query, key, value, push = by_heads(self.project(normed), 4, self.heads)
        weights = attention(query, key, bias)

        # What attention carries along: the values and, from the second round on, the vectors, in one product.
        carried = value.view(self.heads, batch, atoms, 1, -1)
        if vectors is not None:
            turning = self.vector_values(vectors).view(batch, 3, atoms, self.heads, -1).permute(3, 0, 2, 1, 4)
            carried = torch.cat([carried, turning], dim=3)
        arrived = (weights @ carried.flatten(3).flatten(0, 1)).view(*carried.shape)
        told, turned = arrived.split([1, arrived.shape[3] - 1], dim=3)
        scalars = scalars + self.attended(told.permute(1, 2, 3, 0, 4).flatten(2))

        # Pushes along the lines between atoms: the three axes are rows of one matrix product.
        along = (weights.view_as(gate) * gate)[:, :, None] * directions.transpose(0, 1)
        message = (along.flatten(0, 1).flatten(1, 2) @ push).view(self.heads, batch, 3, atoms, -1)
        if vectors is not None:
            message = message + turned.transpose(2, 3)
        else:  # a gradient for each weight in every step, which several processes ask for
            message = message + 0 * self.vector_values.weight.sum()
        message = message.permute(1, 2, 3, 0, 4).flatten(3)  # (batch, 3, atoms, channels)
        vectors = message if vectors is None else vectors + message

        first, second = self.vector_pairs(vectors).split(channels, dim=-1)
        products = (first * second).sum(dim=1) / math.sqrt(channels)  # inner products: invariant
        if self.calm:
            products = products.asinh()
        mixed = self.mixed(F.silu(self.hidden(torch.cat([self.mixing_norm(scalars), products], dim=-1))))
        scalar_update, vector_gate = mixed.split(channels, dim=-1)
        return scalars + scalar_update, vectors + vector_gate[:, None] * first


def by_heads(x: Channels, parts: int, heads: int) -> tuple[Tensor, ...]:
    """The parts of a projection, (heads batch, atoms, channels / heads) each: copied once for all of them."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 3, 0, 1, 4).flatten(1, 2).unbind(0)


def attention(query: Tensor, key: Tensor, bias: Pairs) -> Float[Tensor, "heads_batch atoms atoms"]:
    """The softmax over the last axis of query key / sqrt(width) + bias."""
    atoms = query.shape[1]
    logits = torch.baddbmm(bias.flatten(0, 1), query, key.mT, alpha=query.shape[-1] ** -0.5)
    if atoms >= 16:
        return logits.softmax(dim=-1)
    # Rows shorter than a processor's vectors take torch's softmax several times as long as padded ones.
    return F.pad(logits, (0, 16 - atoms), value=-math.inf).softmax(dim=-1)[..., :atoms]


def differences(
    positions: Positions,
) -> tuple[Float[Tensor, "3 batch atoms atoms"], Float[Tensor, "batch atoms atoms"]]:
    """x_i - x_j, axes first, and |x_i - x_j|."""
    axes = positions.permute(2, 0, 1)
    difference = axes[..., :, None] - axes[..., None, :]
    return difference, norm(difference.movedim(0, -1))


def hidden(mask: Mask, pair: Tensor) -> Float[Tensor, "batch 1 atoms"]:
    """What is added to biases so that nobody attends to padding."""
    return pair.new_zeros(mask.shape).masked_fill(~mask, -1e9)[:, None]


class _Transformer(nn.Module):
    """What both share: the noise level's embedding, and distances as features of pairs.

    Distances enter twice, in angstrom and divided by the size of the noisy cloud, so that the same network sees
    structure at every noise level.
    """

    frequencies: Tensor
    centers: Tensor
    pair: nn.Linear
    blocks: nn.ModuleList

    def __init__(self, inputs: int, channels: int, heads: int, radial: int, cutoff: float, size: float) -> None:
        super().__init__()
        cutoff, size = require_positive("cutoff", cutoff), require_positive("size", size)
        if channels % heads:
            raise ValueError(f"channels is {channels}; it should be a multiple of heads={heads}")
        self.heads, self.size = heads, size
        self.embed = nn.Linear(inputs, channels)
        self.noise = nn.Sequential(nn.Linear(32, channels), nn.SiLU(), nn.Linear(channels, channels))
        weight = self.embed.weight
        octaves = torch.linspace(math.log(0.25), math.log(8.0), 16, dtype=weight.dtype, device=weight.device)
        self.register_buffer("frequencies", octaves.exp(), persistent=False)
        # Distances are seen through Gaussians on a grid.
        centers = torch.linspace(0, cutoff, radial, dtype=weight.dtype, device=weight.device)
        self.register_buffer("centers", centers, persistent=False)
        self.width = cutoff / radial

    def embed_noise(self, sigma: Levels) -> Float[Tensor, "batch channels"]:
        """Sines and cosines of log sigma through two layers."""
        phase = 0.5 * sigma.log()[:, None] * self.frequencies
        return self.noise(torch.cat([phase.sin(), phase.cos()], dim=-1))

    def modulations(self, noise: Float[Tensor, "batch channels"]) -> tuple[Float[Tensor, "batch 1 modulation"], ...]:
        """What the noise level tells each block's norms: all of them in one product."""
        layers = [block.modulation for block in self.blocks]
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        return F.linear(noise, weight, bias).view(len(noise), 1, len(layers), -1).unbind(2)

    def shrink(self, sigma: Levels) -> Float[Tensor, "batch 1 1"]:
        """What brings a noisy cloud to the size of clean data."""
        return (self.size / (sigma.square() + self.size**2).sqrt())[:, None, None]

    def of_pairs(
        self, distances: Float[Tensor, "batch atoms atoms"], sigma: Levels
    ) -> Float[Tensor, "terms heads batch atoms atoms"]:
        """Distances, and distances in units of the cloud, through the Gaussians and a linear layer."""
        near = torch.stack([distances, distances * self.shrink(sigma)]) / (math.sqrt(2) * self.width)
        away = near[:, None] - (self.centers / (math.sqrt(2) * self.width))[:, None, None, None]
        # What is smaller, and far below rounding, processors take many times as long to compute and to multiply.
        gaussians = torch.exp((away * -away).clamp(min=-40)).flatten(2).flatten(0, 1)
        found = torch.addmm(self.pair.bias[:, None], self.pair.weight, gaussians)
        return found.view(-1, self.heads, *distances.shape)


class EquivariantTransformer(_Transformer):
    """Noisy positions and features of atoms -> a displacement and feature logits an atom.

    Equivariant under rotations, reflections and permutations, invariant under translations.

    Args:
        features: size of the feature vector of an atom (5: one-hot of H, C, N, O, F).
        channels, heads, layers: width (a multiple of heads), attention heads, blocks.
        radial: number of Gaussians a distance.
        cutoff: largest distance they resolve, angstrom.
        size: root-mean-square coordinate of clean data, angstrom (sigma_data).
        pair_features: size of the feature vector of a pair of atoms, such as its bond; 0 for none.
        calm: whether inner products of vectors enter by their inverse hyperbolic sine. As they are, the vectors of each
            round grow with the cube of those before, and long trainings meet an atom now and then that is thrown: most
            often from nothing but noise, but denoisers too (fifteen batches of 60,000 with MSE; an energy refused one).
    """

    def __init__(
        self,
        features: int = 5,
        channels: int = 64,
        heads: int = 4,
        layers: int = 4,
        radial: int = 24,
        cutoff: float = 8.0,
        size: float = 1.5,
        pair_features: int = 0,
        calm: bool = False,
    ) -> None:
        features, channels, heads, layers, radial = require_counts(
            features=features, channels=channels, heads=heads, layers=layers, radial=radial
        )
        super().__init__(features, channels, heads, radial, cutoff, size)
        pair_features = require_integer("pair_features", pair_features, least=0)
        require_bool("calm", calm)
        self.pair = nn.Linear(2 * radial, (2 * layers + 1) * heads)
        self.pair_embed = nn.Linear(pair_features, self.pair.out_features, bias=False) if pair_features else None
        self.blocks = nn.ModuleList(Block(channels, heads, calm) for _ in range(layers))
        self.final_norm = nn.LayerNorm(channels)
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.vector_out = nn.Linear(channels, 1, bias=False)
        self.logits = nn.Linear(channels, features)
        nn.init.zeros_(self.logits.weight)

    def forward(
        self, positions: Positions, features: Features, sigma: Levels, mask: Mask, pairs: PairFeatures | None = None
    ) -> NetworkOutput:
        """Displacements are of order one, in units of the caller's choosing.

        Args:
            positions, sigma: angstrom; sigma is the noise level.
            features: of each atom. mask: True for real atoms.
            pairs: symmetric features of the pairs of atoms, for a network made with `pair_features`.
        """
        if (pairs is None) != (self.pair_embed is None):
            raise ValueError(f"pairs is {type(pairs).__name__}, but the network has pair_embed={self.pair_embed}")
        noise = self.embed_noise(sigma)
        difference, distances = differences(positions)
        directions = difference / (1 + distances)
        pair = self.of_pairs(distances, sigma)
        if pairs is not None and self.pair_embed is not None:
            pair = pair + self.pair_embed(pairs).permute(3, 0, 1, 2).reshape_as(pair)
        layers = len(self.blocks)
        biases, gates, (last,) = pair.split([layers, layers, 1])
        rounds = zip(self.blocks, biases + hidden(mask, pair), gates, self.modulations(noise), strict=True)
        scalars, vectors = self.embed(features) + noise[:, None], None
        for block, *told in rounds:
            scalars, vectors = block(scalars, vectors, directions, *told)
        assert vectors is not None
        scalars = self.final_norm(scalars)

        query, key = (by_heads(layer(scalars), 1, self.heads)[0] for layer in (self.query, self.key))
        pull = ((query @ key.mT).view_as(last) * last).sum(dim=0) / (self.heads * math.sqrt(query.shape[-1]))
        pull = (pull + pull.transpose(1, 2)) * mask[:, None] / mask.sum(dim=1, dtype=pull.dtype).sqrt()[:, None, None]
        along_pairs = (pull * directions).sum(dim=-1).transpose(0, 1)  # (batch, 3, atoms)
        displacements = self.vector_out(vectors)[..., 0] + along_pairs
        return NetworkOutput(displacements.transpose(1, 2), self.logits(scalars))


class PlainBlock(nn.Module):
    """One round of a transformer whose norms are told the noise level."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mixing_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.modulation = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(channels, 3 * channels, bias=False)
        self.attended = nn.Linear(channels, channels)
        self.hidden, self.mixed = nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels)

    def forward(self, atoms: Channels, bias: Pairs, modulation: Float[Tensor, "batch 1 modulation"]) -> Channels:
        """The atoms' features after this round."""
        scale, shift, mixing_scale, mixing_shift = modulation.chunk(4, dim=-1)
        normed = self.attention_norm(atoms) * (1 + scale) + shift
        query, key, value = by_heads(self.project(normed), 3, self.heads)
        arrived = (attention(query, key, bias) @ value).view(self.heads, *atoms.shape[:2], -1)
        atoms = atoms + self.attended(arrived.permute(1, 2, 0, 3).flatten(2))
        normed = self.mixing_norm(atoms) * (1 + mixing_scale) + mixing_shift
        return atoms + self.mixed(F.silu(self.hidden(normed)))


class PlainTransformer(_Transformer):
    """Noisy positions and features of atoms -> a displacement and feature logits an atom, without any symmetry but that
    of permutations.

    Coordinates are features like any others: what a rotation does has to be learned from molecules in random
    orientations. Translations are not its own either, but its callers centre what they hand in. Attention is biased by
    the distances of the noisy cloud. The counterpart of the paper's GDM-aug (Sec. 6.2), at the size of
    `EquivariantTransformer` in time, not in weights. Arguments as there.
    """

    def __init__(
        self,
        features: int = 5,
        channels: int = 96,
        heads: int = 6,
        layers: int = 5,
        radial: int = 24,
        cutoff: float = 8.0,
        size: float = 1.5,
    ) -> None:
        features, channels, heads, layers, radial = require_counts(
            features=features, channels=channels, heads=heads, layers=layers, radial=radial
        )
        super().__init__(features + 3, channels, heads, radial, cutoff, size)
        self.pair = nn.Linear(2 * radial, layers * heads)
        self.blocks = nn.ModuleList(PlainBlock(channels, heads) for _ in range(layers))
        self.final_norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, 3 + features)
        nn.init.zeros_(self.out.weight)

    def forward(self, positions: Positions, features: Features, sigma: Levels, mask: Mask) -> NetworkOutput:
        """As `EquivariantTransformer.forward`."""
        noise = self.embed_noise(sigma)
        pair = self.of_pairs(differences(positions)[1], sigma)
        atoms = self.embed(torch.cat([positions * self.shrink(sigma) / self.size, features], dim=-1)) + noise[:, None]
        for block, *told in zip(self.blocks, pair + hidden(mask, pair), self.modulations(noise), strict=True):
            atoms = block(atoms, *told)
        displacements, logits = self.out(self.final_norm(atoms)).split([3, features.shape[-1]], dim=-1)
        return NetworkOutput(displacements, logits)
