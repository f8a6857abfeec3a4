"""Run an experiment: plan its cells, compute those that are missing, record them as one JSON file."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from elf.processes import die_with_parent
from elf.scales import SCALES
from experiments.framework.experiment import (
    RANKS,
    Cell,
    Experiment,
    address_of,
    cell_slug,
    device_name,
    has_bfloat16,
    is_first_process,
    load,
    results_folder,
    versions,
    write_json,
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one call of `reproduce` does; plain data, so that processes of a pool can be told.

    Attributes:
        address: where the experiment is (see `experiments.EXPERIMENTS`).
        name, scale, seeds, fabric, jobs, threads: as for `reproduce`.
        settings: the experiment's own, at this scale.
        cells: all runs of the experiment.
        chosen: those asked for.
        folder: NAME.SCALE in the work folder, with a file for each finished cell.
        output: the result's file, once all cells are finished.
    """

    address: str
    name: str
    scale: str
    seeds: int
    fabric: dict[str, Any]
    jobs: int
    threads: int
    settings: Any
    cells: list[Cell]
    chosen: list[Cell]
    folder: Path
    output: Path

    @property
    def experiment(self) -> Experiment:
        """The experiment itself."""
        return load(self.address)

    def file(self, cell: Cell) -> Path:
        """Where a finished cell is kept."""
        return self.folder / f"{cell_slug(cell)}.json"

    def read(self, cell: Cell) -> dict[str, Any]:
        """A finished cell's row: cell, result, seconds, versions, device, threads."""
        return json.loads(self.file(cell).read_text(encoding="utf-8"))

    def finished(self, cells: list[Cell]) -> list[Cell]:
        """Those of the cells that are finished."""
        return [cell for cell in cells if self.file(cell).exists()]

    def say(self, line: str) -> None:
        """Print a line, from the first process alone."""
        if is_first_process():
            print(line, flush=True)


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
        scale: one of `elf.scales.SCALES`.
        seeds: number of seeds, 0 .. seeds - 1.
        output: the JSON file; default results/NAME.SCALE.json (see `results_folder`).
        workdir: default "runs" in `elf.files.cache_folder`.
        fabric: where to compute: accelerator, devices, num_nodes, strategy, precision, compile (see `FitSettings`).
            Without a precision, an experiment's own scale "gpu" takes bf16-mixed on CUDA devices that have it.
        jobs: cells computed at the same time, each in a process of its own.
        threads: torch's threads for each cell; default the experiment's own number, which no machine changes.
        only: run just the cells with these values, such as {"loss": "energy"} or {"seed": [0, 1]}; while other
            cells are missing, the result is NAME.SCALE/partial.json in `workdir` instead of `output`.

    Returns:
        The path of the result.

    Raises:
        ValueError: unknown name, scale, option or cell; the message lists the known ones.
        BlockingIOError: another process works in the same folder; the message says which.
        OSError: a folder or the output cannot be written; said before anything is computed.
    """
    from elf.files import locked, require_writable

    plan = _make_plan(name, scale, seeds, output, workdir, dict(fabric or {}), jobs, threads, only)
    if not is_first_process():
        _compute(plan)
        return plan.output
    with locked(plan.folder, f"elf reproduce {name} --scale {scale}"):
        if len({*map(cell_slug, plan.chosen), *map(cell_slug, plan.finished(plan.cells))}) == len(plan.cells):
            require_writable(plan.output)
        _settle(plan)
        _compute(plan)
        return _record(plan)


def _make_plan(
    name: str,
    scale: str,
    seeds: int,
    output: str | Path | None,
    workdir: str | Path | None,
    fabric: dict[str, Any],
    jobs: int,
    threads: int | None,
    only: Mapping[str, Any] | None,
) -> Plan:
    from elf.checks import require_count, require_one_of
    from elf.files import cache_folder

    require_one_of("scale", scale, SCALES)
    seeds, jobs = require_count("seeds", seeds), require_count("jobs", jobs)
    processes = int(fabric.get("devices", 1)) * int(fabric.get("num_nodes", 1))
    if jobs > 1 and processes > 1:
        raise ValueError(f"jobs is {jobs} with fabric={fabric}; it should be 1 when a training has several processes")
    if processes == 1 and not is_first_process():
        ranks = {rank: os.environ[rank] for rank in RANKS if rank in os.environ}
        raise ValueError(f"devices is 1 with {ranks} in the environment; these should be unset, or devices more")
    _require_options(fabric)
    address = address_of(name)
    experiment = load(address)
    settings = experiment.settings(scale)
    # Where the scale is the laptop's under another name, so are precision and results.
    if scale == "gpu" and settings != experiment.settings("laptop") and has_bfloat16(fabric.get("accelerator", "auto")):
        fabric = {"precision": "bf16-mixed", **fabric}
    cells = experiment.cells(settings, seeds)
    if len(set(map(cell_slug, cells))) < len(cells):
        raise ValueError(f"cells of {name} share a name; they should differ: {[cell_slug(c) for c in cells]}")
    base = Path(workdir).expanduser() if workdir is not None else cache_folder() / "runs"
    return Plan(
        address=address,
        name=name,
        scale=scale,
        seeds=seeds,
        fabric=fabric,
        jobs=jobs,
        threads=experiment.threads if threads is None else require_count("threads", threads),
        settings=settings,
        cells=cells,
        chosen=_choose(cells, only),
        folder=base / f"{name}.{scale}",
        output=Path(output).expanduser() if output is not None else results_folder() / f"{name}.{scale}.json",
    )


def _choose(cells: list[Cell], only: Mapping[str, Any] | None) -> list[Cell]:
    wanted = {k: list(v) if isinstance(v, (list, tuple, set)) else [v] for k, v in (only or {}).items()}
    chosen = [cell for cell in cells if all(cell.get(key) in values for key, values in wanted.items())]
    if not chosen:
        raise ValueError(f"only={only} leaves no cell; the cells are {[cell_slug(cell) for cell in cells]}")
    return chosen


def _require_options(fabric: dict[str, Any]) -> None:
    """Raises ValueError, before any folder is touched, where Fabric cannot compute so on this machine."""
    if not fabric:
        return
    from lightning_fabric import Fabric

    from elf.training import FitSettings, fabric_options, with_fabric_options
    from elf.training.settings import FABRIC

    with fabric_options(**fabric):
        settings = with_fabric_options(FitSettings(steps=1, learning_rate=1.0))
    try:
        Fabric(**{name: getattr(settings, name) for name in FABRIC})
    except Exception as error:  # Fabric's errors have no class in common
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the options are {fabric}; they should be ones that this machine has: {reason}") from error


def _settle(plan: Plan) -> None:
    """Make the folder one of these settings: new, the same as before, or with the old content moved aside."""
    now = json.loads(
        json.dumps({"settings": dataclasses.asdict(plan.settings), "fabric": plan.fabric}, allow_nan=False)
    )
    path, own = plan.folder / "settings.json", plan.experiment.threads
    if plan.threads != own:
        plan.say(f"threads is {plan.threads}, the experiment's own number {own}: last digits may differ")
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**now, "threads": plan.threads}
    changed = sorted(
        f"{key}: {old[part].get(key)!r} -> {now[part].get(key)!r}"
        for part in now
        for key in {**old[part], **now[part]}
        if old[part].get(key) != now[part].get(key)
    )
    if changed:
        aside = _move_aside(plan.folder)
        plan.say(f"settings changed ({'; '.join(changed)}): cells start anew, the old ones are in {aside}")
        if (earlier := _set_aside_before(plan.folder, now)) is not None:
            _move(earlier, plan.folder)
            earlier.rmdir()
            plan.say("cells of the present settings had been set aside; they are back")
    elif old.get("threads", plan.threads) != plan.threads:
        plan.say(f"begun with {old['threads']} threads, goes on with {plan.threads}: last digits may differ")
    write_json(path, {**now, "threads": plan.threads})


def _move_aside(folder: Path) -> Path:
    settings = folder / "settings.json"
    mark = hashlib.sha256(settings.read_bytes()).hexdigest()[:8]
    # Runs of the very same older settings may lie there already; they are as good as these.
    names = (folder.with_name(f"{folder.name}.{mark}.{number}") for number in range(1_000_000))
    aside = next(path for path in names if not path.exists())
    aside.mkdir()
    _move(folder, aside)
    return aside


def _move(source: Path, target: Path) -> None:
    # The lock stays. The settings go last: until then, whoever finds the folder half empty sees whose it is.
    settings = source / "settings.json"
    content = [path for path in source.iterdir() if not path.name.startswith(".lock") and path != settings]
    for path in [*content, settings]:
        path.rename(target / path.name)


def _set_aside_before(folder: Path, now: dict[str, Any]) -> Path | None:
    """A folder of the same experiment with just these settings, if there is one."""
    for path in sorted(folder.parent.glob(f"{folder.name}.*.*/settings.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if {part: kept.get(part) for part in now} == now:
            return path.parent
    return None


def _compute(plan: Plan) -> None:
    from elf.training import FitSettings

    done = plan.finished(plan.chosen)
    todo = [cell for cell in plan.chosen if cell not in done]
    title = plan.experiment.title
    scale = f"{plan.name}, {plan.scale}, {plan.fabric.get('precision', FitSettings.precision)}"
    plan.say(f"{title} ({scale}): {len(plan.chosen)} cells, {len(done)} of them finished before")
    begin = time.perf_counter()
    cells = _run_in_pool(plan, todo) if plan.jobs > 1 else (_run_cell(plan, cell) for cell in todo)
    for number, cell in enumerate(cells, start=1):
        seconds = plan.read(cell)["seconds"] if is_first_process() else 0.0
        left = (time.perf_counter() - begin) / number * (len(todo) - number)
        place = f"[{len(done) + number}/{len(plan.chosen)}]"
        plan.say(f"{place} {cell_slug(cell)}: {seconds:.1f} s, about {left:.0f} s left")


class _PassOnInterrupt:
    """Turns an interrupted training into a KeyboardInterrupt, so that a half-trained cell is never a result."""

    def __call__(self, state: Any) -> None:
        pass

    def finish(self, state: Any) -> None:
        if state.interrupted:
            raise KeyboardInterrupt


def _run_cell(plan: Plan, cell: Cell) -> Cell:
    """Compute one cell and write its file. At module level, for spawned processes."""
    from elf.training import ProgressBar, fabric_options

    own = plan.folder / cell_slug(cell)
    own.mkdir(parents=True, exist_ok=True)
    shows_progress = plan.jobs == 1 and sys.stdout.isatty()
    callbacks: list[Callable[[Any], object]] = [ProgressBar(cell_slug(cell))] if shows_progress else []
    begin = time.perf_counter()
    try:
        with _torch_threads(plan.threads), fabric_options(**plan.fabric):
            result = plan.experiment.run_cell(plan.settings, cell, own, [*callbacks, _PassOnInterrupt()])
    except Exception as error:
        error.add_note(f"in cell {cell_slug(cell)} of {plan.name} ({plan.scale})")
        raise
    row = {
        "cell": cell,
        "result": result,
        # A cell that was killed and goes on has spent more than this process: its training's clock counts on.
        "seconds": round(max(time.perf_counter() - begin, result.get("seconds", 0.0)), 2),
        "versions": versions(),
        "device": device_name(plan.fabric.get("accelerator", "auto")),
        "threads": plan.threads,
    }
    if is_first_process():
        write_json(plan.file(cell), row)
    return cell


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_in_pool(plan: Plan, cells: list[Cell]) -> Iterator[Cell]:
    # Spawned, because a forked process inherits torch's threads and CUDA context in an unusable state.
    context = multiprocessing.get_context("spawn")
    workers = min(plan.jobs, max(1, len(cells)))
    try:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent)
    except OSError as error:
        why = f"processes cannot share semaphores here ({error.strerror}; is /dev/shm there?); jobs should be 1"
        raise OSError(error.errno, why) from error
    with pool:
        futures = [pool.submit(_run_cell, plan, cell) for cell in cells]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            pool.shutdown(wait=True, cancel_futures=True)
            raise ChildProcessError("a process was killed (out of memory?); finished cells are kept") from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _record(plan: Plan) -> Path:
    """Write the result of all finished cells, print its table, and say where it is."""
    finished = plan.finished(plan.cells)
    missing = len(plan.cells) - len(finished)
    path = plan.folder / "partial.json" if missing else plan.output
    whole = [plan.read(cell) for cell in finished]
    rows = [{key: row[key] for key in ("cell", "result", "seconds")} for row in whole]
    threads = sorted({row["threads"] for row in whole})
    options = {key.replace("_", "-"): value for key, value in plan.fabric.items() if value is not False}
    flags = "".join(f" --{key}" if value is True else f" --{key} {value}" for key, value in options.items())
    flags += f" --threads {plan.threads}" if plan.threads != plan.experiment.threads else ""
    result = {
        "name": plan.name,
        "scale": plan.scale,
        "command": f"elf reproduce {plan.name} --scale {plan.scale} --seeds {plan.seeds}{flags}",
        "settings": json.loads((plan.folder / "settings.json").read_text(encoding="utf-8"))["settings"],
        "seeds": plan.seeds,
        "versions": whole[-1]["versions"],
        "device": whole[-1]["device"],
        "threads": threads[0] if len(threads) == 1 else threads,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cells": rows,
        "summary": plan.experiment.summarise(rows),
    }
    write_json(path, result)
    print(plan.experiment.table(result))
    if missing:
        print(f"{missing} of {len(plan.cells)} cells are missing; this is a partial result")
    return path
