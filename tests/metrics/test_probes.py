"""Each probe of the report card by itself, under energies whose answers are worked out by hand."""

import pytest
import torch

import elf
from elf.metrics import probes

SQUARE = torch.tensor([[[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]], dtype=torch.float64)


def power(exponent: float, unit: float = 1.0):
    """The sum of all coordinates' displacements, to this power."""
    return lambda x, y, mask=None: unit * (x - y).abs().pow(exponent).sum((1, 2))


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_relabelling_counts_as_ignored_in_the_energys_own_unit(unit: float) -> None:
    """A square has seven relabellings but the identity, three of them turns, which move its corners by 16 or 32 in all,
    squared. A thousandth of that, over 4, is less than two hundredths."""
    assert probes.relabellings(power(2, unit), [(SQUARE, SQUARE)], unit, None) == (0, 7, 3)
    assert probes.relabellings(power(2, unit * 1e-3), [(SQUARE, SQUARE)], 4 * unit, None) == (7, 7, 3)


@pytest.mark.parametrize("dim", [2, 3])
def test_rotations_keep_hands_and_reflections_do_not(dim: int) -> None:
    """What the unit vectors become is the matrix of a motion: orthogonal, with a determinant of 1 or of -1."""
    motions = probes.FREE.motions(3, dim, torch.Generator().manual_seed(0))
    unit = torch.eye(dim, dtype=torch.float64)
    for name, hand in (("rotation", 1), ("reflection", -1)):
        for moved in (motions[name](unit, i) for i in range(3)):
            torch.testing.assert_close(moved @ moved.mT, unit)
            assert float(torch.linalg.det(moved)) == pytest.approx(hand)


@pytest.mark.parametrize("exponent", [1, 2, 4])
def test_growth_is_the_exponent_of_the_gradient_at_known_displacements(exponent: int) -> None:
    y = torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen: list[torch.Tensor] = []

    def watching(x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(x.detach().clone())
        return power(exponent)(x, target)

    assert probes.growth(watching, [y], torch.Generator()) == pytest.approx(exponent - 1, abs=1e-9)
    assert [float((x - y).std()) for x in seen] == pytest.approx([1, 100], rel=0.1)


@pytest.mark.parametrize(("jump", "kink"), [(1e-9, False), (1e-8, True)])
def test_a_jump_in_the_ninth_digit_is_rounding(jump: float, kink: bool) -> None:
    """A gradient of norm 1000 that jumps by this share of it as the two atoms pass: twice on both of them."""
    y = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)

    def energy(x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        apart = (x[:, 0] - x[:, 1]).norm(dim=1)
        return 1000 * (x.sum((1, 2)) / 6**0.5 + jump * apart / 8**0.5)

    assert probes.meeting(energy, y) == (pytest.approx(1000), kink)


def test_adams_steps_shrink_from_a_tenth_to_nothing() -> None:
    """Under a constant force Adam's step is its rate: 500 of them from 0.1 down, in equal parts."""
    places: list[torch.Tensor] = []

    def slope(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places.append(x.detach().clone())
        return x.sum((1, 2))

    probes.arrivals(slope, SQUARE, torch.ones(1, 4, dtype=torch.bool), 1.0, torch.Generator().manual_seed(0))
    steps = -torch.cat(places).diff(dim=0)
    rates = torch.linspace(0.1, 0.1 / 500, 500, dtype=torch.float64)[:499]
    torch.testing.assert_close(steps, rates[:, None, None].expand_as(steps), rtol=1e-6, atol=0)


def test_agreement_is_the_difference_over_the_scale() -> None:
    """3 more in float32, a quarter of which is 0.75; nothing but rounding elsewhere."""
    y = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def energy(x: torch.Tensor, target: torch.Tensor, *mask: torch.Tensor, **flat: torch.Tensor) -> torch.Tensor:
        return elf.Harmonic()(x, target, *mask, **flat) + (3 if x.dtype == torch.float32 else 0)

    found = probes.agreement(energy, [(y + 1, y)], 4.0)
    assert found["float32"] == pytest.approx(0.75, abs=1e-5)
    assert found["bfloat16"] == pytest.approx(0, abs=0.1)
    assert [found[way] for way in ("padded", "flat", "vmapped")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_a_tenth_energy_compiles_as_the_first() -> None:
    """torch.compile gives up a function after eight recompilations, and with fullgraph raises."""
    x = torch.ones(1, 4, 3, dtype=torch.float64)
    energies = [eval(f"lambda x, y, mask=None: {n} * (x - y).square().sum((1, 2))") for n in range(1, 11)]
    assert [probes.agreement(energy, [(x, 2 * x)], 1.0)["compiled"] for energy in energies] == [0] * 10


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_arrivals_do_not_depend_on_the_unit(unit: float) -> None:
    """Adam's steps shrink with gradients below 1e-8, which a small unit would be taken for."""
    assert elf.report_card(power(2, unit), SQUARE).arrivals == 1
