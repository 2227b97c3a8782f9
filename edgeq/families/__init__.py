"""Model families: one file per model_type, found by importing every module of this folder."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from edgeq.errors import InputError
from edgeq.families.base import (
    BY_ARCHITECTURE,
    BY_MODEL_TYPE,
    Family,
    HyperParameters,
    MetadataReader,
    TensorSpec,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def for_config(config: Mapping[str, Any], where: str) -> Family:
    """The family of a config.json; raises InputError, naming the nearest supported one."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InputError(f"{where}: no model_type; edgeq knows {', '.join(sorted(BY_MODEL_TYPE))}")
    if model_type not in BY_MODEL_TYPE:
        nearest = difflib.get_close_matches(model_type, BY_MODEL_TYPE, 1, 0.5)
        hint = f" (nearest: {nearest[0]})" if nearest else ""
        raise InputError(
            f"{where}: model_type {model_type!r} is not supported{hint}; edgeq knows "
            f"{', '.join(sorted(BY_MODEL_TYPE))}; "
            f"for ONNX, pip install 'edgeq[optimum]' and edgeq export FOLDER --to onnx --exporter optimum"
        )
    return BY_MODEL_TYPE[model_type].variant(config)


def for_architecture(architecture: object, where: str) -> Family:
    """The family of a GGUF file's general.architecture; raises InputError."""
    if not isinstance(architecture, str) or architecture not in BY_ARCHITECTURE:
        known = ", ".join(sorted(BY_ARCHITECTURE))
        raise InputError(
            f"{where}: general.architecture {architecture!r} is not supported; edgeq knows {known}"
        )
    return BY_ARCHITECTURE[architecture]


__all__ = ["Family", "HyperParameters", "MetadataReader", "TensorSpec", "for_architecture", "for_config"]
