"""Execute notebooks in order, keep executed copies and HTML, and collect the headline number of each."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from html import escape
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from elf.checks import require_count
from elf.files import require_writable
from elf.processes import die_with_parent

START = "00_start_here.ipynb"
HEADLINE = "HEADLINE: "
Watcher = Callable[[int, int], None]
MOST_JOBS = 4
"""Notebooks at the same time where nobody says how many: each takes about a gigabyte of memory."""
_STILL = ".jp-OutputArea-child:has(.widget-subarea > *) + .jp-OutputArea-child .elf-still { display: none; }"
_STATED = re.compile(r"\*\*Run time:\*\* about (\d+) s\b")
_Cells = SimpleQueue[tuple[str, int, int]]
_cells: _Cells | None = None
"""In a process that executes notebooks beside others: where it tells which cell it is at."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class NotebookRun:
    """An executed notebook: its name without suffix, its wall time in seconds, its headline ("" if it prints none)."""

    name: str
    seconds: float
    headline: str


class NotebookError(RuntimeError):
    """A notebook that failed; the message names notebook, cell and error, `traceback` holds the cell's traceback."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class ThisPython(KernelSpecManager):
    """Kernels as Jupyter finds them, but "python3" is the Python that runs this, whatever JUPYTER_PATH has to offer."""

    def find_kernel_specs(self) -> dict[str, str]:
        """Kernel name -> folder of its resources."""
        return {**super().find_kernel_specs(), "python3": RESOURCES}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernel of this name; raises NoSuchKernel where there is none."""
        own = kernel_name.lower() == "python3"
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict()) if own else super().get_kernel_spec(kernel_name)


def course_folder() -> Path:
    """The folder `notebooks/` of this checkout."""
    return Path(__file__).resolve().parent.parent / "notebooks"


def select(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The notebooks of `folder` in order of their names; with `names`, only those that begin so ("02" is enough).

    Raises ValueError where there is no notebook, and for a name that fits none.
    """
    notebooks = sorted(folder.glob("*.ipynb"))
    if not notebooks:
        raise ValueError(f"there is no notebook in {folder}")
    stems = [Path(name).name.removesuffix(".ipynb") for name in names]
    for stem in stems:
        if not any(path.stem.startswith(stem) for path in notebooks):
            raise ValueError(f"no notebook is named {stem!r}; there are {', '.join(path.stem for path in notebooks)}")
    return [path for path in notebooks if not stems or path.stem.startswith(tuple(stems))]


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _unwatched(cell: int, cells: int) -> None:
    pass


def execute(
    path: Path,
    output: Path,
    *,
    cell_timeout: int | None = None,
    env: dict[str, str] | None = None,
    watch: Watcher = _unwatched,
) -> NotebookRun:
    """Execute one notebook in its own folder; the source is left as it is, `output` gets the executed copy and HTML.

    Args:
        path: the notebook.
        output: folder for the executed copy, written also when a cell fails.
        cell_timeout: seconds a cell may take; None: no limit.
        env: environment variables of the kernel, on top of the present ones.
        watch: told, before each cell of code, which it is and how many there are.

    Raises:
        NotebookError: a cell raised, ran out of time, or killed its kernel.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
        shutdown_kernel="immediate",
    )
    # Without encryption each kernel warns that other users of the machine could read along.
    config = Config({"KernelManager": {"transport_encryption": "auto"}})
    # Set afterwards: a manager handed over at once would be left running.
    client.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython(), config=config)
    start = time.perf_counter()
    try:
        _execute_cells(client, path.name, {**os.environ, **(env or {})}, watch)
    finally:
        output.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, output / path.name)
    seconds = time.perf_counter() - start
    (output / f"{path.stem}.html").write_text(page_of(notebook, path.stem), encoding="utf-8")
    return NotebookRun(path.stem, seconds, headline(notebook))


def page_of(notebook: Any, name: str) -> str:
    """An executed notebook as HTML, without its removed cells.

    Its widgets come alive where the network lets their scripts come; until then, and offline, their still pictures
    stand in their places.
    """
    from nbconvert import HTMLExporter

    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for output in cell.outputs for one in (output, *_still(output))]
    unseen = {"enabled": True, "remove_cell_tags": {"remove-cell"}}
    exporter = HTMLExporter(template_name="lab", config=Config({"TagRemovePreprocessor": unseen}))
    exporter.log.setLevel(logging.ERROR)
    return exporter.from_notebook_node(shown, resources={"metadata": {"name": name}})[0]


def _still(output: Any) -> list[Any]:
    """What follows a widget: its picture, hidden once something is drawn in the widget's place."""
    data = output.get("data", {})
    if not {"application/vnd.jupyter.widget-view+json", "image/png"} <= data.keys():
        return []
    words = escape(output.metadata.get("image/png", {}).get("alt", ""))
    picture = f'<img class="elf-still" alt="{words}" src="data:image/png;base64,{data["image/png"]}">'
    return [nbformat.v4.new_output("display_data", {"text/html": f"<style>{_STILL}</style>{picture}"})]


def _execute_cells(client: NotebookClient, name: str, env: dict[str, str], watch: Watcher) -> None:
    # Not client.execute(): its handling of Ctrl-C ends in an AssertionError; here it is a KeyboardInterrupt.
    cell: Any = None
    traceback = ""
    cells = [(index, cell) for index, cell in enumerate(client.nb.cells) if cell.cell_type == "code"]
    try:
        with client.setup_kernel(env=env):
            for index, cell in cells:
                watch(client.code_cells_executed + 1, len(cells))
                client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            client.set_widgets_metadata()
        return
    except CellExecutionError as error:
        reason = error.ename + ": " + error.evalue.partition("\n")[0]
        traceback = _ANSI.sub("", error.traceback)
    except CellTimeoutError:
        reason = f"took longer than {client.timeout} s"
    except DeadKernelError:
        reason = "the kernel died (out of memory?)"
    except RuntimeError as error:
        if cell is not None:
            raise
        raise NotebookError(f"{name}: the kernel did not start ({error})") from None
    # The cell as Jupyter shows it: [n] for the n-th code cell that ran.
    first = next(line.strip() for line in cell.source.splitlines() if line.strip())
    raise NotebookError(f"{name}, cell [{client.code_cells_executed}] ({first}): {reason}", traceback)


def headline(notebook: Any) -> str:
    """The text of the last line `HEADLINE: text` that the notebook printed; "" if there is none."""
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    lines = [line for out in outputs if out.output_type == "stream" for line in out.text.splitlines()]
    return next((line.removeprefix(HEADLINE) for line in reversed(lines) if line.startswith(HEADLINE)), "")


def run(
    paths: Iterable[Path],
    output: Path,
    *,
    cell_timeout: int | None = None,
    env: dict[str, str] | None = None,
    say: Callable[[str], None] = lambda text: print(text, end="", flush=True),
    jobs: int = 1,
) -> list[NotebookRun]:
    """Execute notebooks in order, one progress line each; stops at the first failure with its NotebookError.

    With `jobs` so many at a time, the longest first, each in a process of its own with its share of the cores (unless
    the environment says OMP_NUM_THREADS), and a line as each ends. In a terminal a line says the cell, and how long is
    left of the run times that the notebooks state.

    Raises OSError, before anything is executed, where `output` cannot be written.
    """
    paths = list(paths)
    require_writable(output / "trial")
    if (jobs := min(require_count("jobs", jobs), len(paths))) > 1:
        # Two kernels that both take all the cores wait for each other: 1.4 times as long as one after the other.
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))}
        return _run_side_by_side(paths, output, cell_timeout, {**threads, **(env or {})}, say, jobs)
    done = []
    for number, path in enumerate(paths, 1):
        start = f"[{number}/{len(paths)}] {path.stem} ... "
        say(start)
        watch = _line(start, path, say) if sys.stdout.isatty() else _unwatched
        try:
            done.append(execute(path, output, cell_timeout=cell_timeout, env=env, watch=watch))
        except NotebookError:
            say("failed\n")
            raise
        say(f"{done[-1].seconds:.1f} s\n")
    return done


def _line(start: str, path: Path, say: Callable[[str], None]) -> Watcher:
    """Writes the present line anew: which cell runs, and how long is left."""
    begin, stated = time.perf_counter(), _stated(path)

    def watch(cell: int, cells: int) -> None:
        seconds = stated - (time.perf_counter() - begin)
        left = f", about {seconds:.0f} s left" if seconds > 0 else ""
        say(f"\r\x1b[K{start}cell {cell} of {cells}{left} ... ")

    return watch


def _stated(path: Path) -> int:
    """The seconds that a notebook says it takes; 0 if it does not."""
    found = _STATED.search(path.read_text(encoding="utf-8"))
    return int(found[1]) if found else 0


def _run_side_by_side(
    paths: Sequence[Path],
    output: Path,
    cell_timeout: int | None,
    env: dict[str, str],
    say: Callable[[str], None],
    jobs: int,
) -> list[NotebookRun]:
    # Spawned: a forked process would inherit the parent's locks and event loops in an unusable state.
    context = multiprocessing.get_context("spawn")
    cells, seconds = context.SimpleQueue(), {path: _stated(path) for path in paths}
    until = time.perf_counter() + max(*seconds.values(), sum(seconds.values()) / jobs)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_join, initargs=(cells,)) as pool:
        one = partial(_execute_beside, output=output, cell_timeout=cell_timeout, env=env)
        futures = {pool.submit(one, path): path for path in sorted(paths, key=seconds.__getitem__, reverse=True)}
        try:
            done = _follow(futures, cells, until, say)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            say("failed\n")
            raise
    return [done[path] for path in paths]


def _follow(
    futures: dict[Future[NotebookRun], Path], cells: _Cells, until: float, say: Callable[[str], None]
) -> dict[Path, NotebookRun]:
    """Says what runs (in a terminal) and what has ended, until all have."""
    terminal, running = sys.stdout.isatty(), set(futures)
    clear, at, done = "\r\x1b[K" if terminal else "", dict[str, str](), dict[Path, NotebookRun]()
    while running:
        ended, running = wait(running, timeout=0.5 if terminal else None, return_when=FIRST_COMPLETED)
        while not cells.empty():
            name, cell, of = cells.get()
            at[name] = f"{name} (cell {cell} of {of})"
        for future in ended:
            path = futures[future]
            at.pop(path.stem, None)
            say(f"{clear}[{len(done) + 1}/{len(futures)}] {path.stem} ... ")
            try:
                done[path] = future.result()
            except BrokenProcessPool as error:
                raise NotebookError(f"{path.name}: its process was killed (out of memory?)") from error
            say(f"{done[path].seconds:.1f} s\n")
        if terminal and running:
            left = until - time.perf_counter()
            say(f"{clear}{', '.join(at.values())}{f', about {left:.0f} s left' if left > 0 else ''} ... ")
    return done


def _join(cells: _Cells) -> None:
    global _cells
    _cells = cells
    die_with_parent()


def _execute_beside(path: Path, *, output: Path, cell_timeout: int | None, env: dict[str, str]) -> NotebookRun:
    def watch(cell: int, cells: int) -> None:
        if _cells is not None:
            _cells.put((path.stem, cell, cells))

    return execute(path, output, cell_timeout=cell_timeout, env=env, watch=watch)


def table(runs: Sequence[NotebookRun]) -> str:
    """The runs as lines of text: notebook, time, headline, and the total time."""
    width = max(len(name) for name in ["notebook", *(run.name for run in runs)])
    lines = [f"{'notebook':<{width}}  {'time':>8}  headline"]
    lines += [f"{run.name:<{width}}  {run.seconds:>6.1f} s  {run.headline or '-'}" for run in runs]
    lines += [f"{'all':<{width}}  {sum(run.seconds for run in runs):>6.1f} s"]
    return "\n".join(lines)
