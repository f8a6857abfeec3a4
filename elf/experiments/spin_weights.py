"""The trained spin networks that come with the repository: part "best" of `elf reproduce table5_settings`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from elf.experiments.base import results_folder, write_json
from elf.experiments.table5 import build
from elf.experiments.table5_settings import SETTINGS
from elf.training import check_sha256, load_weights, save_weights

COMMAND = "elf reproduce table5_settings --scale laptop"
INDEX = "spins.weights.json"
LOSSES = ("pair", "ising")


def publish(workdir: Path) -> Path:
    """Copy the weights of both losses out of `workdir`/table5_settings.laptop into `results/`, with their hashes.

    Raises:
        ValueError: a loss has no run, or several, in the folder.
    """
    index: dict[str, Any] = {}
    for loss in LOSSES:
        found = sorted(workdir.glob(f"table5_settings.laptop/part=best,loss={loss},*/weights.safetensors"))
        if len(found) != 1:
            raise ValueError(f"workdir holds {len(found)} runs of part='best', loss={loss!r}; it should hold one")
        network = build(SETTINGS["laptop"].best, 0)
        load_weights(found[0], network)
        about = {"run": found[0].parent.name, "command": COMMAND}
        name = f"spins.{loss}.safetensors"
        index[loss] = {"file": name, "sha256": save_weights(results_folder() / name, network, about), **about}
    write_json(results_folder() / INDEX, index)
    return results_folder() / INDEX


def trained(loss: str) -> nn.Module:
    """The network trained longest with this loss ("pair" or "ising"), in eval mode: couplings -> logits.

    Raises:
        ValueError: another name, or a file whose SHA-256 is not the recorded one.
        FileNotFoundError: the weights do not come with this installation; the message has the command that makes them.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it should be one of {', '.join(map(repr, LOSSES))}")
    path = results_folder() / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"there is no {INDEX} in {path.parent}; make the weights with: {COMMAND}")
    entry = json.loads(path.read_text(encoding="utf-8"))[loss]
    check_sha256(path.parent / entry["file"], entry["sha256"])
    network = build(SETTINGS["laptop"].best, 0)
    load_weights(path.parent / entry["file"], network)
    return network.eval()
