"""What ``--dialect`` of the commands that write ONNX may be."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """Sets of ONNX operators, for a model that generates."""

    standard = "standard"
    ort = "ort"
    cuda = "cuda"


class Form(StrEnum):
    """Forms of blocked weights, in any graph."""

    standard = "standard"
    ort = "ort"
