"""Answers that may not be used: numbers that are none, text that goes round in circles."""

from __future__ import annotations

import math
from typing import Any

_TAIL = 2000  # characters that are looked at
_LEAST, _MUCH = 80, 800  # characters in circles: where they are half of the text, and in any text
_ROUNDS = 4


def repeats(text: str) -> bool:
    """Whether a text ends in circles: four rounds or more of one piece, the last of which may be unfinished.

    They must make up 80 characters and half of the text, or 800 characters: a table's rows of dashes are no circles.
    The prefix function of the reversed text (Knuth, Morris and Pratt) gives each ending's shortest period.
    """
    tail = text[: -_TAIL - 1 : -1]
    longest = [0] * len(tail)
    for index in range(1, len(tail)):
        length = longest[index - 1]
        while length and tail[index] != tail[length]:
            length = longest[length - 1]
        longest[index] = length + (tail[index] == tail[length])
        covered = index + 1
        period = covered - longest[index]
        if covered >= _ROUNDS * period and (covered >= _MUCH or _LEAST <= covered >= len(text) / 2):
            return True
    return False


def finite(value: Any) -> bool:
    """Whether all numbers of an answer, in lists and dicts, too, are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list | tuple):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return True
