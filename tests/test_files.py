"""Files are whole or not there, whoever writes, whatever is killed, whoever may read."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from elf import files

TENSORS = {"x": torch.arange(6.0).view(2, 3), "deep/name": torch.tensor(True), "none": torch.zeros(0, 3)}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs this code, in a session of its own, with `elf.files` as `files`."""
    head = "import os, signal, sys, time\nfrom pathlib import Path\nfrom elf import files\n"
    command = [sys.executable, "-W", "error", "-c", head + code, *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


WRITER = """
path, letter = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    files.write_atomically(path, (letter * (50_000 + 100 * number)).encode())
"""


def test_two_writers_and_a_reader(tmp_path):
    path = tmp_path / "result.json"
    head = "import sys\nfrom elf import files\n"
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", head + WRITER, str(path), letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for letter in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    reads = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert len(content) >= 50_000
            assert content == content[:1] * len(content)
            reads += 1
    for writer in writers:
        assert finish(writer) == ""
    assert reads > 0
    assert len(path.read_bytes()) == 50_000 + 100 * 199
    assert os.listdir(tmp_path) == ["result.json"]


def test_writers_of_one_process_do_not_meet(tmp_path, monkeypatch):
    path, inside = tmp_path / "x", []
    write = files._write_new

    def meanwhile(partial, data):
        write(partial, data)
        if not inside:
            inside.append(True)
            files.write_atomically(path, b"inner")

    monkeypatch.setattr(files, "_write_new", meanwhile)
    files.write_atomically(path, b"outer")
    assert path.read_bytes() == b"outer"
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_planted_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    path, victim = tmp_path / "x", tmp_path / "victim"
    victim.write_bytes(b"precious")
    # The old fixed name, and the new one if it could be guessed.
    (tmp_path / "x.partial").symlink_to(victim)
    files.write_atomically(path, b"1")
    monkeypatch.setattr(files.uuid, "uuid4", lambda: type("Guessed", (), {"hex": "0" * 32}))
    planted = []
    write = files._write_new

    def plant(partial, data):
        partial.symlink_to(victim)
        planted.append(partial)
        write(partial, data)

    monkeypatch.setattr(files, "_write_new", plant)
    with pytest.raises(OSError, match=r"cannot write .*/x: file exists; the file written before is intact"):
        files.write_atomically(path, b"2")
    assert planted
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"1"


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "x"
    files.write_atomically(path, b"before")
    code = """
def half(partial, data):
    partial.write_bytes(data[:3])
    print(partial.name, flush=True)
    time.sleep(600)
files._write_new = half
files.write_atomically(sys.argv[1], b"never whole")
"""
    process = python(code, path)
    assert process.stdout is not None
    left = process.stdout.readline().strip()
    assert sorted(os.listdir(tmp_path)) == sorted([left, "x"])
    files.write_atomically(path, b"while it lives")
    assert left in os.listdir(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.read_bytes() == b"while it lives"
    # Other files' leftovers and files that only look alike are not ours to take.
    others = {left.replace(".x.", ".y."), left + "x", left.replace(".partial", ".3.partial"), "x.partial"}
    for name in others:
        (tmp_path / name).write_bytes(b"")
    files.write_atomically(path, b"after")
    assert set(os.listdir(tmp_path)) == {*others, "x"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure):
    path = tmp_path / "x"

    def fail(partial, data):
        partial.write_bytes(data[:1])
        raise failure

    monkeypatch.setattr(files, "_write_new", fail)
    with pytest.raises(type(failure)) as caught:
        files.write_atomically(path, b"new")
    if isinstance(failure, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.strerror == f"cannot write {path}: no space left on device"
    assert os.listdir(tmp_path) == []


def test_names_as_long_as_the_file_system_takes(tmp_path):
    for name in ("x" * 255, "é" * 127, "分" * 85):
        files.write_atomically(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"
    with pytest.raises(OSError, match="file name too long"):
        files.write_atomically(tmp_path / ("x" * 256), b"1")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_read(tmp_path, mask, mode):
    with umask(mask):
        files.write_atomically(tmp_path / "new" / "x", b"1")
        files.write_cache(tmp_path / "cache", TENSORS, "test/2", "stamp")
    for name in ("new/x", "cache"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_folder_that_may_not_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot write .*/x: "):
        files.write_atomically(blocked / "x", b"1")
    with pytest.raises(OSError, match="set the environment variable ELF_CACHE to another folder"):
        files.write_cache(blocked / "x", TENSORS, "test/2", "stamp")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ELF_CACHE", "~/mine")
    assert files.cache_folder() == tmp_path / "mine"
    assert files.cache_folder("~/other") == tmp_path / "other"
    monkeypatch.setenv("ELF_CACHE", "")
    assert files.cache_folder().is_absolute()
    monkeypatch.delenv("ELF_CACHE")
    assert files.cache_folder().name == "elf"


def test_tensors_come_back_with_their_metadata(tmp_path):
    path = tmp_path / "x"
    about = {"n": 3, "deep": {"list": [1, 2.5, None, "é"]}}
    shared = torch.arange(4.0)
    files.save_tensors(path, {**TENSORS, "tied": shared, "knot": shared.view(2, 2).T}, about, format="test/2")
    tensors, found = files.load_tensors(path, "other/2", "test/2")
    assert {key: found[key] for key in about} == about
    assert found["format"] == "test/2"
    for name, tensor in {**TENSORS, "tied": shared, "knot": shared.view(2, 2).T}.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    # What was loaded may be saved again, and read.
    files.save_tensors(path, tensors, found, format="test/2")
    assert files.load_tensors(path, "test/2")[1] == found


def test_the_hash_is_of_metadata_and_tensors_but_for_the_first_edition(tmp_path):
    path = tmp_path / "x"
    for format, covered in (("test/2", True), ("test/1", False)):
        files.save_tensors(path, TENSORS, {"n": 3}, format=format)
        content = path.read_bytes()
        path.write_bytes(content.replace(b'\\"n\\": 3', b'\\"n\\": 4'))
        assert path.read_bytes() != content
        if covered:
            with pytest.raises(ValueError, match="x is damaged: its content does not have the SHA-256"):
                files.load_tensors(path, format)
        else:
            assert files.load_tensors(path, format)[1]["n"] == 4


def test_hashes_tell_names_shapes_types_and_bytes_apart():
    x = torch.arange(6.0)
    alike = [{"x": x}, {"y": x}, {"x": x.view(2, 3)}, {"x": x.double()}, {"x": x + 1}, {"x": x, "y": x}]
    hashes = {files.tensors_sha256(tensors) for tensors in alike}
    hashes |= {files.tensors_sha256({"x": x}, about) for about in ({}, {"a": 1}, {"a": 1.5}, {"a": "1"})}
    assert len(hashes) == 10
    assert files.tensors_sha256({"a": x, "b": x * 2}) == files.tensors_sha256({"b": x * 2, "a": x})
    strided = torch.arange(12.0)[::2]
    assert files.tensors_sha256({"x": strided}) == files.tensors_sha256({"x": strided.clone()})


def test_file_hashes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.file_sha256(path) == known
    files.check_sha256(path, known.upper())
    with pytest.raises(ValueError, match=f"x has SHA-256 {known}; it should be {'0' * 64}"):
        files.check_sha256(path, "0" * 64)


def test_what_no_file_holds(tmp_path):
    with pytest.raises(ValueError, match=r"x is of torch.complex128; it should be of a type that safetensors knows"):
        files.save_tensors(tmp_path / "x", {"x": torch.ones(1, dtype=torch.complex128)}, {}, format="test/2")
    with pytest.raises(TypeError):
        files.save_tensors(tmp_path / "x", {}, {"x": object()}, format="test/2")
    assert os.listdir(tmp_path) == []


def raw(header: str | None) -> bytes:
    return bytes(safetensors.torch.save({"x": torch.ones(1)}, None if header is None else {"elf": header}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"\xff" * 100, "is damaged"),
        (raw(None), "has format None"),
        (raw("{"), "its header is not JSON"),
        (raw("[" * 100_000), "its header is not JSON"),
        (raw("[1]"), r"has format \[1\]"),
        (raw("null"), "has format None"),
        (raw(json.dumps({"format": ["test/2"]})), r"has format \['test/2'\]"),
        (raw(json.dumps({"format": "test/2"})), "SHA-256"),
        (raw(json.dumps({"format": "test/2", "sha256": 1})), "SHA-256"),
        (raw(json.dumps({"format": "test/3"})), "has format 'test/3'; it should have 'test/2'"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^x .*{message}"):
        files.load_tensors(path, "test/2")
    with pytest.warns(UserWarning, match=f"the cache {re.escape(str(path))} is made again: x"):
        assert files.read_cache(path, "test/2", "stamp") is None


def test_files_that_are_not_there_or_not_files(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match="is not a file; it should be one with format test/2"):
            files.load_tensors(path, "test/2")
        assert files.read_cache(path, "test/2", "stamp") is None


def test_cache(tmp_path):
    path = tmp_path / "new" / "cache"
    files.write_cache(path, TENSORS, "test/2", "stamp")
    found = files.read_cache(path, "test/2", "stamp")
    assert found is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert files.read_cache(path, "test/2", "another") is None
    with pytest.warns(UserWarning, match="has format 'test/2'; it should have 'test/3'"):
        assert files.read_cache(path, "test/3", "stamp") is None


def test_what_may_not_be_read_is_not_damaged(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    files.write_cache(path, TENSORS, "test/2", "stamp")
    before = path.read_bytes()

    def refuse(name, *arguments, **options):
        if Path(name) == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return opened(name, *arguments, **options)

    opened = open
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        files.load_tensors(path, "test/2")
    with pytest.raises(PermissionError, match=rf"cannot read the cache {path}: permission denied"):
        files.read_cache(path, "test/2", "stamp")
    monkeypatch.undo()
    assert path.read_bytes() == before


HOLDER = """
with files.locked(sys.argv[1], "training of table 2"):
    print(os.getpid(), flush=True)
    sys.stdin.read() if len(sys.argv) > 2 else time.sleep(600)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_lock_says_who_holds_it_and_goes_with_its_holder(tmp_path, kill):
    folder = tmp_path / "work"
    process = python(HOLDER, folder)
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    with (
        pytest.raises(BlockingIOError, match=rf"work is held by process {pid} on .* \(training of table 2\); wait"),
        files.locked(folder, "this test"),
    ):
        raise AssertionError("two held it")
    process.send_signal(kill)
    process.communicate()
    with files.locked(folder, "this test"):
        holder = (folder / ".lock-holder").read_text()
    assert f"process {os.getpid()} on " in holder
    assert "(this test)" in holder


def test_a_lock_is_free_again_after_its_block_and_after_an_error(tmp_path):
    for error in (None, KeyError("inside")):
        with pytest.raises(KeyError) if error else files.locked(tmp_path, "one"):
            if error:
                with files.locked(tmp_path, "two"):
                    raise error
    with (
        files.locked(tmp_path, "three"),
        pytest.raises(BlockingIOError, match=r"\(three\)"),
        files.locked(tmp_path, "four"),
    ):
        raise AssertionError("two held it")


def test_processes_that_are_and_are_not(monkeypatch):
    assert files.is_running(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not files.is_running(process.pid)

    def forbid(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbid)
    assert files.is_running(1)


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"cannot write .*/pipe: it is a device or a pipe"):
        files.write_atomically(pipe, b"x")
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
