"""Molecules with bonds: from QM9, checked, cached; and the figures of what was drawn, which hold on the data first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from elf.chemistry.molecular_graph import bond_orders
from elf.data import qm9
from elf.metrics import molecules as rules
from experiments.molecules.jodo import data, metrics
from experiments.molecules.jodo.data import AROMATIC, Graphs, bond_sums, check_graphs, graphs_of, load, saturated


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    return load((1, 7), (5, 29), "test")[0]


def of(name: str, aromatic: bool = False) -> Graphs:
    return graphs_of(qm9.find(name), aromatic=aromatic)[0]


def changed(graphs: Graphs, **parts) -> Graphs:
    return replace(graphs.map(torch.clone), **parts)


def test_orders_are_those_of_the_smiles_and_cached(graphs, tmp_path, monkeypatch):
    molecules = qm9.load(heavy_atoms=(1, 7), atoms=(5, 29), split="test", limit=40)
    made = graphs_of(molecules, cache=tmp_path)
    expected, verified = bond_orders(molecules)
    assert torch.equal(made[0].orders.long(), expected[verified])
    assert torch.equal(made[0].orders, made[0].orders.mT)
    monkeypatch.setattr(data, "_made", lambda *_: pytest.fail("made again"))
    again = graphs_of(molecules, cache=tmp_path)
    for name in ("positions", "numbers", "orders", "charges"):
        assert torch.equal(getattr(again[0], name), getattr(made[0], name))
    monkeypatch.undo()
    assert not torch.equal(graphs_of(molecules, aromatic=True, cache=tmp_path)[0].orders, made[0].orders)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_molecules_whose_smiles_do_not_fit_are_told_apart(tmp_path):
    molecules = qm9.load(atoms=9, limit=3)
    shuffled = replace(molecules, smiles=molecules.smiles.pick(torch.tensor([0, 2, 1]).numpy()))
    found, rows = graphs_of(shuffled, cache=tmp_path)
    assert 0 in rows
    assert len(found) == len(rows) < 3


def test_benzene_has_aromatic_bonds_or_kekules():
    kekule, aromatic = of("benzene"), of("benzene", aromatic=True)
    ring = kekule.numbers[0] == 6
    assert sorted(kekule.orders[0][ring][:, ring].flatten().tolist()).count(2) == 6
    assert (aromatic.orders[0][ring][:, ring] == AROMATIC).sum() == 12
    least, largest = bond_sums(aromatic.orders.long())
    assert (least[0][ring].tolist(), largest[0][ring].tolist()) == ([3] * 6, [4] * 6)
    assert saturated(aromatic).all()


def test_every_atom_of_the_data_is_saturated_and_the_table_agrees_as_often_as_stated():
    everything, _ = load((1, 7), (5, 29), "train")
    assert (saturated(everything) == everything.mask).all()
    found, _ = metrics.graph_figures(everything, set())
    assert {found[f"graph_{name}"] for name in ("stable_atoms", "stable", "saturated", "validity", "right")} == {1.0}
    assert found["graph_contradicted"] == pytest.approx(0.002, abs=5e-4)
    assert found["graph_order_agreement"] == pytest.approx(0.956, abs=5e-4)


WATER = Graphs(
    torch.tensor([[[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]]),
    torch.tensor([[8, 1, 1]]),
    torch.tensor([[[0, 1, 1], [1, 0, 0], [1, 0, 0]]]),
    torch.zeros(1, 3, dtype=torch.long),
)


def with_orders(*entries: tuple[int, int, int]) -> Graphs:
    orders = WATER.orders.clone()
    for i, j, order in entries:
        orders[0, i, j] = order
    return changed(WATER, orders=orders)


@pytest.mark.parametrize(
    ("graphs", "words"),
    [
        (with_orders((0, 1, 2)), "orders is 2 from atom 0 to 1 and 1 back; it should be symmetric"),
        (with_orders((0, 1, 5), (1, 0, 5)), r"unknown orders \[5\]; they should be 0 to 3, or 4"),
        (with_orders((0, 1, -1), (1, 0, -1)), r"unknown orders \[-1\]"),
        (with_orders((0, 1, 3), (1, 0, 4), (0, 2, 7)), r"unknown orders \[7\]; they should be 0 to 3, or 4"),
        (with_orders((0, 0, 1)), "orders is 1 from atom 0 to 0; it should be 0 there"),
        (with_orders((0, 1, 2), (1, 0, 2)), r"atom 0 \(O, charge 0\) has bonds of 3 in all; it should have 2"),
        (with_orders((1, 2, 1), (2, 1, 1)), r"atom 1 \(H, charge 0\) has bonds of 2 in all; it should have 1"),
        (changed(WATER, charges=torch.tensor([[2, 0, 0]])), "charge 2.*another element or charge"),
        (changed(WATER, numbers=torch.tensor([[8, 1, 0]])), "orders is 1 from atom 0 to 2; it should be 0 there"),
        (changed(WATER, charges=torch.zeros(1, 4)), r"charges has shape \(1, 4\); it should be \(1, 3\)"),
        (changed(WATER, orders=torch.zeros(1, 3, 4)), r"orders has shape \(1, 3, 4\); it should be \(1, 3, 3\)"),
    ],
)
def test_graphs_that_cannot_be_are_refused(graphs, words):
    with pytest.raises(ValueError, match=words):
        check_graphs(graphs)


def test_trimming_takes_padding_alone(graphs):
    few = graphs[torch.tensor([0, 40, 80])]
    trimmed, atoms = few.trimmed(), int(few.counts.max())
    assert torch.equal(trimmed.counts, few.counts)
    assert trimmed.orders.shape[1:] == trimmed.positions.shape[1:2] * 2 == (atoms, atoms)
    assert int(trimmed.orders.sum()) == int(few.orders.sum()) > 0


def test_tensors_are_asked_for():
    with pytest.raises(TypeError, match="orders is a list"):
        check_graphs(replace(WATER, orders=[[0]]))
    assert check_graphs(WATER) is WATER


def test_a_right_graph_in_a_wrong_geometry_is_counted_as_such(graphs):
    few = graphs[:8].map(torch.clone)
    torn = changed(few)
    hydrogen = int((few.numbers[3] == 1).nonzero()[-1])
    torn.positions[3, hydrogen] += 3.0  # the graph says nothing of it
    before, _ = metrics.graph_figures(few, set())
    after, _ = metrics.graph_figures(torn, set())
    assert before["graph_right"] == after["graph_right"] == 1
    assert (before["graph_contradicted"], after["graph_contradicted"]) == (0, 1 / 8)
    assert (before["graph_right_both"], after["graph_right_both"]) == (1, 7 / 8)
    assert after["graph_agreement"] == 7 / 8
    assert rules.stability(torn.positions, torn.numbers).molecule_stable.sum() < 8
    # A wrong graph in the right geometry is not right, and contradicts nothing that is.
    cut = changed(few)
    owner = int(few.orders[5, int((few.numbers[5] == 1).nonzero()[-1])].argmax())
    last = int((few.numbers[5] == 1).nonzero()[-1])
    cut.orders[5, owner, last] = cut.orders[5, last, owner] = 0
    wrong, _ = metrics.graph_figures(cut, set())
    assert (wrong["graph_right"], wrong["graph_contradicted"], wrong["graph_agreement"]) == (7 / 8, 0, 7 / 8)
    assert (wrong["graph_connected"], wrong["graph_saturated"]) == (7 / 8, 7 / 8)
    assert wrong["graph_completeness"] == 7 / 8


def test_shares_of_atoms_and_of_molecules_by_hand(graphs):
    methyl = of("methane").map(torch.clone)
    methyl.orders[0, 0, 4] = methyl.orders[0, 4, 0] = 0
    found, smiles = metrics.graph_figures(methyl, set())
    # JODO's table lets the carbon pass, and not the hydrogen that has no bond.
    assert (found["graph_stable_atoms"], found["graph_stable"], found["graph_connected"]) == (0.8, 0, 0)
    some = graphs[torch.tensor([0, 40, 40, 80])]
    *_, last = names = metrics.graph_smiles(some)
    assert len(set(names)) == 3
    found, smiles = metrics.graph_figures(some, {last, "N#N"})
    assert smiles == names
    assert (found["graph_uniqueness"], found["graph_novelty"]) == (0.75, pytest.approx(2 / 3))
    assert found["graph_order_agreement"] == found["graph_agreement"] == 1
    double = changed(some)
    double.orders[0][double.orders[0] > 0] = 2
    found, _ = metrics.graph_figures(double, set())
    assert (found["graph_order_agreement"], found["graph_agreement"], found["graph_saturated"]) == (0.75, 1, 0.75)


def test_jodos_table_lets_radicals_pass_and_ours_does_not():
    methyl = of("methane").map(torch.clone)
    methyl.orders[0, 0, 4] = methyl.orders[0, 4, 0] = 0
    kept = Graphs(methyl.positions[:, :4], methyl.numbers[:, :4], methyl.orders[:, :4, :4], methyl.charges[:, :4])
    assert metrics.jodo_stable(kept).all()
    assert saturated(kept)[0].tolist() == [False, True, True, True]
    far = changed(kept, charges=torch.tensor([[5, 0, 0, 0]]))  # no such row: that of charge 0
    assert metrics.jodo_stable(far).all()
    assert not metrics.jodo_stable(methyl)[0, 4]  # a hydrogen without a bond


LOOSE = {"H": "0:1 +:0 -:0", "C": "0:34 +:3 -:3", "N": "0:23 +:234 -:2", "O": "0:2 +:3 -:1", "F": "0:1 -:0"}
CLOSED = {"H": "0:1 +:0 -:0", "C": "0:4 +:3 -:3", "N": "0:3 +:4 -:2", "O": "0:2 +:3 -:1", "F": "0:1 -:0"}


@pytest.mark.parametrize(("judge", "words"), [(metrics.jodo_stable, LOOSE), (saturated, CLOSED)])
def test_valences_are_those_of_the_tables(judge, words):
    """An atom with so many hydrogens on it, for every element, charge and number of bonds."""
    for number, symbol in zip((1, 6, 7, 8, 9), "HCNOF", strict=True):
        rows = dict(row.split(":") for row in words[symbol].split())
        for charge, sign in ((0, "0"), (1, "+"), (-1, "-")):
            row = rows.get(sign, rows["0"] if judge is metrics.jodo_stable else "")
            for bonds in range(6):
                star = torch.zeros(1, 6, 6, dtype=torch.long)
                star[0, 0, 1 : bonds + 1] = star[0, 1 : bonds + 1, 0] = 1
                charges = torch.tensor([[charge, 0, 0, 0, 0, 0]])
                graphs = Graphs(torch.zeros(1, 6, 3), torch.tensor([[number, 1, 1, 1, 1, 1]]), star, charges)
                assert bool(judge(graphs)[0, 0]) == (str(bonds) in row), (symbol, charge, bonds)


def test_graphs_are_read_as_molecules():
    assert metrics.graph_smiles(of("benzene")) == metrics.graph_smiles(of("benzene", aromatic=True)) == ["c1ccccc1"]
    oxide = load((6, 7), (5, 29), "train")[0]
    ions = oxide[(oxide.charges != 0).any(1)]
    assert len(ions) == 4
    assert all("+" in text and "-" in text for text in metrics.graph_smiles(ions))
    assert metrics.graph_smiles(changed(ions, charges=torch.zeros_like(ions.charges))) == [None] * 4
    pieces = changed(WATER, orders=torch.zeros_like(WATER.orders))
    assert metrics.in_one_piece(WATER).tolist() == [True]
    assert metrics.in_one_piece(pieces).tolist() == [False]


def test_the_data_against_themselves(graphs):
    some = graphs[:60]
    known = frozenset(text for text in metrics.graph_smiles(graphs) if text)
    found = metrics.all_figures(some, known, heavy_atoms=(1, 7), atoms=(5, 29), n=2000)
    assert found["graph_novelty"] == 0
    assert found["graph_uniqueness"] == found["graph_completeness"] == 1
    assert 0.9 < found["molecule_stability"] <= 1
    for kind, most in (("bond", 0.3), ("angle", 0.3), ("dihedral", 0.1)):
        assert found[f"mmd_{kind}_missing"] == 0
        assert 0 < found[f"mmd_{kind}"] < most
    # The bonds drawn enter: with none of them there is nothing to compare, whatever the distances say.
    bare = changed(some, orders=torch.zeros_like(some.orders))
    lost = metrics.all_figures(bare, known, heavy_atoms=(1, 7), atoms=(5, 29), n=2000)
    assert lost["mmd_bond"] is None
    assert lost["read_mmd_bond"] == found["read_mmd_bond"]
    assert lost["molecule_stability"] == found["molecule_stability"]
    assert lost["graph_right"] == 0
    assert lost["graph_contradicted"] is None
