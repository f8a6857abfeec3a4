"""axe-core finds nothing serious on the landing page and on two notebooks, in light and in dark."""

from __future__ import annotations

import time

import pytest


@pytest.fixture(scope="session")
def axe(site) -> str:
    from tools.book import assets

    return assets.files("axe-core")["axe.min.js"].decode()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["index", "notebooks/00_start_here", "notebooks/02_gradient_fields"])
def test_no_serious_violation(name, dark, axe, book, open_page):
    page = open_page(f"{book}/{name}.html", dark=dark)
    page.wait_for_load_state("networkidle")
    page.evaluate(axe)
    found = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")["violations"]
    serious = [
        f"{violation['id']}: {violation['help']}: {[node['html'][:160] for node in violation['nodes'][:4]]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious, "\n".join(serious)


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
