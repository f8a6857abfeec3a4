"""What the landing page needs before it answers, and what a drag draws: counted, not timed; any machine agrees."""

from __future__ import annotations

import pytest

READY = '.elf-playground[data-elf-state="ready"]'
FRAMES = """([node, dot, x, y]) => new Promise((done) => {
  const first = Number(node.dataset.elfDraws);
  let step = 0;
  const tick = () => {
    const at = { clientX: x + 20 * Math.sin(step / 5), clientY: y + 15 * Math.cos(step / 7) };
    dot.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerId: 1, ...at }));
    if (step++ < 60) requestAnimationFrame(tick);
    else done(Number(node.dataset.elfDraws) - first);
  };
  requestAnimationFrame(tick);
})"""


def test_the_first_page_needs_little_before_it_answers(book, chromium):
    with chromium.new_context() as context:  # an empty cache
        page = context.new_page()
        loaded: list[int] = []
        page.on("response", lambda response: loaded.append(int(response.headers.get("content-length", 0))))
        page.goto(f"{book}/index.html", wait_until="commit")
        page.locator(READY).wait_for(timeout=120_000)
        seconds = page.evaluate("() => performance.now()") / 1000
        print(f"\nfirst page answers after {len(loaded)} files, {sum(loaded) / 1e6:.2f} MB, here {seconds:.2f} s")
        before = page.locator(READY).get_attribute("data-elf-mse")
        page.locator(f'{READY} [data-elf-panel="mse"] [data-elf-particle="0"]').press("ArrowRight")
        node = page.locator(READY).element_handle()
        page.wait_for_function("([node, mse]) => node.dataset.elfMse !== mse", arg=[node, before], timeout=120_000)
    assert len(loaded) <= 50
    assert sum(loaded) < 5_000_000


@pytest.mark.live
def test_dragging_twelve_particles_redraws_every_frame_once(book, open_page):
    page = open_page(f"{book}/index.html")
    playground = page.locator(READY)
    playground.get_by_label("Configuration").select_option("benzene")
    assert page.locator('[data-elf-panel="mse"] [data-elf-particle]').count() == 12
    particle = page.locator('[data-elf-panel="mse"] [data-elf-particle="0"]')
    particle.scroll_into_view_if_needed()
    box = particle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    draws = page.evaluate(FRAMES, [playground.element_handle(), particle.element_handle(), x, y])
    page.mouse.up()
    assert draws in (59, 60, 61)
