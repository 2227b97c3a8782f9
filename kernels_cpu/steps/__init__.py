"""Steps: kernels that a program calls by address, many times for each token, without Python in between.

A step is ``kernel(first, last, at, scratch, kind)``: items first..last of work that the words (int64) at address
``at`` describe, with ``scratch`` memory of this thread's own. ``kind`` is an ``Isa`` or a ``Layout``: it has a type
and no value, so that the kernel is compiled for it. Each module here says which words its steps take, and in
``words`` functions beside them the same is said to Python.

``executor`` runs programs of steps. Items are rows of activations, panels of weights or tiles of attention. What
changes from run to run is in the program's *state*, words that ``STATE_*`` number.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import typeof
from numba.core import types

STATE_ROWS, STATE_START, STATE_CAPACITY, STATE_FREE = (
    0,
    1,
    2,
    3,
)  # tokens, those before, positions of the cache


@functools.cache
def address_of(kernel: Any, kind: object) -> int:
    """Where a step's C function is, compiled or loaded from the disk cache when it is first asked for."""
    signature = (types.int64,) * 4 + (typeof(kind),)
    kernel.compile(signature)
    compiled = kernel.overloads[signature]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))
