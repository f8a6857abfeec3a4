"""The report card finds, without being told, what is known of the energies of this package."""

import math

import pytest
import torch

import elf
from elf.chemistry import molecular_graph
from elf.chemistry.force_field import ForceField
from elf.data import qm9
from elf.geometry import pairwise_distances
from elf.metrics import probes


@pytest.fixture(scope="module")
def molecules():
    flat = [qm9.find(name) for name in ("benzene", "C=O")]
    some = qm9.load(heavy_atoms=(3, 5), limit=2, seed=3)
    width = max(len(one.numbers[0]) for one in [*flat, some])
    positions = torch.cat([pad(one.positions, width) for one in [*flat, some]])
    numbers = torch.cat([pad(one.numbers, width) for one in [*flat, some]])
    return positions, numbers


def pad(x: torch.Tensor, width: int) -> torch.Tensor:
    wide = x.new_zeros(x.shape[0], width, *x.shape[2:])
    wide[:, : x.shape[1]] = x
    return wide


def card(energy, molecules, **options):
    positions, numbers = molecules
    return elf.report_card(energy, positions, numbers > 0, labels=numbers, **options)


def test_mse_is_not_invariant(molecules) -> None:
    found = card(elf.Harmonic(), molecules)
    assert all(change > 1 for change in found.ignores.values())
    assert found.relabellings[0] == 0
    assert found.relabellings[1] > 10
    assert found.free_modes == 0
    assert found.condition == pytest.approx(1, abs=1e-3)
    assert found.growth == pytest.approx(1, abs=0.01)
    assert not found.kink
    assert found.arrivals == 1
    # Annotations checked at run time, as in these tests, do not compile.
    ways = {name: change for name, change in found.agreement.items() if name != "compiled"}
    assert len(ways) == 5
    assert all(isinstance(change, float) and change < 1e-2 for change in ways.values())
    remarks = {question: remark for question, _, remark in found.rows()}
    assert {remarks[f"sees a {motion}"] for motion in found.ignores} == {"yes"}
    assert remarks["zero at the target"] == "yes"
    assert remarks["gradient grows as displacement to the"] == "unbounded"
    assert (remarks["collapsed start"], remarks["flat start"]) == ("alive", "alive")
    assert (remarks["free modes beyond rigid motions"], remarks["steepest where atoms meet"]) == ("", "")
    assert remarks["gradient jumps where atoms meet"] == "smooth"


def test_kabsch_knows_hands(molecules) -> None:
    found = card(elf.AlignedHarmonic(), molecules)
    assert found.ignores["translation"] < 1e-6
    assert found.ignores["rotation"] < 1e-6
    assert found.ignores["reflection"] > 0.1
    # Relabellings in Aut(Delta y) are isometries of y: the proper ones are rotations, which Kabsch undoes.
    assert found.relabellings[0] == found.relabellings[2]
    assert 0 < found.relabellings[2] < found.relabellings[1]


def test_pair_energy_is_blind_to_hands_and_to_flat_bending(molecules) -> None:
    found = card(elf.PairEnergy(), molecules)
    assert max(found.ignores.values()) < 1e-6
    assert found.relabellings[0] == found.relabellings[1] > 0
    assert found.free_modes == 12 - 3
    assert found.softest.shape[0] in (4, 12)
    assert found.kink
    assert found.dead_starts["collapsed"] == 0
    assert found.dead_starts["flat"] < 1e-6
    assert 0 < found.arrivals < 1
    # The two flat ones at least.
    assert 0.5 <= found.soft_share <= 1
    remarks = {question: remark for question, _, remark in found.rows()}
    assert {remarks[f"sees a {motion}"] for motion in found.ignores} == {"no"}
    assert remarks["collapsed start"] == remarks["flat start"] == "dead: no gradient leads out"
    assert remarks["free modes beyond rigid motions"] == "some shapes cost nothing"
    assert remarks["gradient jumps where atoms meet"] == "a kink"
    mended = card(lambda x, y, mask=None: elf.PairEnergy()(x, y, mask) + elf.HeightEnergy()(x, y, mask), molecules)
    assert mended.free_modes == 0
    assert mended.ignores["reflection"] > 0.1
    assert mended.dead_starts["flat"] > 1e-2


def lennard_jones(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """sum_{i<j} (r/r_hat)^12 - 2 (r/r_hat)^6 + 1: the true energy that the springs of App. A.3 expand."""
    real = torch.ones(y.shape[:2], dtype=torch.bool) if mask is None else mask
    pairs = (real[:, :, None] & real[:, None]) & ~torch.eye(y.shape[1], dtype=torch.bool)
    ratio = torch.where(pairs, pairwise_distances(y), 1) / torch.where(pairs, pairwise_distances(x), 1)
    return torch.where(pairs, (ratio**6 - 1) ** 2, 0).sum((1, 2)) / 2


def test_lennard_jones_fails_smoothness(molecules) -> None:
    found = card(lennard_jones, molecules)
    assert found.steepest > 1e6
    assert found.arrivals < 0.5
    assert "unexpected keyword argument 'batch'" in found.agreement["flat"]
    assert "explodes" in str(found)
    assert "| steepest where atoms meet |" in found._repr_markdown_()


def test_rank_correlation_with_a_force_field() -> None:
    some = qm9.load(heavy_atoms=(4, 6), limit=6, seed=1)
    fields = [ForceField(molecular_graph.to_rdkit(some, i)) for i in range(len(some))]
    cards = {
        name: elf.report_card(energy, some.positions, some.mask, reference=lambda i, x: fields[i].energy(x))
        for name, energy in (("mse", elf.Harmonic()), ("pair", elf.PairEnergy()))
    }
    assert cards["pair"].rank_correlation > cards["mse"].rank_correlation + 0.1
    itself = elf.report_card(
        elf.PairEnergy(), some.positions[:1], some.mask[:1], reference=lambda i, x: own(x, some, i)
    )
    assert itself.rank_correlation == 1


def own(x: torch.Tensor, molecules, i: int) -> torch.Tensor:
    y = molecules.positions[i][molecules.mask[i]].double()
    return elf.PairEnergy()(x, y.expand_as(x))


def test_in_the_plane_and_as_numbers() -> None:
    angle = torch.arange(5) * (2 * math.pi / 5)
    pentagon = torch.stack((angle.cos(), angle.sin()), -1)[None]
    found = elf.report_card(elf.PairEnergy(), pentagon)
    assert found.free_modes == 0
    assert found.relabellings == (9, 9, 4)
    numbers = found.as_dict()
    assert "stiffness" not in numbers
    assert numbers["rank_correlation"] is None
    with pytest.raises(ValueError, match="targets has shape"):
        elf.report_card(elf.PairEnergy(), pentagon[0])


X = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (lambda p, t, m=None: (p - t).square().mean(), X),
            {},
            ValueError,
            r"energy answers with a tensor \(\); it should",
        ),
        ((lambda p, t, m=None: None, X), {}, ValueError, "energy answers with None; it should be one value a sample"),
        ((lambda p, t, m=None: t.sum((1, 2)), X), {}, ValueError, "energy answers without a gradient"),
        ((elf.PairEnergy, X), {}, TypeError, "it should be called energy"),
        ((elf.PairEnergy(), X[:, :1]), {}, ValueError, "targets has a sample of 1 atom; each should have at least 2"),
        (
            (elf.PairEnergy(), X, torch.arange(5) < torch.tensor([[5], [1]])),
            {},
            ValueError,
            "targets has a sample of 1 atom; each should have at least 2",
        ),
        ((elf.PairEnergy(), X), {"labels": torch.ones(3)}, ValueError, "labels is .*; it should be a tensor"),
        ((elf.PairEnergy(), X), {"mask": torch.zeros(2, 5, dtype=torch.bool)}, ValueError, "mask leaves sample 0"),
        ((elf.PairEnergy(), X), {"seed": -1}, ValueError, "seed is -1; it should be at least 0"),
    ],
)
def test_what_is_no_energy_is_told_in_words(arguments, options, error, message) -> None:
    with pytest.raises(error, match=message):
        elf.report_card(*arguments, **options)


def chain(first: float, second: float):
    """k1 (x1 - x0)^2 + k2 (x2 - x1)^2, less its targets' values, on a line."""

    def energy(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        stretch = ((x - y).diff(dim=1)[..., 0]).square()
        return first * stretch[:, 0] + second * stretch[:, 1]

    return energy


def test_modes_of_three_atoms_on_a_line_are_the_textbooks() -> None:
    """The Laplacian of a path has the eigenvalues 0, 1, 3: twice k times these are the stiffnesses."""
    line = torch.tensor([[[0.0], [1.0], [2.5]]], dtype=torch.float64)
    found = probes.modes(chain(5.0, 5.0), line)
    assert found.all.tolist() == pytest.approx([0, 10, 30], abs=1e-6)
    assert (found.free, found.condition, found.typical) == (0, pytest.approx(3), pytest.approx(10))
    assert found.shape[:, 0].abs().tolist() == pytest.approx([0.5**0.5, 0, 0.5**0.5], abs=1e-6)
    # One spring alone: two atoms vibrate against each other, the third is free.
    loose = probes.modes(chain(0.0, 5.0), line)
    assert (loose.free, loose.condition) == (1, pytest.approx(1))
    soft = probes.modes(chain(5.0, 0.01), line)
    assert soft.free == 0
    assert soft.condition > 100


def test_zero_at_the_target_is_measured_in_energies_of_displaced_ones() -> None:
    """Harmonic energies of displacements of 0.2 angstrom, plus 3: what is left at the target is 3 of them."""
    y = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = elf.report_card(lambda a, b, mask=None: elf.Harmonic()(a, b, mask) + 3, y)
    generator = torch.Generator().manual_seed(0)
    moved = sorted(
        0.04 * float(torch.randn(6, 3, dtype=y.dtype, generator=generator).square().sum()) + 3 for _ in range(3)
    )
    assert found.at_target == pytest.approx(3 / moved[1], rel=1e-9)


def test_figures_are_relative_to_displacements_of_the_same_size() -> None:
    """Harmonic: 1.5 added to all coordinates, and two atoms that pass, in energies and forces of the noise."""
    y = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = elf.report_card(elf.Harmonic(), y)
    generator = torch.Generator().manual_seed(0)
    noises = [0.2 * torch.randn(6, 3, dtype=y.dtype, generator=generator) for _ in range(3)]
    energies = [float(noise.square().sum()) for noise in noises]
    moved = [abs(float((noise + 1.5).square().sum()) - energy) for noise, energy in zip(noises, energies, strict=True)]
    assert found.ignores["translation"] == pytest.approx(max(moved) / sorted(energies)[1], rel=1e-9)
    near = [float(torch.pdist(points).min()) for points in y]
    assert found.steepest == pytest.approx(2 * (max(near) + 0.3) / (2 * sorted(energies)[1] ** 0.5), rel=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_no_figure_depends_on_the_unit_of_the_energy(unit) -> None:
    angle = torch.arange(4) * (math.pi / 2)
    y = torch.stack((angle.cos(), angle.sin()), -1)[None].double()
    y = torch.cat([y, torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)])
    plain, other = (
        elf.report_card(lambda a, b, mask=None, k=k: k * (elf.PairEnergy()(a, b, mask) + 1e-3), y) for k in (1.0, unit)
    )
    assert plain.relabellings == other.relabellings == (7, 7, 3)
    for name in ("at_target", "growth", "steepest", "condition", "soft_share", "free_modes", "kink"):
        assert getattr(other, name) == pytest.approx(getattr(plain, name), rel=1e-3), name
    assert other.dead_starts == pytest.approx(plain.dead_starts, rel=1e-6, abs=1e-6)
    assert max(other.ignores.values()) < 1e-6
    numbers = [change for change in plain.agreement.values() if isinstance(change, float)]
    assert numbers
    assert [c for c in other.agreement.values() if isinstance(c, float)] == pytest.approx(numbers, rel=0.5, abs=1e-5)


def test_the_softest_mode_is_the_softest_for_its_own_target() -> None:
    """Four atoms on a line: of the long target all springs are a thousand times as stiff, and one is soft for them."""
    short = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64).view(1, 4, 1)

    def energy(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        long = y[:, -1, 0] - y[:, 0, 0] > 5
        stretch = (x - y).diff(dim=1)[..., 0].square()
        soft = torch.where(long, 1e-2, 0.5) * stretch[:, 0]
        return torch.where(long, 1e3, 1.0) * (soft + stretch[:, 1] + stretch[:, 2])

    assert elf.report_card(energy, torch.cat([short, 2 * short])).softest_target == 1
    assert elf.report_card(energy, torch.cat([2 * short, short])).softest_target == 0


def test_soft_and_free_modes_are_counted_over_targets() -> None:
    """Four atoms on a line, their first spring as stiff as half of the others, a thousandth of them, or absent."""
    y = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(3, 1, 1) * torch.arange(4).view(1, 4, 1)

    def energy(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        first = x.new_tensor([0.5, 1e-3, 0.0])[(y[:, 1, 0] - y[:, 0, 0]).round().long() - 1]
        stretch = (x - y).diff(dim=1)[..., 0].square()
        return 1000 * (first * stretch[:, 0] + stretch[:, 1] + stretch[:, 2])

    found = elf.report_card(energy, y)
    assert found.free_modes == 1
    assert found.soft_share == pytest.approx(2 / 3)


def test_a_constant_gradient_has_no_kink() -> None:
    y = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert probes.meeting(lambda x, target, mask=None: 3 * x.sum((1, 2)), y) == (pytest.approx(9), False)


def test_starts_are_as_wide_as_the_targets_and_distortions_are_of_a_tenth() -> None:
    y = 7 + 5 * torch.randn(40, 20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen: list[torch.Tensor] = []

    def energy(x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(x.detach().clone())
        return (x - target).square().sum((1, 2))

    probes.arrivals(energy, y, torch.ones(40, 20, dtype=torch.bool), 1.0, torch.Generator().manual_seed(1))
    assert float(seen[0].std()) == pytest.approx(float(y.std()), rel=0.05)
    assert abs(float(seen[0].mean())) < 0.5
    seen.clear()
    assert probes.ranks(energy, [y[:1]], lambda i, x: energy(x, y[:1].expand_as(x)), torch.Generator()) == 1
    assert float((seen[0] - y[:1]).std()) == pytest.approx(0.1, rel=0.05)


def test_atoms_that_meet_under_mse() -> None:
    """The nearest two are 1 apart; the one moved ends 0.3 beyond the other: 2 * 1.3, and no jump."""
    y = torch.tensor([[[7.0, 2.0, 1.0], [8.0, 2.0, 1.0], [7.0, 7.0, 1.0]]], dtype=torch.float64)
    assert probes.meeting(elf.Harmonic(), y) == (pytest.approx(2.6), False)
    steepest, kink = probes.meeting(elf.PairEnergy(), y)
    assert kink
    assert 0 < steepest < math.inf


def test_the_steepest_place_of_the_way_is_found_wherever_it_lies() -> None:
    """1 / (d + 0.01) has its largest slope, all but 1e4, where the two atoms meet."""
    y = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    steepest, _ = probes.meeting(lambda x, target, mask=None: 1 / ((x[:, 0] - x[:, 1]).norm(dim=1) + 0.01), y)
    assert 2**0.5 * 1e3 < steepest < 2**0.5 * 1e4


def test_starts_at_a_point_and_in_a_plane_under_known_energies() -> None:
    """x and y spread by 18 and 8, z by 4: the plane is z = 0, whose way out is the heights' own, 2."""
    high = torch.tensor([[[3.0, 0.0, 1.0], [-3.0, 0.0, 1.0], [0.0, 2.0, -1.0], [0.0, -2.0, -1.0]]], dtype=torch.float64)
    flat = high * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    found = probes.dead_starts(elf.Harmonic(), [flat + 2, high - 3], 4.0)
    assert found == {"collapsed": pytest.approx(2 * 30**0.5 / 4), "flat": pytest.approx(2 * 2 / 4)}
    origin = probes.dead_starts(lambda x, y, mask=None: x.square().sum((1, 2)), [high], 4.0)
    assert origin == pytest.approx({"collapsed": 0, "flat": 0}, abs=1e-12)


def test_arrivals_are_within_a_tenth_of_an_angstrom() -> None:
    """Two atoms end 5 % too far apart, which over the four entries of the matrix is d 0.05 / sqrt 2 in root mean
    square: 0.095 at 2.7 angstrom, 0.106 at 3."""
    y = torch.zeros(2, 3, 3, dtype=torch.float64)
    y[0, 1, 0], y[1, 1, 1] = 2.7, 3.0
    real = torch.tensor([[True, True, False]] * 2)

    def stretched(x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ((x - 1.05 * target).square() * mask[..., None]).sum((1, 2))

    assert probes.arrivals(stretched, y, real, 1.0, torch.Generator().manual_seed(0)) == 0.5


def test_cost_is_the_median_time_over_that_of_mse(monkeypatch) -> None:
    now, spent, others = [0.0], {True: 3.0, False: 2.0}, []

    def gradient(energy, x, y):
        now[0] += spent[energy is own_energy]
        if energy is not own_energy:
            others.append(energy)

    def own_energy(*_):
        return None

    monkeypatch.setattr(probes, "gradient", gradient)
    monkeypatch.setattr(probes.time, "perf_counter", lambda: now[0])
    x = torch.zeros(1, 3, 3, dtype=torch.float64)
    assert probes.cost(own_energy, (x, x)) == 1.5
    assert others[0](x + 1, x + 3, None).tolist() == [9 * 2**2]


@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_finite_is_said_and_never_hidden(first) -> None:
    """One of two displaced targets has no energy; `max` and `median` would answer by the order in which they come."""
    y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lost = y[0 if first else 1]

    def energy(prediction, target, mask=None):
        value = (prediction - target).square().sum((1, 2))
        gone = ((target - lost).abs().amax((1, 2)) == 0) & (prediction - target).abs().amax((1, 2)).gt(0.01)
        return value + torch.where(gone, torch.nan, 0.0) * value

    card = elf.report_card(energy, y)
    said = {question: remark for question, _, remark in card.rows()}
    assert {said[f"sees a {motion}"] for motion in ("translation", "rotation", "reflection")} == {"not finite"}
    assert said["gradient grows as displacement to the"] == "not finite"
    assert said["zero at the target"] == "yes"
    with pytest.raises(ValueError, match="energy has a gradient that is not finite at a target"):
        elf.report_card(lambda x, y, mask=None: (x - y).abs().sqrt().sum((1, 2)), y)
