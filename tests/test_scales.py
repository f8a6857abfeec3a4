import pytest

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
