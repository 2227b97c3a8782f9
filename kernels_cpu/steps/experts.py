"""Steps that send tokens to experts: the rows of each one follow one another, so that its weights are read once.

The *table*, words (int64): where the rows of each expert begin, ``experts`` + 1 of them, the last of which is the
number of all rows; then of each row its token (−1 fills up) and its expert; then of each token the rows it became.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import helper, step
from edgeq.kernels_cpu.memory import get, put, set_word, word
from edgeq.kernels_cpu.steps import STATE_ROWS

_ZERO = np.float32(0)
_NONE = np.float32(-1)


@step
def route(first, last, at, scratch, isa):
    """Softmax of each row's scores; the largest stay, the others become 0.

    Words: scores, out, their row bytes, experts, how many stay, whether they shall add up to 1. ``scratch``: a row.
    """
    experts, used = word(at, 4), word(at, 5)
    for t in range(first, last):
        out = word(at, 1) + t * word(at, 3)
        _softmax(word(at, 0) + t * word(at, 2), experts, scratch)
        for e in range(experts):
            put(out, e, _ZERO)
        total = _ZERO
        for _ in range(used):
            best = 0
            for e in range(1, experts):
                if get(scratch, e) > get(scratch, best):
                    best = e
            put(out, best, get(scratch, best))
            total += get(scratch, best)
            put(scratch, best, _NONE)
        if word(at, 6):
            for e in range(experts):
                put(out, e, get(out, e) / total)


@helper
def _softmax(x, n, to):
    peak, total = get(x, 0), _ZERO
    for i in range(1, n):
        peak = max(peak, get(x, i))
    for i in range(n):
        put(to, i, np.exp(get(x, i) - peak))
        total += get(to, i)
    for i in range(n):
        put(to, i, get(to, i) / total)


@step
def sort(first, last, at, scratch, isa):
    """Write the table. Words: state, routed weights, their row bytes, table, experts, used, rows of the table, and what
    the rows of an expert are filled up to a multiple of.
    """
    tokens, table = word(word(at, 0), STATE_ROWS), word(at, 3)
    experts, used, multiple = word(at, 4), word(at, 5), word(at, 7)
    rows_at = table + 8 * (experts + 1)
    places = rows_at + 16 * word(at, 6)
    row = 0
    for t in range(tokens * used):
        set_word(places, t, -1)
    for e in range(experts):
        set_word(table, e, row)
        for t in range(tokens):
            if get(word(at, 1) + t * word(at, 2), e) != _ZERO:
                set_word(rows_at, 2 * row, t)
                set_word(rows_at, 2 * row + 1, e)
                k = t * used
                while word(places, k) >= 0:
                    k += 1
                set_word(places, k, row)
                row += 1
        while row % multiple:
            set_word(rows_at, 2 * row, -1)
            row += 1
    set_word(table, experts, row)


@step
def gather(first, last, at, scratch, isa):
    """Rows of the table from those of their tokens. Words: x, out, their row bytes, width, table, experts."""
    rows_at = word(at, 5) + 8 * (word(at, 6) + 1)
    for row in range(first, last):
        token = word(rows_at, 2 * row)
        if token >= 0:
            x, out = word(at, 0) + token * word(at, 2), word(at, 1) + row * word(at, 3)
            for i in range(word(at, 4)):
                put(out, i, get(x, i))


@step
def combine(first, last, at, scratch, isa):
    """Each token's sum of its rows times their weights.

    Words: rows, out, routed weights, the row bytes of each, width, table, experts, used, rows of the table.
    """
    width, table, experts, used = word(at, 6), word(at, 7), word(at, 8), word(at, 9)
    rows_at = table + 8 * (experts + 1)
    places = rows_at + 16 * word(at, 10)
    for t in range(first, last):
        out, weights = word(at, 1) + t * word(at, 4), word(at, 2) + t * word(at, 5)
        for i in range(width):
            put(out, i, _ZERO)
        for k in range(t * used, (t + 1) * used):
            row = word(places, k)
            if row >= 0:  # a weight may have come out as 0
                x, factor = word(at, 0) + row * word(at, 3), get(weights, word(rows_at, 2 * row + 1))
                for i in range(width):
                    put(out, i, get(out, i) + factor * get(x, i))
