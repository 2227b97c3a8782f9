"""Statistics of activations for calibration: what ``RangeCollector`` asks of one run, each in one sweep.

A value whose magnitude reaches ``most`` (a mask, an infinity) and NaN count nowhere.
"""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import fast_kernel, helper, kernel

_NONE = np.float32(0)
_TABLES = 4  # histograms filled in turn: equal values next to each other would wait for each other's count


@fast_kernel
def extremes(values, ends, inner, most, lows, highs, totals, squares, counts):
    """Take float32 ``[n]`` in, samples one after the other that end at ``ends`` (int64 ``[samples]``).

    A sample is rows of ``[columns, inner]``, the last one cut or not. ``lows`` and ``highs`` (float32
    ``[samples, columns]``) become the extremes of its columns, at most and at least what they were; ``totals`` and
    ``squares`` (float64 ``[columns]``) get sums and sums of squares added, ``counts`` (int64 ``[samples]``) how many
    values of it count.
    """
    start = 0
    for sample in range(ends.size):
        end = ends[sample]
        counts[sample] += _sweep(values[start:end], inner, most, lows[sample], highs[sample], totals, squares)
        start = end


@helper
def _sweep(values, inner, most, lows, highs, totals, squares):
    """One sample."""
    count = 0
    for start in range(0, values.size, lows.size * inner):
        rest = values[start : start + lows.size * inner]
        if inner == 1:
            count += _row(rest, most, lows, highs, totals, squares)
            continue
        for column in range(-(-rest.size // inner)):
            piece = rest[column * inner : (column + 1) * inner]
            part = slice(column, column + 1)
            count += _column(piece, most, lows[part], highs[part], totals[part], squares[part])
    return count


@helper
def _row(values, most, lows, highs, totals, squares):
    """One value a column."""
    count = 0
    for column in range(values.size):
        value = values[column]
        usable = abs(value) < most
        value = value if usable else _NONE
        lows[column] = min(value, lows[column])
        highs[column] = max(value, highs[column])
        wide = np.float64(value)
        totals[column] += wide
        squares[column] += wide * wide
        count += usable
    return count


@helper
def _column(values, most, low, high, total, square):
    """All values of one column; what it adds to has one element."""
    count = 0
    for place in range(values.size):
        value = values[place]
        usable = abs(value) < most
        value = value if usable else _NONE
        low[0] = min(value, low[0])
        high[0] = max(value, high[0])
        wide = np.float64(value)
        total[0] += wide
        square[0] += wide * wide
        count += usable
    return count


@kernel
def histogram(values, most, limit, counts):
    """Add float32 ``[n]``, n < 2^33, to int64 ``counts`` of even bins over [-limit, limit], which holds what counts."""
    bins = counts.size
    scale, middle = np.float64(bins / 2 / limit), np.float64(bins / 2)
    tables = np.zeros((_TABLES, bins), np.int32)
    for place in range(values.size):
        value = values[place]
        if abs(value) < most:
            found = np.int32(np.float64(value) * scale + middle)
            tables[place % _TABLES, min(found, bins - 1)] += 1
    for table in range(_TABLES):
        for place in range(bins):
            counts[place] += tables[table, place]
