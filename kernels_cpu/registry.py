"""Finds the kernels of a block type: the module of that name in a folder of kernels, imported when needed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

from edgeq.formats.blocks import by_name


@functools.cache
def kernels(package: str, block_type_name: str) -> ModuleType | None:
    """``{package}.{name in lower case}``, or None where the plain codec serves; raises EdgeqError."""
    module = f"{package}.{by_name(block_type_name).name.lower()}"
    return None if importlib.util.find_spec(module) is None else importlib.import_module(module)
