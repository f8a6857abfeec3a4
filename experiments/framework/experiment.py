"""How every experiment is run: cell by cell, resumable, with a JSON record at the end."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from elf.files import cache_folder, locked
from elf.scales import SCALES

Cell = dict[str, Any]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: what `elf reproduce` calls it.
        title: one line for people.
        settings: scale -> frozen dataclass of JSON-able settings.
        cells: (settings, number of seeds) -> the independent runs, each a flat JSON-able dict that names it, such as
            {"loss": "energy", "seed": 0}.
        run_cell: (settings, cell, workdir, callbacks) -> JSON-able result with sensibly rounded floats. `workdir` is
            this cell's own folder, for its checkpoints; every `fit` gets the callbacks, through which Ctrl-C reaches
            `reproduce` (a half-trained cell is not a result). "seconds" in it, if there, is the training's own time,
            resumed parts included.
        summarise: rows {"cell", "result", "seconds"} of all cells -> rows of the table (see `summarise_by`).
        table: the whole result, as `load_result` returns it -> the table as text.
    """

    name: str
    title: str
    settings: Callable[[str], Any]
    cells: Callable[[Any, int], list[Cell]]
    run_cell: Callable[[Any, Cell, Path, Sequence[Callable[[Any], object]]], dict[str, Any]]
    summarise: Callable[[list[Row]], list[dict[str, Any]]]
    table: Callable[[dict[str, Any]], str]


def find(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    return _load(_address_of(name))


def _address_of(name: str) -> str:
    from experiments import EXPERIMENTS

    if name not in EXPERIMENTS:
        raise ValueError(f"experiment is {name!r}; it should be one of {', '.join(sorted(EXPERIMENTS))}")
    return EXPERIMENTS[name]


def _load(address: str) -> Experiment:
    """The experiment at "module" (its `EXPERIMENT`) or at "module:name" (the one of that name in its `EXPERIMENTS`)."""
    module, _, name = address.partition(":")
    return import_module(module).EXPERIMENTS[name] if name else import_module(module).EXPERIMENT


def cell_slug(cell: Cell) -> str:
    """File name (without ending) of a cell: 'loss=energy,seed=0'."""
    return re.sub(r"[^\w.,=+-]", "_", ",".join(f"{key}={value}" for key, value in cell.items()))


@contextmanager
def shared_folder(workdir: Path, kind: str, name: str) -> Iterator[Path]:
    """A folder that several experiments may use, beside their own, held by this process meanwhile.

    Args:
        workdir: of a cell, as `run_cell` gets it.
        kind, name: the folder is KIND/NAME in the `workdir` of `reproduce`.

    Raises:
        BlockingIOError: another process holds it.
    """
    folder = workdir.parents[1] / kind / name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"cell {workdir.name}") if _is_first_process() else nullcontext():
        yield folder


def results_folder() -> Path:
    """$ELF_RESULTS, else `results/` beside the package."""
    return Path(os.environ.get("ELF_RESULTS") or Path(__file__).resolve().parents[2] / "results")


def load_result(name: str, scale: str = "laptop") -> dict[str, Any]:
    """The committed result of an experiment.

    Raises:
        FileNotFoundError: there is none; the message has the command that makes it.
    """
    path = results_folder() / f"{name}.{scale}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no result {path.name} in {path.parent}; make it with: elf reproduce {name} --scale {scale}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def reproduce(
    name: str,
    *,
    scale: str,
    seeds: int,
    output: str | Path | None = None,
    workdir: str | Path | None = None,
    fabric: Mapping[str, Any] | None = None,
    jobs: int = 1,
    threads: int | None = None,
    only: Mapping[str, Any] | None = None,
) -> Path:
    """Run all cells of an experiment that are not finished yet, write its result, print its table.

    Every finished cell is a file in `workdir`/NAME.SCALE, so that a killed run goes on where it was (inside a cell:
    at its last checkpoint). Results of other settings are moved aside, never mixed.

    Args:
        name: one of `EXPERIMENTS`.
        scale: "smoke", "live", "laptop" or "paper".
        seeds: number of seeds, 0 .. seeds - 1.
        output: the JSON file; default results/NAME.SCALE.json (see `results_folder`).
        workdir: default "runs" in the user's cache folder of elf.
        fabric: where to compute: accelerator, devices, num_nodes, strategy, precision (see `FitSettings`).
        jobs: cells computed at the same time, each in a process of its own.
        threads: torch's threads a process; default torch's choice, or the cores shared out among the jobs.
        only: run just the cells with these values, such as {"loss": "energy"} or {"seed": [0, 1]}; while other
            cells are missing, the result is NAME.SCALE/partial.json in `workdir` instead of `output`.

    Returns:
        The path of the result.

    Raises:
        ValueError: unknown name, scale, option or cell; the message lists the known ones.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}; it should be one of {', '.join(SCALES)}")
    for argument, number in (("seeds", seeds), ("jobs", jobs), ("threads", threads or 1)):
        if number < 1:
            raise ValueError(f"{argument} is {number}; it should be at least 1")
    options = dict(fabric or {})
    if jobs > 1 and int(options.get("devices", 1)) * int(options.get("num_nodes", 1)) > 1:
        raise ValueError(f"jobs is {jobs} with fabric={options}; it should be 1 when a training has several processes")
    address = _address_of(name)
    experiment = _load(address)
    settings = experiment.settings(scale)
    cells = experiment.cells(settings, seeds)
    chosen = _choose(cells, only)
    if len({cell_slug(cell) for cell in cells}) < len(cells):
        raise ValueError(f"cells of {name} share a name; they should differ: {[cell_slug(c) for c in cells]}")

    folder = (Path(workdir) if workdir is not None else _default_workdir()) / f"{name}.{scale}"
    _settle(folder, {"settings": _plain(settings), "fabric": options})
    if jobs > 1 and threads is None:
        threads = max(1, (os.cpu_count() or 1) // jobs)
    todo = [cell for cell in chosen if not _file(folder, cell).exists()]
    done = [_read(folder, cell)["seconds"] for cell in chosen if _file(folder, cell).exists()]
    _say(f"{experiment.title} ({name}, {scale}): {len(chosen)} cells, {len(done)} of them finished before")
    begin = time.perf_counter()
    work = [(address, scale, cell, folder, options, threads, jobs == 1 and sys.stdout.isatty()) for cell in todo]
    for number, cell in enumerate(_run_in_pool(work, jobs) if jobs > 1 else map(_run_cell, work), start=1):
        seconds = _read(folder, cell)["seconds"] if _is_first_process() else 0.0
        left = (time.perf_counter() - begin) / number * (len(todo) - number)
        _say(f"[{len(done) + number}/{len(chosen)}] {cell_slug(cell)}: {seconds:.1f} s, about {left:.0f} s left")

    finished = [cell for cell in cells if _file(folder, cell).exists()]
    complete = len(finished) == len(cells)
    path = folder / "partial.json"
    if complete:
        path = Path(output) if output is not None else results_folder() / f"{name}.{scale}.json"
    if not _is_first_process():
        return path
    rows = [{key: _read(folder, cell)[key] for key in ("cell", "result", "seconds")} for cell in finished]
    last = _read(folder, finished[-1])
    result = {
        "name": name,
        "scale": scale,
        "command": _command(name, scale, seeds, options),
        "settings": _plain(settings),
        "seeds": seeds,
        **{key: last[key] for key in ("versions", "device", "threads")},
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cells": rows,
        "summary": experiment.summarise(rows),
    }
    write_json(path, result)
    print(experiment.table(result))
    if not complete:
        print(f"{len(cells) - len(finished)} of {len(cells)} cells are missing; this is a partial result")
    return path


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON whose diffs are readable (sorted keys, one item a line), atomically.

    Raises:
        ValueError: a NaN or an infinity, which JSON has not.
        TypeError: something that is not JSON-able.
    """
    from elf.files import write_atomically

    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


class _PassOnInterrupt:
    """Turns an interrupted training into a KeyboardInterrupt, so that a half-trained cell is never a result."""

    def __call__(self, state: Any) -> None:
        pass

    def finish(self, state: Any) -> None:
        if state.interrupted:
            raise KeyboardInterrupt


def _run_cell(work: tuple[str, str, Cell, Path, dict[str, Any], int | None, bool]) -> Cell:
    """Compute one cell and write its file. At module level, and found by its address, for spawned processes."""
    import torch

    from elf.training import ProgressBar, fabric_options

    address, scale, cell, folder, options, threads, show = work
    experiment = _load(address)
    callbacks: list[Callable[[Any], object]] = [ProgressBar(cell_slug(cell))] if show else []
    own = folder / cell_slug(cell)
    own.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    begin = time.perf_counter()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        with fabric_options(**options):
            result = experiment.run_cell(experiment.settings(scale), cell, own, [*callbacks, _PassOnInterrupt()])
        row = {
            "cell": cell,
            "result": result,
            # A cell that was killed and goes on has spent more than this process: its training's clock counts on.
            "seconds": round(max(time.perf_counter() - begin, result.get("seconds", 0.0)), 2),
            "versions": versions(),
            "device": device_name(options.get("accelerator", "auto")),
            "threads": torch.get_num_threads(),
        }
        if _is_first_process():
            write_json(_file(folder, cell), row)
    except Exception as error:
        error.add_note(f"in cell {cell_slug(cell)} of {experiment.name} ({scale})")
        raise
    finally:
        torch.set_num_threads(before)
    return cell


def _run_in_pool(work: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[Cell]:
    # Spawned, because a forked process inherits torch's threads and CUDA context in an unusable state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(1, len(work))), mp_context=context) as pool:
        futures = [pool.submit(_run_cell, item) for item in work]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import numpy
    import torch

    import elf

    return {
        "elf": elf.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def device_name(accelerator: str = "auto") -> str:
    """Model of the GPU or CPU that such an accelerator means here."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return f"{platform.processor() or platform.machine()} (mps)"
    info = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.is_file() else []
    return f"{(models or [platform.processor() or platform.machine()])[0].strip()}, {os.cpu_count()} cores"


def _choose(cells: list[Cell], only: Mapping[str, Any] | None) -> list[Cell]:
    wanted = {k: list(v) if isinstance(v, (list, tuple, set)) else [v] for k, v in (only or {}).items()}
    chosen = [cell for cell in cells if all(cell.get(key) in values for key, values in wanted.items())]
    if not chosen:
        raise ValueError(f"only={only} leaves no cell; the cells are {[cell_slug(cell) for cell in cells]}")
    return chosen


def _settle(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder one of these settings: new, the same as before, or with the old one moved aside."""
    settings = json.loads(json.dumps(settings, allow_nan=False))
    path = folder / "settings.json"
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        if old == settings:
            return
        mark = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        aside = folder.with_name(f"{folder.name}.{mark}")
        changed = sorted(
            f"{key}: {old[part].get(key)!r} -> {settings[part].get(key)!r}"
            for part in settings
            for key in {**old[part], **settings[part]}
            if old[part].get(key) != settings[part].get(key)
        )
        # Runs of the very same older settings may lie there already; they are as good as these.
        suffix = next(i for i in range(1_000_000) if not aside.with_name(f"{aside.name}.{i}").exists())
        aside = aside.with_name(f"{aside.name}.{suffix}")
        folder.rename(aside)
        _say(f"settings changed ({'; '.join(changed)}): cells start anew, the old ones are in {aside}")
    write_json(path, settings)


def _plain(settings: Any) -> dict[str, Any]:
    return dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else dict(settings)  # type: ignore[arg-type]


def _file(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell_slug(cell)}.json"


def _read(folder: Path, cell: Cell) -> dict[str, Any]:
    return json.loads(_file(folder, cell).read_text(encoding="utf-8"))


def _default_workdir() -> Path:
    return cache_folder() / "runs"


def _is_first_process() -> bool:
    """Whether this process is the one that writes; Fabric starts the others with their rank in the environment."""
    from elf.training import process_rank

    return process_rank()[0] == 0 and os.environ.get("LOCAL_RANK", "0") == "0"


def _say(line: str) -> None:
    if _is_first_process():
        print(line, flush=True)


def _command(name: str, scale: str, seeds: int, options: Mapping[str, Any]) -> str:
    flags = "".join(f" --{key.replace('_', '-')} {value}" for key, value in options.items())
    return f"elf reproduce {name} --scale {scale} --seeds {seeds}{flags}"
