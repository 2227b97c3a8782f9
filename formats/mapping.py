"""Memory-mapped input files, shared by the readers of GGUF and safetensors."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from edgeq.formats.errors import EdgeqError, FormatError


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file for reading; raises EdgeqError where it cannot be opened, FormatError when empty."""
    if path.is_dir():
        raise EdgeqError(f"{path}: is a folder, not a file")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError(path, "the file is empty", "download or convert it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise EdgeqError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # mmap: ValueError for what cannot be mapped, such as a pipe
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EdgeqError(f"{path}: cannot be read ({reason})") from None


def drop_pages(mapping: mmap.mmap, start: int, length: int) -> None:
    """Tell the system that these bytes need not stay in memory; the next access reads them again.

    A hint that keeps the resident size bounded while a file larger than memory streams through. It does
    nothing where madvise is missing (Windows) or refused.
    """
    if not hasattr(mapping, "madvise") or not hasattr(mmap, "MADV_DONTNEED") or length <= 0:
        return
    aligned = start - start % mmap.PAGESIZE
    with contextlib.suppress(OSError, ValueError):  # ValueError: the map is closed
        mapping.madvise(mmap.MADV_DONTNEED, aligned, length + start - aligned)


def close_mapping(mapping: mmap.mmap) -> None:
    """Close the map, or leave it to the last array that still looks at it."""
    with contextlib.suppress(BufferError):
        mapping.close()
