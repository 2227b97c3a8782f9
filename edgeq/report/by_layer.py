"""What report.html shows of an export's tensors, sorted for its pictures."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

LAYER = re.compile(r"blk\.(\d+)\.(.+?)(?:_smooth)?\.?(?:weight)?(?:_smooth)?(?:_int8|_scale)?$")
# A layer's number and a tensor's role in it, in the names of edgeq's files and in those of others' graphs.
_PLACE = re.compile(
    r"(?:.*[./])?(?:blk|layers?|blocks?|h)[./](\d+)[./](.+?)(?:[./](?:weight|MatMul|Gemm|Conv)(?:_\d+)?)?$"
)


def place_of(name: str) -> tuple[int, str] | None:
    """(layer, role) of a tensor or a node; None where its name does not say them."""
    found = _PLACE.match(name)
    return None if found is None else (int(found[1]), found[2].replace("/", "."))


def sizes_by_type(tensors: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Type, megabytes, and their percentage of the largest type's; the largest first."""
    sizes: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        sizes[tensor["type_name"]] += tensor["nbytes"]
    largest = max(sizes.values(), default=0) or 1
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return [(name, size / 1e6, 100 * size / largest) for name, size in ordered]


def errors_by_role(tensors: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Relative rounding error in per cent of each quantized weight, with its layer, in order, by role."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for tensor in tensors:
        match = LAYER.match(tensor["name"])
        if match and tensor["error"] > 0:
            lines[match[2]].append((int(match[1]), 100 * tensor["error"]))
    return {role: sorted(points) for role, points in sorted(lines.items())}
