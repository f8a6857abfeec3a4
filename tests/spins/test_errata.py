"""Eq. 16 of arXiv:2511.02087: where it is minimised as printed, and where it is once sign and offset are put right."""

import itertools

import pytest
import torch

from elf.spins import Couplings, LocalField, ground_state, local_fields


def configurations(height: int, width: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([1.0, -1.0], repeat=height * width))).double().view(-1, height, width)


def minimiser(field: torch.Tensor) -> torch.Tensor:
    """Of - sum_i h_i s_i over all configurations, (height, width); it has to be the only one."""
    every = configurations(*field.shape)
    values = -(every * field).sum((1, 2))
    low, second = values.topk(2, largest=False).values
    assert second > low
    return every[values.argmin()]


def corrected(couplings: Couplings, target: torch.Tensor, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(lowest, second-lowest) configuration values and the minimiser of `LocalField` by enumeration."""
    every = configurations(*couplings.shape[1:])
    n = len(every)
    values = LocalField(offset)(400 * every, target.expand(n, -1, -1), couplings[[0] * n])
    return values.sort().values[:2], every[values.argmin()]


def with_offset_inside(couplings: Couplings, spins: torch.Tensor, offset: float) -> torch.Tensor:
    """h_i = sum_j (J_ij + h0) y_j over the neighbours j, as printed."""
    shifted = Couplings(couplings.right + offset, couplings.down + offset, couplings.periodic)
    return local_fields(spins, shifted)[0]


def test_the_printed_sign_leads_to_the_flip_of_the_target(make):
    couplings = make(1, 3, 3)
    y = ground_state(couplings).spins
    field = local_fields(y, couplings)[0] + 0.5 * y[0]
    assert torch.equal(minimiser(-field), -y[0].double())  # + sum h y_hat is minimised where - sum (-h) y_hat is
    assert torch.equal(minimiser(field), y[0].double())


def test_the_printed_offset_leads_to_the_majority_of_the_neighbours(make, random_spins):
    missed = 0
    for _ in range(20):
        couplings = make(1, 3, 3)
        y = random_spins(couplings)
        ones = Couplings(torch.ones_like(couplings.right), torch.ones_like(couplings.down))
        neighbours = local_fields(y, ones)[0]
        found = minimiser(with_offset_inside(couplings, y, 1000.0) + 1e-6 * y[0])
        assert torch.equal(found[neighbours != 0], neighbours[neighbours != 0].sign())
        missed += not torch.equal(found, y[0].double())
    assert missed > 15


def test_the_printed_offset_misses_ground_states_too(make):
    missed = 0
    for _ in range(20):
        couplings = make(1, 3, 3)
        y = ground_state(couplings).spins
        missed += not torch.equal(minimiser(with_offset_inside(couplings, y, 0.5) + 1e-9 * y[0]), y[0].double())
    assert missed > 5


@pytest.mark.parametrize("periodic", [False, True])
def test_the_corrected_energy_has_any_target_as_its_unique_minimum_above_four(make, random_spins, periodic):
    for _ in range(10):
        couplings = make(1, 3, 3, periodic)
        y = random_spins(couplings)
        (low, second), found = corrected(couplings, y, 4.01)
        assert torch.equal(found, y[0].double())
        assert float(low) == pytest.approx(0, abs=1e-9)
        assert second > 0


def test_four_is_needed():
    """A spin against four neighbours with |J| = 1: at h0 = 3.9 it is flipped, at 4.1 it stays."""
    couplings = Couplings(torch.ones(1, 3, 2).double(), torch.ones(1, 2, 3).double())
    y = torch.ones(1, 3, 3)
    y[0, 1, 1] = -1
    assert not torch.equal(corrected(couplings, y, 3.9)[1], y[0].double())
    assert torch.equal(corrected(couplings, y, 4.1)[1], y[0].double())


@pytest.mark.parametrize("offset", [1e-6, 0.5])
@pytest.mark.parametrize("bimodal", [False, True], ids=["uniform", "+-J"])
def test_at_ground_states_any_positive_offset_will_do(make, offset, bimodal):
    for _ in range(20):
        couplings = make(1, 3, 3, bimodal=bimodal)
        y = ground_state(couplings).spins
        (low, second), found = corrected(couplings, y, offset)
        assert torch.equal(found, y[0].double())
        assert second > low


def test_without_an_offset_a_free_spin_of_a_ground_state_is_undecided(make):
    """+-J: fields of zero occur in ground states, so that h0 > 0 is needed."""
    fields = [local_fields(ground_state(c).spins, c) for c in (make(1, 4, 4, bimodal=True) for _ in range(20))]
    assert any(bool((field == 0).any()) for field in fields)
