"""Block types: one file per type, found by importing every module of this folder."""

from __future__ import annotations

import importlib
import pkgutil

from edgeq.formats.blocks.base import BlockType, all_types, by_id, by_name

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["BlockType", "all_types", "by_id", "by_name"]
