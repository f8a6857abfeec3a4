"""The report card finds, without being told, what is known of the energies of this package."""

import math

import pytest
import torch

import elf
from elf.chemistry import molecular_graph
from elf.chemistry.force_field import ForceField
from elf.data import qm9
from elf.geometry import pairwise_distances


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
        ((elf.PairEnergy(), X), {"labels": torch.ones(3)}, ValueError, "labels is .*; it should be a tensor"),
        ((elf.PairEnergy(), X), {"mask": torch.zeros(2, 5, dtype=torch.bool)}, ValueError, "mask leaves sample 0"),
        ((elf.PairEnergy(), X), {"seed": -1}, ValueError, "seed is -1; it should be at least 0"),
    ],
)
def test_what_is_no_energy_is_told_in_words(arguments, options, error, message) -> None:
    with pytest.raises(error, match=message):
        elf.report_card(*arguments, **options)
