import pytest
import torch

from elf.data.spin_glass import sample_couplings
from elf.spins import SYMMETRIES, ising_energy, local_fields


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
def test_images_are_the_same_lattice(symmetry, periodic):
    """Not only the energy: every site keeps its local field, for spins that no symmetry leaves as they are."""
    couplings = sample_couplings(3, 3, 5, seed=1, periodic=periodic)
    spins = torch.randint(2, couplings.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image, there = symmetry.of_couplings(couplings), symmetry.of_spins(spins)
    assert image.shape == there.shape
    torch.testing.assert_close(local_fields(there, image), symmetry.of_spins(local_fields(spins, couplings)))
    torch.testing.assert_close(ising_energy(there, image), ising_energy(spins, couplings))
    assert torch.equal(symmetry.undo(there), spins)


def test_there_are_eight_and_the_first_does_nothing():
    site = torch.arange(9).view(1, 3, 3)
    images = {tuple(symmetry.of_spins(site).flatten().tolist()) for symmetry in SYMMETRIES}
    assert len(images) == len(SYMMETRIES) == 8
    assert torch.equal(SYMMETRIES[0].of_spins(site), site)
