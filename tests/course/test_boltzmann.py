import math

import pytest
import torch
from scipy.integrate import dblquad, quad

import elf
from course.boltzmann import around, bin_probabilities, distribution, grid, histogram_kl, kl_divergence, langevin

CLOSE = {torch.float32: 2e-5, torch.float64: 1e-9}


@pytest.fixture
def atol(dtype):
    return CLOSE[dtype]


def trap(y):
    return y.square().sum(-1)


def double_well(y):
    return (y[..., 0].square() - 1).square()


def morse(depth):
    return lambda y: depth * (1 - torch.exp(1 - y[..., 0])).square()


def normal(points, mean, std):
    mean, std = (torch.as_tensor(value, dtype=points.dtype) for value in (mean, std))
    return torch.distributions.Normal(mean, std).log_prob(points[:, 0])


# Quadrature and log Z


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_log_z_of_a_trap_is_known(dtype, atol, temperature):
    line = distribution(trap, grid((-12, 12), dtype=dtype), temperature)
    plane = distribution(trap, grid((-12, 11), (-11, 12), points=301, dtype=dtype), temperature)
    assert float(line.log_z) == pytest.approx(0.5 * math.log(math.pi * temperature), abs=atol)
    assert float(plane.log_z) == pytest.approx(math.log(math.pi * temperature), abs=atol)
    assert line.log_density.dtype == dtype


def test_log_z_of_a_quartic_is_a_gamma_function(dtype, atol):
    found = distribution(lambda y: y[:, 0] ** 4, grid((-4, 4), dtype=dtype), 0.7)
    assert float(found.log_z.exp()) == pytest.approx(2 * math.gamma(1.25) * 0.7**0.25, abs=atol)


def test_log_z_agrees_with_adaptive_quadrature_in_one_and_two_dimensions():
    reference, _ = quad(lambda x: math.exp(-((x * x - 1) ** 2) / 0.3), -4, 4, epsabs=1e-12)
    found = distribution(double_well, grid((-3, 3), dtype=torch.float64), 0.3)
    assert float(found.log_z.exp()) == pytest.approx(reference, abs=1e-9)

    def tilted(y):
        return double_well(y) + 2 * (y[:, 1] - y[:, 0]).square()

    reference, _ = dblquad(lambda b, a: math.exp(-((a * a - 1) ** 2) - 2 * (b - a) ** 2), -4, 4, -6, 6)
    found = distribution(tilted, grid((-3, 3), (-6, 6), dtype=torch.float64), 1.0)
    assert float(found.log_z.exp()) == pytest.approx(reference, abs=1e-6)


def test_axes_keep_their_order():
    found = distribution(lambda y: y[:, 0].square() + 4 * (y[:, 1] - 1).square(), grid((-6, 6), (-3, 5)), 1.0)
    assert torch.allclose(found.expectation(found.grid.points), torch.tensor([0.0, 1.0]), atol=1e-5)
    assert found.density.shape == (401, 401)
    row, column = divmod(int(found.density.argmax()), 401)
    assert float(found.grid.axes[0][row]) == pytest.approx(0, abs=0.02)
    assert float(found.grid.axes[1][column]) == pytest.approx(1, abs=0.02)


def test_the_derivative_of_log_z_is_minus_the_mean_energy(dtype, atol):
    scale = torch.ones((), dtype=dtype, requires_grad=True)
    found = distribution(lambda y: scale * double_well(y), grid((-3, 3), dtype=dtype), 0.5)
    (slope,) = torch.autograd.grad(found.log_z, scale)
    assert float(slope) == pytest.approx(-found.expectation(found.energy).item() / 0.5, abs=10 * atol)


def test_entropy_and_free_energy_of_a_gaussian(dtype, atol):
    temperature = 0.8
    found = distribution(trap, grid((-9, 9), dtype=dtype), temperature)
    assert float(found.entropy()) == pytest.approx(0.5 * math.log(math.pi * math.e * temperature), abs=10 * atol)
    assert float(found.expectation(found.energy)) == pytest.approx(temperature / 2, abs=10 * atol)


# Eq. 6: MSE is a Gaussian with T = 2 sigma^2


@pytest.mark.parametrize("dim", [1, 2])
def test_the_harmonic_energy_is_a_gaussian_of_temperature_two_sigma_squared(dtype, rtol, dim):
    sigma, target = 0.7, torch.tensor([[0.3, -0.5][:dim]], dtype=dtype)
    window = [(-8.0, 8.0)] * dim
    found = distribution(around(elf.Harmonic(), target), grid(*window, dtype=dtype), 2 * sigma**2)
    gaussian = torch.distributions.Normal(target[0], sigma).log_prob(found.grid.points).sum(-1)
    assert torch.allclose(
        found.log_density, gaussian, rtol=1e-5 if dtype == torch.float32 else 1e-10, atol=CLOSE[dtype]
    )
    wrong = distribution(around(elf.Harmonic(), target), grid(*window, dtype=dtype), sigma**2)
    assert not torch.allclose(wrong.log_density, gaussian, rtol=0.1)


# Energies of atoms


def test_a_bond_with_one_atom_pinned_is_a_ring():
    length, stiffness, temperature = 1.5, 8.0, 0.5
    target = torch.tensor([[0.0, 0.0], [length, 0.0]], dtype=torch.float64)
    bond = around(elf.PairEnergy(elf.springs.Constant(stiffness)), target, free=[1])
    found = distribution(bond, grid((-4, 4), (-4, 4), dtype=torch.float64), temperature)
    reference, _ = quad(lambda r: 2 * math.pi * r * math.exp(-stiffness * (r - length) ** 2 / temperature), 0, 6)
    assert float(found.log_z.exp()) == pytest.approx(reference, abs=1e-4)
    assert found.expectation(found.grid.points).abs().max() < 1e-9
    assert float(bond(torch.zeros(1, 2, dtype=torch.float64))) == pytest.approx(stiffness * length**2)


def test_around_moves_the_free_atoms_only(generator):
    target = torch.randn(3, 2, generator=generator)
    points = torch.randn(5, 4, generator=generator)
    energy = elf.PairEnergy()
    moved = target.expand(5, 3, 2).clone()
    moved[:, 2], moved[:, 0] = points[:, :2], points[:, 2:]
    assert torch.equal(around(energy, target, free=[2, 0])(points), energy(moved, target.expand(5, 3, 2)))
    everyone = torch.randn(5, 6, generator=generator)
    whole = energy(everyone.reshape(5, 3, 2), target.expand(5, 3, 2))
    assert torch.equal(around(energy, target)(everyone), whole)


@pytest.mark.parametrize("free", [[], [0, 0], [3], [-1]])
def test_around_refuses_atoms_that_do_not_exist(free):
    with pytest.raises(ValueError, match="free is"):
        around(elf.PairEnergy(), torch.zeros(3, 2), free=free)


def test_around_refuses_wrong_shapes():
    with pytest.raises(ValueError, match="target has shape"):
        around(elf.PairEnergy(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"should be \(points, 6\)"):
        around(elf.PairEnergy(), torch.zeros(3, 2))(torch.zeros(5, 4))


# What can go wrong with a window


@pytest.mark.parametrize(
    ("windows", "side"),
    [
        ([(-0.5, 6)], "low side of axis 0, at -0.5"),
        ([(-6, 0.5)], "high side of axis 0, at 0.5"),
        ([(1, 6)], "low side of axis 0, at 1"),
        ([(-6, 6), (-1, 6)], "low side of axis 1, at -1"),
        ([(-6, 6), (-6, 1)], "high side of axis 1, at 1"),
    ],
)
def test_a_window_that_cuts_off_mass_is_an_error_that_names_the_side(dtype, windows, side):
    with pytest.raises(ValueError, match=side):
        distribution(trap, grid(*windows, points=201, dtype=dtype), 1.0)


@pytest.mark.parametrize("others", [[], [(-12.0, 12.0)]], ids=["line", "plane"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_tolerance_is_about_the_mass_that_is_missing(temperature, others):
    end = 2.5 * math.sqrt(temperature)
    window = grid((-end, end), *others, points=201, dtype=torch.float64)
    missing = math.erfc(2.5)
    with pytest.raises(ValueError, match="times the mass inside lies beyond"):
        distribution(trap, window, temperature, tolerance=missing / 4)
    loose = distribution(trap, window, temperature, tolerance=4 * missing)
    everything = math.sqrt(math.pi * temperature) ** (1 + len(others))
    assert float(loose.log_z.exp()) == pytest.approx(everything * (1 - missing), rel=1e-5)


def test_energies_without_a_normalisable_distribution_are_refused():
    with pytest.raises(ValueError, match="no normalisable distribution"):
        distribution(morse(10.0), grid((-0.5, 9)), 1.0)
    with pytest.raises(ValueError, match="does not rise towards the low side"):
        distribution(lambda y: -trap(y), grid((-1, 1)), 1.0)
    with pytest.raises(ValueError, match="does not rise"):
        distribution(lambda y: y[:, 0].square(), grid((-6, 6), (-6, 6)), 1.0)


def test_walls_make_a_molecule_that_dissociates_normalisable():
    found = distribution(morse(10.0), grid((-0.5, 9), points=801, dtype=torch.float64), 1.0, confined=True)
    reference, _ = quad(lambda r: math.exp(-10 * (1 - math.exp(1 - r)) ** 2), -0.5, 9)
    assert float(found.log_z.exp()) == pytest.approx(reference, rel=1e-5)


def test_a_grid_that_is_too_coarse_is_an_error():
    with pytest.raises(ValueError, match="take more"):
        distribution(trap, grid((-6, 6), points=21), 0.02)
    distribution(trap, grid((-6, 6), points=401), 0.02)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_the_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="temperature is"):
        distribution(trap, grid((-6, 6)), temperature)
    with pytest.raises(ValueError, match="temperature is"):
        langevin(trap, torch.zeros(1, 1), temperature, step=0.1, steps=1, generator=torch.Generator())


def test_energies_are_finite_and_have_one_value_a_point():
    with pytest.raises(ValueError, match=r"energy is inf at \[0.0\]"):
        distribution(lambda y: 1 / y[:, 0] + trap(y), grid((0, 6)), 1.0)
    with pytest.raises(ValueError, match="not finite at 200 nodes"):
        distribution(lambda y: y[:, 0].sqrt() + trap(y), grid((-6, 6)), 1.0)
    with pytest.raises(ValueError, match=r"it should be \(points,\)"):
        distribution(lambda y: y.square(), grid((-6, 6)), 1.0)
    with pytest.raises(TypeError, match="is a float"):
        distribution(lambda y: 1.0, grid((-6, 6)), 1.0)


@pytest.mark.parametrize(
    ("windows", "points", "message"),
    [
        ([], 5, "holds 0 intervals"),
        ([(0, 1)] * 3, 5, "holds 3 intervals"),
        ([(1, 1)], 5, "low < high"),
        ([(0, math.inf)], 5, "finite"),
        ([(0, 1)], 6, "odd"),
        ([(0, 1)], 3, "at least 5"),
        ([(0, 1)], 0, "at least 1"),
    ],
)
def test_grids_refuse_what_they_cannot_be(windows, points, message):
    with pytest.raises(ValueError, match=message):
        grid(*windows, points=points)


# Divergences


def test_kl_of_two_gaussians_in_both_directions(dtype, atol):
    line = grid((-14, 14), points=801, dtype=dtype)
    log_p, log_q = normal(line.points, 0.5, 1.0), normal(line.points, -0.3, 1.6)
    forward = math.log(1.6) + (1 + 0.8**2) / (2 * 1.6**2) - 0.5
    reverse = -math.log(1.6) + (1.6**2 + 0.8**2) / 2 - 0.5
    assert float(kl_divergence(log_p, log_q, line)) == pytest.approx(forward, abs=10 * atol)
    assert float(kl_divergence(log_q, log_p, line)) == pytest.approx(reverse, abs=10 * atol)
    assert abs(forward - reverse) > 0.1
    assert float(kl_divergence(log_p, log_p, line)) == 0.0


def test_kl_where_one_density_vanishes():
    line = grid((0, 2), points=801, dtype=torch.float64)
    inside = line.points[:, 0] <= 1
    half = torch.where(inside, 0.0, -math.inf).to(torch.float64) - math.log(801 / 800)
    flat = torch.full_like(half, -math.log(2))
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = kl_divergence(half, flat + shift, line, tolerance=0.01)
    assert value.item() == pytest.approx(math.log(2), abs=0.01)
    assert float(torch.autograd.grad(value, shift)[0]) == pytest.approx(-1, abs=0.01)
    assert math.isinf(float(kl_divergence(flat, half, line, tolerance=0.01)))


def test_kl_refuses_what_is_not_a_density_on_the_grid():
    line = grid((-2, 2))
    good = normal(grid((-9, 9)).points, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"log_p integrates to 0\.95"):
        kl_divergence(normal(line.points, 0.0, 1.0), normal(line.points, 0.0, 0.1), line)
    with pytest.raises(ValueError, match="log_q integrates to 2"):
        kl_divergence(good, good + math.log(2), grid((-9, 9)))
    with pytest.raises(ValueError, match="log_q has shape"):
        kl_divergence(good, good[:-1], grid((-9, 9)))
    with pytest.raises(ValueError, match="log_p holds NaN"):
        kl_divergence(good * math.nan, good, grid((-9, 9)))


def fit(log_p, line, direction, mean, steps=250):
    theta = torch.tensor([mean, -0.5], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.03)
    for _ in range(steps):
        log_q = normal(line.points, theta[0], theta[1].exp())
        pair = (log_p, log_q) if direction == "forward" else (log_q, log_p)
        optimiser.zero_grad()
        kl_divergence(*pair, line).backward()
        optimiser.step()
    return theta[0].item(), theta[1].exp().item()


def test_forward_kl_covers_mass_and_reverse_kl_seeks_a_mode():
    line = grid((-8, 8), points=321, dtype=torch.float64)
    found = distribution(double_well, line, 0.15)
    second_moment = float(found.expectation(line.points[:, 0].square()))
    mean, std = fit(found.log_density, line, "forward", 0.4)
    assert mean == pytest.approx(0, abs=1e-3)
    assert std == pytest.approx(math.sqrt(second_moment), abs=1e-3)
    mean, std = fit(found.log_density, line, "reverse", 0.4)
    scan = [
        (float(kl_divergence(normal(line.points, m, s), found.log_density, line)), m, s)
        for m in torch.linspace(0.5, 1.2, 36).tolist()
        for s in torch.linspace(0.1, 0.5, 21).tolist()
    ]
    assert (mean, std) == pytest.approx(min(scan)[1:], abs=0.02)
    assert fit(found.log_density, line, "reverse", -0.4)[0] == pytest.approx(-mean, abs=1e-3)


def test_both_directions_find_a_gaussian():
    line = grid((-8, 8), dtype=torch.float64)
    found = distribution(lambda y: (y[:, 0] - 0.7).square(), line, 0.5)
    for direction in ("forward", "reverse"):
        assert fit(found.log_density, line, direction, -0.4) == pytest.approx((0.7, 0.5), abs=2e-3)


# Eq. 5: why Z drops out, and when the direction does not matter


def stiff(prediction, target):
    """Lennard-Jones springs on the line: k depends on the configuration around which the energy is written."""
    return (prediction - target).square() * elf.springs.LennardJones(0.1)(target)


def losses(prediction, targets, temperature, line, energy=stiff):
    """Energy terms and log Z terms of the reverse KL (density around the data) and the forward one (around f)."""
    terms = {"reverse": [0.0, 0.0], "forward": [0.0, 0.0]}
    for y in targets:
        for name, at, centre in (("reverse", prediction, y), ("forward", y, prediction)):
            terms[name][0] = terms[name][0] + energy(at, centre) / temperature
            around_centre = distribution(lambda p, c=centre: energy(p[:, 0], c), line, temperature)
            terms[name][1] = terms[name][1] + around_centre.log_z
    return terms


def test_the_partition_function_drops_out_of_the_reverse_kl_alone(dtype):
    line = grid((-6, 10), points=1601, dtype=dtype)
    theta = torch.tensor([0.3, 1.1], dtype=dtype, requires_grad=True)
    targets = torch.tensor([1.0, 2.0], dtype=dtype)
    terms = losses(theta[0] + theta[1] * 0.8, targets, 0.5, line)

    def gradient(value):
        return torch.autograd.grad(value, theta, retain_graph=True)[0]

    energy, log_z = terms["reverse"]
    assert not log_z.requires_grad
    assert torch.equal(gradient(energy + log_z), gradient(energy))
    energy, log_z = terms["forward"]
    assert not torch.allclose(gradient(energy + log_z), gradient(energy), rtol=0.05)
    # Z(f) = sqrt(pi T / k(f)) with k = 7.2 / f^2: log Z(f) = log f + const, for each of the two targets.
    prediction = (theta[0] + theta[1] * 0.8).item()
    assert float(gradient(log_z)[0]) == pytest.approx(2 / prediction, rel=1e-3)


def minimiser(loss):
    f = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([f], lr=0.5, max_iter=60, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimiser.zero_grad()
        value = loss(f)
        value.backward()
        return value

    optimiser.step(closure)
    return f.item()


def test_forward_and_reverse_agree_for_a_gaussian_and_not_for_springs_that_depend_on_the_data():
    line, targets, temperature = grid((-9, 12), points=801, dtype=torch.float64), torch.tensor([1.0, 2.0]), 0.4

    def best(name, energy):
        return minimiser(lambda f: sum(losses(f, targets.double(), temperature, line, energy)[name]))

    def gaussian(prediction, target):
        return (prediction - target).square()

    assert best("reverse", gaussian) == pytest.approx(1.5, abs=1e-6)
    assert best("forward", gaussian) == pytest.approx(1.5, abs=1e-6)
    # Reverse: sum (f - y) / y^2 = 0. Forward: with k = 7.2 / f^2, sum of k (y - f)^2 / T + log f.
    assert best("reverse", stiff) == pytest.approx((1 + 1 / 2) / (1 + 1 / 4), abs=1e-6)
    scan = torch.linspace(0.5, 4, 350001, dtype=torch.float64)
    closed = sum(7.2 * (y / scan - 1).square() / temperature + scan.log() for y in (1.0, 2.0))
    assert best("forward", stiff) == pytest.approx(float(scan[closed.argmin()]), abs=1e-3)
    assert abs(best("forward", stiff) - best("reverse", stiff)) > 0.1


def test_an_even_location_family_can_be_swapped_and_a_skewed_one_cannot():
    skewed = morse(1.0)
    y, f = torch.tensor([[0.4]]), torch.tensor([[1.3]])
    assert torch.equal(trap(f - y), trap(y - f))
    assert not torch.allclose(skewed(1 + f - y), skewed(1 + y - f), rtol=0.5)


# Langevin dynamics (A.2)


def test_langevin_is_determined_by_its_seed(dtype):
    def run(seed):
        start = torch.zeros(7, 2, dtype=dtype)
        return langevin(
            trap, start, 0.5, step=0.05, steps=12, generator=torch.Generator().manual_seed(seed), keep_every=4
        )

    first, again, other = run(1), run(1), run(2)
    assert first.positions.shape == (4, 7, 2)
    assert first.positions.dtype == dtype
    assert torch.allclose(first.times, torch.tensor([0, 0.2, 0.4, 0.6], dtype=dtype))
    assert torch.equal(first.positions, again.positions)
    assert not torch.equal(first.positions[1:], other.positions[1:])


def test_langevin_without_a_force_is_diffusion_and_in_a_trap_the_discrete_ornstein_uhlenbeck_process(generator):
    particles, temperature, step = 40_000, 0.5, 0.1
    start = torch.full((particles, 1), 2.0, dtype=torch.float64)
    free = langevin(lambda y: 0 * trap(y), start, temperature, step=step, steps=10, generator=generator)
    spread = 5 * math.sqrt(2 / particles)
    assert float(free.positions[-1].var()) == pytest.approx(2 * temperature * 1.0, rel=spread)
    # E = y^2, kappa = 2: y <- (1 - 2 h) y + sqrt(2 T h) xi, after n steps mean and variance are geometric sums.
    run = langevin(trap, start, temperature, step=step, steps=8, generator=generator)
    shrink = 1 - 2 * step
    variance = 2 * temperature * step * (1 - shrink**16) / (1 - shrink**2)
    assert float(run.positions[-1].mean()) == pytest.approx(2 * shrink**8, abs=5 * math.sqrt(variance / particles))
    assert float(run.positions[-1].var()) == pytest.approx(variance, rel=spread)


def test_one_langevin_step_by_hand():
    """y - h 2 y + sqrt(2 T h) xi, with the xi that the generator gives."""
    start = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    run = langevin(trap, start, 0.5, step=0.1, steps=1, generator=torch.Generator().manual_seed(3))
    xi = torch.randn(2, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(run.positions[1], torch.tensor([[1.6], [-0.8]], dtype=torch.float64) + 0.1**0.5 * xi)


def test_the_step_biases_the_steady_state_as_stated(generator):
    temperature, kappa, step = 0.5, 2.0, 0.4
    start = torch.zeros(40_000, 1, dtype=torch.float64)
    run = langevin(trap, start, temperature, step=step, steps=40, generator=generator, keep_every=40)
    variance, spread = float(run.positions[-1].var()), 5 * math.sqrt(2 / 40_000)
    assert variance == pytest.approx(temperature / kappa / (1 - step * kappa / 2), rel=spread)
    assert variance != pytest.approx(temperature / kappa, rel=0.2)
    with pytest.raises(ValueError, match=r"step is 1\.5, and particles ran away"):
        langevin(trap, start[:5], temperature, step=1.5, steps=2000, generator=generator, keep_every=100)


def test_langevin_reaches_the_boltzmann_distribution_of_a_double_well(generator):
    temperature, particles = 0.4, 10_000
    found = distribution(double_well, grid((-2.5, 2.5), dtype=torch.float64), temperature)
    start = -torch.ones(particles, 1, dtype=torch.float64)
    run = langevin(double_well, start, temperature, step=0.015, steps=1600, generator=generator, keep_every=160)
    kl = [float(histogram_kl(frame, found)) for frame in run.positions]
    floor = 39 / (2 * particles)
    assert kl[0] > 2 > 0.5 > kl[1] > kl[2] > kl[3] > kl[4]
    assert kl[-1] < 5 * floor
    # The heat bath of another temperature is told apart.
    colder = distribution(double_well, found.grid, 0.7 * temperature)
    assert float(histogram_kl(run.positions[-1], colder)) > 10 * floor


def test_langevin_refuses_bad_settings(generator):
    start = torch.zeros(3, 1)
    options = {"step": 0.1, "steps": 10, "generator": generator}
    with pytest.raises(ValueError, match="step is"):
        langevin(trap, start, 1.0, **(options | {"step": 0.0}))
    with pytest.raises(ValueError, match="steps is"):
        langevin(trap, start, 1.0, **(options | {"steps": 0}))
    with pytest.raises(ValueError, match="should divide steps = 10"):
        langevin(trap, start, 1.0, **options, keep_every=3)
    with pytest.raises(ValueError, match="start has shape"):
        langevin(trap, start[:, 0], 1.0, **options)
    with pytest.raises(ValueError, match="all finite"):
        langevin(trap, start / 0, 1.0, **options)


# Histograms


def test_bins_hold_the_mass_between_their_edges(dtype):
    found = distribution(trap, grid((-6, 6), dtype=dtype), 0.5)
    edges, masses = bin_probabilities(found, 20)
    cumulative = torch.distributions.Normal(0.0, 0.5).cdf(edges)
    assert len(edges) == len(masses) + 1 == 21
    assert torch.allclose(masses, cumulative.diff(), atol=1e-3)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="divide the grid's 400 intervals"):
        bin_probabilities(found, 7)
    with pytest.raises(ValueError, match="2 dimensions"):
        bin_probabilities(distribution(trap, grid((-6, 6), (-6, 6)), 1.0), 10)


def test_histogram_kl_of_perfect_samples_is_the_noise_of_counting(generator):
    found = distribution(trap, grid((-3, 3), dtype=torch.float64), 0.5)
    samples = 0.5 * torch.randn(50_000, 1, generator=generator, dtype=torch.float64)
    _, masses = bin_probabilities(found, 10)
    expected = int((masses > 1e-5).sum() - 1) / (2 * len(samples))
    assert 0.3 * expected < float(histogram_kl(samples, found)) < 3 * expected
    assert float(histogram_kl(samples + 0.1, found)) > 20 * expected


def test_histogram_kl_loses_no_particle():
    found = distribution(trap, grid((-3, 3), dtype=torch.float64), 0.5)
    _, masses = bin_probabilities(found, 100)
    beyond = torch.tensor([[-99.0], [99.0]], dtype=torch.float64)
    expected = -math.log(2) - 0.5 * float(masses[[0, -1]].log().sum())
    assert float(histogram_kl(beyond, found, every=100)) == pytest.approx(expected)
    for bad in (beyond[:, 0], beyond[:0], beyond.expand(2, 2)):
        with pytest.raises(ValueError, match="samples has shape"):
            histogram_kl(bad, found)
    with pytest.raises(ValueError, match="samples holds 1"):
        histogram_kl(torch.tensor([[math.nan], [0.0]]), found)


def test_nothing_lands_on_the_default_device(dtype):
    line, plane = (grid(*[(-6, 6)] * dim, dtype=dtype, device="cpu") for dim in (1, 2))
    target, start = torch.zeros(2, 1, dtype=dtype), torch.zeros(5, 1, dtype=dtype)
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.device("meta"):
        found = distribution(trap, line, 0.5)
        both = distribution(around(elf.Harmonic(), target), plane, 0.5)
        run = langevin(trap, start, 0.5, step=0.1, steps=3, generator=generator)
        results = [found.entropy(), both.log_z, kl_divergence(found.log_density, found.log_density, line)]
        results += [histogram_kl(run.positions[-1], found), run.times, *bin_probabilities(found, 10)]
    assert {result.device.type for result in results} == {"cpu"}
    assert {result.dtype for result in results} == {dtype}
