"""Tables of notebooks: every entry in its place, in HTML and in plain text, and nothing read as markup."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from course import tables


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(tables, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_every_entry_is_in_its_place(shown):
    tables.table(["loss", "x < 1"], ["MSE", 0.5], ["a & b", "1 ± 2"])
    (bundle,) = shown
    rows = [[cell.text for cell in row] for row in ElementTree.fromstring(bundle["text/html"]).iter("tr")]
    assert rows == [["loss", "x < 1"], ["MSE", "0.5"], ["a & b", "1 ± 2"]]
    assert bundle["text/plain"] == "loss | x < 1\nMSE | 0.5\na & b | 1 ± 2"


def test_a_row_that_does_not_fit_is_refused(shown):
    with pytest.raises(ValueError, match=r"row is \['MSE'\]; it should have 2 entries"):
        tables.table(["loss", "error"], ["MSE"])
    assert not shown
