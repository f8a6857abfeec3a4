"""The site's policy names no other host; the site also works from the root of a server without a policy."""

from __future__ import annotations

import re

from browser import serving


def test_the_policy_names_no_host_and_allows_no_eval(policy):
    assert "\n" not in policy
    assert policy.startswith("default-src 'none';")
    sources = set(re.findall(r"[^\s;]+", re.sub(r"(?:^|;)\s*[a-z-]+(?=\s)", ";", policy)))
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}


def test_works_from_the_root_of_a_plain_file_server(site, open_page):
    with serving(site) as address:
        page = open_page(f"{address}/")
        page.locator('.elf-playground[data-elf-state="ready"]').wait_for()
        page.get_by_role("link", name="00 Start here").first.click()
        page.locator("article h1", has_text="Start here").wait_for()
        page.wait_for_load_state("networkidle")
