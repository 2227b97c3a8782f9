"""tokenizer.json's normalizer and pre-tokenizer, reduced to a list of splits.

Upstream: `tokenizers` ``pre_tokenizers/{split,digits,byte_level,sequence}.rs``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeq.formats.gguf.vocab.regexes import DIGIT, DIGITS, GPT2, TOTAL, canonical_regex
from edgeq.formats.gguf.vocab.source import Source, flatten

_SPM = ("Metaspace", "Prepend", "Replace", "Precompiled", "Strip")


@dataclass(frozen=True)
class Structure:
    """How a byte-level tokenizer cuts text: NFC or not, then each split in turn, then bytes."""

    nfc: bool
    splits: tuple[str, ...]


def byte_level_structure(source: Source) -> Structure:
    """Reduce a byte-level tokenizer to its splits.

    Raises UnsupportedTokenizerError for a step that no sequence of splits expresses.
    """
    return Structure(_reads_nfc(source), tuple(_splits(source)))


def _reads_nfc(source: Source) -> bool:
    steps = list(flatten(source.section("normalizer"), "normalizer", "normalizers"))
    for field, step in steps:
        if step.get("type") != "NFC":
            hint = (
                "this is a SentencePiece tokenizer" if step.get("type") in _SPM else "llama.cpp has only NFC"
            )
            raise source.unsupported(
                f"{field} is {step.get('type')!r}", f"{hint}: use llama.cpp's own converter"
            )
    return bool(steps)


def _splits(source: Source) -> Iterator[str]:
    steps = list(flatten(source.section("pre_tokenizer"), "pre_tokenizer", "pretokenizers"))
    if not steps or steps[-1][1].get("type") != "ByteLevel":
        field, kind = (steps[-1][0], repr(steps[-1][1].get("type"))) if steps else ("pre_tokenizer", "null")
        raise source.unsupported(f"{field} is {kind}, not 'ByteLevel'", "only byte-level BPE can be written")
    for field, step in steps[:-1]:
        yield _split(source, field, step)
    field, step = steps[-1]
    if step.get("add_prefix_space"):
        raise source.unsupported(
            f"{field}.add_prefix_space is true", "llama.cpp adds no space to BPE text: train with false"
        )
    if step.get("use_regex", True):
        yield GPT2


def _split(source: Source, field: str, step: dict[str, Any]) -> str:
    if step.get("type") == "Digits":
        return DIGIT if step.get("individual_digits") else DIGITS
    if step.get("type") != "Split":
        raise source.unsupported(
            f"{field} is {step.get('type')!r}", "llama.cpp has no such step: use Split, Digits and ByteLevel"
        )
    pattern = step.get("pattern")
    if not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        raise source.unsupported(
            f"{field}.pattern is not a regex", "llama.cpp splits by its own regexes only"
        )
    regex = canonical_regex(pattern["Regex"])
    behavior, invert = step.get("behavior"), bool(step.get("invert"))
    keeps_matches = (behavior, invert) == ("Removed", True) and regex in TOTAL
    if behavior != "Isolated" and not keeps_matches:
        raise source.unsupported(
            f"{field}.behavior is {behavior!r} (invert {invert})", "llama.cpp only isolates: use 'Isolated'"
        )
    return regex
