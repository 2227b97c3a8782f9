"""Folders for what a command writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeq.errors import EdgeqError, InputError


@contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """Make the folder and its parents; what was made goes again if nothing comes of it. Raises EdgeqError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeqError(
            f"{path}: the folder cannot be made ({error.strerror}); choose another with -o"
        ) from None
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: a finished file stays
            for folder in missing:
                folder.rmdir()
        raise


def refuse_source(out: Path, *sources: Path | None) -> None:
    """Raise InputError where ``out`` is one of the files that are being read, which --force does not mean."""
    for source in sources:
        if source is not None and source.is_file() and out.exists() and out.samefile(source):
            raise InputError(f"{out}: is the file being read; choose another output")
