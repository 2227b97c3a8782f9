"""Plain twin of ``edgeq.kernels_cpu.attention``, in float64, over keys and values as they come."""

from __future__ import annotations

import numpy as np


def attend(q, keys, values, start, scale, *, causal=True, window=0, soft_cap=0.0):
    """Attention of q ``[T, H, D]`` over keys and values ``[S, KV, D]``: float64 ``[T, H, D]``."""
    t, heads, _ = q.shape
    group = heads // keys.shape[1]
    out = np.empty(q.shape)
    for i in range(t):
        last = start + i if causal else start + t - 1
        first = max(0, last - window + 1) if window else 0
        for h in range(heads):
            seen = slice(first, last + 1)
            scores = keys[seen, h // group].astype(np.float64) @ q[i, h].astype(np.float64) * scale
            if soft_cap:
                scores = soft_cap * np.tanh(scores / soft_cap)
            weights = np.exp(scores - scores.max())
            out[i, h] = weights / weights.sum() @ values[seen, h // group].astype(np.float64)
    return out
