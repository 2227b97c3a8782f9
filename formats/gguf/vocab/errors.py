"""The error for a tokenizer that is well formed, but that the other side cannot express."""

from __future__ import annotations

from edgeq.formats.errors import FormatError


class UnsupportedTokenizerError(FormatError):
    """``{path}: {field} …; {remedy}``: a field that has no equivalent in llama.cpp or in `tokenizers`."""
