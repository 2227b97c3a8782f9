"""What memory allows: the loops that benchmarks compare kernels with."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.jit import kernel


@kernel
def fill(first, last, flat):
    """Write 1 to float32 first..last of ``flat``."""
    for i in range(first, last):
        flat[i] = np.float32(1)
