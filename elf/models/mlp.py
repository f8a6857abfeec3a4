"""A multilayer perceptron from conditions to configurations: the network of the shapes experiment (Sec. 6.1, C.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elf.checks import require_count, require_seed


class MLP(nn.Module):
    """Linear layers with an activation in between; the output is shaped as a configuration, say (sides, 2).

    No part of it knows of any symmetry: what it learns about rotations, it learns from the loss.

    Args:
        inputs: numbers a sample is described by.
        output_shape: shape of a sample's output, such as (atoms, dim).
        hidden: widths of the hidden layers; the paper's shapes have two of 64.
        activation: makes the module between two layers.
        seed: seeds the initial weights, without touching torch's global random state.
    """

    def __init__(
        self,
        inputs: int,
        output_shape: Sequence[int],
        hidden: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] = nn.ReLU,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.output_shape = tuple(require_count("output_shape", n) for n in output_shape)
        hidden = [require_count("hidden", width) for width in hidden]
        widths = [require_count("inputs", inputs), *hidden, prod(self.output_shape)]
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(require_seed("seed", seed))
            for before, after in pairwise(widths):
                layers += [nn.Linear(before, after), activation()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, conditions: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch ..."]:
        """One configuration for each row of conditions."""
        return self.layers(conditions).unflatten(-1, self.output_shape)
