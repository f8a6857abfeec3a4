"""What notebook 05 claims of flat molecules, derived a second way."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import torch
from reading import widget
from torch import Tensor

import elf
from elf.data import qm9
from elf.geometry import pairwise_distances

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_rigidity.ipynb"
PAIR = elf.PairEnergy()
WITH_HEIGHTS = elf.PairEnergy() + elf.HeightEnergy()


@pytest.fixture(scope="module")
def printed() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells if cell.cell_type == "code" for out in cell.outputs)


@pytest.fixture(scope="module")
def small():
    return qm9.load(split="train", heavy_atoms=(1, 7), atoms=(5, 29))


def molecule(name: str) -> Tensor:
    positions = qm9.find(name).positions[0].double()
    return positions - positions.mean(0)


def ring() -> Tensor:
    """Benzene in coordinates of its plane, exactly flat."""
    positions = molecule("benzene")
    flat = positions @ torch.linalg.svd(positions).Vh.T
    return flat * torch.tensor([1.0, 1.0, 0.0], dtype=flat.dtype)


def stretches(y: Tensor) -> Tensor:
    """The energy's stiffness is that of its unit stretches: the singular values of d(distance)/d(position)."""
    upper = torch.triu_indices(len(y), len(y), 1)

    def distances(x: Tensor) -> Tensor:
        return (x[upper[0]] - x[upper[1]]).norm(dim=-1)

    jacobian = torch.func.jacrev(distances)(y).flatten(1)
    values = torch.linalg.svdvals(jacobian)
    return values / values[0]


def free_of(y: Tensor) -> int:
    return y.numel() - 6 - int((stretches(y) > 1e-3).sum())


def test_benzene_has_n_minus_3_motions_that_no_distance_feels(printed):
    assert free_of(molecule("benzene")) == 12 - 3
    assert free_of(molecule("glyceraldehyde")) == 0
    assert "benzene: 12 atoms, all 66 rods, 9 ways to wobble" in printed
    assert "glyceraldehyde: 12 atoms, all 66 rods, 0 ways to wobble" in printed


def test_so_has_nearly_every_flat_molecule(small, printed):
    flat = []
    for positions, n in zip(small.positions.double(), small.counts.tolist(), strict=True):
        centred = positions[:n] - positions[:n].mean(0)
        # The least eigenvalue of the covariance: the mean squared distance from the best plane.
        if torch.linalg.eigvalsh(centred.T @ centred / n)[0].clamp_min(0).sqrt() < 0.03:
            flat.append(centred)
    assert (len(flat), len(small)) == (214, 3004)
    assert "flat: 214 of 3,004 training molecules" in printed
    as_claimed = sum(free_of(y) == len(y) - 3 for y in flat[::4])
    assert as_claimed >= 0.95 * len(flat[::4])


def softest_out_of_plane(energy) -> float:
    """Least stiffness among benzene's motions out of its plane, from second differences of the energy alone."""
    y = ring()
    rigid = torch.stack([torch.ones(12, dtype=y.dtype), y[:, 0], y[:, 1]])
    basis = torch.linalg.svd(rigid).Vh[3:]  # nine heights that neither shift nor tilt
    pairs = basis[:, None] + basis[None], basis[:, None] - basis[None]
    sums, differences = (y + _lifted(0.01 * lift.flatten(0, 1)) for lift in pairs)
    curvature = (energy(sums, y.expand_as(sums)) - energy(differences, y.expand_as(sums))) / (2 * 0.01**2)
    return float(torch.linalg.eigvalsh(curvature.view(9, 9))[0])


def _lifted(heights: Tensor) -> Tensor:
    return torch.nn.functional.pad(heights[..., None], (2, 0))


def test_heights_leave_no_free_mode_and_the_report_card_counts_them(printed):
    assert abs(softest_out_of_plane(PAIR)) < 1e-3
    assert softest_out_of_plane(WITH_HEIGHTS) > 0.5
    assert elf.report_card(PAIR, ring()[None, :6]).free_modes == 6 - 3  # its carbons
    modes = re.findall(r"benzene, free modes beyond the rigid ones: (.*)", printed)
    assert modes == ["{'pair': 9, 'pair + height': 0}"]


def test_a_flap_costs_the_fourth_power_WITH_HEIGHTS_the_square():
    y = ring()
    flap, swell = torch.zeros_like(y), y / y.square().sum(1).mean().sqrt()
    flap[:, 2] = torch.tensor([1.0, -1.0]).repeat(6)

    def power(energy, motion: Tensor) -> float:
        few = torch.stack([y + h * motion for h in (0.02, 0.04)])
        low, high = energy(few, y.expand_as(few)).tolist()
        return float(torch.tensor(high / low).log2())

    assert power(PAIR, flap) == pytest.approx(4, abs=0.02)
    assert power(PAIR, swell) == pytest.approx(2, abs=0.02)
    assert power(WITH_HEIGHTS, flap) == pytest.approx(2, abs=0.05)
    flapped, swollen = (float(PAIR((y + 0.1 * motion)[None], y[None])) for motion in (flap, swell))
    assert flapped < swollen / 100
    assert float(WITH_HEIGHTS((y + 0.1 * flap)[None], y[None])) > swollen


def test_a_lifted_atom_changes_its_distances_by_half_the_square_over_the_distance():
    y, lift = ring(), 0.05
    lifted = y.clone()
    lifted[3, 2] += lift
    before, after = (pairwise_distances(x)[3] for x in (y, lifted))
    others = torch.arange(12) != 3
    torch.testing.assert_close((after - before)[others], (lift**2 / 2 / before)[others], rtol=2e-3, atol=0)


def test_a_pressed_atom_costs_the_fourth_power_of_its_lift_and_with_heights_the_second():
    state = widget(nbformat.read(NOTEBOOK, as_version=4), "press")
    lifts = torch.tensor([float(label.split()[0]) for label in state["sliders"][0]["labels"]])
    pair, both, error = (torch.tensor(one["values"]).view(len(lifts), 12) for one in state["tags"])
    torch.testing.assert_close(error, (lifts**2)[:, None].expand_as(error), atol=1e-4, rtol=0)
    low, high = 8, 16  # 0.2 and 0.4 angstrom
    assert (lifts[low], lifts[high]) == (pytest.approx(0.2), pytest.approx(0.4))
    powers = [float((one[high] / one[low]).log2().mean()) for one in (pair, both)]
    assert powers[0] == pytest.approx(4, abs=0.3)
    assert powers[1] == pytest.approx(2, abs=0.3)
    flat = ring()
    for atom in (0, 7):  # the pair energy of a lifted atom, spring by spring
        r = (flat - flat[atom]).norm(dim=1)
        r = r[r > 0]
        expected = (torch.exp(-r) * ((r**2 + 0.4**2).sqrt() - r) ** 2).sum()
        assert float(pair[high, atom]) == pytest.approx(float(expected), rel=0.02)
