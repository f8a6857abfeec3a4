"""From a molecular graph and noise to a conformer: a network that refines its own answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from elf.checks import require_count
from elf.geometry.alignment import center
from elf.models.transformer import Features, Mask, PairFeatures, Positions

START = 1.5
"""Standard deviation of the starting noise, angstrom: the size of a small molecule."""


class ConformerNetwork(nn.Module):
    """Noise -> atoms in 3D, in a few passes of one network; each pass corrects what the pass before left.

    Only the noise breaks the symmetry of space, so the answer is an equivariant function of it: where the noise is
    turned or mirrored, the answer is too (mirrored: unless `seen` tells left from right). Passes are told apart by the
    network's noise level, which halves each time.

    Args:
        network: `elf.models.transformer.EquivariantTransformer` with pair features, or any module with its call.
        passes: passes at inference.
    """

    def __init__(self, network: nn.Module, passes: int = 4) -> None:
        super().__init__()
        self.network, self.passes = network, require_count("passes", passes)

    def forward(
        self,
        noise: Positions,
        features: Features,
        pairs: PairFeatures,
        mask: Mask,
        passes: int | None = None,
        seen: Callable[[Positions], Features] | None = None,
    ) -> Positions:
        """Centred positions in angstrom after this many passes (default: all). Only the last pass has a gradient.

        Args:
            noise: standard normal.
            features: of the atoms. pairs: of the pairs of atoms, symmetric. mask: True for real atoms.
            seen: more features of the atoms, of where they are before each pass.
        """
        x = center(START * noise, mask)
        last = (self.passes if passes is None else require_count("passes", passes)) - 1
        for k in range(last + 1):
            level = x.new_full((len(x),), START * 0.5**k)
            with torch.set_grad_enabled(torch.is_grad_enabled() and k == last):
                own = features if seen is None else torch.cat([features, seen(x)], dim=-1)
                x = center(x + self.network(x, own, level, mask, pairs).displacements, mask)
        return x
