import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from elf.data import spin_glass
from elf.data.spin_glass import load, sample_couplings
from elf.files import tensors_sha256, write_cache
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


WRONG = {
    "flipped spin": lambda spins: spins * torch.ones_like(spins).index_fill(2, torch.tensor([2]), -1),
    "zeros": torch.zeros_like,
    "other flip": torch.neg,
    "wrong shape": lambda spins: spins[:, 1:],
    "wrong type": lambda spins: spins.float(),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_spins_that_are_whole_but_wrong_are_computed_again(tmp_path: Path, wrong):
    data = load(6, 3, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = tensors_sha256({"right": data.couplings.right, "down": data.couplings.down})
    write_cache(file, {"spins": wrong(data.spins)}, spin_glass.FORMAT, stamp)
    with pytest.warns(UserWarning, match="is made again: its spins are no ground states"):
        again = load(6, 3, cache_dir=tmp_path)
    assert torch.equal(again.spins, data.spins)
    load(6, 3, cache_dir=tmp_path)


@pytest.mark.parametrize("format", ["elf.spin-glass/1", "elf.spin-glass/3", "elf.qm9/2"])
def test_another_layout_is_computed_again(tmp_path: Path, format: str):
    data = load(6, 3, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    write_cache(file, {"down": data.spins}, format, "stamp")
    with pytest.warns(UserWarning, match=rf"has format '{format}'"):
        assert torch.equal(load(6, 3, cache_dir=tmp_path).spins, data.spins)
    write_cache(file, {"other": data.spins}, spin_glass.FORMAT, "made from something else")
    assert torch.equal(load(6, 3, cache_dir=tmp_path).spins, data.spins)


def test_an_unreadable_cache_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    load(6, 3, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("elf.files.open", refuse, raising=False)
    with pytest.raises(PermissionError, match="cannot read the cache"):
        load(6, 3, cache_dir=tmp_path)
    assert file.read_bytes() == before


def test_the_cache_is_where_every_other_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ELF_CACHE", "~/below")
    monkeypatch.chdir(tmp_path)
    umask = os.umask(0o022)
    try:
        load(2, 3)
    finally:
        os.umask(umask)
    (file,) = (tmp_path / "below").iterdir()
    assert file.stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "~").exists()


def run(script: Path, cache: Path) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    where = {**os.environ, "PYTHONPATH": root, "ELF_CACHE": str(cache)}
    return subprocess.Popen([sys.executable, str(script)], env=where, stdout=subprocess.PIPE, text=True)


def test_a_writer_that_is_killed_leaves_nothing_for_good(tmp_path: Path):
    cache, script = tmp_path / "cache", tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from elf.data.spin_glass import load\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "load(6, 3)\n"
    )
    writer = run(script, cache)
    writer.communicate(timeout=120)
    assert writer.returncode == -signal.SIGKILL
    assert [file.suffix for file in cache.iterdir()] == [".partial"]
    load(6, 3, cache_dir=cache)
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_of_a_killed_load_end(tmp_path: Path, end: signal.Signals):
    """The output that they share with it ends when the last of them does."""
    (tmp_path / "script.py").write_text(
        "import sys, time\n"
        "from elf.data import spin_glass\n"
        "def solve(chunk):\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(3600)\n"
        "spin_glass.CHUNK, spin_glass._solve = 2, solve\n"
        "if __name__ == '__main__':\n"
        "    spin_glass.load(4, 3, processes=2)\n"
    )
    parent = run(tmp_path / "script.py", tmp_path / "cache")
    assert parent.stdout is not None
    for _ in range(2):
        assert parent.stdout.readline() == "at work\n"
    parent.send_signal(end)
    parent.communicate(timeout=60)
    assert parent.returncode == -end


def test_numpy_scalars_are_numbers(tmp_path: Path):
    one = load(np.int64(4), np.uint8(3), np.int32(4), seed=np.int64(2), processes=np.int8(1), cache_dir=tmp_path)
    two = load(4, 3, 4, seed=2, cache_dir=tmp_path)
    assert torch.equal(one.spins, two.spins)
    assert len(list(tmp_path.iterdir())) == 1
    for name in ("n", "height", "width", "seed"):
        for bad in (1.5, True, "3", None)[: 3 if name == "width" else 4]:
            with pytest.raises(TypeError, match=name):
                sample_couplings(**{"n": 2, "height": 3, name: bad})


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
