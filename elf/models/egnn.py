"""The paper's two networks for molecules: EDM's equivariant EGNN, and the plain GNN of GDM (Sec. 6.2, C.2).

Both have the call of `elf.models.transformer.EquivariantTransformer`: noisy positions, features, a noise level and a
mask in; a displacement and a number a feature out, for every atom. Nine layers of 256 channels are the paper's size.

As in EDM (Hoogeboom et al. 2022, arXiv:2203.17003, Appendix C; `egnn/egnn_new.py` of its code), on dense padded batches
instead of edge lists: molecules are fully connected graphs there too. One difference is meant: EDM's code gives its GNN
no edge mask, so that an atom there hears padding and itself, and what it says depends on the sizes of its batch mates;
here both networks pass messages between two different real atoms alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from elf.checks import require_counts, require_positive
from elf.geometry.alignment import center
from elf.models.transformer import Features, Levels, Mask, NetworkOutput, Positions

Channels = Float[Tensor, "batch atoms channels"]
Edges = Float[Tensor, "batch atoms atoms edges"]
Pairs = Float[Tensor, "batch atoms atoms 1"]
"""1 for two different real atoms, else 0."""


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
        features, channels, layers = require_counts(features=features, channels=channels, layers=layers)
        reach = require_positive("reach", reach)
        self.features = features
        self.embed, self.out = nn.Linear(features + 1, channels), nn.Linear(channels, features)
        self.messages = nn.ModuleList(MessageLayer(channels, 2) for _ in range(layers))
        self.moves = nn.ModuleList(CoordinateLayer(channels, 2, reach) for _ in range(layers))

    def forward(self, positions: Positions, features: Features, level: Levels, mask: Mask) -> NetworkOutput:
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
        features, channels, layers = require_counts(features=features, channels=channels, layers=layers)
        self.features = features
        self.embed, self.out = nn.Linear(features + 4, channels), nn.Linear(channels, features + 3)
        self.messages = nn.ModuleList(MessageLayer(channels, 0) for _ in range(layers))

    def forward(self, positions: Positions, features: Features, level: Levels, mask: Mask) -> NetworkOutput:
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


def pair_mask(mask: Mask) -> Bool[Tensor, "batch atoms atoms"]:
    """True for pairs of two different real atoms."""
    own = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return mask[:, :, None] & mask[:, None, :] & ~own


class PairLinear(nn.Linear):
    """W [h_i, h_j, e_ij] + b for all pairs, without writing down the concatenation: three products, summed.

    Half the work of the concatenation, and the same parameters as `nn.Linear(2 channels + edges, out)`.
    """

    def __init__(self, channels: int, edges: int, out: int) -> None:
        super().__init__(2 * channels + edges, out)
        self.parts = [channels, channels, edges]

    def forward(self, h: Channels, edges: Edges | None) -> Float[Tensor, "batch atoms atoms out"]:  # type: ignore[override]
        """Row i, column j: what reaches atom i from atom j."""
        here, there, along = self.weight.split(self.parts, dim=1)
        result = F.linear(h, here, self.bias)[:, :, None] + F.linear(h, there)[:, None]
        return result if edges is None else result + F.linear(edges, along)


class MessageLayer(nn.Module):
    """m_ij = phi_e(h_i, h_j, e_ij); h_i <- h_i + phi_h(h_i, sum_j a(m_ij) m_ij), with attention a (EDM's GCL).

    Args:
        channels: width of h and of the messages.
        edges: features e_ij of a pair; 0 for none.
    """

    def __init__(self, channels: int, edges: int) -> None:
        super().__init__()
        self.pair, self.message = PairLinear(channels, edges, channels), nn.Linear(channels, channels)
        self.attention = nn.Linear(channels, 1)
        self.update = nn.Sequential(nn.Linear(2 * channels, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, h: Channels, edges: Edges | None, pairs: Pairs) -> Channels:
        """h after one round."""
        message = F.silu(self.message(F.silu(self.pair(h, edges))))
        received = (message * (self.attention(message).sigmoid() * pairs)).sum(dim=2)
        return h + self.update(torch.cat([h, received.to(h.dtype)], dim=-1))


class CoordinateLayer(nn.Module):
    """x_i <- x_i + sum_j (x_i - x_j) / (|x_i - x_j| + 1) * reach * tanh(phi_x(h_i, h_j, e_ij)).

    It turns with the molecule: phi_x sees only what does not turn.

    Args:
        channels, edges: as for `MessageLayer`.
        reach: bound on what one neighbour can add, in the unit of the coordinates (EDM's coords_range, 15).
    """

    def __init__(self, channels: int, edges: int, reach: float) -> None:
        super().__init__()
        self.reach = reach
        self.pair, self.hidden = PairLinear(channels, edges, channels), nn.Linear(channels, channels)
        self.pull = nn.Linear(channels, 1, bias=False)
        nn.init.xavier_uniform_(self.pull.weight, gain=0.001)  # positions start out nearly untouched

    def forward(
        self, h: Channels, x: Positions, directions: Float[Tensor, "batch atoms atoms 3"], edges: Edges, pairs: Pairs
    ) -> Positions:
        """The moved coordinates."""
        pull = self.pull(F.silu(self.hidden(F.silu(self.pair(h, edges))))).to(x.dtype)
        return x + (directions * (self.reach * pull.tanh() * pairs)).sum(dim=2)


def require_shapes(positions: Tensor, features: Tensor, level: Tensor, mask: Tensor, width: int) -> None:
    """Raises ValueError unless the four arguments of a network fit each other and its `width` of features."""
    batch, atoms = mask.shape if mask.ndim == 2 else (-1, -1)
    found = {"positions": positions, "features": features, "level": level}
    wanted = {"positions": (batch, atoms, 3), "features": (batch, atoms, width), "level": (batch,)}
    for name, shape in wanted.items():
        if found[name].shape != shape:
            fits = f"it should be {shape}, as mask has {tuple(mask.shape)}"
            raise ValueError(f"{name} has shape {tuple(found[name].shape)}; {fits}")
