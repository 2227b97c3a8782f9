"""The range whose codes keep the most of the distribution: the least Kullback-Leibler divergence.

After Migacz 2017 (8-bit Inference with TensorRT, GTC), as everyone's calibrators do it, with three differences: the
interval need not be symmetric, the bound cuts the longer side first; with the widening histogram one pass over the
data is enough; and what lies at zero does not count, since a code holds it exactly. Behind a Relu it is half of all
values, and spread over the bins that share its code it would call for a bound of a few codes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.methods import method
from edgeq.calibration.ranges import RangeCollector
from edgeq.formats.onnx.int8 import ActivationRange

_STEPS, _LEAST = 128, 0.02  # bounds tried, and the smallest one as a share of the largest magnitude
_CODES = 256
_TINY = 1e-12  # a share where the codes have none
Floats = NDArray[np.float64]


@method("entropy")
def entropy(collector: RangeCollector, number: float) -> ActivationRange:
    """Of bounds from the largest magnitude to a fiftieth of it, the one of least divergence."""
    counts, edges = collector.histogram()
    counts = counts.copy()
    counts[len(counts) // 2] = 0
    if not counts.any():
        return collector.min_max()
    middles = (edges[:-1] + edges[1:]) / 2
    used = np.flatnonzero(counts)
    seen, values = counts[used[0] : used[-1] + 1].astype(np.float64), middles[used[0] : used[-1] + 1]
    bounds = np.geomspace(1, _LEAST, _STEPS) * max(-collector.low, collector.high)
    lows, highs = np.maximum(collector.low, -bounds), np.minimum(collector.high, bounds)
    best = int(np.argmin(divergences(seen, values, lows, highs)))
    return ActivationRange(float(lows[best]), float(highs[best]))


def divergences(counts: Floats, values: Floats, lows: Floats, highs: Floats) -> Floats:
    """KL of the values clipped into each interval from those values as 256 codes spread over their bins again.

    ``counts`` of the bins around ``values``, which ascend: float64 ``[bins]``; the rest float64 ``[intervals]``. Sums
    over bins are differences of sums up to them. In a code all bins that hold something have the same share q, so that
    Σ p·log(p / q) wants sums of c·log(c), and one logarithm of q a code; what is clipped changes the first bin and the
    last one only.
    """
    total, held, own = map(_up_to, (counts, np.sign(counts), _times_log(counts)))
    first = np.minimum(np.searchsorted(values, lows), len(values) - 1)
    last = np.maximum(np.searchsorted(values, highs), first + 1)
    edges = lows[:, None] + (highs - lows)[:, None] * np.arange(1, _CODES) / _CODES
    inner = np.clip(np.searchsorted(values, edges), first[:, None], last[:, None])
    starts = np.column_stack([first, inner, last])
    mass, bins = np.diff(total[starts]), np.diff(held[starts])
    inside = np.maximum(mass.sum(axis=1), 1)

    alone = last == first + 1
    clipped = total[-1] - total[last]
    extra = np.array([total[first] + np.where(alone, clipped, 0), np.where(alone, 0, clipped)])
    at = np.array([first, last - 1])
    tiny = np.where(((extra > 0) & (counts[at] == 0)).any(axis=0), _TINY, 0)  # an edge of clipped values only
    share = mass / np.maximum(bins, 1) / inside[:, None] + tiny[:, None]
    logs = np.log(share, where=share > 0, out=np.zeros_like(share))
    codes = (starts[None, :, 1:] <= at[:, :, None]).sum(axis=2)  # of the two bins
    at_edge = np.where(counts[at] > 0, np.take_along_axis(logs, codes.T, axis=1).T, np.log(_TINY))
    changed = _times_log(counts[at] + extra) - _times_log(counts[at])
    found = own[last] - own[first] - (mass * logs).sum(axis=1) + (changed - extra * at_edge).sum(axis=0)
    divergence: Floats = found / total[-1] - np.log(total[-1])
    return divergence


def _up_to(numbers: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(numbers)])


def _times_log(counts: Floats) -> Floats:
    product: Floats = counts * np.log(np.maximum(counts, 1))
    return product
