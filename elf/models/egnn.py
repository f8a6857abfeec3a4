"""The paper's two networks for molecules: EDM's equivariant EGNN, and the plain GNN of GDM (Sec. 6.2, C.2).

Both have the call of `elf.models.transformer.EquivariantTransformer`: noisy positions, features, a noise level and a
mask in; a displacement and a number a feature out, for every atom. Nine layers of 256 channels are the paper's size.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from elf.geometry.alignment import center
from elf.models.graph_layers import CoordinateLayer, MessageLayer, pair_mask, require_shapes, require_sizes
from elf.models.transformer import NetworkOutput


class EGNN(nn.Module):
    """E(3)-equivariant graph network (Satorras et al. 2021, arXiv:2102.09844) as EDM has it (arXiv:2203.17003).

    Turning, mirroring or renumbering the molecule turns, mirrors and renumbers the displacements; shifting it changes
    nothing. EDM's settings for QM9: attention, one message layer a block (inv_sublayers 1), no sine embedding,
    coords_range 15, sums not divided (normalization_factor 1), directions divided by distance + 1.

    Args:
        features: numbers an atom (6 for QM9: scaled one-hot and charge).
        channels, layers: width and blocks.
        reach: EDM's coords_range, in the unit of the positions.

    Raises:
        ValueError: a size below one; in the call, shapes that do not fit.
    """

    def __init__(self, features: int = 6, channels: int = 256, layers: int = 9, reach: float = 15.0) -> None:
        super().__init__()
        require_sizes(features=features, channels=channels, layers=layers)
        self.features = features
        self.embed, self.out = nn.Linear(features + 1, channels), nn.Linear(channels, features)
        self.messages = nn.ModuleList(MessageLayer(channels, 2) for _ in range(layers))
        self.moves = nn.ModuleList(CoordinateLayer(channels, 2, reach) for _ in range(layers))

    def forward(
        self,
        positions: Float[Tensor, "batch atoms 3"],
        features: Float[Tensor, "batch atoms features"],
        level: Float[Tensor, " batch"],
        mask: Bool[Tensor, "batch atoms"],
    ) -> NetworkOutput:
        """level: what tells the network how noisy its input is; in the paper's setting the time t in [0, 1]."""
        require_shapes(positions, features, level, mask, self.features)
        pairs = pair_mask(mask)[..., None].to(positions.dtype)
        h = self.embed(torch.cat([features, level[:, None, None].expand(*mask.shape, 1)], dim=-1))
        # Masked atoms can lie anywhere; at the origin their distances stay finite.
        start = x = positions.masked_fill(~mask[..., None], 0)
        first, _ = _radial(start)
        for message, move in zip(self.messages, self.moves, strict=True):
            squared, directions = _radial(x)
            edges = torch.cat([squared, first], dim=-1)
            h = message(h, edges, pairs)
            x = move(h, x, directions, edges, pairs)
        return NetworkOutput(center(x - start, mask), self.out(h).to(features.dtype) * mask[..., None])


class GNN(nn.Module):
    """The non-equivariant network of GDM: positions are just three more features (EDM's baseline, arXiv:2203.17003).

    It sees where an atom is, not how far from another, and answers with a vector of no particular symmetry. Positions
    are centred first, so that it does not see translations (EDM's positions always are); renumbering renumbers.

    Args and errors as for `EGNN`.
    """

    def __init__(self, features: int = 6, channels: int = 256, layers: int = 9) -> None:
        super().__init__()
        require_sizes(features=features, channels=channels, layers=layers)
        self.features = features
        self.embed, self.out = nn.Linear(features + 4, channels), nn.Linear(channels, features + 3)
        self.messages = nn.ModuleList(MessageLayer(channels, 0) for _ in range(layers))

    def forward(
        self,
        positions: Float[Tensor, "batch atoms 3"],
        features: Float[Tensor, "batch atoms features"],
        level: Float[Tensor, " batch"],
        mask: Bool[Tensor, "batch atoms"],
    ) -> NetworkOutput:
        """As `EGNN`, but for the symmetry."""
        require_shapes(positions, features, level, mask, self.features)
        pairs = pair_mask(mask)[..., None].to(positions.dtype)
        time = level[:, None, None].expand(*mask.shape, 1)
        h = self.embed(torch.cat([center(positions, mask), features, time], dim=-1))
        for message in self.messages:
            h = message(h, None, pairs)
        out = self.out(h)
        return NetworkOutput(
            center(out[..., :3].to(positions.dtype), mask), out[..., 3:].to(features.dtype) * mask[..., None]
        )


def _radial(x: Tensor) -> tuple[Tensor, Tensor]:
    """|x_i - x_j|^2 and (x_i - x_j) / (|x_i - x_j| + 1)."""
    difference = x[:, :, None] - x[:, None]
    squared = difference.square().sum(dim=-1, keepdim=True)
    return squared, difference / ((squared + 1e-8).sqrt() + 1)
