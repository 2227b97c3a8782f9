"""Special tokens, ends of generation, what is added around a text, chat templates, holes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edgeq.formats.errors import FormatError
from edgeq.formats.gguf.vocab import tokenizer_from_metadata, tokenizer_metadata

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
EOT, EOM, OTHER = 601, 602, 603
ADDED = {EOT: "<|eot_id|>", EOM: "<|eom_id|>", OTHER: "<|stop|>"}


def add_ends(tokenizer: dict[str, Any]) -> None:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": i, "content": text, **flags} for i, text in ADDED.items()]


def template(before: list[str], after: list[str]) -> dict[str, Any]:
    def parts(names: list[str]) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]

    ids = {"<|endoftext|>": 0, "<s>": 1}
    return {
        "type": "TemplateProcessing",
        "single": [*parts(before), {"Sequence": {"id": "A", "type_id": 0}}, *parts(after)],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in {*before, *after}},
    }


def save(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def test_token_types_follow_the_added_tokens(edit: Edit) -> None:
    metadata = tokenizer_metadata(edit(add_ends))
    types = metadata["tokenizer.ggml.token_type"]
    tokens = metadata["tokenizer.ggml.tokens"]
    by_text = dict(zip(tokens, types, strict=True))
    assert {by_text[text] for text in ("<|endoftext|>", "<s>", *ADDED.values())} == {3}
    assert (by_text["<tool>"], by_text["a"]) == (4, 1)


def test_list_of_ends(edit: Edit) -> None:
    directory = edit(add_ends)
    save(directory / "generation_config.json", {"eos_token_id": [0, EOM, OTHER, EOT]})
    metadata = tokenizer_metadata(directory)
    assert metadata["tokenizer.ggml.eos_token_id"] == 0
    assert metadata["tokenizer.ggml.eot_token_id"] == EOT
    assert metadata["tokenizer.ggml.eom_token_id"] == EOM


def test_an_end_of_another_name_takes_the_free_role(edit: Edit) -> None:
    directory = edit(add_ends)
    save(directory / "config.json", {"eos_token_id": [0, OTHER]})
    assert tokenizer_metadata(directory)["tokenizer.ggml.eot_token_id"] == OTHER


def test_named_tokens_go_before_ids_and_maps(edit: Edit) -> None:
    directory = edit(add_ends)
    save(directory / "tokenizer_config.json", {"eos_token": {"content": "<|eot_id|>"}, "bos_token": None})
    save(directory / "special_tokens_map.json", {"pad_token": "<|stop|>", "eos_token": "<s>"})
    save(directory / "config.json", {"eos_token_id": 0, "bos_token_id": 1})
    metadata = tokenizer_metadata(directory)
    assert metadata["tokenizer.ggml.eos_token_id"] == EOT
    assert metadata["tokenizer.ggml.bos_token_id"] == 1
    assert metadata["tokenizer.ggml.padding_token_id"] == OTHER


@pytest.mark.parametrize(
    ("before", "after"), [(["<s>"], []), ([], ["<|endoftext|>"]), (["<s>"], ["<|endoftext|>"]), ([], [])]
)
def test_what_the_post_processor_adds(
    before: list[str], after: list[str], edit: Edit, llama_encode: Any
) -> None:
    directory = edit(lambda tokenizer: tokenizer.update(post_processor=template(before, after)))
    metadata = tokenizer_metadata(directory)
    ids = Tokenizer.from_file(str(directory / "tokenizer.json")).encode("some text").ids
    assert llama_encode(metadata)("some text", add_special=True) == ids
    assert tokenizer_from_metadata(metadata).encode("some text").ids == ids


def test_config_adds_bos_where_no_post_processor_speaks(edit: Edit) -> None:
    directory = edit(lambda tokenizer: tokenizer.update(post_processor=None))
    config = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "add_bos_token": True}
    save(directory / "tokenizer_config.json", config)
    metadata = tokenizer_metadata(directory)
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert tokenizer_from_metadata(metadata).encode("a").ids[0] == 1


def test_a_template_that_ends_otherwise_keeps_the_named_end(edit: Edit) -> None:
    directory = edit(lambda tokenizer: tokenizer.update(post_processor=template([], ["<s>"])))
    metadata = tokenizer_metadata(directory)
    assert (metadata["tokenizer.ggml.eos_token_id"], metadata["tokenizer.ggml.eot_token_id"]) == (1, 0)


def test_holes_and_the_tail_are_unused(edit: Edit, llama_encode: Any) -> None:
    """A vocabulary that lost some of its last tokens, as pruned ones do, and an embedding that is longer."""

    def prune(tokenizer: dict[str, Any]) -> None:
        model = tokenizer["model"]
        lost = {token for token, i in model["vocab"].items() if i in (590, 595)}
        model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in lost}
        model["merges"] = [m for m in model["merges"] if not lost & {m[0], m[1], m[0] + m[1]}]
        tokenizer["added_tokens"].pop()

    directory = edit(prune)
    save(directory / "config.json", {"vocab_size": 640})
    metadata = tokenizer_metadata(directory)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 640
    assert [tokens[i] for i in (590, 595, 600, 639)] == ["[PAD590]", "[PAD595]", "[PAD600]", "[PAD639]"]
    assert [types[i] for i in (589, 590, 595, 600)] == [1, 5, 5, 5]
    original = Tokenizer.from_file(str(directory / "tokenizer.json"))
    text = "def return import class self"
    assert llama_encode(metadata)(text) == tokenizer_from_metadata(metadata).encode(text).ids
    assert llama_encode(metadata)(text) == original.encode(text).ids
    assert len(tokenizer_metadata(directory, 700)["tokenizer.ggml.tokens"]) == 700


@pytest.mark.parametrize("token_id", [599, 605])
def test_a_hole_before_an_added_token(edit: Edit, token_id: int) -> None:
    """Tokenizers gives it the next id, whatever the file says: 605 would be another token's embedding."""
    directory = edit(lambda tokenizer: tokenizer["added_tokens"][-1].update(id=token_id))
    with pytest.raises(FormatError, match=r"added_tokens\[2\] \('<tool>'") as caught:
        tokenizer_metadata(directory)
    assert str(caught.value).startswith(str(directory / "tokenizer.json"))
    assert Tokenizer.from_file(str(directory / "tokenizer.json")).token_to_id("<tool>") == 600


def test_chat_templates(edit: Edit) -> None:
    directory = edit(add_ends)
    (directory / "chat_template.jinja").write_text("from jinja", encoding="utf-8")
    assert tokenizer_metadata(directory)["tokenizer.chat_template"] == "from jinja"
    named = [{"name": "default", "template": "D"}, {"name": "tool-use", "template": "T"}]
    save(directory / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "chat_template": named})
    metadata = tokenizer_metadata(directory)
    assert metadata["tokenizer.chat_template"] == "D"
    assert metadata["tokenizer.chat_template.tool_use"] == "T"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
