"""Trained networks that come with the repository: an index of files and hashes in `results/`, written and read here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from elf.files import check_sha256
from elf.training import load_weights, save_weights
from experiments.framework.experiment import results_folder, write_json

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Published(Generic[Network]):
    """The networks of one experiment, one for each loss.

    Attributes:
        stem: files are results/STEM.LOSS.safetensors, the index is results/STEM.weights.json.
        runs: loss -> the folder of its run, a pattern relative to the `workdir` of `elf reproduce`.
        command: makes the runs.
        build: an untrained network of the same shape.
        half: keep the weights in half precision, three digits of each, so that a larger network stays a small file.
    """

    stem: str
    runs: Mapping[str, str]
    command: str
    build: Callable[[], Network]
    half: bool = False

    @property
    def index(self) -> Path:
        """The file with names and hashes."""
        return results_folder() / f"{self.stem}.weights.json"

    def publish(self, workdir: Path) -> Path:
        """Copy the weights of every loss from `workdir` to `results/`, with their hashes.

        Raises:
            ValueError: a loss has no run, or several, in the folder.
        """
        index: dict[str, Any] = {}
        for loss, pattern in self.runs.items():
            found = sorted(workdir.glob(f"{pattern}/weights.safetensors"))
            if len(found) != 1:
                raise ValueError(f"workdir holds {len(found)} runs of loss={loss!r} ({pattern}); it should hold one")
            network = self.build()
            load_weights(found[0], network)
            network = network.half() if self.half else network
            about = {"run": found[0].parent.name, "command": self.command}
            name = f"{self.stem}.{loss}.safetensors"
            index[loss] = {"file": name, "sha256": save_weights(results_folder() / name, network, about), **about}
        write_json(self.index, index)
        return self.index

    def trained(self, loss: str) -> Network:
        """The network trained with this loss, in eval mode.

        Raises:
            ValueError: another name, or a file whose SHA-256 is not the recorded one.
            FileNotFoundError: the weights do not come with this installation; the message has the command.
        """
        if loss not in self.runs:
            raise ValueError(f"loss is {loss!r}; it should be one of {', '.join(map(repr, self.runs))}")
        path = self.index
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path.name} in {path.parent}; make the weights with: {self.command}")
        entry = json.loads(path.read_text(encoding="utf-8"))[loss]
        check_sha256(path.parent / entry["file"], entry["sha256"])
        network = self.build().half() if self.half else self.build()
        load_weights(path.parent / entry["file"], network)
        return network.float().eval()
