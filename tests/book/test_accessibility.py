"""axe-core finds nothing serious on any page, in light and in dark."""

from __future__ import annotations

import time
from typing import Any

import pytest


@pytest.fixture(scope="session")
def axe(site) -> str:
    from tools.book import assets

    return assets.files("axe-core")["axe.min.js"].decode()


def serious(page: Any, axe: str) -> list[str]:
    """What axe calls serious or critical on this page."""
    page.wait_for_load_state("networkidle")
    page.evaluate(axe)
    found = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")["violations"]
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'][:160] for node in violation['nodes'][:4]]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("folder", ["", "notebooks", "api"])
def test_no_serious_violation_on_any_page(folder, dark, axe, site, book, open_page):
    pages = sorted((site / folder).glob("*.html"))
    assert len(pages) > 5
    # Pages of the API are made by one template: in the dark a few will do.
    wrong = {}
    for path in pages[:2] if dark and folder == "api" else pages:
        page = open_page(f"{book}/{path.relative_to(site)}", dark=dark)
        wrong[path.name] = serious(page, axe)
        page.close()
    assert {name: found for name, found in wrong.items() if found} == {}


def test_the_colour_switch_has_one_name_however_late_the_scripts_come(axe, book, open_page):
    """With a slow last script, Font Awesome draws the icons, titles and all, before the page counts as loaded."""
    page = open_page(f"{book}/index.html", dark=True)
    page.route("**/pydata-sphinx-theme.js*", lambda route: (time.sleep(0.5), route.continue_()))
    page.reload()
    page.wait_for_load_state("networkidle")
    page.evaluate(axe)
    found = page.evaluate("() => axe.run({ runOnly: ['label-content-name-mismatch'] })")
    assert found["passes"]
    assert not found["violations"]
