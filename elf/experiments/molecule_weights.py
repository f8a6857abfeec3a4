"""The small trained denoisers that come with the repository: made by `elf reproduce molecule_checkpoints`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elf.experiments.base import results_folder, write_json
from elf.experiments.molecule_checkpoints import LOSSES, SETTINGS
from elf.experiments.molecules import make_denoiser
from elf.generative.diffusion import Denoiser
from elf.training import check_sha256, load_weights, save_weights

COMMAND = "elf reproduce molecule_checkpoints --scale laptop --seeds 1"
INDEX = "molecules.weights.json"


def publish(workdir: Path, seed: int = 0) -> Path:
    """Copy the averaged weights of one seed from `workdir`/molecule_checkpoints.laptop to `results/`, with hashes.

    Raises:
        ValueError: a loss has no run, or several, in the folder.
    """
    index: dict[str, Any] = {}
    for loss in LOSSES:
        found = sorted(workdir.glob(f"molecule_checkpoints.laptop/loss={loss},*,seed={seed}/weights.safetensors"))
        if len(found) != 1:
            raise ValueError(f"workdir holds {len(found)} runs of loss={loss!r}, seed={seed}; it should hold one")
        denoiser = make_denoiser(SETTINGS["laptop"], seed)
        load_weights(found[0], denoiser)
        about = {"run": found[0].parent.name, "command": COMMAND}
        name = f"molecules.{loss}.safetensors"
        index[loss] = {"file": name, "sha256": save_weights(results_folder() / name, denoiser, about), **about}
    write_json(results_folder() / INDEX, index)
    return results_folder() / INDEX


def trained(loss: str) -> Denoiser:
    """The denoiser trained with this loss ("energy", "mse" or "kabsch"), in eval mode.

    Raises:
        ValueError: another name, or a file whose SHA-256 is not the recorded one.
        FileNotFoundError: the weights do not come with this installation; the message has the command that makes them.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it should be one of {', '.join(LOSSES)}")
    path = results_folder() / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"there is no {INDEX} in {path.parent}; make the weights with: {COMMAND}")
    entry = json.loads(path.read_text(encoding="utf-8"))[loss]
    check_sha256(path.parent / entry["file"], entry["sha256"])
    denoiser = make_denoiser(SETTINGS["laptop"], 0)
    load_weights(path.parent / entry["file"], denoiser)
    return denoiser.eval()
