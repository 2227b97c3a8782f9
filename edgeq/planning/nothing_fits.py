"""What is said, with exit code 3, where a plan finds no format for a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.errors import EdgeqError, GateError, InputError

_SMALLER = "take a smaller model, a shorter context or a larger device"
_LESS = "ask for less quality or speed, or take another device"


def nothing_fits(record: Mapping[str, Any]) -> EdgeqError:
    """The error for a record of ``edgeq.plan`` without a choice: GateError, with the format that misses least.

    InputError where there was no format to choose from.
    """
    model, device, rows = record["model"]["path"], record["device"]["id"], record["formats"]
    if not rows:
        return InputError(f"{model}: has none of the formats asked for; give another --to or --quant")
    limit = record["limit"]["bytes"]
    nearest = min(rows, key=lambda row: (row["memory"]["total"] > limit, row["memory"]["total"]))
    remedy = _SMALLER if nearest["memory"]["total"] > limit else _LESS
    name = f"{nearest['format']} {nearest['quant']}"
    return GateError(f"{model}: no format can be had on {device} ({name}: {nearest['reason']}); {remedy}")
