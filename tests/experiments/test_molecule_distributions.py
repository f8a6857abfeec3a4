"""The figures of Table 3 for the committed networks: made, compared with the data, and put into a table."""

from __future__ import annotations

import json

import pytest

from experiments import find, load_result, reproduce


def test_it_measures_networks_and_data(tmp_path):
    path = reproduce(
        "molecule_distributions", scale="smoke", seeds=1, workdir=tmp_path, threads=1, output=tmp_path / "out.json"
    )
    result = json.loads(path.read_text())
    data, drawn = (
        next(r["result"] for r in result["cells"] if r["cell"]["loss"] == name) for name in ("data", "energy")
    )
    assert data["completeness"] == 1
    assert data["posebusters"] == 1
    assert data["novelty"] == 0
    assert drawn["molecules"] == data["molecules"] == 6
    assert all(data[f"mmd_{kind}"] > 0 for kind in ("bond", "angle"))
    text = find("molecule_distributions").table(result)
    assert "FCD" in text
    assert text.count("\n") == len(result["summary"]) + 1


def test_the_committed_result_has_the_data_as_its_floor():
    """A draw of the training set is nearer to the test set, in every figure, than what any network makes."""
    rows = {row["loss"]: row for row in load_result("molecule_distributions")["summary"]}
    assert set(rows) == {"energy", "mse", "kabsch", "data"}
    for name in ("fcd", "mmd_bond", "mmd_angle", "mmd_dihedral", "strain"):
        floor = rows["data"][name]["mean"]
        assert all(row[name]["mean"] > floor for loss, row in rows.items() if loss != "data"), name
    for name in ("completeness", "posebusters", "molecule_stability"):
        assert rows["data"][name]["mean"] == pytest.approx(1, abs=0.05)
