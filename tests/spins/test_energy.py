import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from elf.spins import (
    AlignedCrossEntropy,
    Couplings,
    CrossEntropy,
    FreeEnergy,
    Ising,
    LocalField,
    Margin,
    Mattis,
    SpinEnergy,
    entropy,
    ground_state,
    ising_energy,
    local_fields,
)

MULTILINEAR = [Ising(), LocalField(0.5), Mattis(0.3)]
ALL = [
    *MULTILINEAR,
    CrossEntropy(),
    AlignedCrossEntropy(),
    Margin(),
    FreeEnergy(Ising(), 0.2),
    FreeEnergy(Mattis(), 0.1),
]
CERTAIN = 400.0


def names(energy: SpinEnergy) -> str:
    return repr(energy).replace("\n", "")


def configurations(height: int, width: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([1.0, -1.0], repeat=height * width))).double().view(-1, height, width)


def values_at(energy: SpinEnergy, spins: torch.Tensor, target: torch.Tensor, couplings: Couplings) -> torch.Tensor:
    """The energy of many certain configurations around one target."""
    n = len(spins)
    return energy(CERTAIN * spins, target.expand(n, -1, -1), couplings[[0] * n])


def bonds(couplings: Couplings, spins: torch.Tensor) -> torch.Tensor:
    first, second = couplings.edges
    return spins.flatten(1)[:, first] * spins.flatten(1)[:, second]


@pytest.mark.parametrize("energy", ALL[:-2], ids=names)
@pytest.mark.parametrize("periodic", [False, True])
def test_zero_at_the_target(make, random_spins, dtype, energy, periodic):
    couplings = make(4, 3, 4, periodic, dtype)
    target = random_spins(couplings)
    value = energy(CERTAIN * target.to(dtype), target, couplings)
    assert value.shape == (4,)
    assert value.dtype == dtype
    torch.testing.assert_close(value, torch.zeros(4, dtype=dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("periodic", [False, True])
def test_values_against_sums_over_bonds_and_sites(make, random_spins, dtype, rtol, generator, periodic):
    couplings = make(5, 3, 4, periodic, dtype)
    y = random_spins(couplings).to(dtype)
    z = torch.randn(couplings.shape, generator=generator, dtype=dtype)
    m, J = z.tanh(), couplings.values
    close = {"rtol": rtol, "atol": 50 * rtol}
    ising = (-J * (bonds(couplings, m) - bonds(couplings, y))).sum(1)
    torch.testing.assert_close(Ising()(z, y, couplings), ising, **close)
    h = local_fields(y, couplings) + 0.7 * y
    torch.testing.assert_close(LocalField(0.7)(z, y, couplings), (h * (y - m)).sum((1, 2)), **close)
    pair = ((J.abs() + 0.7) * (1 - bonds(couplings, y) * bonds(couplings, m))).sum(1)
    torch.testing.assert_close(Mattis(0.7)(z, y, couplings), pair, **close)
    right = torch.sigmoid(2 * y * z)
    torch.testing.assert_close(CrossEntropy()(z, y, couplings), -right.log().sum((1, 2)), **close)
    torch.testing.assert_close(Margin(2.0)(z, y, couplings), torch.relu(2 - y * z).sum((1, 2)), **close)


@pytest.mark.parametrize("energy", MULTILINEAR, ids=names)
def test_value_at_logits_is_the_mean_over_configurations(make, random_spins, generator, energy):
    couplings = make(1, 2, 3)
    target = random_spins(couplings)
    z = torch.randn(1, 2, 3, generator=generator, dtype=torch.float64)
    every = configurations(2, 3)
    probability = torch.sigmoid(2 * every * z).prod(-1).prod(-1)
    assert float(probability.sum()) == pytest.approx(1)
    mean = (probability * values_at(energy, every, target, couplings)).sum()
    torch.testing.assert_close(energy(z, target, couplings)[0], mean)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("energy", MULTILINEAR, ids=names)
def test_free_energy_is_the_reverse_divergence(make, random_spins, generator, energy, temperature):
    """Eq. 15: (F - F_exact) / T = sum_s q(s) log q(s) / p(s), with p summed over all configurations."""
    couplings = make(1, 2, 3)
    target = random_spins(couplings)
    z = torch.randn(1, 2, 3, generator=generator, dtype=torch.float64)
    every = configurations(2, 3)
    log_q = torch.nn.functional.logsigmoid(2 * every * z).sum((1, 2))
    minus = -values_at(energy, every, target, couplings) / temperature
    divergence = (log_q.exp() * (log_q - (minus - minus.logsumexp(0)))).sum()
    free = FreeEnergy(energy, temperature)(z, target, couplings)[0]
    torch.testing.assert_close((free + temperature * minus.logsumexp(0)) / temperature, divergence)


def test_entropy_is_exact_where_the_textbook_formula_is_not(dtype, rtol):
    z = torch.tensor([0.0, 0.3, -2.0], dtype=dtype, requires_grad=True)
    p = torch.sigmoid(2 * z)
    torch.testing.assert_close(entropy(z), -(p * p.log() + (1 - p) * (1 - p).log()), rtol=10 * rtol, atol=0)
    assert float(entropy(z.detach())[0]) == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(entropy(z).sum(), z)
    torch.testing.assert_close(gradient, -z.detach() / z.detach().cosh() ** 2, rtol=10 * rtol, atol=1e-7)
    far = torch.tensor([30.0, -1000.0], dtype=dtype, requires_grad=True)
    value = entropy(far)
    expected = torch.tensor([61 * math.exp(-60), 0], dtype=dtype)  # (1 + 2 z) exp(-2 z)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    assert torch.autograd.grad(value.sum(), far)[0].isfinite().all()


@pytest.mark.parametrize("energy", ALL, ids=names)
def test_gradients(make, random_spins, generator, energy):
    couplings = make(2, 2, 3, True)
    target = random_spins(couplings)
    z = torch.randn(couplings.shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: energy(z, target, couplings), z)


@pytest.mark.parametrize("offset", [0.01, 0.5, 3.0])
@pytest.mark.parametrize(("height", "width", "periodic"), [(3, 3, False), (1, 5, False), (3, 3, True)])
def test_minima_of_the_pair_energy_are_the_target_and_its_flip(make, random_spins, offset, height, width, periodic):
    couplings = make(1, height, width, periodic)
    target = random_spins(couplings)
    every = configurations(height, width)
    value = values_at(Mattis(offset), every, target, couplings)
    assert value.min() > -1e-9
    lowest = every[value < 1e-6]
    assert len(lowest) == 2
    assert {tuple(s.flatten().tolist()) for s in lowest} == {
        tuple((sign * target[0]).flatten().double().tolist()) for sign in (1, -1)
    }


def test_without_offset_a_missing_bond_lets_the_pair_energy_lose_the_target(make, random_spins):
    couplings = make(1, 3, 3)
    couplings.right[:, :, 0] = 0
    target = random_spins(couplings)
    half = target.clone()
    half[:, :, 0] *= -1
    assert float(Mattis(1e-9)(CERTAIN * half.double(), target, couplings)) < 1e-6
    assert float(Mattis(0.5)(CERTAIN * half.double(), target, couplings)) == pytest.approx(3 * 2 * 0.5)


@pytest.mark.parametrize("energy", ALL, ids=names)
def test_what_a_global_flip_costs(make, generator, energy):
    couplings = make(3, 4, 4)
    target = ground_state(couplings).spins
    z = torch.randn(couplings.shape, generator=generator, dtype=torch.float64)
    same = torch.allclose(energy(z, target, couplings), energy(-z, target, couplings))
    inner = energy.energy if isinstance(energy, FreeEnergy) else energy
    assert same == isinstance(inner, Ising | Mattis | AlignedCrossEntropy)


def test_the_aligned_label_by_brute_force(make, random_spins, generator):
    couplings = make(40, 3, 4)
    y = random_spins(couplings)
    z = torch.randn(couplings.shape, generator=generator, dtype=torch.float64)
    both = torch.stack([-torch.sigmoid(2 * sign * y * z).log().sum((1, 2)) for sign in (1, -1)])
    value = AlignedCrossEntropy()(z, y, couplings)
    torch.testing.assert_close(value, both.amin(0))
    assert set(both.argmin(0).tolist()) == {0, 1}
    # log(1 + e^2x) - log(1 + e^-2x) = 2x, so that the two labels differ by twice the sum of y z.
    torch.testing.assert_close(value, CrossEntropy()(z, y, couplings) + (2 * (y * z).sum((1, 2))).clamp_max(0))


def test_one_global_flip_is_not_enough_for_two_patches(make, random_spins):
    """A wall through the middle costs its bonds in the pair energy, and half of all spins in the aligned label."""
    couplings = make(1, 4, 6)
    y = random_spins(couplings)
    other = y.clone()
    other[:, :, 3:] *= -1
    wall = float(2 * (couplings.right[0, :, 2].abs() + 0.5).sum())
    assert float(Mattis(0.5)(CERTAIN * other.double(), y, couplings)) == pytest.approx(wall)
    assert float(AlignedCrossEntropy()(CERTAIN * other.double(), y, couplings)) == pytest.approx(12 * 2 * CERTAIN)
    # If nobody knows the sign between the patches, the best answer in labels leaves one of them undecided.
    sure, half = 3.0 * y.double(), 3.0 * y.double()
    half[:, :, 3:] = 0
    aligned, pair = AlignedCrossEntropy(), Mattis(0.5)
    mean = {
        (energy, name): float(energy(z, y, couplings) + energy(z, other, couplings)) / 2
        for energy in (aligned, pair)
        for name, z in (("sure", sure), ("half", half))
    }
    assert mean[aligned, "half"] < 0.5 * mean[aligned, "sure"]
    assert mean[pair, "sure"] < 0.5 * mean[pair, "half"]


def test_ising_is_the_energy_above_the_target(make, random_spins):
    couplings = make(4, 4, 4)
    target, spins = ground_state(couplings).spins, random_spins(couplings)
    above = Ising()(CERTAIN * spins.double(), target, couplings)
    torch.testing.assert_close(above, ising_energy(spins, couplings) - ising_energy(target, couplings))
    assert (above >= 0).all()


def test_half_precision_is_computed_in_float32(make, random_spins, generator):
    couplings = make(2, 4, 4, dtype=torch.float32)
    target = random_spins(couplings)
    z = torch.randn(couplings.shape, generator=generator)
    for low in (torch.float16, torch.bfloat16):
        for energy in ALL:
            value = energy(z.to(low), target, couplings)
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, energy(z.to(low).float(), target, couplings))


@pytest.mark.parametrize("energy", ALL, ids=names)
def test_bad_input_is_named(make, random_spins, energy):
    couplings = make(2, 3, 4)
    target, z = random_spins(couplings), torch.zeros(2, 3, 4, dtype=torch.float64)
    with pytest.raises(TypeError, match="prediction"):
        energy([0.0], target, couplings)
    with pytest.raises(TypeError, match=r"logits has dtype torch\.int64"):
        energy(z.long(), target, couplings)
    with pytest.raises(ValueError, match=r"logits has shape \(2, 4, 3\)"):
        energy(z.mT, target, couplings)
    with pytest.raises(ValueError, match=r"target has shape \(1, 3, 4\)"):
        energy(z, target[:1], couplings)
    with pytest.raises(ValueError, match=r"target is 0 at \(0, 0, 0\)"):
        energy(z, target * 0, couplings)
    with pytest.raises(ValueError, match=r"logits is inf at \(1, 0, 0\)"):
        energy(z.index_fill(0, torch.tensor([1]), torch.inf), target, couplings)
    with pytest.raises(ValueError, match=r"logits has dtype torch\.float32"):
        energy(z.float(), target, couplings)


def test_bad_parameters_are_named():
    for make_energy in (LocalField, Mattis, Margin):
        with pytest.raises(ValueError, match=r"is -1\.0; it should be finite and greater than zero"):
            make_energy(-1.0)
    with pytest.raises(ValueError, match=r"temperature is -0\.1"):
        FreeEnergy(Ising(), -0.1)
    with pytest.raises(TypeError, match="energy"):
        FreeEnergy(torch.nn.Identity())


@pytest.mark.parametrize("energy", ALL, ids=names)
def test_meta_tensors_and_foreign_default_devices(make, random_spins, energy):
    couplings = make(2, 3, 4, dtype=torch.float32)
    z, target = torch.zeros(2, 3, 4), random_spins(couplings)
    with torch.device("meta"):
        assert energy(z, target, couplings).device.type == "cpu"
    assert energy(z.to("meta"), target.to("meta"), couplings.to("meta")).is_meta


def test_cross_entropy_is_exact_in_float64():
    """log(1 + e^-x) between the thresholds of softplus: 2e-9 at x = 20, nothing at 40."""
    couplings = Couplings(torch.zeros(1, 1, 2, dtype=torch.float64), torch.zeros(1, 0, 3, dtype=torch.float64))
    target = torch.tensor([[[-1, -1, 1]]])
    for z in (9.9, 10.1, 13.0, 19.9, 25.0):
        logits = torch.full((1, 1, 3), z, dtype=torch.float64)
        wrong = Fraction(2 * z) + Fraction(math.exp(-2 * z)) - Fraction(math.exp(-4 * z)) / 2
        exact = float(2 * wrong + Fraction(math.exp(-2 * z)) - Fraction(math.exp(-4 * z)) / 2)
        assert float(CrossEntropy()(logits, target, couplings)) == pytest.approx(exact, rel=1e-15, abs=0)


@pytest.mark.parametrize("energy", ALL, ids=names)
def test_logits_at_the_ends_of_their_range(make, random_spins, energy):
    couplings = make(2, 2, 3, dtype=torch.float32)
    target = random_spins(couplings)
    for size in (1e-45, 1e-38, 1e4, 1e36):
        z = (size * target).float().requires_grad_()
        value = energy(z, target, couplings)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
    assert entropy(torch.tensor([3e38, -3e38])).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"logits overflows torch\.float32 when a sample of it is summed"):
        energy(torch.full(couplings.shape, 3e38), target, couplings)


def test_parameters_are_shown_and_are_numbers():
    shown = [repr(energy) for energy in (Ising(), LocalField(2), Mattis(0.5), Margin(1.5), CrossEntropy())]
    assert shown == ["Ising()", "LocalField(offset=2.0)", "Mattis(offset=0.5)", "Margin(margin=1.5)", "CrossEntropy()"]
    assert "(energy): Ising()" in repr(FreeEnergy(Ising(), 0.25))
    assert "temperature=0.25" in repr(FreeEnergy(Ising(), np.float64(0.25)))
    for bad in (True, "1"):
        with pytest.raises(TypeError, match="temperature"):
            FreeEnergy(Ising(), bad)


def test_a_mask_is_refused_by_name(make, random_spins):
    couplings = make(1, 2, 3)
    y = random_spins(couplings)
    for given in ({"mask": y > 0}, {"mask": torch.ones(1, 2, 3, dtype=torch.bool)}):
        with pytest.raises(ValueError, match="mask is given; spins have none, it should be a Graph of the sites"):
            Ising()(y.to(couplings.values.dtype), y, couplings, **given)
