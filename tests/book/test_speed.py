"""How fast the landing page answers, and how often the playground redraws while it is dragged."""

from __future__ import annotations

import time

READY = '.elf-playground[data-elf-state="ready"]'
# Milliseconds from the start of the navigation to the playground that answers.
WHEN_READY = """new MutationObserver((_, observer) => {
  if (!document.querySelector('.elf-playground[data-elf-state="ready"]')) return;
  window.readyAfter = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-elf-state"] });"""
PATIENCE = 90.0  # seconds in which the best attempt counts: other work on the machine can only slow the page down


def test_first_page_is_interactive_within_two_seconds(book, chromium):
    seconds, end = [], time.monotonic() + PATIENCE
    while time.monotonic() < end and min(seconds, default=2) >= 2:
        with chromium.new_context() as context:  # an empty cache
            page = context.new_page()
            page.add_init_script(WHEN_READY)
            page.goto(f"{book}/index.html")
            page.wait_for_function("() => window.readyAfter !== undefined")
            seconds.append(page.evaluate("() => window.readyAfter") / 1000)
            playground = page.locator(READY)
            before = playground.get_attribute("data-elf-mse")
            page.locator(f'{READY} [data-elf-panel="mse"] [data-elf-particle="0"]').press("ArrowRight")
            page.wait_for_function(
                "([node, mse]) => node.dataset.elfMse !== mse", arg=[playground.element_handle(), before]
            )
    print(f"\nfirst page interactive after {min(seconds):.2f} s")
    assert min(seconds) < 2


def test_dragging_twelve_particles_redraws_thirty_times_a_second(book, open_page):
    page = open_page(f"{book}/index.html")
    playground = page.locator(READY)
    playground.get_by_label("Configuration").select_option("benzene")
    assert page.locator('[data-elf-panel="mse"] [data-elf-particle]').count() == 12
    particle = page.locator('[data-elf-panel="mse"] [data-elf-particle="0"]')
    particle.scroll_into_view_if_needed()
    box = particle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    rates, end = [], time.monotonic() + PATIENCE
    while time.monotonic() < end and max(rates, default=0) < 30:
        page.mouse.move(x, y)
        page.mouse.down()
        first, begin = int(playground.get_attribute("data-elf-draws")), time.perf_counter()
        for step in range(60):
            page.mouse.move(x + 20 * (step % 2) + step / 6, y + step / 6)
        rates.append((int(playground.get_attribute("data-elf-draws")) - first) / (time.perf_counter() - begin))
        page.mouse.up()
        playground.get_by_role("button", name="Start again").click()
    print(f"\nredraws a second while dragging: {max(rates):.0f}")
    assert max(rates) >= 30
