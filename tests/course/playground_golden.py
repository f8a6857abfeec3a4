"""The numbers that the playground's JavaScript gives on fixed random cases, from node or, without node, from a file.

The file holds the SHA-256 of the JavaScript that made it, so it cannot speak for another version. Rewrite it with
`python -m tests.viz.playground_golden` (or by path) after a change of playground.js; that needs node.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

from course.widgets import web

HERE = Path(__file__).parent
SOURCE = web.HERE / "playground.js"
GOLDEN = HERE / "playground_golden.json"


def cases() -> list[dict[str, Any]]:
    """Random configurations of 1 to 12 particles with every spring, and one with coincident particles."""
    draw = random.Random(7)
    springs: list[dict[str, Any]] = [
        {"name": "constant", "k": 1.3},
        {"name": "inverse", "k": 0.7},
        {"name": "inverse_square", "k": 2.0},
        {"name": "exponential", "k": 2.6, "length": 0.8},
    ]
    made = []
    for index, count in enumerate([1, 2, 3, 4, 6, 12, 5, 7]):
        points = [[[draw.uniform(-2, 2) for _ in range(2)] for _ in range(count)] for _ in range(2)]
        made.append({"prediction": points[0], "target": points[1], "springs": springs[index % 4]})
    made.append({"prediction": [[0.5, 0.5]] * 2 + [[1, 0]], "target": [[0, 0], [0, 1], [1, 1]], "springs": springs[0]})
    return made


def digest() -> str:
    """SHA-256 of playground.js."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def from_node(node: str) -> dict[str, Any]:
    """The JavaScript's answers, run by node."""
    question = json.dumps({"source": web.module("playground"), "cases": cases()})
    script = str(HERE / "playground_values.mjs")
    run = subprocess.run([node, script], input=question, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(run.stdout)


def values() -> dict[str, Any]:
    """From node where it is installed, else from the file, which must have been made by this very playground.js."""
    node = shutil.which("node")
    if node is not None:
        return from_node(node)
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert stored["sha256"] == digest(), (
        "playground.js changed: rewrite playground_golden.json (see playground_golden.py)"
    )
    return stored["values"]


if __name__ == "__main__":
    executable = shutil.which("node")
    if executable is None:
        raise SystemExit("node is needed to rewrite the golden values")
    text = json.dumps({"sha256": digest(), "values": from_node(executable)}, indent=None, separators=(",", ":"))
    GOLDEN.write_text(text + "\n", encoding="utf-8")
