"""One test for each thing that cannot be written, or is broken: the message names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.formats.errors import EdgeqError, FormatError
from edgeq.formats.gguf.vocab import UnsupportedTokenizerError, tokenizer_from_metadata, tokenizer_metadata

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
STRANGE = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>"}}, {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
}


def chain(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def model(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tokenizer: tokenizer["model"].update(fields)


def top(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tokenizer: tokenizer.update(fields)


UNSUPPORTED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "byte_fallback": (model(byte_fallback=True), "model.vocab lacks 256 of the 256 byte tokens"),
    "word level": (model(type="WordLevel"), "model.type is 'WordLevel'"),
    "dropout": (model(dropout=0.1), "model.dropout"),
    "end of word": (model(end_of_word_suffix="</w>"), "model.end_of_word_suffix"),
    "ignore_merges": (lambda t: t["model"].update(ignore_merges=True), "model.ignore_merges is True"),
    "normalizer": (top(normalizer={"type": "Lowercase"}), "normalizer is 'Lowercase'"),
    "nested normalizer": (
        top(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend"}]}),
        "normalizer.normalizers[1] is 'Prepend'",
    ),
    "regex": (top(**chain(STRANGE, BYTES)), "pre_tokenizer is no split"),
    "step": (top(**chain(BYTES | {"use_regex": False}, {"type": "Whitespace"}, BYTES)), "pretokenizers[0]"),
    "behavior": (top(**chain(STRANGE | {"behavior": "Removed"}, BYTES)), "pretokenizers[0].behavior"),
    "string": (top(**chain(STRANGE | {"pattern": {"String": " "}}, BYTES)), "pretokenizers[0].pattern"),
    "metaspace": (top(pre_tokenizer={"type": "Metaspace"}), "pre_tokenizer is 'Metaspace'"),
    "no pre-tokenizer": (top(pre_tokenizer=None), "pre_tokenizer is null"),
    "prefix space": (top(pre_tokenizer=BYTES | {"add_prefix_space": True}), "add_prefix_space"),
    "two tokens before": (top(post_processor=TEMPLATE), "post_processor.single adds 2 and 0"),
    "post-processor": (top(post_processor={"type": "Strange"}), "post_processor is 'Strange'"),
    "single word": (lambda t: t["added_tokens"][2].update(single_word=True), "added_tokens[2].single_word"),
}
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no vocabulary": (model(vocab=None), "model.vocab"),
    "model is a list": (top(model=[]), "model.type is None"),
    "an id that is text": (lambda t: t["model"]["vocab"].update(a="1"), "model.vocab['a']"),
    "an id twice": (lambda t: t["model"]["vocab"].update(a=5, b=5), "one id to two tokens"),
    "merges": (model(merges="x"), "model.merges"),
    "a merge of three": (model(merges=[["a", "b", "c"]]), "model.merges[0]"),
    "added without id": (lambda t: t["added_tokens"].append({"content": "x"}), "added_tokens[3]"),
    "added against the vocabulary": (lambda t: t["added_tokens"][0].update(id=9), "added_tokens[0]"),
    "template": (top(post_processor={"type": "TemplateProcessing", "single": 3}), "post_processor.single"),
}


def one_line(error: BaseException, directory: Path) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(str(directory / "tokenizer.json"))
    assert "; " in message  # what to do
    return message


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_gguf_cannot_say(name: str, edit: Edit) -> None:
    change, field = UNSUPPORTED[name]
    directory = edit(change)
    with pytest.raises(UnsupportedTokenizerError) as caught:
        tokenizer_metadata(directory)
    assert field in one_line(caught.value, directory)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_fields(name: str, edit: Edit) -> None:
    change, field = BROKEN[name]
    directory = edit(change)
    with pytest.raises(FormatError) as caught:
        tokenizer_metadata(directory)
    assert field in one_line(caught.value, directory)


def test_a_token_past_the_embedding(edit: Edit) -> None:
    directory = edit(lambda tokenizer: None)
    with pytest.raises(
        UnsupportedTokenizerError, match=r"'<tool>' has id 600, but the embedding has 600 rows"
    ):
        tokenizer_metadata(directory, 600)


def test_a_padding_name_that_is_taken(edit: Edit) -> None:
    directory = edit(lambda tokenizer: tokenizer["added_tokens"][2].update(content="[PAD601]"))
    with pytest.raises(UnsupportedTokenizerError, match=r"600 and 601 are both written '\[PAD601\]'"):
        tokenizer_metadata(directory, 610)


def test_no_end_of_generation(edit: Edit) -> None:
    directory = edit(lambda tokenizer: None)
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(UnsupportedTokenizerError, match="no eos token"):
        tokenizer_metadata(directory)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"tokenizer\.json: not found; save"):
        tokenizer_metadata(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ['{"model": ', "[1]", "\xff"])
def test_files_that_are_no_object(file: str, text: str, edit: Edit) -> None:
    directory = edit(lambda tokenizer: None)
    (directory / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=r"not (JSON|a JSON object)"):
        tokenizer_metadata(directory)


def test_restoring_what_is_unknown() -> None:
    good = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.merges": []}
    assert tokenizer_from_metadata(good).encode("a").ids == [0]
    bad: dict[str, dict[str, Any]] = {
        "'rwkv'": {"tokenizer.ggml.model": "rwkv"},
        "None": {"tokenizer.ggml.model": None},
        "'kimi-k2'": {"tokenizer.ggml.pre": "kimi-k2"},
        "same text twice": {"tokenizer.ggml.tokens": ["a", "a"]},
        "not a list of strings": {"tokenizer.ggml.tokens": [1]},
        "has 2 entries": {"tokenizer.ggml.token_type": [1, 1]},
        "outside the vocabulary": {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 7},
        "tokenizer.ggml": {"tokenizer.ggml.merges": ["a b"]},
    }
    for message, changes in bad.items():
        with pytest.raises(EdgeqError, match=message):
            tokenizer_from_metadata(good | changes)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("normalizer", "clean_text", False, "normalizer.clean_text"),
        ("normalizer", "type", "NFC", "normalizer is 'NFC'"),
        ("pre_tokenizer", "type", "Whitespace", "pre_tokenizer is 'Whitespace'"),
        ("model", "continuing_subword_prefix", "@@", "model.continuing_subword_prefix"),
        ("model", "unk_token", "[NO]", "unk token"),
        ("post_processor", "type", "ByteLevel", "post_processor does not add"),
    ],
)
def test_wordpiece(section: str, field: str, value: Any, message: str, tmp_path: Path) -> None:
    tokenizer: dict[str, Any] = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]},
        "model": {
            "type": "WordPiece",
            "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3},
            "unk_token": "[UNK]",
        },
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer))
    metadata = tokenizer_metadata(tmp_path)
    assert metadata["tokenizer.ggml.seperator_token_id"] == 2
    assert (
        "tokenizer.ggml.eos_token_id" not in metadata
    )  # llama.cpp takes sep, and warns of an eos called [SEP]
    assert metadata["tokenizer.ggml.add_sep_token"] is False  # one token between two texts, not two
    tokenizer[section][field] = value
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(FormatError, match=message):
        tokenizer_metadata(tmp_path)
