"""The header of a GGUF file as bytes: the counterpart of ``parse``.

Source: ``gguf_write_to_buf`` in ggml/src/gguf.cpp (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.parse import TensorInfo
from edgeq.formats.gguf.types import MAGIC, NUMBER_FORMATS, VERSION, Typed, Value, ValueType

# The first type whose range holds every value; UINT32 is what llama.cpp reads most keys as.
_INTEGER_RANGES = (
    (ValueType.UINT32, 0, (1 << 32) - 1),
    (ValueType.INT32, -(1 << 31), (1 << 31) - 1),
    (ValueType.UINT64, 0, (1 << 64) - 1),
    (ValueType.INT64, -(1 << 63), (1 << 63) - 1),
)


def header_bytes(metadata: Mapping[str, Value | Typed], tensors: Sequence[TensorInfo]) -> bytes:
    """Serialize everything before the padding of the tensor data; ``offset`` counts from the data's start.

    Raises EdgeqError naming the key whose value does not fit its type.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), _value(key, value)]
    for t in tensors:
        dims = t.shape[::-1]
        layout = f"<I{len(dims)}QIQ"
        parts += [_string(t.name), struct.pack(layout, len(dims), *dims, t.type_id, t.offset)]
    return b"".join(parts)


def default_type(key: str, value: Value) -> ValueType:
    """The type of a value, or of a list's elements, that was given without one.

    int → UINT32, INT32 if negative, UINT64 or INT64 if it does not fit; float → FLOAT32; an empty list →
    STRING. Raises EdgeqError for a mixed list or another Python type.
    """
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    if not values or all(isinstance(v, str) for v in values):
        return ValueType.STRING
    if all(isinstance(v, bool) for v in values):
        return ValueType.BOOL
    if any(isinstance(v, bool) or not isinstance(v, Real) for v in values):
        raise EdgeqError(f"metadata key {key!r}: {_shown(value)} is not of one type that GGUF has")
    if not all(isinstance(v, Integral) for v in values):
        return ValueType.FLOAT32
    low, high = min(values), max(values)
    for kind, least, most in _INTEGER_RANGES:
        if least <= low and high <= most:
            return kind
    raise EdgeqError(f"metadata key {key!r}: {_shown(value)} does not fit in 64 bits")


def _value(key: str, value: Value | Typed) -> bytes:
    typed = value if isinstance(value, Typed) else Typed(value, default_type(key, value))
    if not isinstance(typed.value, list):
        return struct.pack("<I", typed.type) + _elements(key, [typed.value], typed.type)
    head = struct.pack("<IIQ", ValueType.ARRAY, typed.type, len(typed.value))
    return head + _elements(key, typed.value, typed.type)


def _elements(key: str, values: Sequence[Any], kind: ValueType) -> bytes:
    try:
        if kind is ValueType.STRING:
            return b"".join(map(_string, values))
        if kind is ValueType.BOOL and not all(isinstance(v, bool) for v in values):
            raise TypeError  # struct would take any object's truth
        return struct.pack(f"<{len(values)}{NUMBER_FORMATS[kind]}", *values)
    except (struct.error, OverflowError, TypeError, AttributeError, KeyError, UnicodeEncodeError):
        raise EdgeqError(f"metadata key {key!r}: {_shown(list(values))} is not {kind.name}") from None


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")  # the reader's inverse: any bytes come back as they were
    return struct.pack("<Q", len(raw)) + raw


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
