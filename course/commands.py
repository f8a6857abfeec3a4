"""What `elf run` and `elf lab` do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from course import notebooks
from elf.scales import current_scale
from elf.viz.molecules import LABEXTENSIONS


def run(names: Sequence[str], scale: str | None, cell_timeout: int, output: Path, jobs: int | None = None) -> int:
    """Execute notebooks in order and print what they say; 1 if one failed."""
    paths = notebooks.select(notebooks.course_folder(), names)
    env = {"ELF_SCALE": scale or current_scale()}
    jobs = jobs or min(notebooks.cores(), notebooks.MOST_JOBS)
    begin = time.perf_counter()
    print(f"{len(paths)} notebooks at {env['ELF_SCALE']} scale; executed copies and HTML in {output}/", flush=True)
    try:
        runs = notebooks.run(paths, output, cell_timeout=cell_timeout, env=env, jobs=jobs)
    except notebooks.NotebookError as error:
        print(f"\n{error.traceback}\nelf run: {error}", file=sys.stderr)
        return 1
    together = f"\n{jobs} at a time: {time.perf_counter() - begin:.1f} s" if jobs > 1 else ""
    print(f"\n{notebooks.table(runs)}{together}\n\nTo open them in JupyterLab: make lab (or: elf lab)")
    return 0


def lab(rest: Sequence[str]) -> int:
    """Become JupyterLab, with the course open; `rest` are further arguments for it."""
    folder = notebooks.course_folder()
    command = [
        *(sys.executable, "-m", "jupyterlab"),
        "--ServerApp.ip=127.0.0.1",  # on this machine only; Jupyter makes a token and opens the browser with it
        f"--ServerApp.root_dir={folder.parent}",
        f"--ServerApp.kernel_spec_manager_class={notebooks.ThisPython.__module__}.{notebooks.ThisPython.__name__}",
        f"--LabApp.extra_labextensions_path={LABEXTENSIONS}",  # 3Dmol, so that molecules need no network
        "--LabApp.news_url=None",  # no question about news, no look for updates: offline is fine
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    # In place of this process, not beside it: whatever ends one ends the other.
    os.execv(sys.executable, [*command, *rest, str(folder / notebooks.START)])
