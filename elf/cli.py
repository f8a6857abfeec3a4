"""The command line: `elf info | run | lab | reproduce`, also as `python -m elf`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elf.scales import SCALES, current_scale


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 it failed, 2 it was asked wrongly, 130 interrupted."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "lab":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        return args.run(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"elf {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nelf {args.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elf", description="Energy loss functions for physical systems.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | run | lab | reproduce")

    info = commands.add_parser("info", help="versions, device, scale, cache, committed results")
    info.set_defaults(run=_info)

    run = commands.add_parser("run", help="execute the notebooks in order")
    run.add_argument("names", nargs="*", help="notebooks to execute, by the beginning of their names (all)")
    run.add_argument("--scale", choices=SCALES, help="scale of the notebooks ($ELF_SCALE, else live)")
    run.add_argument("--cell-timeout", type=_count, metavar="SECONDS", default=1800, help="limit for one cell (1800)")
    run.add_argument("--output", type=Path, default=Path("build"), help="folder of executed copies and HTML (build)")
    run.set_defaults(run=_run)

    lab = commands.add_parser("lab", help="open the course in JupyterLab; further arguments go to JupyterLab")
    lab.set_defaults(run=_lab)

    reproduce = commands.add_parser("reproduce", help="run an experiment of the paper and write its results as JSON")
    reproduce.add_argument("name", help="the experiment; an unknown name lists them")
    reproduce.add_argument("--scale", choices=SCALES, default="laptop", help="scale of the experiment (laptop)")
    reproduce.add_argument("--seeds", type=_count, default=1, help="number of seeds (1)")
    reproduce.add_argument("--jobs", type=_count, default=1, help="trainings at the same time (1)")
    reproduce.add_argument("--threads", type=_count, help="CPU threads of a training (the cores shared out)")
    reproduce.add_argument(
        "--only",
        action="append",
        default=[],
        type=_choice,
        metavar="KEY=VALUE,...",
        help="just the cells with these values, say --only loss=energy,mse --only seed=0",
    )
    reproduce.add_argument("--output", type=Path, help="the JSON file (results/NAME.SCALE.json)")
    reproduce.add_argument("--workdir", type=Path, help="folder of checkpoints; the same one resumes")
    fabric = reproduce.add_argument_group("Lightning Fabric")
    fabric.add_argument("--accelerator", help="cpu, cuda, mps (auto)")
    fabric.add_argument("--devices", type=_count, help="devices on each node (1)")
    fabric.add_argument("--num-nodes", type=_count, help="nodes (1)")
    fabric.add_argument("--strategy", help="ddp, fsdp, ... (auto)")
    fabric.add_argument("--precision", help="32-true, bf16-mixed, ... (32-true)")
    reproduce.set_defaults(run=_reproduce)
    return parser


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
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _run(args: argparse.Namespace) -> int:
    from elf import notebooks

    paths = notebooks.select(notebooks.course_folder(), args.names)
    env = {"ELF_SCALE": args.scale or current_scale()}
    print(f"{len(paths)} notebooks at {env['ELF_SCALE']} scale; executed copies and HTML in {args.output}/", flush=True)
    try:
        runs = notebooks.run(paths, args.output, cell_timeout=args.cell_timeout, env=env)
    except notebooks.NotebookError as error:
        print(f"\n{error.traceback}\nelf run: {error}", file=sys.stderr)
        return 1
    print(f"\n{notebooks.table(runs)}\n\nTo open them in JupyterLab: make lab (or: elf lab)")
    return 0


def _lab(args: argparse.Namespace) -> int:
    from elf.notebooks import START, course_folder
    from elf.viz.molecules import LABEXTENSIONS

    folder = course_folder()
    command = [
        *(sys.executable, "-m", "jupyterlab"),
        "--ServerApp.ip=127.0.0.1",  # on this machine only; Jupyter makes a token and opens the browser with it
        f"--ServerApp.root_dir={folder.parent}",
        f"--LabApp.extra_labextensions_path={LABEXTENSIONS}",  # 3Dmol, so that molecules need no network
        "--LabApp.news_url=None",  # no question about news, no look for updates: offline is fine
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    return subprocess.run([*command, *args.rest, str(folder / START)]).returncode


def _reproduce(args: argparse.Namespace) -> int:
    import experiments

    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    fabric = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    path = experiments.reproduce(
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
    from experiments.framework.experiment import results_folder

    def installed(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} missing"

    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu"
    results = sorted(path.name for path in results_folder().glob("*.json"))
    return [
        ("elf", f"{version('elf-loss')} in {Path(__file__).resolve().parent}"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("packages", ", ".join(map(installed, ["torch", "lightning-fabric", "numpy", "rdkit", "jupyterlab"]))),
        ("device", f"{device}, {torch.get_num_threads()} CPU threads"),
        ("scale", current_scale()),
        ("cache", cache_folder()),
        ("QM9", "there (qm9pack)" if importlib.util.find_spec("qm9pack") else "missing: pip install qm9pack==1.0.3"),
        ("results", ", ".join(results) or "none"),
    ]


if __name__ == "__main__":
    sys.exit(main())
