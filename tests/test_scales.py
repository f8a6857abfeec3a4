import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from elf.scales import SCALES, current_scale, pick


def test_default_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELF_SCALE", raising=False)
    assert current_scale() == "live"
    monkeypatch.setenv("ELF_SCALE", "")
    assert current_scale() == "live"


def test_an_unknown_scale_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_SCALE", "huge")
    with pytest.raises(ValueError, match=r"ELF_SCALE is 'huge'.*smoke, live, laptop, gpu, paper"):
        current_scale()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"smoke": 0, "live": 1}, [0, 1, 1, 1, 1]),
        ({"smoke": 0, "live": 1, "laptop": 2}, [0, 1, 2, 2, 2]),
        ({"smoke": 0, "live": 1, "paper": 3}, [0, 1, 1, 1, 3]),
        ({"smoke": 0, "live": 1, "gpu": 2}, [0, 1, 1, 2, 2]),
        ({"smoke": 4, "live": 3, "laptop": 0, "paper": 1}, [4, 3, 0, 0, 1]),
    ],
)
def test_pick_falls_back_to_the_nearest_smaller_scale(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, int], expected: list[int]
) -> None:
    for scale, value in zip(SCALES, expected, strict=True):
        monkeypatch.setenv("ELF_SCALE", scale)
        assert pick(**given) == value


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_live_grows_on_cuda_and_no_other_scale_looks(monkeypatch: pytest.MonkeyPatch, scale: str, cuda: bool) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(scale) or cuda)
    monkeypatch.setenv("ELF_SCALE", scale)
    expected = {"smoke": 0, "live": 9 if cuda else 1, "laptop": 1, "gpu": 1, "paper": 3}[scale]
    assert pick(smoke=0, live=1, live_cuda=9, paper=3) == expected
    assert asked == (["live"] if scale == "live" else [])


def test_without_a_setting_for_cuda_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_SCALE", "live")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    assert pick(smoke=0, live=1) == 1


def test_a_setting_of_nothing_for_cuda_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_SCALE", "live")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick(smoke=3, live=1, live_cuda=0) == 0


def test_to_ask_for_a_scale_does_not_load_pytorch() -> None:
    code = "import sys; from elf.scales import pick; pick(smoke=0, live=1); print('torch' in sys.modules)"
    environment = {**os.environ, "ELF_SCALE": "live", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
