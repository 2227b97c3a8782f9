"""What encoded rows hold: where their codes lie, as data, and the numbers beside them, each as an array."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Bytes


class Plane(NamedTuple):
    """Some bits of each code of an encoded block.

    Those of column c are in byte ``at + c // (run · held) · run + c % run``, from bit ``bits · (c // run % held)``
    on, where ``held`` is ``8 / bits``: what a byte holds. ``run`` is 1 or a multiple of 4.
    """

    at: int
    bits: int
    run: int


class Stored(NamedTuple):
    """How an encoded block stores its codes: planes, low bits first; ``flip`` is xored to the codes."""

    planes: tuple[Plane, ...]
    flip: int = 0


class Fields(NamedTuple):
    """What n blocks hold beside their codes, ``[n, ...]``. What a format does not have is None."""

    d: NDArray[np.floating]  # [n], float16 or float32
    scales: NDArray[np.integer] | None = None  # [n, sub-blocks]
    mins: NDArray[np.integer] | None = None  # [n, sub-blocks]
    second: NDArray[np.floating] | None = None  # [n]: dmin or m
    zeros: Bytes | None = None  # [n]
