"""Atomic outputs: complete or absent, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path
from typing import IO

import pytest

from edgeq.formats import atomic
from edgeq.formats.atomic import atomic_file, check_output, write_json, write_text
from edgeq.formats.errors import EdgeqError, OutputExistsError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write_and_fail(file: IO[bytes], failure: BaseException) -> None:
    file.write(b"new")
    raise failure


def test_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    with atomic_file(target, force=False) as file:
        file.write(b"abc")
        (hidden,) = names(tmp_path)
        assert hidden.startswith(".out.")
        assert hidden.endswith(".gguf")
    assert names(tmp_path) == ["out.gguf"]
    assert target.read_bytes() == b"abc"


def test_text_is_utf8_with_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "grüß\n", force=False)
    assert (tmp_path / "a.txt").read_bytes() == "grüß\n".encode()
    write_json(tmp_path / "a.json", {"ü": [1]}, force=False)
    assert (tmp_path / "a.json").read_bytes() == '{\n  "ü": [\n    1\n  ]\n}\n'.encode()
    write_json(tmp_path / "b.json", "a\udcff", force=False)  # of a file's name that is no UTF-8
    assert json.loads((tmp_path / "b.json").read_bytes()) == "a\udcff"


def test_seeking_back(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "out", force=False, mode="w+b") as file:
        file.write(b"....data")
        file.seek(0)
        file.write(b"head")
    assert (tmp_path / "out").read_bytes() == b"headdata"


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "", force=False)
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [False, True])
def test_exception_leaves_things_as_they_were(
    tmp_path: Path, failure: type[BaseException], existing: bool
) -> None:
    target = tmp_path / "out"
    if existing:
        target.write_bytes(b"old")
    before = names(tmp_path)
    with pytest.raises(failure), atomic_file(target, force=True) as file:
        write_and_fail(file, failure())
    assert names(tmp_path) == before
    assert not existing or target.read_bytes() == b"old"


def test_existing_target(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with (
        pytest.raises(OutputExistsError, match=r"out: exists already; pass --force"),
        atomic_file(target, force=False),
    ):
        pytest.fail("the block must not run")
    with atomic_file(target, force=True) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"


def test_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputExistsError), atomic_file(target, force=False):
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out"]


def test_folders_and_devices_are_no_targets(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="is a folder; name a file in it"):
        write_text(tmp_path, "", force=True)
    if Path(os.devnull).exists():
        with pytest.raises(EdgeqError, match="is not a regular file"):
            write_text(os.devnull, "", force=True)
        assert not Path(os.devnull).is_file()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match=r"no/out: cannot be written: the folder does not exist; create it"):
        write_text(tmp_path / "no" / "out", "", force=False)
    (tmp_path / "file").touch()
    with pytest.raises(EdgeqError, match="cannot be written"):
        write_text(tmp_path / "file" / "out", "", force=False)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full; free space or choose another folder"),
        (errno.EACCES, "no permission to write there"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_errors_while_writing(tmp_path: Path, number: int, remedy: str) -> None:
    with (
        pytest.raises(EdgeqError, match=rf"out: cannot be written: .*{remedy}") as caught,
        atomic_file(tmp_path / "out", force=False) as file,
    ):
        write_and_fail(file, OSError(number, os.strerror(number)))  # as a write would: without a file name
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_errors_about_other_files_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "out", force=False):
        (tmp_path / "input").read_bytes()
    with pytest.raises(ConnectionError), atomic_file(tmp_path / "out", force=False):
        raise ConnectionError(errno.ECONNRESET, "reset")
    assert names(tmp_path) == []


def test_room_is_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with (
        pytest.raises(EdgeqError, match=r"needs 2000 MB and the disk has 1 MB free"),
        atomic_file(tmp_path / "out", force=False, needs=2 * 10**9),
    ):
        pytest.fail("the block must not run")
    with atomic_file(tmp_path / "out", force=False, needs=10**5):
        pass


def run_child(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    code = "from edgeq.formats.atomic import atomic_file\n" + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE, no SIGKILL")
def test_a_file_over_the_limit_of_the_process(tmp_path: Path) -> None:
    """The nearest to a full disk that needs no rights: real writes and the real close fail."""
    child = run_child(
        tmp_path,
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with atomic_file("out", force=False) as file:
            for _ in range(100):
                file.write(bytes(100_000))
        """,
    )
    assert "EdgeqError: out: cannot be written: the file is larger than" in child.stderr
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE, no SIGKILL")
def test_a_killed_process_leaves_no_output(tmp_path: Path) -> None:
    child = run_child(
        tmp_path,
        """
        import os, signal
        with atomic_file("out", force=False) as file:
            file.write(bytes(100_000))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert all(name.startswith(".out.") for name in names(tmp_path))


def test_a_full_disk(tmp_path: Path) -> None:
    """A real ENOSPC, from a write inside the block: /dev/full refuses every byte."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with (
        pytest.raises(EdgeqError, match=r"out: cannot be written: the disk is full"),
        atomic_file(tmp_path / "out", force=False),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert names(tmp_path) == []


def test_check_output_says_early_what_writing_would(tmp_path: Path) -> None:
    check_output(tmp_path / "new", force=False)
    assert names(tmp_path) == []
    write_text(tmp_path / "old", "mine", force=False)
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "old", force=False)
    check_output(tmp_path / "old", force=True)
    assert (tmp_path / "old").read_text() == "mine"
    for path, problem in ((tmp_path, "is a folder"), (tmp_path / "absent/new", "the folder does not exist")):
        with pytest.raises(EdgeqError, match=problem):
            check_output(path, force=True)
    assert names(tmp_path) == ["old"]
