"""Message passing between all pairs of atoms: the layers that EDM's two networks are made of.

As in EDM (Hoogeboom et al. 2022, arXiv:2203.17003, Appendix C; `egnn/egnn_new.py` of its code), on dense padded batches
instead of edge lists: molecules are fully connected graphs there too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


def pair_mask(mask: Bool[Tensor, "batch atoms"]) -> Bool[Tensor, "batch atoms atoms"]:
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

    def forward(  # type: ignore[override]
        self, h: Float[Tensor, "batch atoms channels"], edges: Float[Tensor, "batch atoms atoms edges"] | None
    ) -> Float[Tensor, "batch atoms atoms out"]:
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

    def forward(
        self,
        h: Float[Tensor, "batch atoms channels"],
        edges: Float[Tensor, "batch atoms atoms edges"] | None,
        pairs: Float[Tensor, "batch atoms atoms 1"],
    ) -> Float[Tensor, "batch atoms channels"]:
        """h after one round; pairs is 1 for two different real atoms, else 0."""
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
        self,
        h: Float[Tensor, "batch atoms channels"],
        x: Float[Tensor, "batch atoms 3"],
        directions: Float[Tensor, "batch atoms atoms 3"],
        edges: Float[Tensor, "batch atoms atoms edges"],
        pairs: Float[Tensor, "batch atoms atoms 1"],
    ) -> Float[Tensor, "batch atoms 3"]:
        """The moved coordinates."""
        pull = self.pull(F.silu(self.hidden(F.silu(self.pair(h, edges))))).to(x.dtype)
        return x + (directions * (self.reach * pull.tanh() * pairs)).sum(dim=2)


def require_sizes(**sizes: int) -> None:
    """Raises ValueError for a size below one."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it should be at least 1")


def require_shapes(positions: Tensor, features: Tensor, level: Tensor, mask: Tensor, width: int) -> None:
    """Raises ValueError unless the four arguments of a network fit each other and its `width` of features."""
    batch, atoms = mask.shape if mask.ndim == 2 else (-1, -1)
    wanted: Sequence[tuple[str, Tensor, tuple[int, ...]]] = (
        ("positions", positions, (batch, atoms, 3)),
        ("features", features, (batch, atoms, width)),
        ("level", level, (batch,)),
    )
    for name, value, shape in wanted:
        if value.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; it should be {shape}, as mask has {tuple(mask.shape)}"
            )
