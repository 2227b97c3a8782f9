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
    best, least = collector.min_max(), np.inf
    for bound in np.geomspace(1, _LEAST, _STEPS) * max(-collector.low, collector.high):
        low, high = max(collector.low, -bound), min(collector.high, bound)
        divergence = _divergence(seen, values, low, high)
        if divergence < least:
            best, least = ActivationRange(low, high), divergence
    return best


def _divergence(counts: NDArray[np.float64], values: NDArray[np.float64], low: float, high: float) -> float:
    """KL of the values clipped into an interval from those values as 256 codes spread over their bins again."""
    first, last = np.searchsorted(values, [low, high])
    first, last = int(min(first, len(values) - 1)), int(max(last, first + 1))
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    places = (values[first:last] - low) / max(
        high - low, np.finfo(np.float64).tiny
    )  # 0 to 1, and one bin around
    codes = np.clip(places * _CODES, 0, _CODES - 1).astype(np.int64)
    held = inside > 0
    mass = np.bincount(codes, weights=inside, minlength=_CODES)
    bins = np.bincount(codes, weights=held, minlength=_CODES)
    spread = np.where(held, mass[codes] / np.maximum(bins[codes], 1), 0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1)
    compared = clipped > 0
    if (q[compared] == 0).any():  # an edge bin that holds clipped values only
        q = q + 1e-12
    return float(np.sum(p[compared] * np.log(p[compared] / q[compared])))
