"""The paper's claims: each is read from a result, and a result that changes changes the verdict."""

from __future__ import annotations

import copy
from statistics import mean, stdev

import pytest

from experiments import claims, load_result
from experiments.catalogue import EXPERIMENTS

BY_WORDS = {claim.says: claim for claim in claims.CLAIMS}


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=range(len(claims.CLAIMS)))
def test_every_claim_has_figures_and_a_verdict(claim):
    assert claim.experiment in EXPERIMENTS
    assert (claim.agrees is None) == (claim.scale == "not tried") == (claim.verdict == "not tried")
    if claim.agrees is not None:
        assert any(character.isdigit() for character in claim.finds())
        result = load_result(claim.experiment)
        if claim.networks:
            assert all(row["n"] >= claim.networks for row in result["summary"] if "n" in row)


def test_a_claim_about_networks_rests_on_three_or_more():
    """Seeds of "molecule_distributions" are draws of one network a loss, which are no networks."""
    without = {"rigidity", "paper_models", "loss_cost", "table1"}
    assert {claim.experiment for claim in claims.CLAIMS if claim.networks == 0} == without
    for claim in claims.CLAIMS:
        assert claim.experiment != "molecule_distributions"
        if claim.networks:
            assert claim.networks >= 3, claim.says
            runs = load_result(claim.experiment)["cells"]
            assert len({run["cell"]["seed"] for run in runs}) >= claim.networks, claim.says


def test_that_drawn_molecules_pay_for_their_bonds_is_judged_network_by_network():
    def figures(network: str, loss: str, figure: str) -> list[float]:
        at = {"network": network, "loss": loss}.items()
        return [c["result"][figure] for c in load_result("two_gifts")["cells"] if at <= c["cell"].items()]

    claim = BY_WORDS["Exponential springs make bonds better and angles, dihedrals and FCD worse."]
    digits, found = {"mmd_bond": 2, "mmd_angle": 2, "mmd_dihedral": 3, "fcd": 1}, {}
    for network in ("plain", "equivariant"):
        for figure, d in digits.items():
            mse, energy = (figures(network, loss, figure) for loss in ("mse", "energy"))
            assert len(mse) == len(energy) == 5
            found[network, figure] = mean(energy) > mean(mse)
            said = " to ".join(f"{mean(runs):.{d}f} ± {stdev(runs):.{d}f}" for runs in (mse, energy))
            assert said in claim.finds().split("equivariant:")[network == "equivariant"]
        assert max(figures(network, "energy", "fcd")) < mean(figures(network, "mse", "fcd"))
    as_printed = all(worse == (figure != "mmd_bond") for (_, figure), worse in found.items())
    assert not as_printed
    assert claim.verdict == "does not hold"


def test_a_result_as_the_paper_has_it_would_hold(monkeypatch):
    """The verdict follows the results in all four figures and on both networks."""
    claim = BY_WORDS["Exponential springs make bonds better and angles, dihedrals and FCD worse."]
    printed = copy.deepcopy(load_result("two_gifts"))
    for row in printed["summary"]:
        for figure in ("mmd_bond", "mmd_angle", "mmd_dihedral", "fcd"):
            row[figure]["mean"] = float((row["loss"] == "energy") != (figure == "mmd_bond"))
    monkeypatch.setattr(claims, "load_result", lambda name: printed)
    assert claim.verdict == "holds, small scale"
    for row in printed["summary"]:
        if row["network"] == "equivariant":
            row["fcd"]["mean"] = 1.0
    assert claim.verdict == "does not hold"


def test_no_claim_is_made_twice():
    assert len(BY_WORDS) == len(claims.CLAIMS)


def atoms(name: str, **wanted: object) -> list[float]:
    runs = load_result(name)["cells"]
    return [
        run["result"]["atom_stability"]
        for run in runs
        if all(run["cell"].get(key) == value for key, value in wanted.items())
    ]


def test_verdicts_agree_with_the_networks_one_by_one():
    """The same judgement from the cells instead of the summary's means."""
    plain = {loss: atoms("two_gifts", network="plain", loss=loss) for loss in ("mse", "kabsch", "energy")}
    assert min(plain["energy"]) > max(plain["mse"]) + 0.03
    assert BY_WORDS["Without symmetry in the network the energy beats MSE."].verdict == "holds, small scale"
    assert abs(mean(plain["kabsch"]) - mean(plain["mse"])) < 0.03
    assert BY_WORDS["Forgiving rotations alone (Kabsch) gains little over MSE."].verdict == "holds, small scale"
    edm = {loss: atoms("table2", model="edm", loss=loss) for loss in ("mse", "energy")}
    verdict = BY_WORDS["The paper's own EDM with the energy beats MSE."].verdict
    assert (verdict == "does not hold") == (mean(edm["energy"]) < mean(edm["mse"]))


def test_verdicts_on_jodo_agree_with_the_networks_one_by_one():
    runs = load_result("table3")["cells"]
    stable = {
        loss: [run["result"]["molecule_stability"] for run in runs if run["cell"]["loss"] == loss]
        for loss in ("kabsch", "inverse_even", "exponential_even")
    }
    bar = mean(stable["kabsch"]) + stdev(stable["kabsch"])
    for words, loss in (("exponential", "exponential_even"), ("inverse", "inverse_even")):
        claim = BY_WORDS[f"In JODO {words} springs make more molecules stable than its turned MSE."]
        assert (claim.verdict == "holds, small scale") == (mean(stable[loss]) > bar)
    assert mean(stable["inverse_even"]) < bar < mean(stable["exponential_even"])


def test_verdicts_on_drugs_and_heights_agree_with_the_networks_one_by_one():
    drugs = {loss: atoms("druglike", loss=loss) for loss in ("mse", "energy")}
    claim = BY_WORDS["On drug-like molecules the energy beats MSE by far, without symmetry in the network."]
    bar = mean(drugs["mse"]) + stdev(drugs["mse"])
    assert (claim.verdict == "holds, small scale") == (mean(drugs["energy"]) > bar)

    sparse = atoms("druglike_sparse", loss="sparse_inverse_even")
    claim = BY_WORDS["On drug-like molecules sparse inverse springs beat MSE."]
    assert (claim.verdict == "holds, small scale") == (mean(sparse) > mean(drugs["mse"]) + stdev(drugs["mse"]))
    assert len(sparse) == 3

    def off_plane(name: str, loss: str) -> float:
        at = {"network": "equivariant", "loss": loss}.items()
        return mean(c["result"]["out_of_plane@0.1"] for c in load_result(name)["cells"] if at <= c["cell"].items())

    flatter = off_plane("two_gifts_mended", "heights_0.1") < 0.7 * off_plane("two_gifts", "energy")
    kept = (
        mean(atoms("two_gifts_mended", network="equivariant"))
        > mean(atoms("two_gifts", network="equivariant", loss="energy")) - 0.015
    )
    claim = BY_WORDS["A tenth of a height takes most of that away; an equivariant network keeps its atoms."]
    assert (claim.verdict == "holds, small scale") == (flatter and kept)


def test_a_result_that_says_otherwise_changes_the_verdict(monkeypatch):
    claim = BY_WORDS["Without symmetry in the network the energy beats MSE."]
    turned = copy.deepcopy(load_result("two_gifts"))
    names = {"mse": "energy", "energy": "mse"}
    for row in turned["summary"]:
        row["loss"] = names.get(row["loss"], row["loss"])
    assert claim.verdict == "holds, small scale"
    monkeypatch.setattr(claims, "load_result", lambda name: turned)
    assert claim.verdict == "does not hold"


def test_orders_fall_from_first_to_last():
    assert claims._orders(3.0, 2.0, 1.0)
    assert not claims._orders(3.0, 2.0, 2.0)
    assert not claims._orders(3.0, 2.5, 1.0, least=1.0)
