"""What ``--dialect`` of the commands that write ONNX may be."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """Sets of ONNX operators."""

    standard = "standard"
    ort = "ort"
