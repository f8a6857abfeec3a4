"""The report card between periodic walls: what counts as equal there, and where starts and displacements lie."""

import itertools
import math

import pytest
import torch

import elf
from elf.geometry.distances import nearest_image
from elf.metrics import probes
from elf.metrics.probes import Space

BOX = torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64)
TILTED = torch.tensor([[3.0, 0.0], [1.0, 3.5]], dtype=torch.float64)


def points(cell: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    """Three targets at random places, not folded into the cell."""
    lattice = cell.diag() if cell.ndim == 1 else cell
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.rand(3, count, len(lattice), dtype=torch.float64, generator=generator) - 1) @ lattice


def nearest(cell: torch.Tensor):
    """Mean squared error that knows the walls."""
    return lambda x, y, mask=None: nearest_image(x - y, cell.to(x)).square().sum((1, 2))


@pytest.mark.parametrize("cell", [BOX, TILTED])
def test_the_pair_energy_knows_the_lattice_and_nothing_else_is_free(cell: torch.Tensor) -> None:
    y, dim = points(cell, 8, seed=1), len(cell)
    card = elf.report_card(elf.PairEnergy(elf.springs.Constant()), y, cell=cell)
    assert set(card.ignores) == {"translation", "lattice vector", "point reflection"}
    assert max(card.ignores.values()) < 1e-6
    assert card.at_target < 1e-6
    # Translations alone cost nothing: three zero modes in space, not six.
    assert card.free_modes == 0
    for stiffness in card.stiffness:
        assert int((stiffness.abs() < 1e-6 * stiffness[-1]).sum()) == dim
    assert not isinstance(card.agreement["flat"], str)
    assert not isinstance(card.agreement["padded"], str)


def test_who_knows_the_walls() -> None:
    """MSE takes the copy through a wall for a mistake; with nearest images it does not, and still sees translations."""
    y = points(BOX, 5)
    plain, walls = (elf.report_card(energy, y, cell=BOX).ignores for energy in (elf.Harmonic(), nearest(BOX)))
    assert plain["lattice vector"] > 1e-3
    assert walls["lattice vector"] < 1e-9
    assert plain["translation"] > 1e-3
    assert walls["translation"] > 1e-3


def test_displacements_are_folded_into_the_cell() -> None:
    y, seen = points(BOX, 4), list[torch.Tensor]()

    def watching(x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(x.detach().clone())
        return nearest(BOX)(x, target)

    elf.report_card(watching, y, cell=BOX)
    (displaced, *_) = [x for x in seen[1:] if x.shape == (1, 4, 3)]
    assert ((displaced >= 0) & (displaced <= BOX)).all()
    steps = (displaced - y[:1] - nearest_image(displaced - y[:1], BOX)) / BOX
    torch.testing.assert_close(steps, steps.round())
    assert steps.abs().max() >= 1
    starts = next(x for x in seen if x.shape == (3, 4, 3) and not torch.equal(x, y))
    assert ((starts >= 0) & (starts <= BOX)).all()


@pytest.mark.parametrize("cell", [BOX, TILTED])
def test_distances_are_the_shortest_over_all_images(cell: torch.Tensor) -> None:
    space, y = Space(cell), points(cell, 5)[0]
    lattice = space.lattice()
    images = torch.tensor([*itertools.product(range(-4, 5), repeat=len(cell))], dtype=torch.float64) @ lattice
    shortest = (y[:, None, None] - y[None, :, None] + images).norm(dim=-1).amin(-1)
    torch.testing.assert_close(space.distances(y), shortest)
    torch.testing.assert_close(space.distances(space.folded(y)), shortest)


def test_a_row_across_the_box_is_a_ring() -> None:
    """Four atoms from wall to wall: the ring's eight relabellings, the identity and three others being translations."""
    row = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]], dtype=torch.float64)
    cell = torch.tensor([4.0, 30.0], dtype=torch.float64)
    card = elf.report_card(elf.PairEnergy(), row, cell=cell)
    assert card.relabellings == (7, 7, 3)
    assert "3 of them are translations" in str(card)
    assert elf.report_card(elf.PairEnergy(), row).relabellings[1] == 1


def test_a_turn_is_no_rigid_motion_in_a_cell() -> None:
    """A small triangle in a large box turns freely: one mode too many there, none in free space."""
    triangle = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.3, 0.8]]], dtype=torch.float64)
    pair = elf.PairEnergy()
    box = torch.tensor([50.0, 50.0], dtype=torch.float64)
    assert probes.modes(pair, triangle).free == 0
    assert probes.modes(pair, triangle, Space(box)).free == 1


@pytest.mark.parametrize("cell", [BOX, TILTED])
def test_translations_are_an_orthonormal_basis(cell: torch.Tensor) -> None:
    y = points(cell, 5)[0]
    basis = Space(cell).rigid_motions(y)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(len(cell), dtype=torch.float64))
    steps = basis.view(len(cell), *y.shape)
    assert (steps == steps[:, :1]).all()


def test_motions_in_a_box_are_a_step_and_a_reflection() -> None:
    y = points(BOX, 5)[:1]
    x = y + 0.2 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    found = probes.changes(nearest(BOX), [(x, y)], 2.0, torch.Generator(), Space(BOX))
    shifts = [x - y, x + 1.5 - y, -x - y]
    before, stepped, turned = ((shift - BOX * (shift / BOX).round()).square().sum() for shift in shifts)
    assert found["translation"] == pytest.approx(float((stepped - before).abs()) / 2)
    assert found["point reflection"] == pytest.approx(float((turned - before).abs()) / 2)


def test_atoms_meet_through_a_wall() -> None:
    """0.2 apart through the wall: the one moved ends 0.3 beyond the other, at 0.5, with a gradient of 2 * 0.5."""
    y = torch.tensor([[[0.1, 1.0], [9.9, 1.0], [5.0, 5.0]]], dtype=torch.float64)
    space = Space(torch.tensor([10.0, 10.0], dtype=torch.float64))
    assert probes.meeting(elf.Harmonic(), y, space) == (pytest.approx(1.0), False)


def test_a_reference_is_given_the_cell() -> None:
    y, cells = points(BOX, 4), list[torch.Tensor]()

    def own(i: int, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        cells.append(cell)
        assert ((x >= 0) & (x <= cell)).all()
        return nearest(cell)(x, y[i])

    card = elf.report_card(nearest(BOX), y, cell=BOX, reference=own)
    assert card.rank_correlation == pytest.approx(1)
    assert all(torch.equal(cell, BOX) for cell in cells)


def test_bad_cells() -> None:
    y = points(BOX, 4)
    with pytest.raises(ValueError, match=r"cell is torch\.float64 \(2,\); it should be floating, \(3,\) or \(3, 3\)"):
        elf.report_card(elf.PairEnergy(), y, cell=BOX[:2])
    with pytest.raises(ValueError, match="reference is 'gfn2'; with a cell, it should be a function"):
        elf.report_card(elf.PairEnergy(), y, cell=BOX, reference="gfn2", labels=torch.ones(3, 4))


def test_what_stands_at_masked_atoms_counts_nowhere() -> None:
    y = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True] * 5, [True] * 4 + [False]])
    shares = []
    for filler in (0.0, math.nan):
        filled = y.masked_fill(~mask[..., None], filler)
        card = elf.report_card(elf.Harmonic(), filled, mask)
        shares.append(card.arrivals)
    assert shares == [1, 1]
