"""Weights that others quantized, as several tensors each: one file per layout, found by importing this folder.

Which layout it is stands in config.json's quantization_config, under quant_method.
"""

from __future__ import annotations

import importlib
import pkgutil

from edgeq.formats.checkpoint.quantized.base import LAYOUTS, PackedWeight, Settings
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.errors import FormatError
from edgeq.formats.grid import Grid

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def find_packed(checkpoint: Checkpoint) -> dict[str, PackedWeight]:
    """Every quantized weight of a checkpoint by the name of the weight; none where the config speaks of none.

    Only headers are looked at, and settings as small as a header. Raises FormatError for a layout that is not
    known, and for tensors that contradict one another or the config.
    """
    settings = Settings.of(checkpoint)
    if settings is None:
        return {}
    method = settings.choice("quant_method", LAYOUTS)
    found: dict[str, PackedWeight] = {}
    for weight in LAYOUTS[method](checkpoint, settings):
        if weight.name in found or (weight.name in checkpoint and weight.name not in weight.parts):
            raise FormatError(checkpoint.path, f"tensor {weight.name} is there twice, plain and quantized")
        found[weight.name] = weight
    return found


__all__ = ["Grid", "PackedWeight", "find_packed"]
