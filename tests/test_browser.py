"""The browser fixture itself: it sees what it promises to see, or browser tests would be green for nothing."""

import urllib.error
import urllib.request

import pytest
from browser import serving, watch

PAGE = '<!doctype html><html lang="en"><title>t</title><link rel="icon" href="data:,"><body><p id="here">{}</p></body>'


def test_the_server_serves_below_its_prefix_and_nowhere_else(tmp_path):
    (tmp_path / "a.js").write_text("1")
    with serving(tmp_path, "/some/sub/path", {"X-Test": "yes"}) as address:
        with urllib.request.urlopen(address + "/a.js") as answer:
            assert (answer.read(), answer.headers["X-Test"]) == (b"1", "yes")
            assert answer.headers["Content-Type"] == "text/javascript"
        for wrong in (address.removesuffix("/sub/path") + "/a.js", address + "x/a.js", address + "/b.js"):
            with pytest.raises(urllib.error.HTTPError, match="404") as error:
                urllib.request.urlopen(wrong)
            error.value.close()


def test_a_sound_page_passes(tmp_path, serve, open_page):
    (tmp_path / "index.html").write_text(PAGE.format("fine"))
    with serve(tmp_path) as address:
        assert open_page(address + "/index.html").inner_text("#here") == "fine"


def test_frames_can_come_late_and_those_taken_back_do_not_come(tmp_path, serve, open_page, monkeypatch):
    monkeypatch.setenv("ELF_LATE_FRAMES", "200")
    (tmp_path / "index.html").write_text(PAGE.format("late"))
    script = """() => new Promise((done) => {
      const begin = performance.now();
      cancelAnimationFrame(requestAnimationFrame(() => done(-1)));
      requestAnimationFrame(() => done(performance.now() - begin));
    })"""
    with serve(tmp_path) as address:
        assert open_page(address + "/index.html").evaluate(script) > 195


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<script>throw new Error('boom')</script>", "page error: boom"),
        ("<script>console.error('bad')</script>", "console: bad"),
        ("<img src='missing.png' alt=''>", "answer 404"),
        ("<img src='https://example.org/a.png' alt=''>", "request to https://example.org"),
        ("<p style='color: red'>x</p>", "Content Security Policy"),
    ],
)
def test_what_goes_wrong_is_seen(tmp_path, serve, chromium, body, words):
    (tmp_path / "index.html").write_text(PAGE.format(body))
    headers = {"Content-Security-Policy": "style-src 'self'"}
    with serve(tmp_path, headers=headers) as address, chromium.new_context() as context:
        page = context.new_page()
        wrong = watch(page)
        page.goto(address + "/index.html", wait_until="networkidle")
        assert any(words in text for text in wrong), wrong
