"""What is committed in results/: a summary that its own cells give, by the code as it is now."""

from __future__ import annotations

import json

import pytest

from experiments import find, load_result, results_folder

NAMES = sorted(path.name.split(".")[0] for path in results_folder().glob("*.laptop.json"))


def test_there_are_results():
    assert len(NAMES) >= 39


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_summary_is_that_of_the_committed_cells(name):
    """A rule that changes how cells are summarised reaches the figures that notebooks and pages read."""
    result = load_result(name)
    assert json.loads(json.dumps(find(name).summarise(result["cells"]))) == result["summary"]
