"""Putting a model's files into a bundle without a second copy of their bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def place(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source`` where the disk can (a hard link), else a copy of it.

    Files of ours are only ever replaced, never written in place, so the two names do not disturb each other.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, a file system without links, or one that does not let us
        shutil.copyfile(source, target)


def copied(source: Path, target: Path) -> None:
    """Make ``target`` a copy: onnx-ir refuses external data that has a second name as a "hard link attack"."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
