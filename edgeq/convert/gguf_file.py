"""The GGUF converter: a checkpoint or a GGUF file becomes a quantized file in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.convert.gguf_sources import Rows, RowSource
from edgeq.convert.overlap import in_order
from edgeq.convert.repack import can_repack, merge, repack
from edgeq.convert.tensor_result import TensorResult
from edgeq.devices.detect import instruction_set
from edgeq.errors import EdgeqError, InputError
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mixes import Choice, choose_types, file_type, is_quantizable
from edgeq.formats.gguf.overrides import Override, apply_overrides
from edgeq.formats.gguf.split_writer import SplitGGUFWriter, shard_paths
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan
from edgeq.kernels_cpu import threads

if TYPE_CHECKING:
    from edgeq.formats.checkpoint.quantized import Grid
    from edgeq.kernels_cpu.ahead import Need

_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
_CHECKED = {"F32", "F16", "BF16"}  # never copied unseen: NaN may hide in them, and encoding them is exact
Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GGUFPlan:
    """Which type each tensor gets, and what the fallbacks cost."""

    quant: str
    choices: list[Choice]
    tensors: list[TensorPlan]

    def nbytes(self, tensor: TensorPlan, type_name: str | None = None) -> int:
        """Bytes of a tensor in its own type, or in another one (as if its rows divided)."""
        kind = TENSOR_TYPES_BY_NAME[type_name or tensor.type_name]
        return round(int(np.prod(tensor.shape)) / kind.block_values * kind.block_bytes)

    def total(self) -> int:
        return sum(self.nbytes(tensor) for tensor in self.tensors)

    def fallbacks(self) -> list[tuple[Choice, int]]:
        """Tensors whose rows do not divide by the wanted type's block, and the extra bytes of the type they get."""
        shapes = {tensor.name: tensor for tensor in self.tensors}
        return [
            (choice, self.nbytes(shapes[choice.name]) - self.nbytes(shapes[choice.name], choice.wanted_type))
            for choice in self.choices
            if choice.is_fallback
        ]

    def fallback_notes(self) -> list[str]:
        """One line per tensor that falls back."""
        columns = {tensor.name: tensor.shape[-1] for tensor in self.tensors}
        return [
            f"{choice.name}: rows of {columns[choice.name]} do not divide for {choice.wanted_type}, "
            f"stored as {choice.type_name} ({extra:+,} bytes)"
            for choice, extra in self.fallbacks()
        ]

    def fallback_summary(self) -> list[str]:
        """One line per kind of fallback: how many tensors, from what to what, and what it costs."""
        groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for choice, extra in self.fallbacks():
            groups.setdefault((choice.wanted_type, choice.type_name), []).append((choice.name, extra))
        total = self.total()
        return [
            f"{len(items)} tensors fall back from {wanted} to {got}, their rows do not divide by the block "
            f"({items[0][0]}{', …' if len(items) > 1 else ''}): "
            f"{sum(extra for _, extra in items) / total:+.1%} file size"
            for (wanted, got), items in groups.items()
        ]


class EncodedRows(Protocol):
    """Tensors that were encoded before."""

    def __contains__(self, name: str) -> bool:
        """Whether the tensor is one of them."""

    def rows(self, name: str, rows: Rows) -> NDArray[np.uint8]:
        """Encoded rows of it; several threads may ask."""


@dataclass
class WriteOptions:
    """How a file is written. ``importance`` holds column weights by tensor name, a row for each expert;
    ``nan`` what NaN weights do; ``encoded`` the tensors that need no encoding any more."""

    force: bool = False
    progress: Progress | None = None
    importance: Mapping[str, Floats] | None = None
    effort: Effort = Effort.normal
    encoded: EncodedRows | None = None
    nan: Literal["error", "zero"] = "error"
    split_bytes: int | None = None
    measure_error: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)  # keys beside the source's own


def plan(
    source: RowSource, quant: str, overrides: Sequence[Override] = (), has_imatrix: bool = False
) -> GGUFPlan:
    """The types of all tensors under llama.cpp's mix ``quant``; raises EdgeqError for an unknown name."""
    choices = [
        _kept(source, choice, dims)
        for choice, (_, dims) in zip(
            choose_types(quant, source.shape, source.tensors, has_imatrix=has_imatrix),
            source.tensors,
            strict=True,
        )
    ]
    if overrides:
        choices = apply_overrides(choices, source.tensors, overrides)
    tensors = [
        TensorPlan(name, choice.type_name, dims)
        for (name, dims), choice in zip(source.tensors, choices, strict=True)
    ]
    return GGUFPlan(file_type(quant).name, choices, tensors)


def _kept(source: RowSource, choice: Choice, shape: tuple[int, ...]) -> Choice:
    """What llama.cpp never quantizes keeps the type it is stored in."""
    stored = source.stored_type(choice.name)
    if stored is None or is_quantizable(choice.name, shape):
        return choice
    return replace(choice, type_name=stored, wanted_type=stored, reason="never quantized: kept as it is")


def output_paths(planned: GGUFPlan, path: Path, split_bytes: int | None) -> list[Path]:
    """The files that ``write`` is going to make."""
    return [path] if split_bytes is None else shard_paths(path, planned.tensors, split_bytes)


def write(
    source: RowSource, planned: GGUFPlan, path: Path, options: WriteOptions
) -> tuple[list[Path], list[TensorResult]]:
    """Write the file (or its shards), all threads busy across tensors; what became of each tensor."""
    metadata: dict[str, Any] = source.metadata() | {
        "general.file_type": file_type(planned.quant).number,
        "general.quantization_version": _QUANTIZATION_VERSION,
        **options.metadata,
    }
    architecture, force, progress = source.shape.architecture, options.force, options.progress
    if options.split_bytes is None:
        writer: GGUFWriter | SplitGGUFWriter = GGUFWriter(
            path, architecture, metadata, planned.tensors, force, progress
        )
        paths = [path]
    else:
        writer = SplitGGUFWriter(
            path, architecture, metadata, planned.tensors, options.split_bytes, force, progress
        )
        paths = writer.paths
    encoders = [_TensorEncoder(source, tensor, options) for tensor in planned.tensors]
    jobs = ((encoder, rows) for encoder in encoders for rows in source.pieces(encoder.tensor.name))
    workers = threads.get_threads() + 1  # one of them is reading, or waits for the disk
    with writer:
        _compile_ahead(encoders)
        in_order(
            jobs,
            lambda job: (job[0], job[0].encode(job[1])),
            lambda done: done[0].take(done[1], writer),
            workers,
            threads.stay_on_this_thread,
        )
    return paths, [encoder.result(planned) for encoder in encoders]


def _compile_ahead(encoders: Sequence[_TensorEncoder]) -> None:
    from edgeq.kernels_cpu.ahead import compile_ahead

    compile_ahead((need for encoder in encoders for need in encoder.needs()), instruction_set())


class _Piece(NamedTuple):
    """Some encoded rows; Σ (x − x̂)² and Σ x² over them (0 where nobody asked); how many blocks, repacked of all."""

    coded: NDArray[np.uint8]
    squared_error: float = 0.0
    squared_size: float = 0.0
    repacked_blocks: int = 0
    blocks: int = 0


class _TensorEncoder:
    """One tensor on its way into the file: ``encode`` on any thread, ``take`` in order."""

    def __init__(self, source: RowSource, tensor: TensorPlan, options: WriteOptions) -> None:
        from edgeq.kernels_cpu.decode import decode
        from edgeq.kernels_cpu.encode import encode

        # Imported here, before the threads start: two threads that import Numba by two ways find it half made.
        self._encode, self._decode = encode, decode
        self.tensor = tensor
        self._source, self._options = source, options
        self._copied = (
            source.stored_type(tensor.name) == tensor.type_name and tensor.type_name not in _CHECKED
        )
        encoded = options.encoded
        self._ready = encoded if encoded is not None and tensor.name in encoded else None
        self._squared_error = self._squared_size = 0.0
        self._repacked_blocks = self._blocks = 0

    def needs(self) -> list[Need]:
        """The kernels that the tensor is going to call."""
        from edgeq.kernels_cpu.ahead import Need

        name, stored = self.tensor.type_name, self._source.stored_type(self.tensor.name)
        if self._copied or self._ready is not None:
            return []
        weighted = self.tensor.name in (self._options.importance or {})
        found = [Need("encode", name, weighted)]
        if self._options.effort is not Effort.ggml:
            found.append(Need("refine", name, weighted))
        return found if stored is None else [*found, Need("decode", stored)]

    def encode(self, rows: Rows) -> _Piece:
        """Read a piece and encode it, or copy it as it is stored."""
        name = self.tensor.name
        if self._copied:
            return _Piece(self._source.stored(name, rows))
        if self._ready is not None:
            coded = self._ready.rows(name, rows)
            measured = self._options.measure_error
            return self._measured(self._source.rows(name, rows), coded) if measured else _Piece(coded)
        values = self._source.rows(name, rows)
        grid = self._source.grid(name, rows) if can_repack(self.tensor.type_name) else None
        if grid is not None:
            return self._repacked(values, grid, rows[0])
        try:
            coded = self._coded(values, rows[0])
        except EdgeqError as error:
            values = self._repaired(values, rows[0], error)
            coded = self._coded(values, rows[0])
        return self._measured(values, coded)

    def take(self, piece: _Piece, writer: GGUFWriter | SplitGGUFWriter) -> None:
        """Write the next piece."""
        writer.write_rows(self.tensor.name, piece.coded)
        self._squared_error += piece.squared_error
        self._squared_size += piece.squared_size
        self._repacked_blocks += piece.repacked_blocks
        self._blocks += piece.blocks

    def _repacked(self, values: Floats, grid: Grid, first_row: int) -> _Piece:
        """The piece as the integers that others made of it, as far as the type's blocks can hold those."""
        repacked = repack(self.tensor.type_name, grid, values)
        count, blocks = int(repacked.exact.sum()), repacked.exact.size
        coded = repacked.coded
        if count < blocks:
            coded = merge(self.tensor.type_name, repacked, self._coded(values, first_row), values)
        return self._measured(values, coded)._replace(repacked_blocks=count, blocks=blocks)

    def _coded(self, values: Floats, first_row: int) -> NDArray[np.uint8]:
        name, isa, effort = self.tensor.type_name, instruction_set(), self._options.effort
        importance = (self._options.importance or {}).get(self.tensor.name)
        if importance is None or len(importance) == 1:
            return self._encode(name, values, None if importance is None else importance[0], isa, effort)
        height = self.tensor.shape[-2]  # each expert's rows have its own weights
        cuts = range(height - first_row % height, len(values), height)
        experts = range(first_row // height, len(importance))
        return np.concatenate(
            [
                self._encode(name, part, importance[expert], isa, effort)
                for expert, part in zip(experts, np.split(values, cuts), strict=False)
            ]
        )

    def _repaired(self, values: Floats, first_row: int, error: EdgeqError) -> Floats:
        """The values with zeros for NaN and infinity, where the user wants that; raises InputError otherwise."""
        finite = np.isfinite(values)
        where = f"{self._source.where}: tensor {self.tensor.name}"
        if finite.all():
            raise InputError(f"{where}: {error}") from None
        if self._options.nan == "error":
            row = first_row + int((~finite).any(axis=1).argmax())
            raise InputError(
                f"{where}, row {row}: holds NaN or infinity; `edgeq quantize --nan zero` writes zeros there"
            ) from None
        return np.where(finite, values, np.float32(0))

    def _measured(self, values: Floats, coded: NDArray[np.uint8]) -> _Piece:
        """The piece, with its error where that is wanted."""
        if not self._options.measure_error or self.tensor.type_name == "F32":
            return _Piece(coded)
        decoded = self._decode(self.tensor.type_name, coded, values.shape[1], instruction_set())
        difference, flat = (decoded - values).reshape(-1), values.reshape(-1)
        return _Piece(coded, float(np.dot(difference, difference)), float(np.dot(flat, flat)))

    def result(self, planned: GGUFPlan) -> TensorResult:
        """What became of the tensor, once it is written."""
        error = float(np.sqrt(self._squared_error / self._squared_size)) if self._squared_size else 0.0
        tensor = self.tensor
        origin = self._source.layout(tensor.name)
        return TensorResult(
            tensor.name,
            tensor.type_name,
            tensor.shape,
            planned.nbytes(tensor),
            error,
            origin or "",
            "" if origin is None else self._handling(),
        )

    def _handling(self) -> str:
        """What became of a tensor that others had quantized."""
        if self.tensor.type_name == "F32":
            return "decoded"
        if self._blocks and self._repacked_blocks == self._blocks:
            return "repacked without loss"
        if self._repacked_blocks:
            return f"re-rounded, but {self._repacked_blocks / self._blocks:.1%} of the blocks repacked without loss"
        return "re-rounded"
