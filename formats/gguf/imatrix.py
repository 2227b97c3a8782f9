"""Importance matrices: how large the inputs of a linear layer are, column by column, on some text.

A file holds, for each weight, the sums of the squares of what it was multiplied with (``NAME.in_sum2``) and the
number of summed rows (``NAME.counts``). An encoder weights the error of a column with their quotient.

Source: ``IMatrixCollector::save_imatrix`` in tools/imatrix/imatrix.cpp, ``common_imatrix_load`` in
common/imatrix-loader.cpp, ``load_imatrix`` in tools/quantize/quantize.cpp (llama.cpp 0c1e57098).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.errors import EdgeqError, FormatError
from edgeq.formats.gguf.imatrix_dat import read_dat
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import MAGIC, TENSOR_TYPES_BY_NAME, Value
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType

DEFAULT_CHUNK_SIZE = 512  # llama.cpp's context size while it collects
_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE = (f"imatrix.{key}" for key in ("datasets", "chunk_count", "chunk_size"))
_SUMS, _COUNTS = ".in_sum2", ".counts"
_F32 = TENSOR_TYPES_BY_NAME["F32"].name
_AGAIN = "make it again"

Sums = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Activations:
    """What one weight was multiplied with: ``sums`` of squares ``[matrices, columns]``, ``counts`` ``[matrices]``.

    A weight has one matrix, or one for each expert. ``counts`` are rows summed: tokens, where a text was read.
    """

    sums: Sums
    counts: NDArray[np.int64]

    def importance(self) -> NDArray[np.float32]:
        """The mean squares ``[matrices, columns]``, with 1 for a matrix that was never used, as llama-quantize does."""
        counts = self.counts.astype(np.float32)[:, None]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by ``invalid``
            means = self.sums.astype(np.float32) / np.maximum(counts, 1)
        return np.where(counts > 0, means, np.float32(1))

    def invalid(self) -> int:
        """How many columns hold NaN, infinity or less than 0."""
        importance = self.importance()
        return int(np.count_nonzero(~(np.isfinite(importance) & (importance >= 0))))

    def unseen(self) -> int:
        """How many columns of the matrices that were used are 0: nothing is known of them."""
        return int(np.count_nonzero(self.sums[self.counts > 0] == 0))


@dataclass(frozen=True)
class Coverage:
    """What an importance matrix knows of a model's weights; every field but ``tensors`` is best empty."""

    tensors: int  # weights of the model that have an entry of the right size
    missing: list[str]
    unknown: list[str]  # entries that belong to no weight of the model
    misfits: dict[str, str]  # "96 values, the model has 64"
    unseen: dict[str, int]  # columns that were always 0
    unused: dict[str, int]  # matrices (experts) that read nothing
    invalid: dict[str, int]  # columns with NaN, infinity or less than 0


@dataclass
class ImportanceMatrix:
    """Entries by the weight's name (``blk.0.attn_q.weight``), and what text they come from.

    ``origin`` is what errors call it. ``chunk_count`` and ``chunk_size`` are for the record, in tokens.
    """

    entries: dict[str, Activations]
    datasets: list[str] = field(default_factory=list)
    chunk_count: int = 0
    chunk_size: int = DEFAULT_CHUNK_SIZE
    origin: str = "importance matrix"

    @classmethod
    def read(cls, path: str | Path, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Self:
        """Read a GGUF file or one of the older .dat form; raises FormatError, EdgeqError where it is unreadable.

        The .dat form counts chunks, not tokens, and does not say how long they were: ``chunk_size`` does, which
        matters only when it is merged with others.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                is_gguf = file.read(len(MAGIC)) == MAGIC
        except FileNotFoundError:
            raise EdgeqError(f"{path}: no such file") from None
        except OSError as error:
            raise EdgeqError(f"{path}: cannot be read ({error.strerror})") from None
        if is_gguf:
            with GGUFFile.open(path) as opened:
                return cls(_entries(opened), *_origin(opened), origin=str(path))
        dat = read_dat(path)
        entries = {
            name: Activations(sums.astype(np.float64)[None] * chunk_size, np.array([chunks * chunk_size]))
            for name, (sums, chunks) in dat.entries.items()
        }
        return cls(entries, dat.datasets, dat.chunk_count, chunk_size, str(path))

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Write llama.cpp's GGUF form atomically, entries sorted by name; raises EdgeqError."""
        plans: list[TensorPlan] = []
        for name, entry in sorted(self.entries.items()):
            matrices, columns = entry.sums.shape
            # ggml writes no final dimensions of 1.
            plans.append(TensorPlan(name + _SUMS, _F32, (matrices, columns) if matrices > 1 else (columns,)))
            plans.append(TensorPlan(name + _COUNTS, _F32, (matrices, 1) if matrices > 1 else (1,)))
        metadata: dict[str, Value | Typed] = {
            "general.type": "imatrix",
            _DATASETS: Typed(list(self.datasets), ValueType.STRING),
            _CHUNK_COUNT: Typed(self.chunk_count, ValueType.UINT32),
            _CHUNK_SIZE: Typed(self.chunk_size, ValueType.UINT32),
        }
        with GGUFWriter(path, None, metadata, plans, force=force) as writer:
            for name, entry in sorted(self.entries.items()):
                writer.write_rows(name + _SUMS, _float_bytes(entry.sums))
                writer.write_rows(name + _COUNTS, _float_bytes(entry.counts))

    def importance(self, name: str) -> NDArray[np.float32]:
        """The weights of one tensor's columns, as llama-quantize takes them: float32 ``[columns]``.

        Of stacked experts ``[experts · columns]``. Raises EdgeqError without an entry, and for one that holds NaN,
        infinity or less than 0.
        """
        if name not in self.entries:
            raise EdgeqError(f"{self.origin}: has nothing on {name!r}")
        self._check(name)
        return self.entries[name].importance().reshape(-1)

    def importance_of(self, name: str, shape: Sequence[int]) -> NDArray[np.float32] | None:
        """The weights for a tensor of that shape, float32 ``[experts or 1, columns]``; None where nothing is known.

        Raises EdgeqError for an entry of another size: it belongs to another model.
        """
        if name not in self.entries:
            return None
        if problem := self._misfit(name, shape):
            raise EdgeqError(f"{self.origin}: {name!r} has {problem}; it belongs to another model")
        return self.importance(name).reshape(-1, shape[-1])

    def check_values(self) -> None:
        """Raise EdgeqError, naming the tensor, when any entry holds NaN, infinity or less than 0."""
        for name in self.entries:
            self._check(name)

    def coverage(self, shapes: Mapping[str, Sequence[int]]) -> Coverage:
        """Compare with the weights of a model, given as name → shape in NumPy's order."""
        known = {name: entry for name, entry in self.entries.items() if name in shapes}
        misfits = {name: problem for name in known if (problem := self._misfit(name, shapes[name]))}
        return Coverage(
            tensors=len(known) - len(misfits),
            missing=[name for name in shapes if name not in self.entries],
            unknown=[name for name in self.entries if name not in shapes],
            misfits=misfits,
            unseen={name: count for name, entry in self.entries.items() if (count := entry.unseen())},
            unused={
                name: count
                for name, entry in self.entries.items()
                if (count := int(np.count_nonzero(entry.counts == 0)))
            },
            invalid={name: count for name, entry in self.entries.items() if (count := entry.invalid())},
        )

    def _check(self, name: str) -> None:
        entry = self.entries[name]
        if invalid := entry.invalid():
            problem = f"NaN, infinity or less than 0 in {invalid} of {entry.sums.size} columns"
            raise EdgeqError(f"{self.origin}: {name!r} has {problem}; {_AGAIN}")

    def _misfit(self, name: str, shape: Sequence[int]) -> str:
        wanted, found = _values(shape), self.entries[name].sums.size
        return "" if found == wanted else f"{found} values, the model has {wanted}"


def merge(matrices: Iterable[ImportanceMatrix]) -> ImportanceMatrix:
    """Add several up, as if one run had read all their texts; ``chunk_size`` is the first one's.

    An entry that only some have is kept. Raises EdgeqError where two differ in size, or one holds NaN.
    """
    first, *others = matrices
    first.check_values()
    total = ImportanceMatrix(dict(first.entries), [], 0, first.chunk_size, first.origin)
    for matrix in (first, *others):
        total.datasets += matrix.datasets
        total.chunk_count += matrix.chunk_count
    for matrix in others:
        matrix.check_values()
        for name, entry in matrix.entries.items():
            if name not in total.entries:
                total.entries[name] = entry
                continue
            before = total.entries[name]
            if before.sums.size != entry.sums.size or not _same_experts(before, entry):
                raise EdgeqError(
                    f"{matrix.origin}: {name!r} is {_shown(entry)}, in {first.origin} {_shown(before)}; "
                    "they belong to different models"
                )
            total.entries[name] = _sum(before, entry)
    return total


def _same_experts(a: Activations, b: Activations) -> bool:
    return len(a.counts) == len(b.counts) or 1 in (len(a.counts), len(b.counts))


def _sum(a: Activations, b: Activations) -> Activations:
    """Both together; where one counts experts and the other all of them at once, its count is each one's."""
    matrices = max(len(a.counts), len(b.counts))
    sums = a.sums.astype(np.float64).reshape(matrices, -1) + b.sums.reshape(matrices, -1)
    return Activations(sums, np.broadcast_to(a.counts, matrices) + b.counts)


def _shown(entry: Activations) -> str:
    return " × ".join(map(str, entry.sums.shape))


def _values(shape: Sequence[int]) -> int:
    """Columns times experts: what an entry for a tensor of that shape holds."""
    return int(shape[-1] * np.prod(shape[:-2], dtype=np.int64))


def _float_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)


def _origin(file: GGUFFile) -> tuple[list[str], int, int]:
    """Datasets, chunk count and chunk size; llama-quantize refuses a file without them, and so does this."""
    kind = file.metadata.get("general.type", "imatrix")
    if kind != "imatrix":
        raise FormatError(file.path, f"is no importance matrix: general.type is {kind!r}")
    datasets = file.metadata.get(_DATASETS)
    if not isinstance(datasets, list) or file.metadata_types[_DATASETS] is not ValueType.STRING:
        raise FormatError(file.path, f"key {_DATASETS!r} must be an array of strings", _AGAIN)
    numbers = []
    for key in (_CHUNK_COUNT, _CHUNK_SIZE):
        value = file.metadata.get(key)
        if not isinstance(value, int) or file.metadata_types[key] is not ValueType.UINT32:
            raise FormatError(file.path, f"key {key!r} must be a UINT32", _AGAIN)
        numbers.append(value)
    return [str(name) for name in datasets], numbers[0], numbers[1]


def _entries(file: GGUFFile) -> dict[str, Activations]:
    """Every pair of sums and counts; other tensors, which a later llama.cpp may add, are left alone."""
    names = [name.removesuffix(_SUMS) for name in file.tensors if name.endswith(_SUMS)]
    lone = [
        name for name in file.tensors if name.endswith(_COUNTS) and name.removesuffix(_COUNTS) not in names
    ]
    if lone:
        raise FormatError(file.path, f"{lone[0]!r} stands without its sums", _AGAIN)
    if not names:
        raise FormatError(file.path, "is no importance matrix: it has no tensor that ends in .in_sum2")
    return {name: _entry(file, name) for name in names}


def _entry(file: GGUFFile, name: str) -> Activations:
    if name + _COUNTS not in file.tensors:
        raise FormatError(file.path, f"{name + _SUMS!r} stands without its counts", _AGAIN)
    found = {}
    for part in (name + _SUMS, name + _COUNTS):
        if file.info(part).type_name != _F32:
            raise FormatError(file.path, f"tensor {part!r} is {file.info(part).type_name}, not F32", _AGAIN)
        found[part] = file.decode(part).reshape(-1)
    sums, counts = found[name + _SUMS], found[name + _COUNTS]
    if not name or not counts.size or not sums.size or sums.size % counts.size:
        problem = f"{name!r} has {sums.size} sums and {counts.size} counts, which do not divide"
        raise FormatError(file.path, problem, _AGAIN)
    return Activations(sums.reshape(counts.size, -1), _whole_counts(file, name, counts))


def _whole_counts(file: GGUFFile, name: str, counts: NDArray[np.float32]) -> NDArray[np.int64]:
    if not (np.isfinite(counts).all() and counts.min() >= 0 and counts.max() < 2**62):
        raise FormatError(file.path, f"{name + _COUNTS!r} holds what is no count", _AGAIN)
    return np.rint(counts).astype(np.int64)
