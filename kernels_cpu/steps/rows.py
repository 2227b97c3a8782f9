"""Steps that move rows."""

from __future__ import annotations

from edgeq.kernels_cpu.jit import step
from edgeq.kernels_cpu.memory import get, put, word
from edgeq.kernels_cpu.steps import STATE_ROWS


@step
def last_row(first, last, at, scratch, isa):
    """Copy the last row that the state counts. Words: state, x, its row bytes, out, width."""
    x = word(at, 1) + (word(word(at, 0), STATE_ROWS) - 1) * word(at, 2)
    for i in range(word(at, 4)):
        put(word(at, 3), i, get(x, i))
