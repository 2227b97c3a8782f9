"""Allocation of a GGUF file: the bytes around its tensors, files written for trials, the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeq.allocation.candidates import candidates
from edgeq.allocation.job import Job
from edgeq.allocation.meter import Runtime
from edgeq.convert import gguf_file
from edgeq.convert.gguf_sources import RowSource
from edgeq.evaluation.runtimes import EmbeddedRuntime
from edgeq.formats.gguf.mixes import is_quantizable
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.serialize import header_bytes
from edgeq.formats.gguf.types import DEFAULT_ALIGNMENT
from edgeq.formats.gguf.writer import lay_out

_OWN_KEYS = 1024  # bytes for what says how the file was made
_Written = TypeVar("_Written")


@dataclass(frozen=True)
class Around:
    """Bytes of a file beside its quantized tensors, at most: ``header`` with all padding, and ``small`` tensors."""

    header: int
    small: int

    @property
    def total(self) -> int:
        return self.header + self.small


def around(rows: RowSource) -> Around:
    """What every file of the model has."""
    planned = gguf_file.plan(rows, "Q8_0")
    keys = rows.metadata() | {"general.architecture": rows.shape.architecture}
    header = len(header_bytes(keys, lay_out(planned.tensors, DEFAULT_ALIGNMENT))) + _OWN_KEYS
    small = [tensor for tensor in planned.tensors if not is_quantizable(tensor.name, tensor.shape)]
    padding = DEFAULT_ALIGNMENT * (len(planned.tensors) + 1)
    return Around(header + padding, sum(planned.nbytes(tensor) for tensor in small))


@contextmanager
def opened(path: Path) -> Iterator[EmbeddedRuntime]:
    """The file in the embedded engine."""
    with GGUFFile.open(path) as file:
        yield EmbeddedRuntime.of_gguf(file)


def choose_types(
    job: Job, rows: RowSource, folder: Path, write: Callable[[Mapping[str, str], Path, int], _Written]
) -> tuple[_Written, dict[str, Any]]:
    """What was written of the file that meets the job's goal, and ``Job.record``.

    ``write`` makes the file of these types at that path, which is in ``folder``; so many tokens at the beginning of
    the text it must not calibrate on. Raises EdgeqError.
    """
    tensors = ((name, job.source.shape(name)) for name in job.source.specs)
    written: dict[tuple[str, ...], _Written] = {}

    def trial(types: Mapping[str, str]) -> AbstractContextManager[Runtime]:
        path = folder / f"trial-{len(written)}.gguf"
        written[tuple(types.values())] = write(types, path, job.split.compared)
        return opened(path)

    beside = around(rows)
    record = job.record(
        candidates(tensors, job.wanted.candidates()),
        trial,
        fixed_bytes=beside.total,
        header=beside.header,
    )
    return written[tuple(record["types"].values())], record
