"""How hard the encoders look for the codes of least error."""

from __future__ import annotations

from enum import StrEnum


class Effort(StrEnum):
    """``ggml``: ggml's search and bytes. ``normal``: those blocks refined. ``best``: the same with more time."""

    ggml = "ggml"
    normal = "normal"
    best = "best"
