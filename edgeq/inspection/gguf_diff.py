"""What differs between two GGUF files: metadata, tensors, and how far the values of each tensor are apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_id
from edgeq.formats.gguf.reader import GGUFFile, TensorInfo
from edgeq.formats.gguf.split import open_gguf
from edgeq.formats.gguf.types import TENSOR_TYPES, Value
from edgeq.inspection.overview import shortened
from edgeq.inspection.stream import Progress, pieces
from edgeq.kernels_cpu.decode import decode

_PLAIN = {"F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}  # not block types, but numbers


def diff_gguf(a: Path, b: Path, progress: Progress) -> dict[str, Any]:
    """Compare ``b`` with ``a``, the reference; a shard stands for its whole model. Raises EdgeqError as open_gguf does.

    ``tensors.common`` is sorted worst first. Its ``relative_rmse`` is sqrt(sum((b - a)²) / sum(a²)), infinite
    where a is all zeros and b is not; it and ``max_abs`` are None where the bytes differ and a type cannot be
    decoded (``comparable`` is then false). Values that are NaN or infinite in either file are left out and
    counted in ``not_finite``.
    """
    with open_gguf(a) as one, open_gguf(b) as two:
        metadata = _metadata(one, two)
        tensors = _tensors(one, two, progress)
    same = not any(metadata.values()) and not any(tensors[k] for k in ("added", "removed", "reshaped"))
    return {
        "a": str(a),
        "b": str(b),
        "same_content": same and all(entry["identical"] for entry in tensors["common"]),
        "metadata": metadata,
        "tensors": tensors,
    }


def _metadata(one: GGUFFile, two: GGUFFile) -> dict[str, Any]:
    changed = []
    for key in one.metadata.keys() & two.metadata.keys():
        a, b = one.metadata[key], two.metadata[key]
        kinds = one.metadata_types[key], two.metadata_types[key]
        if kinds[0] != kinds[1] or not _same(a, b):
            detail = _detail(a, b)
            if kinds[0] != kinds[1]:
                detail = "; ".join(filter(None, (f"{kinds[0].name} became {kinds[1].name}", detail)))
            changed.append({"key": key, "a": _short(a), "b": _short(b), "detail": detail})
    return {
        "added": {key: _short(value) for key, value in two.metadata.items() if key not in one.metadata},
        "removed": {key: _short(value) for key, value in one.metadata.items() if key not in two.metadata},
        "changed": sorted(changed, key=lambda entry: str(entry["key"])),
    }


def _same(a: object, b: object) -> bool:
    return a == b or repr(a) == repr(b)  # NaN is not equal to itself, but reads the same


def _short(value: Value) -> Value | str:
    """Numbers and flags as they are; lists and long texts as one short line."""
    return shortened(value) if isinstance(value, list | str) else value


def _detail(a: Value, b: Value) -> str:
    """Where two lists part; nothing for other values, which speak for themselves."""
    if not isinstance(a, list) or not isinstance(b, list):
        return ""
    differing = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if not _same(x, y)]
    parts = [f"{len(a):,} items became {len(b):,}"] if len(a) != len(b) else []
    if differing:
        i = differing[0]
        where = f"first at {i}: {shortened(a[i])!r} became {shortened(b[i])!r}"
        parts.append(f"{len(differing):,} of the common {min(len(a), len(b)):,} items differ, {where}")
    return ", ".join(parts)


def _tensors(one: GGUFFile, two: GGUFFile, progress: Progress) -> dict[str, Any]:
    common, reshaped = [], []
    shared = [name for name in one.tensors if name in two.tensors]
    total = sum(math.prod(one.tensors[name].shape) for name in shared)
    done = 0
    for name in shared:
        a, b = one.tensors[name], two.tensors[name]
        if a.shape != b.shape:
            reshaped.append({"name": name, "a": _entry(a), "b": _entry(b)})
        else:
            common.append(_compare(one, two, a, b))
        done += math.prod(a.shape)
        progress("compare", done, total)
    return {
        "added": [_entry(tensor) for name, tensor in two.tensors.items() if name not in one.tensors],
        "removed": [_entry(tensor) for name, tensor in one.tensors.items() if name not in two.tensors],
        "reshaped": reshaped,
        "common": sorted(common, key=_badness, reverse=True),
    }


def _entry(tensor: TensorInfo) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type_name": tensor.type_name,
        "shape": list(tensor.shape),
        "nbytes": tensor.nbytes,
    }


def _badness(entry: dict[str, Any]) -> tuple[float, float, int]:
    """Worst last: what is identical, then by error, then what cannot be compared."""
    if entry["identical"]:
        return -1.0, 0.0, 0
    if entry["relative_rmse"] is None:
        return math.inf, math.inf, 1
    return entry["relative_rmse"], entry["max_abs"], entry["not_finite"]


def _compare(one: GGUFFile, two: GGUFFile, a: TensorInfo, b: TensorInfo) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": a.name,
        "shape": list(a.shape),
        "a_type": a.type_name,
        "b_type": b.type_name,
    }
    if a.type_id == b.type_id:
        both = zip(pieces(one, a), pieces(two, b), strict=True)
        if all(np.array_equal(x, y) for x, y in both):
            exact = {"relative_rmse": 0.0, "max_abs": 0.0, "not_finite": 0}
            return found | {"identical": True, "comparable": True, **exact}
    found["identical"], found["comparable"] = False, _decodable(a) and _decodable(b)
    if not found["comparable"]:
        return found | {"relative_rmse": None, "max_abs": None, "not_finite": 0}
    squares = reference = largest = 0.0
    left_out = 0
    for x, y in zip(pieces(one, a), pieces(two, b), strict=True):
        left, right = _values(a, x), _values(b, y)
        parts = _distance(left, right)
        if not math.isfinite(parts[0] + parts[1]):
            finite = np.isfinite(left) & np.isfinite(right)
            left_out += int(finite.size - np.count_nonzero(finite))
            parts = _distance(left[finite], right[finite])
        squares, reference, largest = squares + parts[0], reference + parts[1], max(largest, parts[2])
    return found | {
        "relative_rmse": _relative(squares, reference),
        "max_abs": largest,
        "not_finite": left_out,
    }


def _distance(left: NDArray[Any], right: NDArray[Any]) -> tuple[float, float, float]:
    """The sum of squares of right - left, that of left, and the largest difference.

    In float64, because differences of float32 would be rounded or overflow; by einsum, because the BLAS behind
    ``dot`` starts threads that wait for each other on busy cores (12 to 120 ns a value measured, 3 this way).
    """
    if not left.size:
        return 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):  # a damaged file may hold NaN or infinity: the caller looks at the sums
        gap = np.subtract(right, left, dtype=np.float64)
        wide = left.astype(np.float64)
        squares, reference = (float(np.einsum("i,i->", v, v)) for v in (gap, wide))
        return squares, reference, max(float(gap.max()), -float(gap.min()))


def _relative(squares: float, reference: float) -> float:
    if squares == 0:
        return 0.0
    return math.sqrt(squares / reference) if reference else math.inf


def _decodable(tensor: TensorInfo) -> bool:
    return tensor.type_name in _PLAIN or by_id(tensor.type_id) is not None


def _values(tensor: TensorInfo, blocks: NDArray[np.uint8]) -> NDArray[Any]:
    """A piece's values, as one row of numbers."""
    row = blocks.reshape(1, -1)
    if tensor.type_name in _PLAIN:
        return row.view(_PLAIN[tensor.type_name]).ravel()
    columns = len(blocks) * TENSOR_TYPES[tensor.type_id].block_values
    return decode(tensor.type_name, row, columns).ravel()
