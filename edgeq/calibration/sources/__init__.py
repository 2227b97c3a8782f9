"""Where calibration samples come from, one kind of source a file; ``open_samples`` finds the one that fits."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from edgeq.calibration.inputs import Arrays, Input
from edgeq.errors import InputError, UsageError


@dataclass(frozen=True)
class Images:
    """How a picture becomes an input: resized to ``size`` (height, width; None: the graph's), ``(x - mean) / std``."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    declared: bool = False


@dataclass(frozen=True)
class Want:
    """What the samples are for: the graph's file, its inputs, and how pictures are prepared."""

    model: Path
    inputs: Sequence[Input]
    images: Images = field(default_factory=Images)
    limit: int = 0  # samples at most; 0: all
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Samples:
    """Feeds that can be read again and again, one at a time; ``made_up`` where no data was given."""

    name: str
    count: int  # about, for progress
    iterate: Callable[[], Iterator[Arrays]]
    made_up: bool = False
    limit: int = 0
    pictures: bool = False

    def __iter__(self) -> Iterator[Arrays]:
        return islice(self.iterate(), self.limit or None)

    def split(self) -> tuple[Samples, Samples]:
        """(to calibrate on, to compare on): each fifth is held out where there are enough, else both are all."""
        if self.count < _ENOUGH_TO_SPLIT:
            return self, self

        def part(held_out: bool) -> Callable[[], Iterator[Arrays]]:
            return lambda: (feeds for index, feeds in enumerate(self) if (index % 5 == 4) == held_out)

        kept, held = self.count - self.count // 5, self.count // 5
        return Samples(self.name, kept, part(False)), Samples(self.name, held, part(True))

    def first(self, count: int) -> Samples:
        """The same, ended after so many."""
        most = min(count, self.limit or count)
        return Samples(self.name, min(most, self.count), self.iterate, self.made_up, most)


_ENOUGH_TO_SPLIT = 25

Open = Callable[[Path, Want], Samples | None]
SOURCES: list[Open] = []


def source(function: Open) -> Open:
    """Register a source: it returns None for a path that is not of its kind."""
    SOURCES.append(function)
    return function


def is_plain(file: Path) -> bool:
    """Whether a file of a folder is data: no pipe or device, which might never end, and not hidden."""
    return file.is_file() and not file.name.startswith(".")


def open_samples(path: Path, want: Want) -> Samples:
    """The samples of a file or folder; raises InputError for what no source takes.

    UsageError where images are prepared that are not there.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    for opened in SOURCES:
        samples = opened(path, want)
        if samples is not None:
            if want.images != Images() and not samples.pictures:
                raise UsageError(f"--resize and --normalize prepare images, and {path} has other data")
            return samples.first(want.limit) if want.limit else samples
    raise InputError(
        f"{path}: is no calibration data; give a text or .jsonl file, or a folder of .npz, .npy or image files"
    )


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
