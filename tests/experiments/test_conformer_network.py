"""The conformer network turns with its noise, and only its last pass is trained."""

from __future__ import annotations

import pytest
import torch

from elf.chemistry.stereo import PAIR_FEATURES
from elf.geometry import random_rotations
from elf.models.transformer import EquivariantTransformer
from experiments.molecules.conformer_network import ConformerNetwork


def make(dtype: torch.dtype = torch.float64, passes: int = 3) -> ConformerNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = EquivariantTransformer(channels=16, heads=2, layers=2, radial=8, pair_features=PAIR_FEATURES)
    return ConformerNetwork(inner, passes).to(dtype)


@pytest.fixture
def inputs(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    pairs = torch.randn(2, 6, 6, PAIR_FEATURES, generator=generator, dtype=torch.float64)
    return (
        torch.randn(2, 6, 3, generator=generator, dtype=torch.float64),
        torch.randn(2, 6, 5, generator=generator, dtype=torch.float64),
        pairs + pairs.transpose(1, 2),
        mask,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("determinant", [1, -1])
def test_answer_turns_with_the_noise(inputs, generator, dtype, tolerance, determinant):
    noise, features, pairs, mask = (part.to(dtype) if part.is_floating_point() else part for part in inputs)
    network = make(dtype)
    turn = determinant * random_rotations(1, 3, generator=generator, dtype=dtype)[0]
    here, there = (network(n, features, pairs, mask) for n in (noise, noise @ turn.T))
    real = mask[..., None]
    torch.testing.assert_close(there * real, here @ turn.T * real, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(there * real, here * real, atol=1e-2)


def test_graph_matters(inputs):
    noise, features, pairs, mask = inputs
    network = make()
    assert not torch.allclose(network(noise, features, pairs, mask), network(noise, features, 2 * pairs, mask))


def test_gradient_is_that_of_the_last_pass(inputs):
    """Two passes from the noise are one pass from the first one's answer, for the gradient as well."""
    noise, features, pairs, mask = inputs
    network = make()
    network(noise, features, pairs, mask, 2).square().sum().backward()
    gradient = network.network.pair.weight.grad.clone()
    network.zero_grad()
    with torch.no_grad():
        first = network(noise, features, pairs, mask, 1)
    level = first.new_full((2,), 0.75)
    second = first + network.network(first, features, level, mask, pairs).displacements
    second = second - (second * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    (second * mask[..., None]).square().sum().backward()
    torch.testing.assert_close(network.network.pair.weight.grad, gradient)


def test_pairs_and_network_must_fit(inputs):
    noise, features, pairs, mask = inputs
    with pytest.raises(ValueError, match="passes is 0"):
        ConformerNetwork(torch.nn.Identity(), 0)
    with pytest.raises(ValueError, match="pairs is NoneType"):
        make().network(noise, features, torch.ones(2, dtype=torch.float64), mask)
    plain = EquivariantTransformer(channels=8, heads=2, layers=1).double()
    with pytest.raises(ValueError, match="pairs is Tensor"):
        plain(noise, features, torch.ones(2, dtype=torch.float64), mask, pairs)


def test_network_passes_through_the_meta_device():
    network = make(torch.float32).to("meta")
    answer = network(
        torch.zeros(2, 6, 3, device="meta"),
        torch.zeros(2, 6, 5, device="meta"),
        torch.zeros(2, 6, 6, PAIR_FEATURES, device="meta"),
        torch.ones(2, 6, dtype=torch.bool, device="meta"),
    )
    assert answer.is_meta
    assert answer.shape == (2, 6, 3)
