"""What an experiment is, where its results lie, and what a result says of the machine that made it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.catalogue import EXPERIMENTS

Cell = dict[str, Any]
Row = dict[str, Any]
Callbacks = Sequence[Callable[[Any], object]]
ROOT = Path(__file__).resolve().parents[2]
RANKS = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Environment variables in which launchers (Fabric's, torchrun, Slurm) tell a process which of several it is."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper, or a question of our own beside it.

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
        threads: torch's threads for each cell, whatever the machine and however many cells run at once: sums in
            another order have other last digits, and a training carries them on.
    """

    name: str
    title: str
    settings: Callable[[str], Any]
    cells: Callable[[Any, int], list[Cell]]
    run_cell: Callable[[Any, Cell, Path, Callbacks], dict[str, Any]]
    summarise: Callable[[list[Row]], list[dict[str, Any]]]
    table: Callable[[dict[str, Any]], str]
    threads: int = 1


def find(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    return load(address_of(name))


def address_of(name: str) -> str:
    """Where the experiment of this name is. See `find`."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment is {name!r}; it should be one of {', '.join(sorted(EXPERIMENTS))}")
    return EXPERIMENTS[name]


def load(address: str) -> Experiment:
    """The experiment at "module" (its `EXPERIMENT`) or at "module:name" (the one of that name in its `EXPERIMENTS`)."""
    module, _, name = address.partition(":")
    return import_module(module).EXPERIMENTS[name] if name else import_module(module).EXPERIMENT


def grid(**axes: Iterable[Any]) -> list[Cell]:
    """A cell for every combination of the axes' values; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def losses_and_seeds(settings: Any, seeds: int) -> list[Cell]:
    """A cell for every one of the settings' losses and every seed; first all losses of seed 0."""
    return [{"loss": loss, "seed": seed} for seed in range(seeds) for loss in settings.losses]


def cell_slug(cell: Cell) -> str:
    """File name (without ending) of a cell: 'loss=energy,seed=0'."""
    return re.sub(r"[^\w.,=+-]", "_", ",".join(f"{key}={value}" for key, value in cell.items()))


def is_first_process() -> bool:
    """Whether this process is the one that speaks and writes."""
    return all(os.environ.get(rank, "0") == "0" for rank in RANKS)


@contextmanager
def shared_folder(workdir: Path, kind: str, name: str) -> Iterator[Path]:
    """A folder that several experiments may use, beside their own, held by this process meanwhile.

    Args:
        workdir: of a cell, as `run_cell` gets it.
        kind, name: the folder is KIND/NAME in the `workdir` of `reproduce`.

    Raises:
        BlockingIOError: another process holds it.
    """
    from elf.files import locked

    folder = workdir.parents[1] / kind / name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"cell {workdir.name}") if is_first_process() else nullcontext():
        yield folder


def results_folder() -> Path:
    """The folder that the environment variable ELF_RESULTS names, else `results/` of this checkout.

    Raises:
        FileNotFoundError: neither is there, as `experiments` was copied out of its checkout.
    """
    if chosen := os.environ.get("ELF_RESULTS"):
        return Path(chosen).expanduser()
    if not (ROOT / "pyproject.toml").is_file():
        raise FileNotFoundError(f"{ROOT} is no checkout with results/; name a file (--output), or set ELF_RESULTS")
    return ROOT / "results"


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


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON whose diffs are readable (sorted keys, one item a line), atomically.

    Raises:
        ValueError: a NaN or an infinity, which JSON has not.
        TypeError: something that is not JSON-able.
        OSError: the file could not be written.
    """
    from elf.files import write_atomically

    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


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


def has_bfloat16(accelerator: str = "auto") -> bool:
    """Whether such an accelerator means a CUDA device here, and one that computes in bfloat16 itself."""
    import torch

    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return cuda and torch.cuda.is_bf16_supported(including_emulation=False)


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
