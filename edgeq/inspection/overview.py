"""What ``edgeq inspect`` shows of a GGUF file, an ONNX file or a checkpoint directory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, InputError
from edgeq.runtimes.engines import file_kind

_SHOWN_ITEMS, _SHOWN_CHARACTERS = 6, 100
_INITIALIZERS_BELOW = 64  # bytes: smaller initializers of an ONNX graph are its constants


def inspect_model(path: Path) -> dict[str, Any]:
    """Metadata, tensors (name, type, shape in NumPy order, bytes), totals by type; raises EdgeqError."""
    if path.is_dir():
        found = _inspect_checkpoint(path)
    elif path.is_file():
        found = _reader_of(path)(path)
    else:
        raise InputError(f"{path}: no such file or directory")
    by_type: dict[str, list[int]] = {}
    for tensor in found["tensors"]:
        entry = by_type.setdefault(tensor["type_name"], [0, 0])
        entry[0] += 1
        entry[1] += tensor["nbytes"]
    ordered = dict(sorted(by_type.items(), key=lambda item: -item[1][1]))
    parameters = sum(math.prod(tensor["shape"]) for tensor in found["tensors"])
    return {"file": str(path), **found, "by_type": ordered, "parameters": parameters}


def shortened(value: Any) -> str:
    """A metadata value in one line: long lists and texts are cut, and say how long they are."""
    if isinstance(value, list) and len(value) > _SHOWN_ITEMS:
        return f"[{', '.join(map(repr, value[:_SHOWN_ITEMS]))}, …] ({len(value):,} items)"
    text = str(value)
    return (
        text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text):,} characters)"
    )


def is_gguf(path: Path) -> bool:
    """Whether a file says that it is GGUF, by its name or its first bytes; raises EdgeqError if unreadable."""
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return path.suffix == ".gguf" or file.read(4) == b"GGUF"


def _reader_of(path: Path) -> Callable[[Path], dict[str, Any]]:
    if is_gguf(path):
        return _inspect_gguf
    if file_kind(path) == "onnx":
        return _inspect_onnx
    raise FormatError(path, "is neither a GGUF nor an ONNX file")


def _inspect_gguf(path: Path) -> dict[str, Any]:
    from edgeq.formats.gguf.split import SplitGGUFFile, open_gguf

    with open_gguf(path) as file:
        shards = file.shards if isinstance(file, SplitGGUFFile) else [file]
        tensors = [
            {"name": info.name, "type_name": info.type_name, "shape": list(info.shape), "nbytes": info.nbytes}
            for info in file.tensors.values()
        ]
        return {
            "format": "gguf",
            "bytes": sum(shard.path.stat().st_size for shard in shards),
            "metadata": dict(file.metadata),
            "tensors": tensors,
        }


def _inspect_onnx(path: Path) -> dict[str, Any]:
    from edgeq.formats.onnx.edit import dims
    from edgeq.formats.onnx.read import parse_model

    model = parse_model(path)
    graph = model.graph
    tensors = [
        {
            "name": name,
            "type_name": tensor.dtype.name.lower(),
            "shape": list(dims(tensor)),
            "nbytes": tensor.nbytes,
        }
        for name, value in graph.initializers.items()
        if (tensor := value.const_value) is not None and tensor.nbytes >= _INITIALIZERS_BELOW
    ]
    operators: dict[str, int] = {}
    for node in graph:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        operators[name] = operators.get(name, 0) + 1
    metadata = {
        "producer": f"{model.producer_name or '?'} {model.producer_version or ''}".strip(),
        "ir_version": model.ir_version,
        "opsets": ", ".join(
            f"{domain or 'ai.onnx'} {version}" for domain, version in graph.opset_imports.items()
        ),
        "inputs": [f"{value.name} {value.type} {value.shape}" for value in graph.inputs],
        "outputs": [f"{value.name} {value.type} {value.shape}" for value in graph.outputs],
        "operators": ", ".join(f"{name} {count}" for name, count in sorted(operators.items())),
    }
    return {"format": "onnx", "bytes": path.stat().st_size, "metadata": metadata, "tensors": tensors}


def _inspect_checkpoint(path: Path) -> dict[str, Any]:
    from edgeq.formats.checkpoint.safetensors import Checkpoint

    with Checkpoint.open(path) as checkpoint:
        tensors = [
            {
                "name": name,
                "type_name": str(checkpoint.dtype(name)),
                "shape": list(checkpoint.shape(name)),
                "nbytes": checkpoint.nbytes(name),
            }
            for name in checkpoint.names
        ]
        size = sum(checkpoint.nbytes(name) for name in checkpoint.names)
        return {
            "format": "safetensors",
            "bytes": size,
            "metadata": dict(checkpoint.config),
            "tensors": tensors,
        }
