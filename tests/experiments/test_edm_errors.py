"""Why EDM stays behind with the energy: whose turn it is in a relay, and noise of one level on any schedule."""

from __future__ import annotations

import math

import pytest
import torch

from elf.energy import HeightEnergy
from elf.generative.molecules import NoisePredictor
from elf.generative.schedules import Karras, Polynomial, Straight
from experiments.molecules import edm_errors, errors
from experiments.molecules.paper_settings import LOSSES


class Says(torch.nn.Module):
    """A network that answers with one number everywhere."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, positions, features, t, mask):
        return torch.zeros_like(positions), torch.full_like(features, self.number)


def test_each_network_has_its_turn_on_its_side_of_the_border():
    above, below = NoisePredictor(Says(1.0)), NoisePredictor(Says(2.0))
    relay = edm_errors.Relay(above, below, 0.2)
    x_t, mask = torch.randn(2, 3, 9), torch.ones(2, 3, dtype=torch.bool)
    for noise, expected in ((0.21, above), (5.0, above), (0.19, below), (0.01, below)):
        t = torch.full((2,), errors.time_at(above.schedule, noise))
        torch.testing.assert_close(relay.denoise(x_t, t, mask), expected.denoise(x_t, t, mask), rtol=0, atol=0)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0, 10.0])
def test_the_time_of_a_noise_over_signal(noise):
    assert errors.time_at(Karras(), noise) == noise
    assert errors.time_at(Straight(), noise) == pytest.approx(noise / (1 + noise), rel=1e-6)
    kept = 1 / (1 + noise**2)  # alpha^2 of variance-preserving noise
    squared = math.sqrt((kept - 1e-5) / (1 - 2e-5))
    assert errors.time_at(Polynomial(), noise) == pytest.approx(math.sqrt(1 - squared), rel=1e-5)


def test_molecules_are_noised_to_the_level_whatever_the_schedule():
    molecules = errors.probe_of("qm9", (1, 7), (3, 29), 40).molecules
    denoiser = NoisePredictor(Says(0.0))  # sees no noise: x_hat is x_t / alpha
    moved = (
        errors.denoised_once(denoiser, molecules, 0.3, 0)
        - denoiser.encode(molecules.positions, molecules.numbers.long())[..., :3]
    )
    mask = molecules.numbers != 0
    free = 3 * float((mask.sum(1) - 1).sum()) / (3 * float(mask.sum()))  # centred noise has three numbers fewer
    assert float(moved[mask].square().mean().sqrt()) == pytest.approx(0.3 * math.sqrt(free), rel=0.03)
    assert not moved[~mask].any()


def test_heights_are_all_that_the_second_energy_has_more():
    pair, both = LOSSES["energy"], LOSSES["energy_heights"]
    assert (both.gdm, both.edm, both.degree, both.apart) == (pair.gdm, pair.edm, pair.degree, pair.apart)
    x, y = torch.randn(3, 7, 3, dtype=torch.float64), torch.randn(3, 7, 3, dtype=torch.float64)
    more = HeightEnergy(0.2 * 42, normalize="atoms")(x, y)
    torch.testing.assert_close(both.energy()(x, y), pair.energy()(x, y) + more)


def test_the_louder_energy_is_as_large_as_that_with_heights(generator):
    molecules = errors.probe_of("qm9", (1, 7), (3, 29), 200).molecules
    mask, y = molecules.numbers != 0, molecules.positions.double()
    x = y + 0.3 * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    heights, loud = (float(LOSSES[f"energy_{name}"].energy()(x, y, mask).mean()) for name in ("heights", "loud"))
    assert loud == pytest.approx(heights, rel=0.1)


def test_a_cell_for_every_relay_and_figures_of_errors_where_both_are_one(tmp_path):
    settings = edm_errors.SETTINGS["smoke"]
    found = edm_errors.cells(settings, 2)
    assert len(found) == 2 * len(edm_errors.RELAYS) == len({tuple(cell.values()) for cell in found})
    rows = []
    for cell in found[:5]:
        folder = tmp_path / "work" / f"{cell['above']}-{cell['below']}"
        folder.mkdir(parents=True)
        rows.append({"cell": cell, "result": edm_errors.run_cell(settings, cell, folder, ())})
    assert ["out_of_plane@0.1" in row["result"] for row in rows] == [True, True, True, True, False]
    text = edm_errors.EXPERIMENT.table({"summary": edm_errors.summarise(rows)})
    assert text.count("\n") == 6
    assert "out of plane (Å)" in text
    # Each network is trained once, whatever it relays.
    assert len(list((tmp_path / "paper_trainings").iterdir())) == len(edm_errors.LOSSES)
