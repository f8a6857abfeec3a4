"""The network turns with the molecule, and padding does not exist for it."""

from __future__ import annotations

import pytest
import torch

from elf.geometry import random_rotations
from elf.models.transformer import EquivariantTransformer, NetworkOutput


@pytest.fixture
def molecules(generator: torch.Generator) -> dict[str, torch.Tensor]:
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    return {
        "positions": torch.randn(3, 7, 3, generator=generator, dtype=torch.float64) * 2 * mask[..., None],
        "features": torch.randn(3, 7, 5, generator=generator, dtype=torch.float64),
        "sigma": torch.tensor([0.02, 1.0, 15.0], dtype=torch.float64),
        "mask": mask,
    }


@pytest.fixture
def network(generator: torch.Generator) -> EquivariantTransformer:
    network = EquivariantTransformer(channels=16, heads=2, layers=2, radial=8).double()
    with torch.no_grad():  # the initial weights hide much of the network behind near-zero layers
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def run(network: EquivariantTransformer, molecules: dict[str, torch.Tensor], **changes: torch.Tensor) -> NetworkOutput:
    out = network(**{**molecules, **changes})
    mask = molecules["mask"][..., None]
    return NetworkOutput(out.displacements * mask, out.logits * mask)


@pytest.mark.parametrize("determinant", [1, -1])
def test_displacements_turn_and_logits_stay(network, molecules, generator, determinant):
    rotation = determinant * random_rotations(1, 3, generator=generator, dtype=torch.float64)[0]
    shift = torch.tensor([3.0, -5.0, 7.0], dtype=torch.float64)
    here = run(network, molecules)
    there = run(network, molecules, positions=molecules["positions"] @ rotation.T + shift)
    torch.testing.assert_close(there.displacements, here.displacements @ rotation.T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(there.logits, here.logits, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(there.displacements, here.displacements, atol=1e-3)


@pytest.mark.parametrize("determinant", [1, -1])
def test_single_precision_turns_too(network, molecules, generator, determinant):
    """The network is trained in float32: there the error of a turn is rounding, not a broken symmetry."""
    single = {key: part.float() if part.is_floating_point() else part for key, part in molecules.items()}
    network = network.float()
    rotation = determinant * random_rotations(1, 3, generator=generator)[0]
    here = run(network, single)
    there = run(network, single, positions=single["positions"] @ rotation.T + 1)
    torch.testing.assert_close(there.displacements, here.displacements @ rotation.T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(there.logits, here.logits, rtol=1e-3, atol=1e-3)
    assert there.displacements.dtype == torch.float32


def test_permuting_atoms_permutes_the_answer(network, molecules):
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    here = network(**{**molecules, "mask": torch.ones_like(molecules["mask"])})
    there = network(
        molecules["positions"][:, order],
        molecules["features"][:, order],
        molecules["sigma"],
        torch.ones_like(molecules["mask"]),
    )
    torch.testing.assert_close(there.displacements, here.displacements[:, order])
    torch.testing.assert_close(there.logits, here.logits[:, order])


def test_padding_changes_nothing(network, molecules, generator):
    padding = ~molecules["mask"][..., None]
    noise = torch.randn(3, 7, 3, generator=generator, dtype=torch.float64)
    moved = run(network, molecules, positions=molecules["positions"] + 9 * noise * padding)
    kept = run(network, molecules)
    torch.testing.assert_close(moved.displacements, kept.displacements)
    torch.testing.assert_close(moved.logits, kept.logits)


def test_size_of_the_batch_changes_nothing(network, molecules):
    alone = network(
        *(molecules[key][1:2, :4] for key in ("positions", "features")),
        molecules["sigma"][1:2],
        molecules["mask"][1:2, :4],
    )
    together = network(**molecules)
    torch.testing.assert_close(alone.displacements[0], together.displacements[1, :4])
    torch.testing.assert_close(alone.logits[0], together.logits[1, :4])


def test_coincident_atoms_have_finite_gradients(network):
    positions = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    out = network(
        positions,
        torch.ones(1, 3, 5, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.ones(1, 3, dtype=torch.bool),
    )
    (out.displacements.square().sum() + out.logits.sum()).backward()
    assert positions.grad.isfinite().all()


def test_channels_must_fit_heads():
    with pytest.raises(ValueError, match="channels is 10; it should be a multiple of heads=4"):
        EquivariantTransformer(channels=10, heads=4)
