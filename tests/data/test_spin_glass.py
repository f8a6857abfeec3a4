from pathlib import Path

import pytest
import torch

from elf.data.spin_glass import load, sample_couplings
from elf.spins import ground_state, ising_energy


@pytest.mark.parametrize("periodic", [False, True])
def test_distributions(periodic):
    uniform, gaussian, bimodal = (
        sample_couplings(400, 6, 5, kind, 1, periodic).values.double() for kind in ("uniform", "gaussian", "bimodal")
    )
    assert uniform.shape == (400, 60 if periodic else 49)
    assert uniform.abs().max() <= 1
    n = uniform.numel() ** 0.5
    for values, variance, fourth in ((uniform, 1 / 3, 1 / 5), (gaussian, 1.0, 3.0), (bimodal, 1.0, 1.0)):
        assert abs(float(values.mean())) < 4 * variance**0.5 / n
        assert float(values.square().mean()) == pytest.approx(variance, abs=6 / n)
        assert float(values.pow(4).mean()) == pytest.approx(fourth, abs=40 / n)
    assert set(bimodal.flatten().tolist()) == {-1.0, 1.0}


def test_seeds_and_prefixes():
    a, b, c = sample_couplings(5, 4, seed=1), sample_couplings(9, 4, seed=1), sample_couplings(5, 4, seed=2)
    assert torch.equal(a.values, b[:5].values)
    assert not torch.equal(a.values, c.values)
    assert not torch.equal(a.values.sign(), sample_couplings(5, 4, kind="bimodal", seed=1).values)


def test_ground_states_are_right_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = load(30, 4, 5, seed=3, cache_dir=tmp_path)
    exact = ground_state(data.couplings, "exhaustive")
    torch.testing.assert_close(data.energy, exact.energy, rtol=0, atol=1e-5)
    torch.testing.assert_close(ising_energy(data.spins, data.couplings), data.energy)
    assert (data.spins[:, 0, 0] == 1).all()
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("elf.data.spin_glass._solve", lambda _: pytest.fail("solved again"))
    again = load(30, 4, 5, seed=3, cache_dir=tmp_path)
    assert torch.equal(again.spins, data.spins)
    assert torch.equal(data[10:20].spins, data.spins[10:20])
    monkeypatch.undo()
    assert torch.equal(load(10, 4, 5, seed=3, cache_dir=tmp_path).spins, data.spins[:10])


def test_several_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("elf.data.spin_glass.CHUNK", 8)
    one = load(20, 4, cache_dir=tmp_path / "one", processes=1, progress=True)
    assert "20/20" in capsys.readouterr().out
    two = load(20, 4, cache_dir=tmp_path / "two", processes=2)
    assert torch.equal(one.spins, two.spins)


@pytest.mark.parametrize("damage", ["cut", "other spins", "garbage"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, damage: str):
    data = load(6, 3, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-9])
    elif damage == "garbage":
        file.write_bytes(b"not a cache")
    else:
        content[-1] = 256 - content[-1] if content[-1] > 1 else 255
        file.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        again = load(6, 3, cache_dir=tmp_path)
    assert torch.equal(again.spins, data.spins)
    assert torch.equal(load(6, 3, cache_dir=tmp_path).spins, data.spins)


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="set the environment variable ELF_CACHE"):
        load(2, 3, cache_dir=tmp_path / "file" / "below")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="n is 0"):
        sample_couplings(0, 4)
    with pytest.raises(ValueError, match="width is -1"):
        sample_couplings(1, 4, -1)
    with pytest.raises(ValueError, match="kind is 'cauchy'; it should be one of 'uniform', 'gaussian', 'bimodal'"):
        sample_couplings(1, 4, kind="cauchy")
    with pytest.raises(ValueError, match="seed is -1"):
        sample_couplings(1, 4, seed=-1)
    with pytest.raises(ValueError, match="processes is 0"):
        load(2, 3, processes=0)
