"""Tokenizers between Hugging Face's ``tokenizer.json`` and GGUF's ``tokenizer.*`` metadata."""

from __future__ import annotations

from edgeq.formats.gguf.vocab.convert import tokenizer_metadata
from edgeq.formats.gguf.vocab.errors import UnsupportedTokenizerError
from edgeq.formats.gguf.vocab.pre_types import PRE_TYPES, PreType, pre_type_named
from edgeq.formats.gguf.vocab.restore import tokenizer_from_metadata

__all__ = [
    "PRE_TYPES",
    "PreType",
    "UnsupportedTokenizerError",
    "pre_type_named",
    "tokenizer_from_metadata",
    "tokenizer_metadata",
]
