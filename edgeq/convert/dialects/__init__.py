"""The sets of operators that a decoder's graph may be written in: one file each, found by importing this folder."""

from __future__ import annotations

import importlib
import pkgutil

from edgeq.convert.dialects.base import DIALECTS, DecoderOps

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["DIALECTS", "DecoderOps"]
