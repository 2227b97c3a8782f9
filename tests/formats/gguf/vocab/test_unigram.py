"""Unigram tokenizers: XLM-RoBERTa's kind of tokenizer.json, in llama.cpp and back.

``assets/unigram`` was trained by SentencePiece (``oracle/make_unigram.py``).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edgeq import tokenization
from edgeq.errors import EdgeqError, FormatError
from edgeq.formats.gguf.vocab import UnsupportedTokenizerError, tokenizer_from_metadata, tokenizer_metadata
from edgeq.formats.gguf.vocab.charsmap import charsmap_problem

UNIGRAM = Path(__file__).parents[3] / "assets/unigram"
SPLIT = {"type": "WhitespaceSplit"}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
MERGE = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
STRIP = {"type": "Strip", "strip_left": False, "strip_right": True}
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]


def _described() -> dict[str, Any]:
    described: dict[str, Any] = json.loads((UNIGRAM / "tokenizer.json").read_text(encoding="utf-8"))
    return described


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    """The tokenizer with a change."""

    def make(change: Callable[[dict[str, Any]], Any]) -> Path:
        described = _described()
        change(described)
        (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_bytes((UNIGRAM / "tokenizer_config.json").read_bytes())
        return tmp_path

    return make


def _normalized(*steps: dict[str, Any], pre_tokenizer: Any = METASPACE) -> Callable[[dict[str, Any]], Any]:
    def change(described: dict[str, Any]) -> None:
        table = described["normalizer"]
        described["normalizer"] = {"type": "Sequence", "normalizers": [table, *steps]}
        described["pre_tokenizer"] = pre_tokenizer

    return change


# The ways in which transformers' converters have written the same steps over the years.
SPELLINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "XLM-RoBERTa's own": lambda described: None,
    "merged by a regex": _normalized(MERGE),
    "stripped and merged": _normalized(STRIP, MERGE | {"content": "▁"}),
    "add_prefix_space": lambda described: described["pre_tokenizer"].update(
        pretokenizers=[SPLIT, {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}]
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_ids_are_those_of_llama_cpp(
    spelling: str, edit: Edit, llama_encode: Any, texts: list[str], docstrings: list[str]
) -> None:
    folder = edit(SPELLINGS[spelling])
    metadata = tokenizer_metadata(folder)
    assert metadata["tokenizer.ggml.model"] == "t5"
    assert metadata["tokenizer.ggml.remove_extra_whitespaces"] is True
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    short = ["", " ", "  two  ", "x\n\n\ty", "a<mask>b", "中文 😀 \x00\x1f", "①２ﬁ e\u0301"]
    for text in [*texts, *docstrings[:2], *short]:
        ids = encode(text, add_special=True)
        assert restored.encode(text).ids == ids
        if spelling == "merged by a regex":  # tokenizers alone has a token for a space at the end
            text = text.rstrip()
            ids = encode(text, add_special=True)
        assert original.encode(text).ids == ids, text
        assert restored.decode(ids) == original.decode(ids)


def test_the_metadata() -> None:
    metadata = tokenizer_metadata(UNIGRAM, 1210)
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    types = metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(scores) == len(types) == 1210
    assert (tokens[:4], types[:4], scores[:4]) == (["<s>", "<pad>", "</s>", "<unk>"], [3, 3, 3, 2], [0.0] * 4)
    assert (tokens[1205], types[1205], scores[1205]) == ("[PAD1205]", 5, -10000.0)
    ids = {role: metadata[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "unknown", "padding")}
    assert ids == {"bos": 0, "eos": 2, "unknown": 3, "padding": 1}
    assert metadata["tokenizer.ggml.mask_token_id"] == 1201
    flags = [metadata[f"tokenizer.ggml.add_{kind}_token"] for kind in ("bos", "eos", "sep")]
    assert flags == [True, True, True]  # "</s></s>" between two texts
    assert bytes(metadata[CHARSMAP]) == base64.b64decode(_described()["normalizer"]["precompiled_charsmap"])


@pytest.mark.parametrize(("merges", "prefix"), [(True, False), (False, True), (False, False)])
def test_other_files_are_restored_as_llama_cpp_reads_them(
    merges: bool, prefix: bool, llama_encode: Any, texts: list[str]
) -> None:
    """Upstream's converter does not merge white space for XLM-RoBERTa."""
    switches = {"remove_extra_whitespaces": merges, "add_space_prefix": prefix}
    metadata = tokenizer_metadata(UNIGRAM) | {
        f"tokenizer.ggml.{key}": value for key, value in switches.items()
    }
    restored, encode = tokenizer_from_metadata(metadata), llama_encode(metadata)
    for text in [*texts, "  two  spaces  ", "a<mask> b", ""]:
        text = text.replace("\r\n", "\n")
        assert restored.encode(text).ids == encode(text, add_special=True), text


def test_an_added_token(edit: Edit, llama_encode: Any) -> None:
    added = {"id": 1202, "content": "<tool>", "special": False, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}  # fmt: skip
    folder = edit(lambda described: described["added_tokens"].append(added))
    metadata = tokenizer_metadata(folder, 1210)
    ids = tokenization.from_directory(folder).encode("a <tool> b").ids
    assert 1202 in ids
    assert llama_encode(metadata)("a <tool> b", add_special=True) == ids
    assert tokenizer_from_metadata(metadata).encode("a <tool> b").ids == ids
    with pytest.raises(
        UnsupportedTokenizerError, match="'<tool>' has id 1202, but the embedding has 1202 rows"
    ):
        tokenizer_metadata(folder, 1202)
    folder = edit(lambda described: described["added_tokens"].append(added | {"id": 1300}))
    with pytest.raises(UnsupportedTokenizerError, match=r"added_tokens\[5\] .* the ids have a hole"):
        tokenizer_metadata(folder, 1310)


def _model(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda described: described["model"].update(fields)


def _entry(i: int, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda described: described["model"]["vocab"].__setitem__(i, value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_model(byte_fallback=True), "model.byte_fallback"),
        (_model(unk_id=None), "model.unk_id"),
        (_model(unk_id=5000), "model.unk_id"),
        (_entry(7, ["x"]), r"model.vocab\[7\]"),
        (_entry(7, ["x", "1"]), r"model.vocab\[7\]"),
        (_entry(7, ["x", float("nan")]), r"model.vocab\[7\]"),
        (_entry(7, ["<s>", -1.0]), "'<s>' at 0 and at 7"),
        (_entry(7, ["▁a▁b", -1.0]), "splits words, but 1 tokens"),
        (_normalized({"type": "Lowercase"}), r"normalizers\[1\] is 'Lowercase'"),
        (_normalized(MERGE, pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer is 'Whitespace'"),
        (_normalized(MERGE, pre_tokenizer=None), "no 'Metaspace'"),
        (_normalized(STRIP), "strips a text"),
        (_normalized(MERGE, pre_tokenizer=METASPACE | {"prepend_scheme": "never"}), "adds no space"),
        (lambda d: d["normalizer"].update(precompiled_charsmap="???"), "charsmap is not base64"),
        (lambda d: d["normalizer"].update(precompiled_charsmap="AAAA"), "charsmap has 3 bytes"),
    ],
)
def test_what_llama_cpp_would_read_otherwise(change: Any, field: str, edit: Edit) -> None:
    folder = edit(change)
    with pytest.raises(FormatError, match=field) as caught:
        tokenizer_metadata(folder)
    assert str(caught.value).startswith(str(folder / "tokenizer.json"))


def test_a_damaged_table_never_reaches_tokenizers(edit: Edit) -> None:
    """It would abort with a backtrace."""
    table = base64.b64decode(_described()["normalizer"]["precompiled_charsmap"])
    assert charsmap_problem(table) is None
    trie = int.from_bytes(table[:4], "little")
    node = bytes([0, 0xFC, 0xFF, 0x7F])  # an offset far out of the trie
    damaged = {
        "fewer than": b"\0",
        "of 996 that follow": table[:1000],
        "says a trie of 1024": (1024).to_bytes(4, "little") + bytes(1024),
        "lead out of it": table[:4] + node + table[8:],
        "within a replacement": table[:-1] + b"x",
        "not UTF-8": table[: 4 + trie] + b"\xff\0",
    }
    for problem, cut in damaged.items():
        assert problem in str(charsmap_problem(cut))
        encoded = base64.b64encode(cut).decode()
        folder = edit(lambda d, encoded=encoded: d["normalizer"].update(precompiled_charsmap=encoded))
        with pytest.raises(FormatError, match=problem):
            tokenization.from_directory(folder)
        with pytest.raises(EdgeqError, match=problem):
            tokenizer_from_metadata(tokenizer_metadata(UNIGRAM) | {CHARSMAP: list(cut)})
    with pytest.raises(EdgeqError, match="not a list of bytes"):
        tokenizer_from_metadata(tokenizer_metadata(UNIGRAM) | {CHARSMAP: ["x"]})


def test_int8_is_read_as_bytes(llama_encode: Any) -> None:
    """As some converters write the table."""
    metadata = tokenizer_metadata(UNIGRAM)
    signed = [one - 256 if one > 127 else one for one in metadata[CHARSMAP]]
    assert tokenizer_from_metadata(metadata | {CHARSMAP: signed}).encode("ｆｕｌｌ").ids == llama_encode(
        metadata
    )("ｆｕｌｌ", add_special=True)
