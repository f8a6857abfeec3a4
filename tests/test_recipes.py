"""The programs of the page "Recipes", as they stand there, against the packages themselves."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "jupyter_book" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
RECIPES = {
    title: "".join(blocks)
    for title, text in SECTIONS.items()
    if (blocks := re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
}
# Warnings that the packages' own imports and calls give rise to, beginning with these words; all others are errors.
THEIRS = {
    "PyTorch Geometric": ["`torch.jit.script` is deprecated", "Failing to pass a value to the 'type_params' parameter"],
    "Lightning": ["`isinstance(treespec, LeafSpec)` is"],
}
PROGRAM = """
import json, re, socket, sys, warnings

def no_network(*_):
    raise OSError("a recipe called for the network")

socket.socket.connect = socket.getaddrinfo = no_network
code, theirs, changes = json.load(sys.stdin)
warnings.simplefilter("error")
for words in theirs:
    warnings.filterwarnings("ignore", re.escape(words))
for before, after in [("", ""), *changes]:
    assert before in code, before
    names = {"__name__": "recipe"}
    exec(compile(code.replace(before, after), "recipe", "exec"), names)
    losses = names["losses"] if isinstance(names["losses"], dict) else {"": names["losses"]}
    fifths = [(values[: len(values) // 5], values[-(len(values) // 5) :]) for values in losses.values()]
    print(json.dumps([[sum(first) / len(first), sum(last) / len(last)] for first, last in fifths]))
"""


def run(title: str, folder: Path, *changes: tuple[str, str], then: str = "") -> list:
    """What a recipe's program, and the same with each of the changes, say: mean losses of its first and last fifth."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + then],
        input=json.dumps([RECIPES[title], THEIRS.get(title, []), changes]),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))]


STILL = ("lr=3e-3", "lr=0.0")


@pytest.mark.parametrize("title", ["PyTorch Geometric", "Lightning"])
def test_the_loss_falls_and_without_learning_it_does_not(title, tmp_path):
    ((first, last),), ((start, end),) = run(title, tmp_path, STILL)
    assert last < 0.5 * first
    assert 0.9 * start < end < 1.1 * start


# Of eight samples from noise: the energy to the nearest turned or mirrored copy of the one shape that there is.
ARRIVED = """
    energy, shape = names["energy"], names["shape"]
    found = names["samples"].values() if "samples" in names else [names["y"]]
    print(json.dumps([energy(y, shape.expand_as(y)).median().item() for y in found]))
"""


def test_a_flow_of_torchcfm_arrives(tmp_path):
    ((first, last),), (arrived,), ((start, end),), (astray,) = run("torchcfm", tmp_path, STILL, then=ARRIVED)
    assert last < 0.5 * first
    assert 0.8 * start < end < 1.25 * start
    assert arrived < 0.5 * astray


def test_all_predictions_of_diffusers_train_and_unweighted_noise_does_not(tmp_path):
    unweighted = "energy_weight(predicts, alphas[t], sigmas[t]) * ", ""
    losses, arrived, still, astray, bare, _ = run("diffusers", tmp_path, STILL, unweighted, then=ARRIVED)
    assert all(last < 0.5 * first for first, last in losses)
    assert all(0.8 * start < end < 1.25 * start for start, end in still)
    assert all(near < 0.5 * far for near, far in zip(arrived, astray, strict=True))
    epsilon, sample, velocity = [first for first, _ in bare]
    assert epsilon > 100 * losses[0][0], "at alpha near 0"
    assert sample == pytest.approx(losses[1][0]), "its weight is 1"
    assert velocity < losses[2][0]


def test_the_page_has_a_program_for_each_package_and_the_extra_brings_it():
    assert list(RECIPES) == ["PyTorch Geometric", "diffusers", "torchcfm", "Lightning"]
    assert all(20 <= len(code.splitlines()) <= 35 for code in RECIPES.values())
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["recipes"]
    wanted = {re.split("[<>=]", text)[0] for text in extra}
    assert {title.lower().replace("pytorch geometric", "torch-geometric") for title in RECIPES} <= wanted
    lock = [line for line in (ROOT / "requirements-recipes.lock").read_text().splitlines() if line[0] != "#"]
    assert {line.partition("==")[0] for line in lock} == wanted
