"""The folder for what edgeq can make again, and its limit."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from edgeq.errors import EdgeqError

LIMIT_BYTES = 16_000_000_000


def folder() -> Path:
    """``EDGEQ_CACHE``, else the system's place for a user's caches; it need not be there yet."""
    named = os.environ.get("EDGEQ_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "edgeq" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgeq"
    base = os.environ.get("XDG_CACHE_HOME", "")  # by its specification, a relative path counts as none
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edgeq"


def made_folder() -> Path:
    """The folder, made if need be; raises EdgeqError."""
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeqError(
            f"{path}: cannot be made ({error.strerror}); name another folder in EDGEQ_CACHE"
        ) from None
    return path


def used(path: Path) -> None:
    """Note that a file of the cache was used now."""
    with contextlib.suppress(OSError):  # a cache that is only to be read serves as well
        os.utime(path)


def prune(suffix: str, keep: Path, limit: int = LIMIT_BYTES) -> None:
    """Remove the files of that suffix that were not used for longest, until the rest fits; never ``keep``.

    What an interrupted process left half written goes with them.
    """
    found = []
    for path in keep.parent.glob(f"*{suffix}"):
        with contextlib.suppress(OSError):  # another process may remove it now
            status = path.stat()
            found.append((path != keep, -status.st_mtime, status.st_size, path))
    total = 0
    for other, _, size, path in sorted(found):
        total += size
        if other and total > limit:
            with contextlib.suppress(OSError):  # Windows: it is mapped elsewhere
                path.unlink()
