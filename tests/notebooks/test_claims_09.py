"""What notebook 09 claims of energies and of networks trained with them, derived a second way."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from reading import notebook, printed, prose
from scipy.optimize import minimize

import elf
from elf import springs

BOOK = notebook("09_your_own_system")
CELLS = {cell.id: cell for cell in BOOK.cells}
PASSED, FAILED = " ✓", " ✗"
RING = 12


def table(id: str) -> dict[str, list[str]]:
    """First column -> the others, of the table that a cell displays."""
    text = next(out.data["text/markdown"] for out in CELLS[id].outputs if "text/markdown" in out.get("data", {}))
    rows = [[part.strip() for part in line.strip("| ").split("|")] for line in text.splitlines()[2:]]
    return {first: rest for first, *rest in rows}


def errors(id: str) -> dict[str, list[float]]:
    return {who: [float(x) for x in row if x] for who, row in table(id).items()}


@pytest.mark.parametrize("name", ["crystal", "drift", "chain", "ring"])
def test_three_networks_of_every_loss_agree_with_its_card(name):
    card = table({"drift": "n9-crystal-drift-card"}.get(name, f"n9-{name}-card"))
    trained = errors({"drift": "n9-crystal-drift"}.get(name, f"n9-{name}-train"))
    (start,) = trained.pop("*(the start)*")
    verdicts = {who.removesuffix(PASSED).removesuffix(FAILED): who.endswith(PASSED) for who in card}
    assert set(verdicts) == set(trained)
    for who, ends in trained.items():
        assert len(ends) == 3
        if verdicts[who]:
            assert max(ends) < start / 20, who
        else:
            assert min(ends) > 0.3 * start, who


def test_the_negative_results_are_as_printed():
    crystal, chain = errors("n9-crystal-train"), errors("n9-chain-train")
    assert max(crystal["nearest"]) < 0.01
    assert max(crystal["springs"]) < 0.01
    assert max(chain["aligned"]) < 1.3 * max(chain["with heights"])
    assert crystal["true"] == pytest.approx([crystal["*(the start)*"][0]] * 3, abs=0.002)


def test_the_librarys_card_of_the_crystal_says_what_the_page_reads_in_it():
    """Columns MSE, nearest, springs: who sees a wall, who a shift, and whom a start anywhere in the box leads home."""
    rows = table("n9-crystal-library-card")
    verdicts = {
        motion: [x.split()[1] for x in rows[f"sees a {motion}"]] for motion in ("lattice vector", "translation")
    }
    assert verdicts == {"lattice vector": ["(yes)", "(no)", "(no)"], "translation": ["(yes)", "(yes)", "(no)"]}
    assert rows["random starts that arrive"] == ["100%", "100%", "0%"]
    assert rows["free modes beyond rigid motions"] == ["0", "0", "0"]


def lattice() -> tuple[np.ndarray, np.ndarray]:
    """Sites and box of the crystal: triangles of side 1.12, four rows of four."""
    sites = 1.12 * np.array([[i + j % 2 / 2, j * math.sqrt(3) / 2] for j in range(4) for i in range(4)])
    return sites, 1.12 * 4 * np.array([1, math.sqrt(3) / 2])


def lennard_jones(x: np.ndarray, box: np.ndarray) -> float:
    """Pair by pair, with all images within one box."""
    total = 0.0
    for i in range(len(x)):
        for j in range(i):
            images = [x[i] - x[j] + box * (a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
            r = min(float(np.hypot(*d)) for d in images)
            total += 4 * (r**-12 - r**-6)
    return total


def test_lennard_jones_prefers_the_lattice_to_any_crystal_with_a_wave_in_it():
    sites, box = lattice()
    rng = np.random.default_rng(0)
    for _ in range(5):
        waves = 2 * np.pi * sites / box + 2 * np.pi * rng.random(2)
        crystal = sites + 0.12 * np.sin(waves) + 0.08 * np.cos(waves)[:, ::-1]
        assert lennard_jones(sites, box) < lennard_jones(crystal, box) - 10
        displaced = math.sqrt(((crystal - sites) ** 2).sum(1).mean())
        assert displaced == pytest.approx(math.hypot(0.12, 0.08))  # what answering with the lattice leaves
    assert errors("n9-crystal-train")["*(the start)*"][0] == pytest.approx(math.hypot(0.12, 0.08), abs=0.002)


def test_bonds_alone_leave_six_free_directions_and_a_mirror_image_costs_distances_nothing():
    headings = torch.tensor([0.0, 0.7, 0.1, -0.8, 0.2, 0.9, 1.7], dtype=torch.float64)
    y = torch.stack([headings.cos(), headings.sin()], 1).cumsum(0)
    y = torch.nn.functional.pad(y, (0, 0, 1, 0))
    steps = (y[1:] - y[:-1]).numpy()
    rigidity = np.zeros((7, 16))
    for i, step in enumerate(steps):
        rigidity[i, 2 * i : 2 * i + 2], rigidity[i, 2 * i + 2 : 2 * i + 4] = -step, step
    assert 16 - np.linalg.matrix_rank(rigidity) - 3 == 6
    bonded = torch.diag(torch.ones(7), 1) + torch.diag(torch.ones(7), -1)
    k = springs.by_hops(bonded, (1.0, 0.0), dtype=torch.float64)
    pair = elf.PairEnergy(elf.springs.Constant())
    mirror = y * y.new_tensor([-1, 1])
    folded = y.clone()
    folded[4:] = y[4] + (y[4:] - y[4]) @ y.new_tensor([[0.0, 1.0], [-1.0, 0.0]])  # turned about bead 5
    assert float(pair(folded[None], y[None], k=k)) < 1e-20
    assert float(pair(mirror[None], y[None])) < 1e-20
    assert float((pair + 0.3 * elf.HeightEnergy(neighbours=7))(mirror[None], y[None])) > 1


def ring_energy(delta: np.ndarray, pairs: np.ndarray) -> float:
    return float((1 - np.cos(delta[pairs[0]] - delta[pairs[1]])).sum())


NEIGHBOURS = np.array([np.arange(RING), (np.arange(RING) + 1) % RING])
ALL = np.array(np.triu_indices(RING, 1))


def test_all_pairs_are_the_length_of_a_sum_of_arrows():
    delta = np.random.default_rng(0).uniform(-4, 4, RING)
    whole = (RING**2 - abs(np.exp(1j * delta).sum()) ** 2) / 2
    assert ring_energy(delta, ALL) == pytest.approx(whole)


def test_a_wound_ring_is_a_minimum_for_neighbours_and_a_saddle_for_all_pairs():
    angle = 2 * np.pi / RING
    modes = np.arange(RING)
    by_theory = np.cos(angle) * (2 - 2 * np.cos(angle * modes))  # of a ring of springs cos(angle)
    assert f"neighbours: force 0.00, stiffness from {by_theory.min():.2f} to {by_theory.max():.2f}" in printed(BOOK)
    u, v = np.cos(angle * modes), np.sin(angle * modes)
    saddle = np.linalg.eigvalsh(-np.outer(u, u) - np.outer(v, v))
    assert f"all pairs: force 0.00, stiffness from {saddle.min():.2f} to" in printed(BOOK)


@pytest.mark.parametrize("k", [-2, -1, 1, 2])
def test_from_a_flat_start_neighbours_never_wind_and_all_pairs_do(k):
    """By another optimiser: scipy's, from arrows that are all but parallel, to a target wound k times."""
    rng = np.random.default_rng(k + 2)
    target = 2 * np.pi * k * np.arange(RING) / RING + 0.1 * rng.standard_normal(RING)
    start = 0.05 * rng.standard_normal(RING)
    ends = {}
    for name, pairs in {"neighbours": NEIGHBOURS, "all": ALL}.items():
        found = minimize(lambda x, pairs=pairs: ring_energy(x - target, pairs), start, tol=1e-10)
        ends[name] = found.x

    def winding(x: np.ndarray) -> int:
        bonds = np.angle(np.exp(1j * (np.roll(x, -1) - x)))
        return round(bonds.sum() / (2 * np.pi))

    assert winding(ends["neighbours"]) == 0
    assert winding(ends["all"]) == k


def test_the_card_of_pairs_complains_of_flat_molecules_and_heights_mend_it():
    card = table("n9-sdf-card")
    _, pairs, heights = card["free modes beyond rigid motions"]
    assert int(pairs.split()[0]) == 12 - 3  # benzene
    assert heights == "0"
    _, pairs, heights = card["sees a reflection"]
    assert pairs.endswith("(no)")
    assert heights.endswith("(yes)")


def test_the_three_commands_ran():
    said = re.findall(r"elf (\w+): exit status (\d)", printed(BOOK))
    assert said == [("train", "0"), ("sample", "0"), ("evaluate", "0")]


def test_visible_cells_are_short_and_folded_ones_are_marked():
    for cell in BOOK.cells:
        if cell.cell_type != "code":
            continue
        tags = set(cell.metadata.get("tags", []))
        if "hide-input" in tags:
            assert cell.metadata.jupyter.source_hidden
        elif "solution" not in tags:
            assert len(cell.source.splitlines()) <= 15, cell.id
            assert max(map(len, cell.source.splitlines())) <= 88, cell.id


def test_seeds_and_their_choice_are_said():
    assert "seeds 0, 1, 2; settings were chosen on seeds 10 to 12" in prose(BOOK)
