"""Graphs as input: hops, features of pairs, hands of stereo centres."""

from __future__ import annotations

import torch

from elf.chemistry.stereo import MAX_HOPS, PAIR_FEATURES, GraphedMolecules, StereoCentres, hops, pair_features
from elf.data import qm9


def chain(n: int) -> torch.Tensor:
    orders = torch.zeros(n, n, dtype=torch.long)
    for i in range(n - 1):
        orders[i, i + 1] = orders[i + 1, i] = 1
    return orders


def test_hops_along_a_chain_are_differences():
    place = torch.arange(8)
    expected = (place[:, None] - place).abs().clamp(max=MAX_HOPS)
    assert torch.equal(hops(chain(8)), expected)
    assert hops(chain(70), most=10**12)[0].tolist() == list(range(70))
    ring = chain(8)
    ring[0, 7] = ring[7, 0] = 2
    assert torch.equal(hops(ring)[0], torch.tensor([0, 1, 2, 3, 4, 3, 2, 1]))


def test_what_is_not_connected_is_far():
    assert hops(torch.zeros(3, 3, dtype=torch.long)).tolist() == [[0, 5, 5], [5, 0, 5], [5, 5, 0]]


def test_pair_features_tell_orders_and_hops():
    orders = chain(7)
    orders[0, 1] = orders[1, 0] = 3
    code = pair_features(orders[None])[0]
    assert code.shape == (7, 7, PAIR_FEATURES)
    assert code.dtype == torch.float32
    assert code[0].argmax(-1)[1:].tolist() == [2, 3, 4, 5, 6, 6]
    assert (code.sum(-1) == 1 - torch.eye(7)).all()
    assert torch.equal(code, code.transpose(0, 1))


def test_graphs_of_qm9_keep_nearly_all_and_their_bonds():
    molecules = qm9.load(heavy_atoms=(1, 5), split="train")
    graphed = GraphedMolecules.of(molecules)
    assert len(molecules) - 3 <= len(graphed) <= len(molecules)
    assert graphed.orders.shape[1:] == (graphed.molecules.numbers.shape[1],) * 2
    methane = graphed.molecules.smiles.find("C")
    assert graphed.orders[methane].sum(1).tolist()[:5] == [4, 1, 1, 1, 1]


def test_mirror_images_have_other_hands_and_rotations_the_same():
    molecules = qm9.find("propylene oxide")
    centres = StereoCentres.of(molecules)
    assert len(centres.molecule) == 1
    assert int(molecules.numbers[0, centres.atoms[0, 0]]) == 6
    x = molecules.positions
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert torch.equal(centres.hands(x @ turn.T), centres.hands(x))
    assert torch.equal(centres.hands(x * torch.tensor([1.0, 1, -1])), ~centres.hands(x))
    assert len(StereoCentres.of(qm9.find("benzene")).molecule) == 0


def test_the_hand_is_the_sign_of_a_volume_about_the_centre():
    """Right-handed axes about a centre far from the origin, by hand: their order decides, and nothing else."""
    centre = torch.tensor([3.0, -5.0, -2.0])
    positions = torch.stack([centre, centre + torch.tensor([1.0, 0, 0]), centre + torch.tensor([0, 1.0, 0]),
                             centre + torch.tensor([0, 0, 1.0])])[None]  # fmt: skip
    orders = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 3, 1]])
    assert StereoCentres(torch.zeros(3, dtype=torch.long), orders).hands(positions).tolist() == [True, False, True]
