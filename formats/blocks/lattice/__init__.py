"""Block types as lattices: the numbers that their blocks consist of, for methods that choose these by themselves.

x = d · scale · level[code] − dmin · min, with whole scales and mins for each sub-block. A module here is named as its
type and has ``LATTICE`` (which numbers are allowed), ``unpack(blocks) -> Parts`` and ``pack(parts) -> blocks``; the
layouts are described where the codecs are.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

from edgeq.formats.blocks.base import by_name
from edgeq.formats.blocks.lattice.base import Lattice, Parts

__all__ = ["Lattice", "Parts", "module"]


@functools.cache
def module(block_type_name: str) -> ModuleType | None:
    """The module of a type, imported when needed; None for a type whose numbers cannot be chosen one by one."""
    name = f"{__name__}.{by_name(block_type_name).name.lower()}"
    return None if importlib.util.find_spec(name) is None else importlib.import_module(name)
