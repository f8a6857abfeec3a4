"""What notebook 05 claims of flat molecules, derived a second way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import nbformat
import networkx as nx
import numpy as np
import pytest
import torch
from reading import widget
from scipy.stats import binomtest
from torch import Tensor

import elf
from elf.data import qm9
from elf.geometry import pairwise_distances
from experiments import load_result

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


def rows_of(edges: list[tuple[int, int]], x: np.ndarray) -> np.ndarray:
    """The rigidity matrix, written down rod by rod."""
    rows = np.zeros((len(edges), *x.shape))
    for row, (i, j) in zip(rows, edges, strict=True):
        row[i], row[j] = x[i] - x[j], x[j] - x[i]
    return rows.reshape(len(edges), -1)


def verdict(edges: list[tuple[int, int]], n: int, dim: int) -> str:
    """Asimow-Roth and the random stress, in floating point at random places."""
    draw = np.random.default_rng(5)
    rows = rows_of(edges, draw.normal(size=(n, dim)))
    values = np.linalg.svd(rows, compute_uv=False)
    if (values > 1e-9).sum() < n * dim - dim * (dim + 1) // 2:
        return "flexible"
    left = np.linalg.svd(rows)[0][:, int((values > 1e-9).sum()) :]
    stress = left @ draw.normal(size=left.shape[1])
    omega = np.zeros((n, n))
    for w, (i, j) in zip(stress, edges, strict=True):
        omega[[i, j, i, j], [j, i, i, j]] += [-w, -w, w, w]
    whole = np.linalg.matrix_rank(omega, tol=1e-9) == n - dim - 1
    return "globally rigid" if whole else "rigid, not globally"


def joined(a: int, b: int) -> list[tuple[int, int]]:
    return [(i, a + j) for i in range(a) for j in range(b)]


def complete(nodes: Sequence[int]) -> list[tuple[int, int]]:
    return list(combinations(nodes, 2))


BANANA = [edge for ring in ((2, 3, 4), (5, 6, 7)) for edge in complete((0, 1, *ring)) if edge != (0, 1)]
GRAPHS = {
    "square, D = 2": ([(0, 1), (1, 2), (2, 3), (0, 3)], 4, 2),
    "K4, D = 2": (complete(range(4)), 4, 2),
    "double banana": (BANANA, 8, 3),
    "K(4,4)": (joined(4, 4), 8, 3),
    "K(4,6)": (joined(4, 6), 10, 3),
    "K(5,5)": (joined(5, 5), 10, 3),
    "K(5,6)": (joined(5, 6), 11, 3),
    "K5": (complete(range(5)), 5, 3),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_known_graphs_are_judged_in_floating_point_as_modulo_a_prime(name, printed):
    edges, n, dim = GRAPHS[name]
    least = n * dim - dim * (dim + 1) // 2
    line = rf"{re.escape(name)} +{len(edges)} rods, count asks for +{least}: {verdict(edges, n, dim)}\n"
    assert re.search(line, printed)


def test_random_regular_graphs_are_all_or_none(printed):
    for degree, found in ((5, "flexible"), (6, "globally rigid")):
        for seed in range(5):
            graph = nx.random_regular_graph(degree, 24, seed=seed)
            assert verdict(list(graph.edges), 24, 3) == found
    assert re.search(r"D = 3, n = 24, degree 5: +0 of 100", printed)
    assert re.search(r"D = 3, n = 24, degree 6: +100 of 100", printed)


def test_at_twelve_five_a_ball_is_rigid_without_a_rod_to_spare(printed):
    assert 12 * 5 // 2 == 3 * 12 - 6
    assert 10 * 5 // 2 == 3 * 10 - 6 + 1
    graphs = [nx.random_regular_graph(5, 12, seed=seed) for seed in range(5)]
    assert {verdict(list(graph.edges), 12, 3) for graph in graphs} == {"rigid, not globally"}
    assert "n = 10: 300/300, n = 12: 0/300" in printed


@pytest.mark.parametrize(
    ("passed", "tried", "low", "high", "said"),
    [
        (0, 100, 0.0, 3.7, "0 of 100, 95 % interval   0.0 to   3.7 %"),
        (100, 100, 96.3, 100.0, "100 of 100, 95 % interval  96.3 to 100.0 %"),
        (2398, 2400, 99.70, 99.98, "2398 of 2400 globally rigid, 95 % interval 0.9970 to 0.9998"),
        (2400, 2400, 99.84, 100.0, "2400 of 2400 globally rigid, 95 % interval 0.9984 to 1.0000"),
    ],
)
def test_intervals_are_wilson_s(passed, tried, low, high, said, printed):
    found = binomtest(passed, tried).proportion_ci(0.95, method="wilson")
    assert [100 * found.low, 100 * found.high] == pytest.approx([low, high], abs=0.05 if tried == 100 else 0.006)
    assert said in printed


def test_a_kite_folds_over_its_diagonal(printed):
    """In complex numbers: the mirror image of one corner keeps all rods but the one that is not there."""
    x = [0.8 + 0.15j, 1.7 + 0.35j, 1.4 + 1.6j, 0.9j]
    axis = (x[3] - x[1]) / abs(x[3] - x[1])
    folded = [x[1] + axis**2 * (x[0] - x[1]).conjugate(), *x[1:]]
    changes = {(i, j): abs(folded[i] - folded[j]) - abs(x[i] - x[j]) for i, j in complete(range(4))}
    kept = [edge for edge, change in changes.items() if abs(change) < 1e-12]
    assert kept == [edge for edge in complete(range(4)) if edge != (0, 2)]
    assert len(kept) == 2 * 4 - 3
    assert verdict(kept, 4, 2) == "rigid, not globally"
    for page in (NOTEBOOK, NOTEBOOK.parents[1] / "README.md"):  # so the sentence to take home asks for more
        assert "O(n) distances, if the graph is globally rigid" in page.read_text(encoding="utf-8")
    assert f"all six: ways to wobble 0, energy of the folded shape {changes[0, 2] ** 2:.2f}" in printed


def test_three_hundred_atoms_need_two_per_cent_of_their_pairs(printed):
    least, pairs = 3 * 300 - 6, 300 * 299 // 2
    said = f"{least} springs, {least / pairs:.1%}".replace("%", " %") + f" of {pairs} pairs; 6-regular: {900 - least}"
    assert said in printed


def test_the_price_of_pairs_grows_with_the_square_and_that_of_sparse_springs_with_the_number():
    rows = {(row["loss"], row["points"]): row for row in load_result("loss_cost")["summary"]}
    text = NOTEBOOK.read_text(encoding="utf-8")
    memory = rows["plain", 3000]["bytes"]
    assert f"it would need {100 * memory / 1e9:.0f} GB" in text
    sparse, kabsch = (rows[name, 300_000]["milliseconds"] for name in ("sparse", "kabsch"))
    assert f"{int(sparse)} milliseconds for 300,000 points" in text
    assert sparse / kabsch == pytest.approx(2, abs=0.2)
    dense = [rows["dense", n]["milliseconds"] for n in (3_000, 30_000)]
    assert dense[1] / dense[0] == pytest.approx(100, rel=0.25)


def test_long_chains_hang_on_nothing_with_sparse_exponential_springs():
    held = {
        (r["springs"], r["edges"]): r["held"]["mean"]
        for r in load_result("sparse_springs")["summary"]
        if r["atoms"] == 160
    }
    assert 0.5 < held["exponential", "sparse"] * 1e4 < 2  # ten thousand times weaker than a bond
    assert held["inverse", "sparse"] == pytest.approx(0.5, abs=0.05)
    for kind in ("exponential", "inverse"):
        assert held[kind, "sparse_near"] > 2
