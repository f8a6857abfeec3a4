from collections.abc import Callable

import pytest
import torch

from elf.spins import Couplings

Maker = Callable[..., Couplings]


@pytest.fixture
def make(generator: torch.Generator) -> Maker:
    """Uniform couplings on [-1, 1], or +-1: make(batch, height, width, periodic, dtype, bimodal)."""

    def couplings(
        batch: int,
        height: int,
        width: int,
        periodic: bool = False,
        dtype: torch.dtype = torch.float64,
        bimodal: bool = False,
    ) -> Couplings:
        lost = 0 if periodic else 1

        def values(*shape: int) -> torch.Tensor:
            value = 2 * torch.rand(shape, generator=generator, dtype=dtype) - 1
            return torch.where(value < 0, -1.0, 1.0).to(dtype) if bimodal else value

        return Couplings(values(batch, height, width - lost), values(batch, height - lost, width), periodic)

    return couplings


@pytest.fixture
def random_spins(generator: torch.Generator) -> Callable[[Couplings], torch.Tensor]:
    return lambda couplings: torch.randint(2, couplings.shape, generator=generator) * 2 - 1
