"""Hands told in noise and at every centre, and RDKit's conformers with and without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from elf.chemistry.stereo import GraphedMolecules, StereoCentres
from elf.data import qm9
from elf.geometry import random_rotations
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


def test_every_centre_is_told_whether_it_has_its_hand(data, stereo, generator):
    right, x = Hands.of(data), data.molecules.positions
    seen = right.seen(x)
    centres = torch.zeros(x.shape[:2], dtype=torch.bool)
    centres[stereo.molecule, stereo.atoms[:, 0]] = True
    assert not seen[~centres].any()
    assert (seen[centres][:, 1] == 1).all()
    corners = x[stereo.molecule[:, None], stereo.atoms].double()
    arms = torch.nn.functional.normalize(corners[:, 1:] - corners[:, :1], dim=-1)
    volume = torch.linalg.cross(arms[:, 0], arms[:, 1]).mul(arms[:, 2]).sum(-1).abs()
    found = seen[stereo.molecule, stereo.atoms[:, 0], 0].double()
    torch.testing.assert_close(found, volume, atol=1e-5, rtol=0)
    assert 0 < found.min() < found.max() < 1  # three arms at right angles span one
    mirror, turn = torch.tensor([1.0, 1.0, -1.0]), random_rotations(1, 3, generator=generator, dtype=x.dtype)[0]
    torch.testing.assert_close(right.seen(x * mirror), -seen)
    torch.testing.assert_close(right.seen(3 * x @ turn.mT), seen, atol=1e-4, rtol=0)
    rows = torch.tensor([5, 2])
    assert torch.equal(right[rows].seen(x[rows]), seen[rows])


def test_a_network_that_is_told_answers_to_the_hand_and_one_that_is_not_cannot(data, generator):
    """The same noise, mirrored: without hands the answer is mirrored, with them it is another one."""
    some, mirror = GraphedMolecules(data.molecules[:40], data.orders[:40]), torch.tensor([1.0, 1.0, -1.0])
    noise = torch.randn(some.molecules.positions.shape, generator=generator)
    given = conformers.one_hot(some.molecules.numbers), conformers.pair_features(some.orders), some.molecules.mask
    for told in (False, True):
        network = conformers.make_network(replace(conformers.SETTINGS["smoke"], told=told), 0)
        seen = Hands.of(some).seen if told else None
        with torch.no_grad():
            one, other = (network(start, *given, seen=seen) for start in (noise, noise * mirror))
        assert torch.allclose(one * mirror, other, atol=1e-4) is not told


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
