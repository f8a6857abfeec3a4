"""No figure from fewer than thirty molecules: what `enough` leaves out, in every summary and picture."""

from __future__ import annotations

import pytest

from experiments import load_result, results_folder, summarise_by
from experiments.framework.tables import LEAST, OF_SOME, enough
from tools.book import dot_plots

RESULTS = [load_result(path.name.split(".")[0]) for path in results_folder().glob("*.laptop.json")]


def row(**figures: float | None) -> dict:
    return {"cell": {"loss": "mse"}, "result": figures}


@pytest.mark.parametrize(
    ("figure", "shares"),
    [
        ("fcd", {"validity": 0.1}),
        ("uniqueness", {"validity": 0.1}),
        ("novelty", {"validity": 0.2, "uniqueness": 0.5}),
        ("graph_fcd", {"graph_validity": 0.1, "validity": 1.0}),
        ("graph_uniqueness", {"graph_validity": 0.1}),
        ("graph_novelty", {"graph_validity": 0.5, "graph_uniqueness": 0.2}),
        ("graph_contradicted", {"graph_right": 0.1}),
        ("bond_error", {"relaxed": 0.1}),
        ("kelvin", {"relaxed": 0.1}),
    ],
)
def test_a_figure_of_few_molecules_is_none_and_one_of_thirty_stays(figure, shares):
    assert figure in OF_SOME
    few, many = (row(**{**shares, figure: 3.0, "molecules": n}) for n in (10 * LEAST - 10, 10 * LEAST))
    assert enough(few)["result"][figure] is None
    assert enough(many)["result"] == many["result"]
    assert few["result"][figure] == 3.0  # the cell keeps everything
    (left,) = summarise_by([few, many], "loss")
    assert figure not in left
    (whole,) = summarise_by([many, many], "loss")
    assert whole[figure]["mean"] == 3.0


def test_strain_is_that_of_the_strained():
    assert enough(row(strained=29, strain=5.0, molecules=400))["result"]["strain"] is None
    assert enough(row(strained=30, strain=5.0, molecules=400))["result"]["strain"] == 5.0


def test_thirty_are_thirty_whatever_rounding_does():
    assert enough(row(validity=round(30 / 900, 5), fcd=1.0, molecules=900))["result"]["fcd"] == 1.0
    assert enough(row(validity=round(29 / 900, 5), fcd=1.0, molecules=900))["result"]["fcd"] is None


def test_nothing_valid_is_few_and_what_no_result_says_is_not_judged():
    nothing = row(validity=0.0, uniqueness=None, novelty=0.0, molecules=500)
    assert enough(nothing)["result"]["novelty"] is None
    unknown = row(fcd=3.0, error=1.0)
    assert enough(unknown) == unknown


def test_committed_summaries_have_no_figure_of_few_molecules():
    """By the cells' own counts: the row that a cell with few is part of has no such figure."""
    left_out = 0
    for result in RESULTS:
        for cell in result["cells"]:
            rows = [r for r in result["summary"] if all(cell["cell"].get(k, v) == v for k, v in r.items())]
            few = few_figures(cell["result"])
            left_out += len(few)
            assert not few & {figure for row in rows for figure in row}, (result["name"], cell["cell"])
    assert left_out > 10


def few_figures(found: dict) -> set[str]:
    shares = {"fcd": "validity", "uniqueness": "validity", "kelvin": "relaxed"}
    n = found.get("molecules", 0)
    few = {f for f, share in shares.items() if found.get(f) is not None and round(found[share] * n) < 30}
    return few | ({"strain"} if found.get("strain") is not None and found["strained"] < 30 else set())


def test_pictures_have_no_dot_of_few_molecules():
    few, many = (row(validity=0.1, fcd=3.0, molecules=n) for n in (290, 300))
    plot = dot_plots.Plot("fcd", "distance")
    assert dot_plots.values({"cells": [few, many]}, plot) == {"MSE": [3.0]}


def test_the_rule_names_figures_that_experiments_have():
    """A figure that is renamed should take its rule with it."""
    seen: set[str] = set()
    for result in RESULTS:
        for cell in result["cells"]:
            seen |= cell["result"].keys()
    assert seen >= {*OF_SOME, *(share for shares in OF_SOME.values() for share in shares), "strain", "strained"}
