"""What a packed tensor is made from: the numbers of encoded rows, each as an array of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes


class Fields(NamedTuple):
    """``[n, ...]`` for n blocks. What a format does not have is None."""

    codes: Bytes  # [n, block], or that many in more axes
    d: NDArray[np.floating]  # [n], float16 or float32
    scales: NDArray[np.integer] | None = None  # [n, sub-blocks]
    mins: NDArray[np.integer] | None = None  # [n, sub-blocks]
    second: NDArray[np.floating] | None = None  # [n]: dmin or m
    zeros: Bytes | None = None  # [n]
