"""A network that repeats, with learnt weights, the mean-field equations of its spins: local fields fed back.

The classical iteration m_i = tanh(beta sum_j J_ij m_j) sees, at each step, the couplings *times* what it believes about
the neighbours. A convolution adds its inputs and must learn that product; here it is built in.
"""

from __future__ import annotations

from typing import SupportsIndex

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from elf.checks import require_bool, require_count, require_seed
from elf.spins.lattice import Couplings
from experiments.spins.resnet import PLANES, Padding, coupling_planes, require_boundaries

DIRECTIONS = 4


def messages(
    values: Float[Tensor, "batch sent height width"], planes: Float[Tensor, "batch 4 height width"], periodic: bool
) -> Float[Tensor, "batch sent height width"]:
    """J_ij v_j at each site i, for its neighbours j to the right, left, below and above.

    Args:
        values: v; a quarter of the channels is for each of the four directions, in this order.
        planes: the couplings of each site in the four directions, zero where the lattice ends (`coupling_planes`).
        periodic: whether the lattice closes onto itself.
    """
    around = F.pad(values, (1, 1, 1, 1), mode="circular" if periodic else "constant")
    right, left, below, above = around.chunk(DIRECTIONS, 1)
    neighbours = (right[..., 1:-1, 2:], left[..., 1:-1, :-2], below[..., 2:, 1:-1], above[..., :-2, 1:-1])
    return torch.cat([planes[:, d : d + 1] * value for d, value in enumerate(neighbours)], 1)


class MeanFieldLayer(nn.Module):
    """x + B [J_ij tanh(A x)_j]: one step of a learnt mean-field iteration.

    Each site keeps `channels` fields x. A makes magnetisations of them, other ones for each direction; they are sent to
    the neighbours, multiplied by the coupling on the way, and added to the receiver's fields through B. Neither A nor
    B has a bias: flip x at any sites and their bonds' couplings, and the result flips at these sites and no other.
    """

    def __init__(self, channels: int, sent: int, periodic: bool) -> None:
        super().__init__()
        self.periodic = periodic
        self.send = nn.Conv2d(channels, DIRECTIONS * sent, 1, bias=False)
        self.receive = nn.Conv2d(DIRECTIONS * sent, channels, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], planes: Float[Tensor, "batch 4 height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Same shape out as in; planes as for `messages`."""
        return x + self.receive(messages(torch.tanh(self.send(x)), planes, self.periodic))


class MeanFieldNet(nn.Module):
    """Couplings -> logits z of the spins, on lattices of any size, through `layers` steps of a learnt iteration.

    A signal travels one bond a layer: how far spins can agree on a common sign is set by the depth.

    Args:
        channels: fields that each site keeps.
        layers: iterations, each with weights of its own.
        sent: magnetisations sent in each direction.
        periodic: the boundaries it is for.
        seed: seeds the initial weights, without touching torch's global random state.
    """

    def __init__(
        self,
        channels: SupportsIndex = 16,
        layers: SupportsIndex = 24,
        sent: SupportsIndex = 4,
        periodic: bool = False,
        seed: SupportsIndex = 0,
    ) -> None:
        super().__init__()
        channels, layers = require_count("channels", channels), require_count("layers", layers)
        sent, seed = require_count("sent", sent), require_seed("seed", seed)
        require_bool("periodic", periodic)
        self.periodic = periodic
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mode: Padding = "circular" if periodic else "zeros"
            self.stem = nn.Conv2d(PLANES, channels, 3, padding=1, padding_mode=mode)
            self.layers = nn.ModuleList(MeanFieldLayer(channels, sent, periodic) for _ in range(layers))
            self.head = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, couplings: Couplings) -> Float[Tensor, "batch height width"]:
        """Logits z; m = tanh(z).

        Raises:
            ValueError: couplings with the other kind of boundaries.
        """
        require_boundaries(couplings, self.periodic)
        planes = coupling_planes(couplings).to(self.head.weight.dtype)
        x = self.stem(planes)
        for layer in self.layers:
            x = layer(x, planes[:, :DIRECTIONS])
        return self.head(x)[:, 0]
