"""Writing a graph with one weight in memory at a time, into one file or with its weights in a second.

Upstream: ``onnx.proto`` for the fields' numbers. Protobuf lets a message's fields come in any order, so the weights
are written after the rest, each straight from where it is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import onnx
import onnx_ir as ir

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.edit import dims

SMALL = 256  # bytes below which a weight stands with the nodes: shapes must, others may
MOST_INLINE = 2**31 - 1  # what protobuf reads
_PAGE, _LINE, _LARGE = 65536, 64, 1 << 20  # weights of a megabyte begin where every system can map them

Progress = Callable[[int, int], None]
# Tags of length-delimited fields: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
_GRAPH, _INITIALIZER, _RAW_DATA = 0x3A, 0x2A, 0x4A


def weights_of(model: ir.Model) -> list[ir.Value]:
    """The main graph's initializers that are too large to stand with the nodes."""
    return [value for value in model.graph.initializers.values() if _tensor(value).nbytes >= SMALL]


def write_inline(model: ir.Model, path: Path, progress: Progress) -> None:
    """One file; raises EdgeqError where protobuf would not read it."""
    weights = weights_of(model)
    proto = without_weights(model, weights)
    graph = proto.graph
    of_weights = {str(value.name) for value in weights}
    small = [tensor for tensor in graph.initializer if tensor.name not in of_weights]
    headers = {tensor.name: _header(tensor) for tensor in graph.initializer if tensor.name in of_weights}
    del graph.initializer[:]
    graph.initializer.extend(small)
    nodes = graph.SerializeToString()
    proto.ClearField("graph")
    rest = proto.SerializeToString()
    sizes = [_message_size(headers[str(value.name)], _tensor(value).nbytes) for value in weights]
    total = len(nodes) + sum(1 + len(_varint(size)) + size for size in sizes)
    if len(rest) + total + 16 > MOST_INLINE:
        raise EdgeqError(
            f"{path}: {total:,} bytes are more than one ONNX file holds; write the weights beside it"
        )
    with path.open("wb") as file:
        file.write(rest + bytes([_GRAPH]) + _varint(total) + nodes)
        for done, (value, size) in enumerate(zip(weights, sizes, strict=True), start=1):
            tensor = _tensor(value)
            file.write(bytes([_INITIALIZER]) + _varint(size) + headers[str(value.name)])
            file.write(bytes([_RAW_DATA]) + _varint(tensor.nbytes))
            _write_data(file, value)
            progress(done, len(weights))


def write_external(model: ir.Model, path: Path, data_name: str, progress: Progress) -> None:
    """The graph, and a file beside it that it names ``data_name``; weights begin at multiples of 64 bytes."""
    weights = weights_of(model)
    proto = without_weights(model, weights, data_name)
    with path.with_name(data_name).open("wb") as file:
        for done, (value, offset) in enumerate(zip(weights, _offsets(weights), strict=True), start=1):
            file.write(bytes(offset - file.tell()))
            _write_data(file, value)
            progress(done, len(weights))
    path.write_bytes(proto.SerializeToString())


def without_weights(
    model: ir.Model, weights: Sequence[ir.Value] | None = None, data_name: str = ""
) -> onnx.ModelProto:
    """The model with references instead of these weights, or of all large ones; none is computed."""
    with _replaced(weights_of(model) if weights is None else weights, data_name):
        return ir.to_proto(model)


@contextlib.contextmanager
def _replaced(weights: Sequence[ir.Value], data_name: str) -> Iterator[None]:
    before = [value.const_value for value in weights]
    try:
        for value, offset in zip(weights, _offsets(weights), strict=True):
            tensor = _tensor(value)
            value.const_value = ir.ExternalTensor(
                data_name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(dims(tensor)),
                name=str(value.name),
            )
        yield
    finally:
        for value, tensor_before in zip(weights, before, strict=True):
            value.const_value = tensor_before


def _offsets(weights: Sequence[ir.Value]) -> list[int]:
    offsets, end = [], 0
    for value in weights:
        nbytes = _tensor(value).nbytes
        step = _PAGE if nbytes >= _LARGE else _LINE
        offsets.append(-(-end // step) * step)
        end = offsets[-1] + nbytes
    return offsets


def _write_data(file: IO[bytes], value: ir.Value) -> None:
    """The weight's bytes, computed here; a wrong count would shift all that follows."""
    tensor, start = _tensor(value), file.tell()
    file.write(tensor.tobytes())
    written = file.tell() - start
    if written != tensor.nbytes:
        raise EdgeqError(f"weight {value.name} has {written} bytes, its shape says {tensor.nbytes}")


def _header(reference: onnx.TensorProto) -> bytes:
    """Name, type and shape of a tensor."""
    header = onnx.TensorProto(name=reference.name, data_type=reference.data_type, dims=reference.dims)
    return header.SerializeToString()


def _message_size(header: bytes, nbytes: int) -> int:
    return len(header) + 1 + len(_varint(nbytes)) + nbytes


def _varint(number: int) -> bytes:
    """Protobuf's variable-length integer: seven bits a byte, lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value
