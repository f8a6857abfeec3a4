"""The judge of mended energies, on runs made up so that its answers are known."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.molecules import mended


def cell(loss: str, seed: int, network: str = "plain", **changed: float) -> dict[str, Any]:
    result = {**dict.fromkeys(mended.BETTER, 0.5), "strained": 50, "molecules": 100, **changed}
    return {"cell": {"network": network, "loss": loss, "seed": seed}, "result": result}


def test_distances_and_errors_should_be_small_and_shares_large():
    small = {figure for figure, sign in mended.BETTER.items() if sign == -1}
    assert {
        figure for figure in mended.BETTER if figure.startswith(("mmd", "fcd", "strain")) or "@0.1" in figure
    } == small
    assert len(small) == 10
    assert {*mended.BETTER.values()} == {1, -1}


SPREAD = dict.fromkeys(mended.BETTER, 0.1)


def test_the_spread_is_that_of_the_difference_of_two_networks():
    cells = [cell("mse", seed, fcd=value) for seed, value in enumerate((1.0, 2.0, 3.0))]
    cells += [cell("mse", 0, network="equivariant", fcd=9.0), cell("kabsch", 0, fcd=9.0)]
    found = mended.spread(cells, "plain")
    assert found["fcd"] == pytest.approx(2**0.5)
    assert found["atom_stability"] == 0


def test_what_is_worse_beyond_the_spread_is_named_whichever_way_it_counts():
    for figure, sign in mended.BETTER.items():
        for step, named in ((0.11, True), (0.09, False), (-0.11, False)):
            cells = [cell("mse", 0), cell("root", 0, **{figure: 0.5 - sign * step})]
            assert (figure in mended.against_mse(cells, "plain", "root", SPREAD).worse) == named


def test_more_pairs_narrow_the_spread_and_only_pairs_count():
    cells = [cell(loss, seed) for loss in ("mse", "root") for seed in range(4)]
    for c in cells[4:]:
        c["result"]["fcd"] = 0.56
    cells += [cell("root", 4, fcd=99.0), cell("root", 0, network="equivariant", fcd=99.0)]
    assert mended.against_mse(cells, "plain", "root", SPREAD).worse == ("fcd",)
    assert mended.against_mse(cells[:1] + cells[4:5], "plain", "root", SPREAD).worse == ()


def test_what_rests_on_too_few_molecules_is_not_judged():
    for molecules, named in ((100, ("fcd",)), (50, ())):
        cells = [cell("mse", 0), cell("root", 0, fcd=9.0, molecules=molecules)]
        assert mended.against_mse(cells, "plain", "root", SPREAD).worse == named


def test_strain_is_judged_where_all_networks_have_it():
    cells = [cell("mse", 0), cell("mse", 1), cell("root", 0, strain=9.0), cell("root", 1, strain=9.0)]
    assert mended.spread(cells, "plain").keys() == mended.BETTER.keys()
    assert mended.against_mse(cells, "plain", "root", mended.spread(cells, "plain")).worse == ("strain",)
    few = [*cells[1:], cell("mse", 0, strained=29)]
    assert mended.spread(few, "plain").keys() == mended.BETTER.keys() - {"strain"}
    assert mended.against_mse(few, "plain", "root", mended.spread(few, "plain")).worse == ()


def test_leads_ratios_and_what_was_asked():
    cells = [cell("mse", 0), cell("root", 0, **{"atom_stability": 0.6, "mmd_bond": 0.4, "out_of_plane@0.1": 0.59})]
    good = mended.against_mse(cells, "plain", "root", SPREAD)
    assert good[:3] == pytest.approx((0.1, 0.8, 1.18))
    assert good.mends
    assert not good._replace(flat=1.21).mends
    assert not good._replace(bonds=1.0).mends
    assert not good._replace(atoms=0.0).mends
    assert not good._replace(worse=("fcd",)).mends


def test_the_winner_leads_where_every_pair_does(monkeypatch):
    def results(own: float, bonds: float = 0.4) -> dict[str, Any]:
        cells = [cell("mse", seed, network=n) for seed in range(3) for n in ("plain", "equivariant")]
        mend = {"atom_stability": 0.6, "mmd_bond": bonds}
        cells += [cell("half_heights", seed, network="plain", **mend) for seed in range(3)]
        cells += [cell("half_heights", seed, network="equivariant", **mend) for seed in range(2)]
        cells.append(cell("half_heights", 2, network="equivariant", **{**mend, "atom_stability": own}))
        return {"cells": cells}

    monkeypatch.setattr(mended, "CONFIRMED", {10: ("a",)})
    for own, bonds, ahead in ((0.6, 0.4, True), (0.5, 0.4, False), (0.6, 0.5, False)):
        monkeypatch.setattr(mended, "load_result", lambda name, own=own, bonds=bonds: results(own, bonds))
        assert mended.leads() == ahead
