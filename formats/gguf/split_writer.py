"""GGUF models written in shards of a largest size: ``split`` has the names and keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import COUNT_KEY, MAX_SHARDS, NUMBER_KEY, SPLIT_KEYS, TENSORS_KEY, shard_path
from edgeq.formats.gguf.types import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Typed, Value, ValueType, padded
from edgeq.formats.gguf.writer import Chunk, GGUFWriter, Progress, TensorPlan, lay_out

_COPY_BYTES = 16 << 20
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?) ?([KMG]?)B?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """``500M``, ``2G`` or ``3.2GB`` in bytes, in powers of 1000 as llama.cpp counts; raises EdgeqError."""
    match = _SIZE.fullmatch(text.strip())
    size = round(float(match[1]) * _UNITS.get(match[2].upper(), 1)) if match else 0
    if size < 1:
        raise EdgeqError(f"{text!r}: a size must be a number with K, M or G, such as 2G")
    return size


def plan_shards(tensors: Sequence[TensorPlan], max_bytes: int) -> list[list[TensorPlan]]:
    """Divide the tensors, in order, into shards of at most ``max_bytes`` of tensor data.

    A larger tensor has a shard to itself. Headers do not count, as in gguf-split. Raises EdgeqError for a
    plan that no GGUF file can hold and for more shards than there can be.
    """
    shards: list[list[TensorPlan]] = [[]]
    size = 0
    for plan, info in zip(tensors, lay_out(tensors, DEFAULT_ALIGNMENT), strict=True):
        nbytes = padded(info.nbytes, DEFAULT_ALIGNMENT)
        if shards[-1] and size + nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(plan)
        size += nbytes
    if len(shards) > MAX_SHARDS:
        raise EdgeqError(f"{len(shards)} shards are more than {MAX_SHARDS}; allow larger ones")
    return shards


def shard_paths(path: Path, tensors: Sequence[TensorPlan], max_bytes: int) -> list[Path]:
    """The files that SplitGGUFWriter writes; raises as plan_shards."""
    return _paths(path, len(plan_shards(tensors, max_bytes)))


class SplitGGUFWriter:
    """A GGUF model in the making, in shards beside ``path``; a context manager like GGUFWriter.

    What fits into one shard becomes the file ``path`` itself. Otherwise ``model.gguf`` stands for
    ``model-00001-of-0000N.gguf`` and so on. All shards appear when the block ends without an exception and
    every tensor is complete, the first one last; after a failure there is none.

    Args:
        path, architecture, metadata, tensors, force, progress: as GGUFWriter has them. Split keys in the
            metadata are left out.
        max_bytes: of tensor data in a shard, see ``plan_shards``.
    """

    def __init__(
        self,
        path: str | Path,
        architecture: str,
        metadata: Mapping[str, Value | Typed],
        tensors: Sequence[TensorPlan],
        max_bytes: int,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.path = Path(path)
        shards = plan_shards(tensors, max_bytes)
        whole = {key: value for key, value in metadata.items() if key not in SPLIT_KEYS}
        self.paths = _paths(self.path, len(shards))
        self._writers = []
        self._owners: dict[str, GGUFWriter] = {}
        for index, plans in enumerate(shards):
            keys = whole if index == 0 else {k: v for k, v in whole.items() if k == ALIGNMENT_KEY}
            if len(shards) > 1:
                keys = keys | _split_keys(index, len(shards), len(tensors))
            writer = GGUFWriter(self.paths[index], architecture, keys, plans, force)
            self._writers.append(writer)
            self._owners |= {plan.name: writer for plan in plans}
        self._progress = progress
        self._written, self._total = 0, sum(self.planned_bytes(plan.name) for plan in tensors)
        self._stack = ExitStack()
        self._published: list[Path] = []

    @property
    def file_bytes(self) -> int:
        """The size of all finished files together."""
        return sum(writer.file_bytes for writer in self._writers)

    def planned_bytes(self, name: str) -> int:
        """The bytes that ``write_rows`` must bring for that tensor; raises EdgeqError for one not planned."""
        return self._owner(name).planned_bytes(name)

    def write_rows(self, name: str, chunk: Chunk) -> None:
        """Append encoded bytes to tensor ``name``, the next one of its shard; raises as GGUFWriter."""
        self._owner(name).write_rows(name, chunk)
        self._written += chunk.nbytes if isinstance(chunk, np.ndarray) else memoryview(chunk).nbytes
        if self._progress is not None:
            self._progress(name, self._written, self._total)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for writer in self._writers:
                stack.callback(self._published.append, writer.path)
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # none may appear before it is known that all are complete
            error = next(filter(None, (writer.incomplete() for writer in self._writers)), None)
            if error is not None:
                self._stack.__exit__(type(error), error, None)
                raise error
        self._published.clear()
        existed = {path for path in self.paths if path.exists()}
        try:
            self._stack.__exit__(kind, error, trace)
        except BaseException:
            for path in self._published:  # those that were renamed before another one failed
                if path not in existed:
                    path.unlink(missing_ok=True)
            raise

    def _owner(self, name: str) -> GGUFWriter:
        try:
            return self._owners[name]
        except KeyError:
            raise EdgeqError(f"{self.path}: tensor {name!r} is not planned") from None


def split_gguf(source: GGUFFile, path: str | Path, max_bytes: int, force: bool = False) -> list[Path]:
    """Copy an open file (or view of shards) into shards beside ``path``; returns their paths.

    Raises EdgeqError where the source has no ``general.architecture``, and as SplitGGUFWriter does.
    """
    architecture = source.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise EdgeqError(f"{source.path}: has no general.architecture")
    plans = [TensorPlan(t.name, t.type_name, t.shape) for t in source.tensors.values()]
    writer = SplitGGUFWriter(path, architecture, source.typed_metadata(), plans, max_bytes, force)
    with writer:
        for plan in plans:
            flat = source.rows(plan.name).reshape(-1)
            for first in range(0, flat.size, _COPY_BYTES):
                writer.write_rows(plan.name, flat[first : first + _COPY_BYTES])
            source.release(plan.name)
    return writer.paths


def _paths(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    prefix = path.with_suffix("") if path.suffix == ".gguf" else path
    return [shard_path(prefix, index, count) for index in range(count)]


def _split_keys(index: int, count: int, n_tensors: int) -> dict[str, Value | Typed]:
    return {
        NUMBER_KEY: Typed(index, ValueType.UINT16),
        COUNT_KEY: Typed(count, ValueType.UINT16),
        TENSORS_KEY: Typed(n_tensors, ValueType.INT32),
    }
