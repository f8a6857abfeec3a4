"""What is wrong with a tensor is said without a warning, though the tensor has a gradient.

Extend with one line in CASES.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import elf
from elf.generative.schedules import Polynomial, Straight
from elf.spins import Couplings

J = Couplings(torch.ones(1, 3, 2), torch.ones(1, 2, 3))
STATES = torch.ones(1, 3, 3, dtype=torch.long)


def full(*shape: int, value: float) -> Tensor:
    return torch.full(shape, value, requires_grad=True)


POINTS = torch.randn(1, 4, 3)
CASES: dict[str, tuple[Callable[[], object], str]] = {
    "infinite": (lambda: elf.Harmonic()(full(1, 4, 3, value=torch.inf), POINTS), "infinite coordinate"),
    "large": (lambda: elf.PairEnergy()(full(1, 4, 3, value=1e25), POINTS), "holds a coordinate of 1e"),
    "constants": (lambda: elf.PairEnergy()(POINTS, POINTS, k=full(4, 4, value=-1.0)), "k is -1.0 at"),
    "one-sided constants": (
        lambda: elf.PairEnergy()(POINTS, POINTS, k=full(4, 4, value=1.0) * torch.rand(4, 4)),
        "it should be symmetric",
    ),
    "logits": (lambda: elf.spins.Ising()(full(1, 3, 3, value=torch.nan), STATES, J), "logits"),
    "probabilities": (lambda: elf.spins.Ising()(full(1, 3, 3, 2, value=0.4), STATES, J), "the least is 0.4"),
    "polynomial time": (lambda: Polynomial().sigma(full(2, value=1.5)), "t ranges from 1.5 to 1.5"),
    "straight time": (lambda: Straight().alpha(full(2, value=-1.0)), "t ranges from -1.0"),
}


@pytest.mark.parametrize("name", CASES)
def test_no_warning_comes_before_the_words(name):
    call, words = CASES[name]
    with pytest.raises(ValueError, match=words):
        call()
