"""The command line: `elf info | run | lab | reproduce | train | sample | evaluate`, also as `python -m elf`.

The one file of the library that knows `course` and `experiments`, which lie beside it in a checkout; it asks for them
when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import elf
from elf.scales import SCALES, current_scale

COMMANDS = ("info", "run", "lab", "reproduce", "train", "sample", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 it failed, 2 it was asked wrongly, 130 interrupted."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.command == "lab":
        args.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        status = args.do(args)
        sys.stdout.flush()  # a reader that is gone (`| head`) or a full disk shows here, not after the end
        return status
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print has no reader
        print(f"elf {args.command}: {_reason(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        print(f"\nelf {args.command}: interrupted", file=sys.stderr)
        return 130


def _reason(error: Exception) -> str:
    """What went wrong, and where, as one line."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if (reason := error.strerror) != os.strerror(error.errno or 0):
        return reason  # in words already, as `elf.files` has them
    where = "write the output" if error.filename is None else f"open {error.filename}"
    return f"cannot {where}: {reason[0].lower()}{reason[1:]}"


def _beside(name: str) -> Any:
    """A module of what lies beside the library in a checkout; asked by a name that nobody else's `experiments` has."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise
        where = "part of the repository, not of the installed package; clone it and run this command in it"
        raise FileNotFoundError(f"`{name.partition('.')[0]}` is not there: it is {where}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elf", description="Energy loss functions for physical systems.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"elf {elf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar=" | ".join(COMMANDS))

    def command(name: str, do: Callable[[argparse.Namespace], int], help: str, **more: Any) -> argparse.ArgumentParser:
        # No abbreviations: `--device 2` would be taken for `--devices 2`.
        made = commands.add_parser(name, help=help, description=help[0].upper() + help[1:], allow_abbrev=False, **more)
        made.set_defaults(do=do)
        return made

    command("info", _info, "versions, device, scale, folders, committed results")

    run = command("run", _function_of("course.commands"), "execute the notebooks")
    run.add_argument("names", nargs="*", help="notebooks to execute, by the beginning of their names (all)")
    run.add_argument("--scale", choices=SCALES, help="scale of the notebooks ($ELF_SCALE, else live)")
    run.add_argument("--cell-timeout", type=_count, metavar="SECONDS", default=1800, help="limit for one cell (1800)")
    run.add_argument("--output", type=Path, default=Path("build"), help="folder of executed copies and HTML (build)")
    run.add_argument("--jobs", type=_count, help="notebooks at the same time (one for each core, at most 4)")

    command("lab", _function_of("course.commands"), "open the course in JupyterLab; further arguments go to JupyterLab")

    try:
        names = "experiments: " + ", ".join(sorted(_beside("experiments.catalogue").EXPERIMENTS))
    except OSError as error:
        names = str(error)
    reproduce = command(
        "reproduce", _reproduce, "run an experiment of the paper and write its results as JSON", epilog=names
    )
    reproduce.add_argument("name", help="the experiment (see below)")
    reproduce.add_argument("--scale", choices=SCALES, default="laptop", help="scale of the experiment (laptop)")
    reproduce.add_argument("--seeds", type=_count, default=1, help="number of seeds (1)")
    reproduce.add_argument("--jobs", type=_count, default=1, help="trainings at the same time (1)")
    reproduce.add_argument("--threads", type=_count, help="CPU threads of each training (the experiment's own: 1)")
    reproduce.add_argument(
        "--only",
        action="append",
        default=[],
        type=_choice,
        metavar="KEY=VALUE,...",
        help="just the cells with these values, say --only loss=energy,mse --only seed=0; "
        "until all cells are there, the result is partial.json in the folder of runs",
    )
    reproduce.add_argument("--output", type=Path, help="the JSON file of a whole result (results/NAME.SCALE.json)")
    reproduce.add_argument("--workdir", type=Path, help="folder of checkpoints; the same one resumes (see elf info)")
    fabric = reproduce.add_argument_group("Lightning Fabric")
    fabric.add_argument("--accelerator", help="cpu, cuda, mps (auto)")
    fabric.add_argument("--devices", type=_count, help="devices on each node (1)")
    fabric.add_argument("--num-nodes", type=_count, help="nodes (1)")
    fabric.add_argument("--strategy", help="ddp, ... (auto); each process keeps the whole network")
    fabric.add_argument("--precision", help="32-true, bf16-mixed, ... (32-true; at scale gpu bf16-mixed on CUDA)")
    fabric.add_argument("--compile", action="store_true", default=None, help="compile the network (torch.compile)")

    train = command("train", _function_of("elf.workflow"), "train a network on your own molecules")
    train.add_argument("path", type=Path, metavar="file", help="molecules: .sdf, .mol, .xyz, or .smi (SMILES)")
    train.add_argument("--loss", default="energy", help="energy, mse, kabsch or heights (energy)")
    train.add_argument("--largest-piece", action="store_true", help="use only the largest piece of salts and the like")
    train.add_argument("--steps", type=_count, help="steps of training (500)")
    train.add_argument("--run", type=Path, help="its folder; the same one resumes (runs/NAME.LOSS)")
    sample = command("sample", _function_of("elf.workflow"), "draw molecules from a trained network")
    sample.add_argument("run", type=Path, help="folder of the run")
    sample.add_argument("-n", type=_count, default=100, help="molecules (100)")
    sample.add_argument(
        "-o", "--output", type=Path, help="file, .sdf or .xyz; a picture goes beside it (RUN/samples.sdf)"
    )
    for seeded in (train, sample):
        seeded.add_argument("--seed", type=int, default=0, help="seed of all randomness (0)")
    evaluate = command(
        "evaluate", _function_of("elf.evaluation"), "score generated molecules, and real ones before them"
    )
    evaluate.add_argument("path", type=Path, metavar="file", help="molecules: .sdf, .mol, .xyz")
    evaluate.add_argument("--reference", type=Path, help="real molecules, whose own scores come first")
    return parser


def _function_of(module: str) -> Callable[[argparse.Namespace], int]:
    """Runs the function of the module that is named as the command, with the command's arguments."""

    def call(args: argparse.Namespace) -> int:
        given = {name: value for name, value in vars(args).items() if name not in ("command", "do")}
        return getattr(_beside(module), args.command)(**given)

    return call


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number above 0")
    return number


def _choice(text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise argparse.ArgumentTypeError(f"{text!r} should be KEY=VALUE or KEY=VALUE,VALUE")
    return key, [_number_or_text(value) for value in values.split(",")]


def _number_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _reproduce(args: argparse.Namespace) -> int:
    from elf.training.settings import WHERE

    fabric = {name: getattr(args, name) for name in WHERE if getattr(args, name) is not None}
    path = _beside("experiments.framework.reproduce").reproduce(
        args.name,
        scale=args.scale,
        seeds=args.seeds,
        jobs=args.jobs,
        threads=args.threads,
        only=dict(args.only) or None,
        output=args.output,
        workdir=args.workdir,
        fabric=fabric or None,
    )
    print(f"wrote {path}")
    return 0


def _info(args: argparse.Namespace) -> int:
    for name, text in _facts():
        print(f"{name:<10} {text}")
    return 0


def _facts() -> list[tuple[str, Any]]:
    import importlib.util
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from elf.files import cache_folder

    def installed(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} missing"

    def results() -> str:
        folder = _beside("experiments.framework.experiment").results_folder()
        return ", ".join(sorted(path.name for path in folder.glob("*.json"))) or f"none in {folder}"

    def or_why_not(what: Callable[[], object]) -> str:
        try:
            return str(what())
        except (OSError, ModuleNotFoundError) as error:
            return _reason(error)

    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    else:
        device = "mps" if torch.backends.mps.is_available() else "cpu"
    return [
        ("elf", f"{elf.__version__} in {Path(__file__).resolve().parent}"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("packages", ", ".join(map(installed, ["torch", "lightning-fabric", "numpy", "rdkit", "jupyterlab"]))),
        ("device", f"{device}, {torch.get_num_threads()} CPU threads"),
        ("scale", current_scale()),
        ("cache", or_why_not(cache_folder)),
        ("runs", or_why_not(lambda: cache_folder() / "runs")),
        ("QM9", "there (qm9pack)" if importlib.util.find_spec("qm9pack") else "missing: pip install qm9pack==1.0.3"),
        ("results", or_why_not(results)),
    ]


if __name__ == "__main__":
    sys.exit(main())
