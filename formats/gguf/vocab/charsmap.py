"""SentencePiece's table of replacements, ``precompiled_charsmap``: which texts become which before they are cut.

The bytes of the trie as uint32, the trie (a double array of 32-bit nodes), and the replacements, each ended by a NUL.
`tokenizers` and llama.cpp both follow its nodes without looking where they lead, so a table is checked before either
gets it. Upstream: sentencepiece ``Normalizer::DecodePrecompiledCharsMap``, darts-clone ``DoubleArrayUnit``,
`tokenizers` ``spm_precompiled``.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import numpy as np

from edgeq.formats.gguf.vocab.source import Source, flatten

_VALUE = np.uint32(1 << 31)  # marks a node that holds the place of a replacement
_SHIFTED = np.uint32(1 << 9)  # marks a node whose offset counts in steps of 256


def decoded_charsmap(source: Source, field: str, step: dict[str, Any]) -> bytes:
    """The table of a "Precompiled" step; raises FormatError where it is damaged."""
    try:
        table = base64.b64decode(step.get("precompiled_charsmap") or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise source.broken(f"{field}.precompiled_charsmap is not base64") from None
    problem = charsmap_problem(table)
    if problem is not None:
        raise source.broken(f"{field}.precompiled_charsmap {problem}")
    return table


def require_sound_charsmaps(source: Source) -> None:
    """Raise FormatError for a damaged table anywhere in tokenizer.json's normalizer."""
    for field, step in flatten(source.section("normalizer"), "normalizer", "normalizers"):
        if step.get("type") == "Precompiled":
            decoded_charsmap(source, field, step)


def charsmap_problem(table: bytes) -> str | None:
    """What is wrong with a table, in words that follow its name; None where nothing is."""
    if len(table) < 4:
        return f"has {len(table)} bytes, fewer than the size of its trie"
    size = struct.unpack_from("<I", table)[0]
    texts = table[4 + size :]
    if size % 1024 or not size or not texts:
        return f"says a trie of {size} bytes, of {len(table) - 4} that follow"
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        return "holds replacements that are not UTF-8"
    if texts[-1]:
        return "ends within a replacement"
    nodes = np.frombuffer(table, "<u4", size // 4, 4)
    holds_value = (nodes & _VALUE) != 0
    offsets = (nodes >> np.uint32(10)) << np.where(nodes & _SHIFTED, np.uint32(8), np.uint32(0))
    children = np.arange(len(nodes), dtype=np.uint32) ^ offsets
    # A node's children are the 256 places of one block, and a value is the place of a replacement.
    if (children[~holds_value] >= len(nodes)).any() or ((nodes ^ _VALUE)[holds_value] >= len(texts)).any():
        return "has nodes that lead out of it"
    return None
