"""Hands told in noise, and RDKit's conformers with and without them."""

from __future__ import annotations

import pytest
import torch

from elf.chemistry.stereo import GraphedMolecules, StereoCentres
from elf.data import qm9
from experiments.molecules import conformers, hands
from experiments.molecules.hands import Hands, embedded

CAGE = "C1C2CC1C2"
"""Two bridgeheads with the same three neighbours, of opposite hands."""


@pytest.fixture(scope="module")
def data() -> GraphedMolecules:
    return conformers.held_out_set(conformers.SETTINGS["laptop"])


@pytest.fixture(scope="module")
def stereo(data: GraphedMolecules) -> StereoCentres:
    return StereoCentres.of(data.molecules)


def test_told_noise_has_every_hand_and_is_the_same_noise(data, stereo, generator):
    noise = torch.randn(data.molecules.positions.shape, generator=generator)
    before = noise.clone()
    told = Hands.of(data).told(noise)
    assert torch.equal(noise, before)
    assert torch.equal(stereo.hands(told), stereo.hands(data.molecules.positions))
    assert 0.3 < (stereo.hands(noise) == stereo.hands(told)).float().mean() < 0.7
    for one, other, n in zip(noise, told, data.molecules.counts.tolist(), strict=True):
        assert torch.equal(one[n:], other[n:])
        assert {*map(tuple, one[:n].tolist())} == {*map(tuple, other[:n].tolist())}
    moved = (told != noise).any(-1).any(-1)
    without = torch.bincount(stereo.molecule, minlength=len(data)) == 0
    assert without.any()
    assert not moved[without].any()


def test_mirrored_molecules_are_told_the_other_hand(data, generator):
    noise = torch.randn(data.molecules.positions.shape, generator=generator)
    mirror = torch.tensor([1.0, 1.0, -1.0])
    right = Hands.of(data)
    other = Hands(right.atoms, ~right.right, right.counts)
    stereo = StereoCentres.of(data.molecules)
    assert torch.equal(stereo.hands(other.told(noise)), stereo.hands(data.molecules.positions * mirror))


def test_centres_that_share_their_neighbours_are_parted(generator):
    small = qm9.load(heavy_atoms=(5, 5))
    (row,) = (i for i, smiles in enumerate(small.smiles) if smiles == CAGE)
    cage = GraphedMolecules.of(small[torch.tensor([row])])
    found = Hands.of(cage)
    assert found.right[0, :2].sum() == 1
    assert sorted(found.atoms[0, 0, 1:].tolist()) == sorted(found.atoms[0, 1, 1:].tolist())
    noise = torch.randn((200, *cage.molecules.positions.shape[1:]), generator=generator)
    many = Hands(*(part.expand(200, *part.shape[1:]) for part in (found.atoms, found.right, found.counts)))
    corners = many.told(noise)[torch.arange(200)[:, None, None], found.atoms.expand(200, -1, -1)]
    assert torch.equal(torch.linalg.det(corners[..., 1:, :] - corners[..., :1, :]) > 0, many.right)


def test_hands_that_no_shape_has_are_an_error(monkeypatch, generator):
    monkeypatch.setattr(hands, "TURNS", 20)
    both = Hands(torch.tensor([[[0, 1, 2, 3], [0, 1, 2, 3]]]), torch.tensor([[True, False]]), torch.tensor([4]))
    with pytest.raises(RuntimeError, match="1 molecules have a centre of the wrong hand"):
        both.told(torch.randn(1, 4, 3, generator=generator))


def test_etkdg_has_the_hands_it_is_told_and_half_of_them_else(data):
    some = GraphedMolecules(data.molecules[:80], data.orders[:80])
    measured = {}
    for told in (True, False):
        positions, found = embedded(some, 3, told=told)
        kept = GraphedMolecules(some.molecules[found], some.orders[found])
        assert 0.9 * len(some) < len(found)
        measured[told] = conformers.evaluate(positions, kept, StereoCentres.of(kept.molecules))
        assert measured[told]["error_1"] < 0.05
    assert measured[True]["hands_wrong"] == 0
    assert 0.25 < measured[False]["hands_wrong"] < 0.75
    again, _ = embedded(some, 3, told=False)
    assert torch.equal(again, positions)
