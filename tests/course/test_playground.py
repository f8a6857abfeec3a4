from __future__ import annotations

import base64
import json
import math
import shutil
from typing import Any

import numpy as np
import playground_golden as golden
import pytest
import torch

import elf
from course.widgets.playground import Playground, _springs, polygon, presets, rotate
from elf.data import qm9
from elf.elements import SYMBOLS
from elf.viz import fields

SPRINGS = {
    "constant": elf.springs.Constant,
    "inverse": elf.springs.Inverse,
    "inverse_square": elf.springs.InverseSquare,
    "exponential": elf.springs.Exponential,
}


@pytest.fixture(scope="module")
def javascript() -> dict[str, Any]:
    return golden.values()


def test_golden_values_belong_to_this_javascript(javascript: dict[str, Any]) -> None:
    stored = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))
    assert stored["sha256"] == golden.digest(), "rewrite playground_golden.json: see playground_golden.py"
    if shutil.which("node"):
        for fresh, old in zip(javascript["answers"], stored["values"]["answers"], strict=True):
            assert fresh["energy"]["value"] == pytest.approx(old["energy"]["value"], rel=1e-12, abs=1e-14)
            assert fresh["mse"]["value"] == pytest.approx(old["mse"]["value"], rel=1e-12)


@pytest.mark.parametrize("index", range(len(golden.cases())))
def test_javascript_agrees_with_elf(javascript: dict[str, Any], index: int) -> None:
    case, answer = golden.cases()[index], javascript["answers"][index]
    prediction, target = (torch.tensor(case[key], dtype=torch.float64) for key in ("prediction", "target"))
    spec = dict(case["springs"])
    pair = elf.PairEnergy(springs=SPRINGS[spec.pop("name")](**spec))
    for key, energy in (("mse", elf.Harmonic()), ("energy", pair)):
        value, force = fields.energy_and_forces(energy, prediction, target)
        assert answer[key]["value"] == pytest.approx(float(value), rel=1e-10, abs=1e-12)
        np.testing.assert_allclose(answer[key]["forces"], force.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(answer["rotated"], rotate(prediction, math.degrees(0.7)).numpy(), atol=1e-12)
    centre = prediction.mean(0)
    mirrored = (prediction - centre) * torch.tensor([-1.0, 1.0], dtype=torch.float64) + centre
    np.testing.assert_allclose(answer["mirrored"], mirrored.numpy(), atol=1e-12)


def test_javascript_refuses_bad_configurations(javascript: dict[str, Any]) -> None:
    assert all(javascript["refused"])
    assert javascript["mismatch"]


def test_javascript_writes_text_only_as_text() -> None:
    source = golden.SOURCE.read_text(encoding="utf-8")
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "import(",
        "https://",
    ):
        assert way not in source


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.zeros(3, 3), r"target has shape \(3, 3\)"),
        (torch.zeros(3), "target has shape"),
        (torch.zeros(0, 2), r"target has shape \(0, 2\)"),
        (torch.zeros(65, 2), "65 particles"),
        ([[0.0, math.nan]], "NaN"),
        ([[0.0, math.inf]], "infinite"),
        ([[0.0, 1.0], [1.0]], "target is a list"),
        ([["<b>", 1.0]], "target is a list"),
    ],
)
def test_bad_targets(target: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Playground(target)


def test_bad_predictions() -> None:
    with pytest.raises(ValueError, match="prediction has 2 entries; the target has 3"):
        Playground(polygon(3), polygon(2))
    playground = Playground(polygon(3))
    before = playground.prediction
    with pytest.raises(ValueError, match="prediction holds NaN"):
        playground.prediction = [[math.nan, 0.0]] * 3
    assert playground.prediction == before


@pytest.mark.parametrize(("name", "k"), [("constant", 1.1e30), ("inverse", 1.1e28), ("inverse_square", 1.1e26)])
def test_springs_that_no_energy_takes_are_refused_when_they_are_set(name: str, k: float) -> None:
    """By the formulas' own limit of 1e30; it was found when the picture was described."""
    playground = Playground()
    with pytest.raises(ValueError, match="beyond what float32 holds"):
        playground.springs = {"name": name, "k": k}
    assert playground.springs == {"name": "constant", "k": 1.0}
    playground.springs = {"name": name, "k": 0.9 * k}
    assert "pair energy" in playground.alt


def test_bad_springs() -> None:
    with pytest.raises(ValueError, match="springs"):
        Playground(polygon(3), springs=lambda r: -r)


@pytest.mark.parametrize("count", [1, 64])
def test_extreme_sizes_work(count: int) -> None:
    energies = Playground(polygon(count)).energies()
    assert energies["energy"] == pytest.approx(0, abs=1e-20)


def test_turned_triangle_has_squared_error_but_no_pair_energy() -> None:
    energies = Playground(polygon(3)).energies()
    # Three particles on the unit circle, each moved by the chord of 40 degrees.
    assert energies["mse"] == pytest.approx(3 * (2 * math.sin(math.radians(20))) ** 2)
    assert energies["energy"] == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(
    "spring", [elf.springs.Exponential(k=2.0, length=0.5), elf.springs.Inverse(), lambda r: 1 / (1 + r**2)]
)
def test_energies_are_those_of_elf(spring: Any) -> None:
    target, prediction = polygon(4), polygon(4, radius=1.4) + 0.1
    playground = Playground(target.numpy(), prediction.tolist(), springs=spring)
    expected = elf.PairEnergy(springs=spring)(prediction[None], target[None]).item()
    assert playground.energies()["energy"] == pytest.approx(expected)
    torch.testing.assert_close(
        playground.forces()["energy"], fields.forces(elf.PairEnergy(springs=spring), prediction, target)
    )


def test_springs_of_ones_own_travel_as_a_matrix() -> None:
    target = polygon(3).tolist()
    sent = _springs(lambda r: 2 / r, target)
    side = math.sqrt(3)
    np.testing.assert_allclose(sent["matrix"], (2 / side) * (1 - np.eye(3)))
    assert _springs(elf.springs.Exponential(k=2.0, length=3.0), target) == {
        "name": "exponential",
        "k": 2.0,
        "length": 3.0,
    }
    assert _springs(elf.springs.Inverse(r_min=0.5), target)["name"] == "custom"


def test_state_travels_as_plain_json() -> None:
    playground = Playground(polygon(3))
    state = playground.get_state(["target", "prediction", "springs", "presets"])
    assert json.loads(json.dumps(state))["prediction"] == playground.prediction
    playground.set_state({"prediction": [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]})
    assert playground.energies()["mse"] > 0


def test_presets_are_valid() -> None:
    for preset in presets():
        assert Playground(preset["target"], preset["prediction"]).energies()["mse"] > 0
        assert preset["name"] not in ("water", "benzene") or len(preset["names"]) == len(preset["target"])


@pytest.mark.parametrize("name", ["water", "benzene"])
def test_molecules_of_the_presets_are_those_of_qm9(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    everything = qm9.load(cache_dir=tmp_path_factory.getbasetemp() / "qm9-cache")
    molecule = qm9.find(name, within=everything)
    preset = next(preset for preset in presets() if preset["name"] == name)
    assert preset["names"] == [SYMBOLS[int(number)] for number in molecule.numbers[0]]
    flat = torch.tensor(preset["target"], dtype=torch.float64)
    torch.testing.assert_close(torch.pdist(flat), torch.pdist(molecule.positions[0].double()), atol=2e-4, rtol=0)
    assert Playground(preset["target"], preset["prediction"], names=preset["names"]).energies()["energy"] < 1e-9


def test_names_are_one_a_particle() -> None:
    with pytest.raises(ValueError, match="names has 2 entries; the target has 3"):
        Playground(polygon(3), names=["a", "b"])


def test_the_output_holds_a_still_picture() -> None:
    playground = Playground(polygon(3))
    bundle, metadata = playground._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"
    assert bundle["text/plain"] == "Playground with 3 particles: squared error 1.404, pair energy 0.000"
    assert metadata["image/png"]["alt"] == bundle["text/plain"]
