"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """``1 tensor``, ``1,234 tensors``: a thing whose plural takes an s."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")
