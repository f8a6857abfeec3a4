"""The 2 x 2 of networks and losses: paired, turned, its leads and its small print; and the errors taken on the way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from elf.chemistry.stereo import StereoCentres
from elf.data.molecules import Molecules, SmilesList
from experiments import find, reproduce
from experiments.molecules import errors, gifts, small

TINY = gifts.settings_of("two_gifts", "smoke")


@pytest.mark.parametrize("network", gifts.NETWORKS)
def test_networks_of_one_seed_start_alike_and_see_the_same(network):
    recipe, seen = gifts.recipe_of(TINY, network), {}
    for loss in ("mse", "energy"):
        energy = small.LOSSES[loss]()
        inputs: list[torch.Tensor] = []
        energy.register_forward_pre_hook(lambda module, args, kept=inputs: kept.append(args[1].detach().clone()))
        small.train(recipe, energy, steps=1, seed=4)
        seen[loss] = inputs[0]
    assert torch.equal(seen["mse"], seen["energy"])
    assert type(small.make_denoiser(recipe, 0).network) is small.NETWORKS[network]


def test_molecules_are_turned_and_keep_their_shape_and_hand():
    targets = {}
    for turned in (False, True):
        energy = small.LOSSES["mse"]()
        energy.register_forward_pre_hook(lambda module, args, key=turned: targets.__setitem__(key, args[1].detach()))
        small.train(replace(gifts.recipe_of(TINY, "plain"), turned=turned), energy, steps=1, seed=1)
    still, turned = targets[False], targets[True]
    assert (still - turned).norm(dim=-1).amax(dim=1).min() > 0.1  # each of them
    torch.testing.assert_close(torch.cdist(still, still), torch.cdist(turned, turned), atol=1e-3, rtol=1e-3)
    volumes = [torch.linalg.det((x[:, 1:4] - x[:, :1]).double()) for x in (still, turned)]
    torch.testing.assert_close(*volumes, atol=1e-4, rtol=1e-4)


def test_the_networks_cost_about_the_same_a_step():
    """Counted, not timed: multiplications of one forward pass on 20 atoms."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = {}
    for network in gifts.NETWORKS:
        model = small.make_denoiser(gifts.recipe_of(gifts.settings_of("two_gifts", "laptop"), network), 0)
        mask, x = torch.ones(4, 20, dtype=torch.bool), torch.randn(4, 20, 8)
        with FlopCounterMode(display=False) as counter:
            model(x, torch.ones(4), mask)
        counts[network] = counter.get_total_flops()
    assert 0.6 < counts["plain"] / counts["equivariant"] < 1.6


def test_cells_share_seeds_and_the_sweep_uses_others():
    laptop = gifts.settings_of("two_gifts", "laptop")
    cells = gifts.cells(laptop, 2)
    assert len(cells) == 2 * 3 * 2
    assert {cell["seed"] for cell in cells} == {0, 1}
    sweep = gifts.settings_of("gift_rates", "laptop")
    assert {cell["seed"] for cell in gifts.cells(sweep, 2)} == {10, 11}
    assert all(laptop.rates[name][0] in rates for name, rates in sweep.rates.items())


def test_what_a_variant_has_of_its_own_is_at_laptop_scale():
    long, smoke, paper = (gifts.settings_of("two_gifts_long", scale) for scale in ("laptop", "smoke", "paper"))
    assert (long.steps, long.recipe.samples, long.probed, long.reference) == ((12_000,), 1000, 300, 2000)
    for scale, other in (("smoke", smoke), ("paper", paper)):
        assert other.steps == other.recipe.steps == small.SETTINGS[scale].steps
        assert other.recipe.samples == small.SETTINGS[scale].samples
    assert (smoke.probed, smoke.reference, paper.probed) == (40, 20, 300)


def test_long_runs_are_of_one_network():
    for name, network in (("two_gifts_long", "plain"), ("longest_plain", "plain"), ("longest_equivariant",) * 2):
        settings = gifts.settings_of(name, "laptop")
        assert [*settings.networks, *settings.rates] == 2 * [network.removeprefix("longest_")]
        assert {cell["network"] for cell in gifts.cells(settings, 1)} == set(settings.networks)
    assert gifts.settings_of("longest_plain", "laptop").steps == (60_000,)
    for name, calm in (("longest_equivariant", True), ("two_gifts", False)):
        for scale in ("smoke", "laptop"):
            model = small.make_denoiser(gifts.recipe_of(gifts.settings_of(name, scale), "equivariant"), 0)
            assert all(block.calm == calm for block in model.network.blocks)
    assert gifts.settings_of("two_gifts_long", "smoke").networks == {"plain": gifts.TINY["plain"]}


def test_leads_pairs_networks_of_the_same_seed():
    def cell(network: str, loss: str, seed: int, value: float) -> dict:
        return {"cell": {"network": network, "loss": loss, "seed": seed}, "result": {"atom_stability": value}}

    cells = [cell("plain", "mse", seed, 0.5 + seed) for seed in (2, 0, 1)]
    cells += [cell("plain", "energy", seed, 0.6 + seed + 0.01 * seed) for seed in (0, 1, 2, 3)]
    cells += [cell("equivariant", "energy", seed, 9.0) for seed in (0, 1, 2)]
    lead = gifts.leads(cells, "atom_stability", "plain", "energy")
    assert lead["n"] == lead["ahead"] == 3
    assert gifts.leads(cells, "atom_stability", "plain", "mse", other="energy")["ahead"] == 0
    assert lead["mean"] == pytest.approx(0.11)
    assert 0.1 - 1e-9 <= lead["low"] < 0.11 < lead["high"] <= 0.12 + 1e-9


def test_the_experiment_runs_and_has_a_table(tmp_path):
    path = reproduce("two_gifts", scale="smoke", seeds=1, workdir=tmp_path, threads=1, output=tmp_path / "out.json")
    result = json.loads(path.read_text())
    assert {(c["cell"]["network"], c["cell"]["loss"]) for c in result["cells"]} == {
        (network, loss) for network in gifts.NETWORKS for loss in gifts.THREE
    }
    for cell in result["cells"]:
        figures = cell["result"]
        assert {f"{kind}@{sigma}" for kind in errors.KINDS for sigma in errors.SIGMAS} <= set(figures)
        assert 0 <= figures["restart_stable@0.5"] <= 1
    assert find("two_gifts").table(result).count("\n") == 7


# A carbonyl group, H2C=O, flat in the plane z = 0: the carbon is atom 0.
FLAT = torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [-0.6, 0.95, 0.0], [-0.6, -0.95, 0.0]])


def probe_of(positions: torch.Tensor) -> errors.Probe:
    numbers = torch.tensor([[6, 8, 1, 1]])
    return errors.Probe.of(
        Molecules(positions[None], numbers, SmilesList.from_strings(["C=O"]), torch.ones(1, dtype=torch.int64))
    )


def test_heights_have_a_side_and_do_not_depend_on_the_frame(generator):
    rows = torch.tensor([[0, 0, 1, 2, 3]])
    lifted = FLAT.clone()
    lifted[0, 2] = 0.3
    assert float(errors.heights(lifted[None], rows)) == pytest.approx(0.3)
    mirrored = lifted * torch.tensor([1.0, 1.0, -1.0])
    assert float(errors.heights(mirrored[None], rows)) == pytest.approx(-0.3)
    turned = lifted @ torch.linalg.qr(torch.randn(3, 3, generator=generator))[0] + 5
    assert abs(float(errors.heights(turned[None], rows))) == pytest.approx(0.3, abs=1e-5)


def test_errors_name_what_is_wrong():
    probe = probe_of(FLAT)
    assert len(probe.flat) == 1
    assert [len(probe.pairs[kind][0]) for kind in ("bond", "1-3", "1-4")] == [3, 3, 0]
    right = errors.errors(probe, FLAT[None])
    assert right["bond"] == right["1-3"] == right["out_of_plane"] == pytest.approx(0, abs=1e-6)
    assert right["aligned"] == pytest.approx(0, abs=1e-6)
    stretched = FLAT.clone()
    stretched[1, 0] += 0.1
    wrong = errors.errors(probe, stretched[None])
    assert wrong["bond"] == pytest.approx(0.1 / math.sqrt(3), rel=1e-4)
    assert wrong["out_of_plane"] == pytest.approx(0, abs=1e-6)
    away = torch.tensor([3.0, -2.0, 5.0])  # from the origin, where nothing is measured
    assert errors.errors(probe_of(FLAT + away), (stretched + away)[None]) == pytest.approx(wrong, abs=1e-5, nan_ok=True)
    lifted = FLAT.clone()
    lifted[0, 2] = 0.2
    twice = errors.Probe.of(probe.molecules[torch.tensor([0, 0])])
    for judge, n in ((probe, 1), (twice, 2)):
        found = errors.errors(judge, lifted.expand(n, -1, -1))
        assert found["out_of_plane"] == pytest.approx(0.2, rel=1e-5)
        # No turn helps one lifted atom of four; a shift by a quarter leaves three quarters of its square.
        assert found["aligned"] == pytest.approx(0.2 * math.sqrt(3 / 4) / 2, rel=1e-3)


def test_the_strain_of_few_restarted_molecules_is_left_out(monkeypatch):
    monkeypatch.setattr(errors, "restarted", lambda denoiser, few, *_: few.positions)
    for n, told in ((29, None), (30, 2.5)):
        monkeypatch.setattr(errors, "strain", lambda *_, n=n: SimpleNamespace(energies=range(n), median=2.5))
        found = errors.restart_figures(None, probe_of(FLAT).molecules, 0)
        assert found["restart_strain@0.2"] == found["restart_strain@0.5"] == told


def test_hands_are_counted_in_mirror_images():
    probe = errors.probe_of("qm9", (1, 7), (5, 29), 40)
    x = probe.molecules.positions
    assert errors.errors(probe, x)["hands"] == 0
    mirrored = errors.errors(probe, x * torch.tensor([1.0, 1.0, -1.0]))
    assert mirrored["hands"] == 1
    assert mirrored["bond"] == mirrored["1-4"] == 0
    assert isinstance(probe.centres, StereoCentres)
    assert len(probe.centres.molecule) > 5


class Oracle(torch.nn.Module):
    """A denoiser that knows the answer."""

    def __init__(self, base: torch.nn.Module, clean: torch.Tensor) -> None:
        super().__init__()
        self.base, self.truth, self.asked = base, clean, []
        self.featuriser, self.schedule, self.encode = base.featuriser, base.schedule, base.encode

    def denoise(self, x_t, t, mask):
        assert torch.equal(mask, self.truth[..., 3:].any(-1))
        assert not x_t[~mask].any()
        self.asked.append((float(t[0]), float((x_t - self.truth)[mask].square().mean().sqrt())))
        return self.truth


def test_noise_is_of_the_level_asked_for_and_a_perfect_denoiser_comes_home():
    molecules = errors.probe_of("qm9", (1, 7), (5, 29), 40).molecules
    base = small.make_denoiser(TINY.recipe, 0)
    oracle = Oracle(base, base.encode(molecules.positions, molecules.numbers.long()))
    once = errors.denoised_once(oracle, molecules, 0.5, 0)
    t, spread = oracle.asked[-1]
    assert t == 0.5
    assert spread == pytest.approx(0.5, rel=0.05)
    home = errors.restarted(oracle, molecules, 0.5, 0, steps=5)
    torch.testing.assert_close(home, once, atol=1e-5, rtol=0)
    assert oracle.asked[1][0] == pytest.approx(0.5)
    assert oracle.asked[1][1] == pytest.approx(spread, rel=1e-5)
    levels = np.array([t for t, _ in oracle.asked[1:]])
    assert (np.diff(levels) <= 0).all()
