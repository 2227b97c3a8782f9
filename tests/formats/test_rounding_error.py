"""Rounding errors of pieces add up to the whole's."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.formats.rounding_error import RoundingError


def test_pieces_add_up() -> None:
    values = np.array([[3, 4], [0, 12]], np.float32)
    rounded = np.array([[3, 5], [2, 12]], np.float32)
    whole = RoundingError.of(values, rounded)
    assert (whole.error, whole.size) == (5, 169)
    assert whole.relative == pytest.approx(np.sqrt(5) / 13)
    pieces = (RoundingError.of(a, b) for a, b in zip(values, rounded, strict=True))
    assert sum(pieces, RoundingError()) == whole


def test_zeros_have_no_error() -> None:
    assert (
        RoundingError().relative
        == RoundingError.of(np.zeros(3, np.float32), np.ones(3, np.float32)).relative
        == 0
    )
