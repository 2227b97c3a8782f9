"""Output files that appear complete or not at all: written under a hidden name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgeq.formats.errors import EdgeqError, OutputExistsError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free space or choose another folder",
    errno.EFBIG: "the file is larger than this file system or process may write; choose another folder",
    errno.EIO: "the disk reports an error; choose another disk",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; create it or choose another",
    errno.ENOTDIR: "part of the path is a file, not a folder; choose another",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


@contextmanager
def atomic_file(path: str | Path, *, force: bool, mode: str = "wb", needs: int = 0) -> Iterator[IO[Any]]:
    """Yield an open file that becomes ``path`` when the block ends, and vanishes when it raises.

    ``mode`` is "wb", "w+b" or "w" (UTF-8, "\\n"). ``needs`` is the number of bytes to come, where known: a
    disk without that room is refused before the work, not after it. Raises OutputExistsError before any
    work when ``path`` is there and ``force`` is not given, and EdgeqError, naming ``path`` and the remedy,
    when the system refuses to write.
    """
    target = Path(path)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    with (
        _published(target, force, needs) as temporary,
        temporary.open(mode.replace("w", "x"), encoding=encoding, newline=newline) as file,
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())


class _Enough(Exception):
    """Ends a block that was opened only to see whether it can be."""


def check_output(path: str | Path, *, force: bool) -> None:
    """Raise now what atomic_file would raise after hours of work whose file is opened last; leaves nothing."""
    with contextlib.suppress(_Enough), _published(Path(path), force, 0) as temporary:
        temporary.touch()
        raise _Enough


def write_text(path: str | Path, text: str, *, force: bool) -> None:
    """Write a small UTF-8 file atomically; raises as atomic_file does.

    Bytes of a file's name that are no UTF-8 (lone surrogates here) are escaped as JSON has them.
    """
    with atomic_file(path, force=force, mode="w") as file:
        file.write(text.encode(errors="backslashreplace").decode())


def write_json(path: str | Path, value: object, *, force: bool) -> None:
    """Write ``value`` as indented JSON with a final newline; raises as atomic_file does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", force=force)


@contextmanager
def _published(target: Path, force: bool, needs: int) -> Iterator[Path]:
    """Yield an unused hidden path beside ``target``; rename it on success, remove it on any exception."""
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{secrets.token_hex(4)}{target.suffix}")
    try:
        _check_target(target, force, needs)
        yield temporary
        # Looked at again: another process may have made the target during hours of work.
        _check_target(target, force, needs=0)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        # An error that names another file, or none and is not one of writing (a network's, say), is the
        # caller's own business inside the block.
        ours = error.filename in (str(temporary), str(target), str(target.parent))
        if not ours and (error.filename is not None or error.errno not in _REMEDIES):
            raise
        remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
        raise EdgeqError(f"{target}: cannot be written: {remedy}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()  # after a rename there is nothing left to remove


def _check_target(target: Path, force: bool, needs: int) -> None:
    if target.is_dir():
        raise EdgeqError(f"{target}: is a folder; name a file in it")
    if target.exists() and not target.is_file():  # a rename would replace /dev/null itself
        raise EdgeqError(f"{target}: is not a regular file; choose another name")
    if target.is_file() and not force:
        raise OutputExistsError(target)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    free = shutil.disk_usage(target.parent).free if needs else 0
    if needs > free:
        raise EdgeqError(
            f"{target}: needs {needs / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB free; "
            "free space or choose another folder"
        )


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows and some network file systems do not offer it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
