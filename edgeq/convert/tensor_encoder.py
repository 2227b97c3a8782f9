"""One tensor encoded for a GGUF file, piece by piece: copied, repacked from others' integers, or rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.convert.gguf_sources import Rows, RowSource
from edgeq.convert.repack import can_repack, merge, repack
from edgeq.convert.tensor_result import TensorResult
from edgeq.devices.detect import instruction_set
from edgeq.errors import EdgeqError, InputError
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.split_writer import SplitGGUFWriter
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan
from edgeq.formats.rounding_error import RoundingError

if TYPE_CHECKING:
    from edgeq.convert.gguf_file import GGUFPlan, WriteOptions
    from edgeq.formats.checkpoint.quantized import Grid
    from edgeq.kernels_cpu.ahead import Need

_CHECKED = {"F32", "F16", "BF16"}  # never copied unseen: NaN may hide in them, and encoding them is exact
Floats = NDArray[np.float32]


class _Piece(NamedTuple):
    """Some encoded rows; their error, none where nobody asked; how many blocks, repacked of all."""

    coded: NDArray[np.uint8]
    error: RoundingError = RoundingError()
    repacked_blocks: int = 0
    blocks: int = 0


class TensorEncoder:
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
        self._error = RoundingError()
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
            return _Piece(self._ready.rows(name, rows))
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
        self._error += piece.error
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
        return _Piece(coded, RoundingError.of(values, decoded))

    def result(self, planned: GGUFPlan) -> TensorResult:
        """What became of the tensor, once it is written."""
        tensor = self.tensor
        ready = self._ready if self._options.measure_error else None
        error = self._error if ready is None else ready.error(tensor.name)
        origin = self._source.layout(tensor.name)
        return TensorResult(
            tensor.name,
            tensor.type_name,
            tensor.shape,
            planned.nbytes(tensor),
            error.relative,
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
