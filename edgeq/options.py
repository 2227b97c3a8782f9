"""The words of the command line, parsed where their meaning is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgeq.errors import EdgeqError, UsageError

T = TypeVar("T")


def parsed(option: str, text: str, parse: Callable[[str], T]) -> T:
    """``parse(text)``; its EdgeqError becomes a UsageError that names the option."""
    try:
        return parse(text)
    except EdgeqError as error:
        raise UsageError(f"{option} {error}") from None
