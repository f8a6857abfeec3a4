"""The runner on small notebooks made here, with real kernels."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbformat import v4

from course import notebooks

RUNNING = ["00_first", "01_second"]


def _write(path: Path, *cells: str) -> Path:
    book = v4.new_notebook(cells=[v4.new_markdown_cell("# A story"), *map(v4.new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "a folder" / "notebooks"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def said():
    return []


def test_a_removed_cell_runs_and_is_not_in_the_page(folder):
    path = _write(folder / "00_first.ipynb", "print('HEADLINE:', 6 * 7)", "print('what is', 'seen')")
    book = nbformat.read(path, 4)
    next(cell for cell in book.cells if "HEADLINE" in cell.source).metadata["tags"] = ["remove-cell"]
    nbformat.write(book, path)
    run = notebooks.execute(path, folder.parent / "build")
    page = (folder.parent / "build" / "00_first.html").read_text()
    assert run.headline == "42"
    assert "what is seen" in page
    assert "HEADLINE" not in page


def test_offline_a_widget_s_place_holds_its_still_picture_until_the_widget_comes(chromium):
    path = Path(notebooks.__file__).resolve().parents[1] / "notebooks" / "02_gradient_fields.ipynb"
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.set_content(notebooks.page_of(nbformat.read(path, 4), path.stem), wait_until="domcontentloaded")
    views = page.locator("script[type='application/vnd.jupyter.widget-view+json']")
    stills = page.locator("img.elf-still")
    assert views.count() == stills.count() > 2
    for still in stills.all():
        assert still.bounding_box()["height"] > 50
        assert len(still.get_attribute("alt")) > 20
    place = "(script) => script.insertAdjacentHTML('beforebegin', '<div class=widget-subarea></div>')"
    views.first.evaluate(place)
    assert stills.first.is_visible()  # the widgets' library came, the widget's own script did not
    page.locator(".widget-subarea").evaluate("(place) => place.append(document.createElement('p'))")
    assert not stills.first.is_visible()
    assert stills.nth(1).is_visible()
    context.close()


def test_runs_in_order_collects_headlines_and_leaves_the_sources_alone(folder, said):
    first = _write(folder / "00_first.ipynb", "import os\nprint('HEADLINE: scale', os.environ['ELF_SCALE'])")
    second = _write(folder / "01_second.ipynb", "import sys\nprint('HEADLINE: python', sys.executable)")
    before = [path.read_bytes() for path in (first, second)]
    output = folder.parent / "build"
    runs = notebooks.run(notebooks.select(folder), output, env={"ELF_SCALE": "smoke"}, say=said.append)

    assert [(run.name, run.headline) for run in runs] == [
        ("00_first", "scale smoke"),
        ("01_second", f"python {sys.executable}"),
    ]
    assert "".join(said).splitlines() == [
        f"[1/2] 00_first ... {runs[0].seconds:.1f} s",
        f"[2/2] 01_second ... {runs[1].seconds:.1f} s",
    ]
    assert [path.read_bytes() for path in (first, second)] == before
    assert sorted(path.name for path in folder.iterdir()) == ["00_first.ipynb", "01_second.ipynb"]
    assert sorted(path.name for path in output.iterdir()) == [
        "00_first.html",
        "00_first.ipynb",
        "01_second.html",
        "01_second.ipynb",
    ]
    assert nbformat.read(output / "00_first.ipynb", 4).cells[1].outputs[0].text == "HEADLINE: scale smoke\n"
    assert "HEADLINE: scale smoke" in (output / "00_first.html").read_text()
    assert notebooks.table(runs).splitlines()[1].split(maxsplit=3) == [
        "00_first",
        f"{runs[0].seconds:.1f}",
        "s",
        "scale smoke",
    ]


def test_side_by_side_they_overlap_and_come_back_in_order(folder, said):
    """Each waits for the file that the other writes: one after the other they would wait for ever."""
    wait = (
        "import pathlib, time\npathlib.Path('{0}').touch()\nwhile not pathlib.Path('{1}').exists(): time.sleep(0.02)\n"
    )
    for name, own, other in (("00_first", "a", "b"), ("01_second", "b", "a")):
        _write(folder / f"{name}.ipynb", wait.format(own, other) + f"print('HEADLINE: wrote {own}')")
    runs = notebooks.run(notebooks.select(folder), folder.parent / "build", cell_timeout=60, say=said.append, jobs=2)
    assert [(run.name, run.headline) for run in runs] == [("00_first", "wrote a"), ("01_second", "wrote b")]
    lines = "".join(said).splitlines()
    assert [line[:5] for line in lines] == ["[1/2]", "[2/2]"]
    assert {line.split()[1] for line in lines} == {"00_first", "01_second"}


def test_side_by_side_a_failure_is_named_and_what_waits_is_not_begun(folder, said):
    _write(folder / "00_first.ipynb", "1 / 0")
    failed = "import pathlib, time\nwhile not pathlib.Path('../build/00_first.ipynb').exists(): time.sleep(0.02)"
    for number in range(1, 10):
        _write(folder / f"0{number}_later.ipynb", failed)
    with pytest.raises(notebooks.NotebookError, match=r"00_first.ipynb, cell \[1\] .*ZeroDivisionError") as caught:
        notebooks.run(notebooks.select(folder), folder.parent / "build", say=said.append, jobs=2)
    assert "1 / 0" in caught.value.traceback
    assert "".join(said).endswith("failed\n")
    assert not (folder.parent / "build" / "09_later.html").exists()
    with pytest.raises(ValueError, match="jobs is 0"):
        notebooks.run(notebooks.select(folder), folder.parent / "build", jobs=0)


def test_side_by_side_each_has_its_share_of_the_cores_and_the_longest_is_first(folder, said, monkeypatch):
    """Two kernels with as many threads as there are cores wait for each other's."""
    monkeypatch.setattr(notebooks, "cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    begun = "import os, time\nprint('HEADLINE:', os.environ.get('OMP_NUM_THREADS'), time.time())"
    for number, seconds in enumerate((1, 30, 2, 20, 3, 10)):
        path = _write(folder / f"0{number}_story.ipynb", begun)
        book = nbformat.read(path, 4)
        book.cells[0].source = f"**Run time:** about {seconds} s on two idle CPU cores."
        nbformat.write(book, path)
    build = folder.parent / "build"
    runs = notebooks.run(notebooks.select(folder), build, say=said.append, jobs=3)
    threads, times = zip(*(run.headline.split() for run in runs), strict=True)
    assert set(threads) == {"2"}
    assert max(times[number] for number in (1, 3, 5)) < min(times[number] for number in (0, 2, 4))
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    runs = notebooks.run(notebooks.select(folder, ["00", "01"]), build, say=said.append, jobs=9)
    assert {run.headline.split()[0] for run in runs} == {"5"}


def test_side_by_side_in_a_terminal_one_line_says_all_cells_and_the_time_left(folder, said, monkeypatch):
    for name in ("00_first", "01_second"):
        path = _write(folder / f"{name}.ipynb", "import time", "time.sleep(3)", "print('HEADLINE: done')")
        book = nbformat.read(path, 4)
        book.cells[0].source = "**Run time:** about 500 s on two idle CPU cores."
        nbformat.write(book, path)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    notebooks.run(notebooks.select(folder), folder.parent / "build", say=said.append, jobs=2)
    assert all(text.startswith("\r\x1b[K") for text in said if " ... " in text)
    lines = [re.sub("4[0-9]{2}|500", "N", text.removeprefix("\r\x1b[K")) for text in said]
    both = {", ".join(f"{name} (cell 2 of 3)" for name in names) for names in (RUNNING, RUNNING[::-1])}
    assert {f"{cells}, about N s left ... " for cells in both} & set(lines)
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/2]", "[2/2]"]


def test_in_a_terminal_the_line_says_the_cell_and_the_time_left(folder, said, monkeypatch):
    path = _write(folder / "00_first.ipynb", "1", "2", "print('HEADLINE: done')")
    book = nbformat.read(path, 4)
    book.cells[0].source = "# A story\n**Run time:** about 500 s on two idle CPU cores."
    nbformat.write(book, path)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    notebooks.run([path], folder.parent / "build", say=said.append)
    shown = [re.sub("4[0-9]{2}|500", "N", text.removeprefix("\r\x1b[K")) for text in said[1:4]]
    assert shown == [f"[1/1] 00_first ... cell {k} of 3, about N s left ... " for k in (1, 2, 3)]


def test_stops_at_the_first_failure_and_names_notebook_cell_and_error(folder, said):
    _write(folder / "00_breaks.ipynb", "x = 1", "\n# divide\nx / 0", "print('never')")
    _write(folder / "01_waits.ipynb", "print('never')")
    output = folder.parent / "build"
    with pytest.raises(notebooks.NotebookError) as failed:
        notebooks.run(notebooks.select(folder), output, say=said.append)
    assert str(failed.value) == "00_breaks.ipynb, cell [2] (# divide): ZeroDivisionError: division by zero"
    assert "x / 0" in failed.value.traceback
    assert "\x1b" not in failed.value.traceback
    assert said == ["[1/2] 00_breaks ... ", "failed\n"]
    assert [path.name for path in output.iterdir()] == ["00_breaks.ipynb"]
    assert nbformat.read(output / "00_breaks.ipynb", 4).cells[2].outputs[0].output_type == "error"


@pytest.mark.parametrize(
    ("cell", "timeout", "reason"),
    [
        ("import time\ntime.sleep(60)", 1, "(import time): took longer than 1 s"),
        ("import os\nos._exit(1)", 60, "(import os): the kernel died"),
    ],
    ids=["timeout", "dead kernel"],
)
def test_a_cell_that_hangs_or_kills_its_kernel_is_named(folder, said, cell, timeout, reason):
    path = _write(folder / "00_stuck.ipynb", "x = 1", cell)
    with pytest.raises(notebooks.NotebookError) as failed:
        notebooks.run([path], folder.parent / "build", cell_timeout=timeout, say=said.append)
    assert f"00_stuck.ipynb, cell [2] {reason}" in str(failed.value)


def test_the_last_headline_counts_and_none_is_empty():
    def printed(*texts):
        outputs = [v4.new_output("stream", name="stdout", text=text) for text in texts]
        return v4.new_notebook(cells=[v4.new_code_cell("", outputs=outputs)])

    assert notebooks.headline(printed("HEADLINE: 1\nmore\n", "HEADLINE: 2\n")) == "2"
    assert notebooks.headline(printed("a HEADLINE: 1\n")) == ""


def test_select_by_the_beginning_of_a_name(folder):
    for name in ("07_molecules", "00_start_here", "standalone"):
        (folder / f"{name}.ipynb").touch()
    assert [path.stem for path in notebooks.select(folder)] == ["00_start_here", "07_molecules", "standalone"]
    assert [path.stem for path in notebooks.select(folder, ["stand", "notebooks/07_molecules.ipynb"])] == [
        "07_molecules",
        "standalone",
    ]
    with pytest.raises(ValueError, match="no notebook is named '7'; there are 00_start_here"):
        notebooks.select(folder, ["7"])


def test_a_folder_without_notebooks_is_an_error(folder):
    with pytest.raises(ValueError, match="there is no notebook in"):
        notebooks.select(folder)


@pytest.fixture
def decoy(tmp_path, monkeypatch):
    """A kernel named python3 of another Python, as a cluster's modules put it on JUPYTER_PATH."""
    kernel = tmp_path / "decoy" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = ["sh", "-c", "echo the decoy was started >&2; exit 1", "{connection_file}"]
    kernel.joinpath("kernel.json").write_text(json.dumps({"argv": argv, "display_name": "decoy", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "decoy"))
    assert KernelSpecManager().get_kernel_spec("python3").display_name == "decoy"


def test_a_kernel_of_another_python_on_jupyter_path_is_not_started(folder, said, decoy):
    path = _write(folder / "00_first.ipynb", "import sys\nprint('HEADLINE:', sys.executable)")
    (run,) = notebooks.run([path], folder.parent / "build", say=said.append)
    assert run.headline == sys.executable


def test_jupyterlab_offers_this_python_before_one_on_jupyter_path(decoy):
    """What `elf lab` names as kernel_spec_manager_class: both the list of kernels and the one that is started."""
    specs = notebooks.ThisPython()
    assert specs.get_kernel_spec("python3").argv[0] == sys.executable
    assert specs.get_all_specs()["python3"]["spec"]["argv"][0] == sys.executable
    with pytest.raises(NoSuchKernel):
        specs.get_kernel_spec("no-such-kernel")
