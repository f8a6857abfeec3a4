"""Ground states do not depend on the unit of the couplings or on the other lattices, and never claim too much."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elf.data.spin_glass import KINDS, sample_couplings
from elf.spins import Couplings, GroundState, anneal, annealing, descend, graph_ground_state, ground_state, ising_energy
from elf.spins.graph import colours

CASES = [
    ("matching", False),
    ("milp", False),
    ("milp", True),
    ("exhaustive", False),
    ("exhaustive", True),
    ("annealing", True),
]


def scaled(couplings: Couplings, unit: float | torch.Tensor) -> Couplings:
    return Couplings(couplings.right * unit, couplings.down * unit, couplings.periodic)


def least(couplings: Couplings, sample: int) -> Fraction:
    """The lowest energy of one lattice, in exact arithmetic over all configurations."""
    values = [Fraction(v) for v in couplings.values[sample].double().tolist()]
    bonds = couplings.edges.T.tolist()
    sites = couplings.shape[1] * couplings.shape[2]
    return min(exact_energy(values, bonds, (1, *rest)) for rest in product((1, -1), repeat=sites - 1))


def exact_energy(values: list[Fraction], bonds: list[list[int]], spins: tuple[int, ...]) -> Fraction:
    return -sum((v if spins[i] == spins[j] else -v for v, (i, j) in zip(values, bonds, strict=True)), Fraction(0))


def found_energy(found: GroundState, couplings: Couplings, sample: int) -> Fraction:
    values = [Fraction(v) for v in couplings.values[sample].double().tolist()]
    return exact_energy(values, couplings.edges.T.tolist(), tuple(found.spins[sample].flatten().tolist()))


@pytest.mark.parametrize(("method", "periodic"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_changes_nothing(kind, method, periodic):
    couplings = sample_couplings(3, 3, 4, kind=kind, seed=1, periodic=periodic).to(torch.float64)
    found = ground_state(couplings, method)
    for unit in (1e-300, 1e-8, 1e-6, 0.1, 1e7, 1e300):
        other = ground_state(scaled(couplings, unit), method)
        assert torch.equal(other.spins, found.spins)
        assert torch.equal(other.optimal, found.optimal)
        torch.testing.assert_close(other.energy / unit, found.energy, rtol=1e-9, atol=0)


@pytest.mark.parametrize("method", ["matching", "exhaustive", "annealing"])
@pytest.mark.parametrize("unit", [2.0**-120, 2.0**-20, 2.0**110])
def test_the_range_of_float32(method, unit):
    couplings = sample_couplings(4, 3, 4, seed=2)
    assert torch.equal(ground_state(scaled(couplings, unit), method).spins, ground_state(couplings, method).spins)


@pytest.mark.parametrize("unit", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("largest", [2, 5, 60])
def test_ties_between_whole_numbers_are_resolved_alike_in_every_unit(unit, largest):
    couplings = sample_couplings(20, 4, 5, seed=3).to(torch.float64)
    whole = Couplings((couplings.right * largest).round() + 0.0, (couplings.down * largest).round() + 0.0)
    keep = torch.tensor([bool((row != 0).all()) for row in whole.values])
    whole = whole[keep] if bool(keep.any()) else Couplings(whole.right.sign() + 2, whole.down.sign() + 2)
    found, other = ground_state(whole, "matching"), ground_state(scaled(whole, unit), "matching")
    assert found.optimal.all()
    assert other.optimal.all()
    assert torch.equal(found.spins, other.spins)
    assert torch.equal(found.energy, ground_state(whole, "exhaustive").energy)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_descent_does_not_depend_on_the_unit(random_spins, unit):
    couplings = sample_couplings(4, 4, 5, seed=6).to(torch.float64)
    spins = random_spins(couplings)
    end = descend(spins, couplings)
    assert not torch.equal(end, spins.to(end))
    assert torch.equal(descend(spins, scaled(couplings, unit)), end)


def test_temperatures_are_in_units_of_the_root_mean_square_coupling():
    values = 1e300 * torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]], dtype=torch.float64)
    relative = annealing._relative(Couplings(values, torch.zeros(2, 0, 3, dtype=torch.float64)))
    torch.testing.assert_close(relative.values, torch.tensor([[2**0.5, 0.0]] * 2, dtype=torch.float64))


@pytest.mark.parametrize(("method", "periodic"), CASES)
def test_neighbours_in_the_batch_change_nothing(method, periodic):
    for kind in ("bimodal", "gaussian"):
        couplings = sample_couplings(9, 3, 4, kind=kind, seed=4, periodic=periodic).to(torch.float64)
        couplings = scaled(couplings, torch.logspace(-9, 9, 9, dtype=torch.float64)[:, None, None])
        together = ground_state(couplings, method)
        alone = [ground_state(couplings[[k]], method) for k in range(9)]
        assert torch.equal(together.spins, torch.cat([one.spins for one in alone]))
        assert torch.equal(together.optimal, torch.cat([one.optimal for one in alone]))
        assert torch.equal(
            descend(-together.spins.roll(1, 2), couplings),
            torch.cat([descend(-one.spins.roll(1, 2), couplings[[k]]) for k, one in enumerate(alone)]),
        )


@pytest.mark.parametrize("size", [2e7, 3e9, 2.0**52])
def test_large_whole_numbers(size):
    couplings = sample_couplings(5, 3, 4, seed=5).to(torch.float64)
    whole = Couplings((couplings.right * size).round(), (couplings.down * size).round())
    found = ground_state(whole, "matching")
    assert found.optimal.all()
    assert torch.equal(found.spins, ground_state(whole, "exhaustive").spins)


@pytest.mark.parametrize(("method", "periodic"), [("matching", False), ("milp", True)])
def test_mixed_magnitudes_are_proven_or_not_said_to_be(method, periodic):
    """Couplings from 1 down to 1e-12 in one lattice: PyMatching keeps 24 digits and HiGHS six."""
    couplings = sample_couplings(12, 3, 3, seed=6, periodic=periodic).to(torch.float64)
    rng = torch.Generator().manual_seed(0)
    sizes = [10.0 ** -(12 * torch.rand(x.shape, generator=rng, dtype=torch.float64)) for x in (couplings.right,) * 2]
    sizes[1] = sizes[1].reshape(couplings.down.shape)
    mixed = Couplings(couplings.right * sizes[0], couplings.down * sizes[1], periodic)
    found = ground_state(mixed, method)
    wrong = torch.tensor([found_energy(found, mixed, k) > least(mixed, k) for k in range(12)])
    assert not (wrong & found.optimal).any()
    plain = ground_state(couplings, method)
    assert plain.optimal.all()
    assert all(found_energy(plain, couplings, k) == least(couplings, k) for k in range(12))


def test_a_rounding_that_hides_the_ground_state_is_found_out():
    """Two ways to break a frustrated square differ by 1e-9: the same weight for PyMatching."""
    right = torch.tensor([[[-1.0], [1.0 + 1e-9]]], dtype=torch.float64)
    down = torch.tensor([[[1.0 - 1e-9, 1.0 + 2e-9]]], dtype=torch.float64)
    for turn in range(4):
        values = torch.cat([right.flatten(), down.flatten()]).roll(turn)
        couplings = Couplings(values[:2].view(1, 2, 1), values[2:].view(1, 1, 2))
        found = ground_state(couplings, "matching")
        assert found_energy(found, couplings, 0) == least(couplings, 0) or not found.optimal.any()


@settings(max_examples=60)
@given(st.lists(st.floats(-1e300, 1e300, allow_subnormal=True), min_size=12, max_size=12), st.booleans())
def test_any_couplings_are_solved_or_refused(numbers, periodic):
    values = torch.tensor(numbers, dtype=torch.float64)
    shapes = ((1, 2, 3), (1, 2, 3)) if periodic else ((1, 2, 3), (1, 1, 4))
    right, down = values[:6].view(shapes[0]), values[6 : 6 + shapes[1][1] * shapes[1][2]].view(shapes[1])
    couplings = Couplings(right, down, periodic)
    try:
        found = ground_state(couplings)
    except ValueError as error:
        assert "disconnected parts" in str(error)  # noqa: PT017
        return
    assert set(found.spins.flatten().tolist()) <= {1, -1}
    if found.optimal.all():
        gap = found_energy(found, couplings, 0) - least(couplings, 0)
        assert gap <= (1e-6 if periodic else 1e-12) * Fraction(couplings.values.abs().max().item())


@pytest.mark.parametrize("unit", [1e-300, 1e-8, 1e-5, 1.0, 1e300])
def test_graphs_in_any_unit(generator, unit):
    values = torch.randn(8, 8, generator=generator, dtype=torch.float64).triu(1)
    matrix = unit * (values + values.T)
    spins = torch.tensor(list(product([1.0, -1.0], repeat=8)), dtype=torch.float64)
    lowest = float((-0.5 * (spins @ matrix * spins).sum(1)).min())
    found = graph_ground_state(matrix)
    assert found.optimal
    assert found.energy == pytest.approx(lowest, rel=1e-9, abs=0)
    assert found.energy - 2e-6 * float(matrix.abs().max()) <= found.bound <= found.energy


def test_a_coupling_that_highs_cannot_see_is_not_claimed():
    tiny = torch.tensor([[0, 1, 0], [1, 0, -1e-9], [0, -1e-9, 0]], dtype=torch.float64)
    found = graph_ground_state(tiny)
    assert not found.optimal
    assert found.spins.tolist() == [1, 1, -1]


def test_sums_that_overflow_are_named():
    with pytest.raises(ValueError, match=r"right overflows torch\.float32 when a sample of it is summed"):
        Couplings(torch.full((1, 4, 3), 1e38), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match=r"couplings overflows torch\.float64"):
        graph_ground_state(1.7e308 * (torch.ones(3, 3, dtype=torch.float64) - torch.eye(3, dtype=torch.float64)))


def test_numpy_scalars_are_numbers(make):
    couplings = make(1, 3, 3)
    expected = anneal(couplings, sweeps=3, copies=2, seed=1)
    assert torch.equal(anneal(couplings, sweeps=np.int64(3), copies=np.int32(2), seed=np.int64(1)), expected)
    ground_state(couplings, "milp", time_limit=np.float64(5), seed=np.int64(0))
    for bad in (1.5, True, "1"):
        with pytest.raises(TypeError, match="seed"):
            ground_state(couplings, seed=bad)
    with pytest.raises(TypeError, match=r"couplings has dtype torch\.complex128"):
        graph_ground_state(torch.zeros(1, 1, dtype=torch.complex128))


def chain(couplings: list[float]) -> Couplings:
    n = len(couplings) + 1
    return Couplings(torch.tensor([[couplings]], dtype=torch.float64), torch.zeros(1, 0, n, dtype=torch.float64))


@pytest.mark.parametrize("n", [2, 9, 30])
def test_a_chain_of_growing_couplings_is_descended_in_time(n):
    """Each spin follows its stronger neighbour: the domain wall walks the whole chain."""
    for couplings in (chain([1.0 + k for k in range(n - 1)]), chain([float(n - k) for k in range(n - 1)])):
        for start in (torch.ones(1, 1, n), -(torch.ones(n).cumprod(0) * (-1.0) ** torch.arange(n)).view(1, 1, n)):
            end = descend(start, couplings)
            assert ising_energy(end, couplings) <= ising_energy(start, couplings)


@pytest.mark.parametrize("pull", [(1.0, 1.0), (0.1 + 0.2, 0.3)], ids=["none", "rounding"])
@pytest.mark.parametrize("middle", [1.0, -1.0])
def test_a_spin_without_a_preference_stays(pull, middle):
    couplings = chain([5.0, *pull, 5.0])
    spins = torch.tensor([[[1.0, 1.0, middle, -1.0, -1.0]]], dtype=torch.float64)
    assert torch.equal(descend(spins, couplings), spins)


@pytest.mark.parametrize("periodic", [False, True])
def test_spins_that_flip_together_are_no_neighbours(make, periodic):
    couplings = make(1, 3, 5, periodic)
    sets = colours(couplings)
    assert (torch.stack(sets).sum(0) == 1).all()
    for here in sets:
        assert not here.flatten()[couplings.edges].all(0).any()


@pytest.mark.parametrize("wrong", [lambda y: -9 * y, lambda y: y.roll(1, 2) - 2 * y.roll(-1, 2)], ids=["own", "odd"])
def test_descent_with_a_wrong_field_ends_with_an_error(make, random_spins, monkeypatch, wrong):
    monkeypatch.setattr("elf.spins.graph.neighbour_sum", lambda _, values: wrong(values))
    couplings = make(2, 3, 4)
    with pytest.raises(RuntimeError, match="descent did not end within 130 sweeps"):
        descend(random_spins(couplings), couplings)
