"""Reading an ONNX file of anybody's: checked before it is believed, its external data mapped and not copied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeq.formats.errors import FormatError, innermost
from edgeq.formats.onnx.node_check import faults

OLDEST_OPSET, NEWEST_OPSET = 11, 26
_PROTOBUF_LIMIT = 2**31  # bytes; no protobuf library reads more
_AGAIN = "copy or export it again"

# The fields of a TensorProto that hold one number per value, by how they hold it (onnx.proto3, TensorProto).
_VALUE_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def read_model(path: Path) -> ir.Model:
    """The model of an ONNX file, nodes in order, weights as they lie in the file or mapped from beside it.

    Raises FormatError for what cannot be parsed, an opset out of 11 to 26, a tensor whose bytes do not fit its shape,
    external data that is missing, too short or outside of the file's folder, a graph with a cycle, a node that is not
    what its operator is defined as, and one that reads what nothing makes.
    """
    path = path.absolute()  # onnx_ir checks where external data lies only below a folder that it knows
    model = parse_model(path)
    if not model.graph.outputs or not len(model.graph):
        raise FormatError(path, "is an ONNX file without a graph", _AGAIN)
    opset = model.opset_imports.get("")
    if opset is None:
        raise FormatError(path, "names no version of the standard operators", _AGAIN)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        wanted = f"export it again with one from {OLDEST_OPSET} to {NEWEST_OPSET}"
        raise FormatError(path, f"has ONNX opset {opset}", wanted)
    fault = next(faults(model), None)
    if fault is not None:
        raise FormatError(path, fault, _AGAIN)
    for name, tensor in tensors(model):
        _check_tensor(path, name, tensor)
    _check_order(path, model)
    return model


def tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every constant of the model with its name: initializers and tensor attributes, of subgraphs too."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield (
                        str(node.outputs[0].name),
                        attribute.value,
                    )  # as_tensor() computes its size, if it has a type


def external_files(model: ir.Model) -> list[str]:
    """The files that hold external data, as the model names them, in the order of their first use."""
    found = {str(t.location): None for _, t in tensors(model) if isinstance(t, ir.ExternalTensor)}
    return list(found)


def parse_model(path: Path) -> ir.Model:
    """The model of an ONNX file as far as protobuf reads it, to be looked at: its weights are not checked.

    Raises FormatError for what cannot be parsed.
    """
    size = path.stat().st_size
    if size >= _PROTOBUF_LIMIT:
        problem = f"has {size / 1e9:.1f} GB in one protobuf message, which ends at 2.1"
        raise FormatError(path, problem, "save it with external data")
    try:
        return ir.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf and onnx_ir raise many unrelated types for a broken file
        raise _not_read(path, error) from None


def _not_read(path: Path, error: BaseException) -> FormatError:
    """What to say of a file that onnx_ir does not take."""
    if "cycle" in str(error):
        return FormatError(path, "has a graph with a cycle", _AGAIN)
    if "Map types are not supported" in str(innermost(error)):
        return FormatError(path, "has an output that is a map", "export it without (ZipMap: zipmap=False)")
    return FormatError(path, f"is not a readable ONNX file ({type(error).__name__})", _AGAIN)


def _check_tensor(path: Path, name: str, tensor: ir.TensorProtocol) -> None:
    sizes = [size for size in tensor.shape if isinstance(size, int)]
    if tensor.dtype == ir.DataType.UNDEFINED:
        raise FormatError(path, f"tensor {name} is of no type", _AGAIN)
    if len(sizes) != len(tensor.shape) or any(size < 0 for size in sizes):
        raise FormatError(path, f"tensor {name} has the shape {list(tensor.shape)}", _AGAIN)
    values = math.prod(sizes)
    if isinstance(tensor, ir.ExternalTensor):
        _check_external(path, name, tensor, _nbytes(values, tensor.dtype))
    elif isinstance(tensor, ir.serde.TensorProtoTensor):
        _check_inline(path, name, tensor.raw, values, _nbytes(values, tensor.dtype))
    elif isinstance(tensor, ir.Tensor) and tensor.dtype.bitwidth >= 8 and np.size(tensor.raw) != values:
        stored = np.size(tensor.raw)
        raise FormatError(path, f"tensor {name} has {stored} values, its shape wants {values}", _AGAIN)


def _nbytes(values: int, dtype: ir.DataType) -> int:
    return -(-values * dtype.bitwidth // 8)  # several 4-bit values share a byte


def _check_external(path: Path, name: str, tensor: ir.ExternalTensor, nbytes: int) -> None:
    location = str(tensor.location)
    folder, target = path.parent.resolve(), (path.parent / location).resolve()
    if Path(location).is_absolute() or not target.is_relative_to(folder):
        raise FormatError(path, f"tensor {name} lies outside of the file's folder, at {location}", _AGAIN)
    if not target.is_file():
        raise FormatError(
            path, f"tensor {name} lies in {location}, which is missing", "put it beside the file"
        )
    offset, length = tensor.offset or 0, nbytes if tensor.length is None else tensor.length
    if length != nbytes:
        raise FormatError(path, f"tensor {name} has {length} bytes, not the {nbytes} of its shape", _AGAIN)
    if offset < 0 or offset + length > target.stat().st_size:
        raise FormatError(path, f"tensor {name} ends after the end of {location}", "copy that file again")


def _check_inline(path: Path, name: str, proto: onnx.TensorProto, values: int, nbytes: int) -> None:
    if proto.HasField("raw_data"):
        stored, wanted = len(proto.raw_data), nbytes
    else:
        stored, wanted = sum(len(getattr(proto, field)) for field in _VALUE_FIELDS), values
        if proto.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            wanted *= 2
        elif ir.DataType(proto.data_type).bitwidth < 8:
            wanted = nbytes  # one int32 for each packed byte
    if stored != wanted:
        raise FormatError(
            path, f"tensor {name} has {stored} values or bytes, its shape wants {wanted}", _AGAIN
        )


def _check_order(path: Path, model: ir.Model) -> None:
    """Sort the nodes, and see that all that is read exists."""
    try:
        model.graph.sort()
    except ValueError:
        raise FormatError(path, "has a graph with a cycle", _AGAIN) from None
    for graph in model.graphs():
        for node in graph:
            for value in node.inputs:
                if value is None or value.producer() is not None or value.is_graph_input():
                    continue
                if not value.is_initializer():
                    what = node.name or node.op_type
                    if value.name in _sparse_names(path):
                        problem = f"has a sparse weight, {value.name}, which edgeq does not read"
                        raise FormatError(path, problem, "store it as a plain initializer")
                    raise FormatError(path, f"node {what} reads {value.name}, which nothing makes", _AGAIN)


def _sparse_names(path: Path) -> set[str]:
    """The initializers that onnx_ir passes over."""
    graph = onnx.load_model(path, load_external_data=False).graph
    return {tensor.values.name for tensor in graph.sparse_initializer}
