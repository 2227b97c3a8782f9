"""Products of codes as x86 before VNNI sums them: ``vpmaddubsw`` adds two neighbours in a saturating int16."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel

_LEAST, _MOST = -(2**15), 2**15 - 1


@kernel
def saturating_products(activations, weights, exact, saturated):
    """Sums over k of uint8 ``[M, K]`` times int8 ``[N, K]`` into int32 ``[M, N]``, twice; how many pairs saturate.

    ``exact`` gets what VNNI and ARM compute, ``saturated`` what is left where each pair (2i, 2i + 1) ends at 16 bits.
    """
    rows, columns, count = len(activations), len(weights), 0
    depth = activations.shape[1]
    even = depth - depth % 2
    for m in range(rows):
        for n in range(columns):
            whole = lost = 0
            for k in range(0, even, 2):
                first = np.int32(activations[m, k]) * np.int32(weights[n, k])
                pair = first + np.int32(activations[m, k + 1]) * np.int32(weights[n, k + 1])
                kept = min(max(pair, _LEAST), _MOST)
                whole += pair
                lost += pair - kept
                count += kept != pair
            if even < depth:
                whole += np.int32(activations[m, even]) * np.int32(weights[n, even])
            exact[m, n] = whole
            saturated[m, n] = whole - lost
    return count
