"""From a model directory's tokenizer.json to GGUF metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.formats.gguf.vocab import (  # noqa: F401  (importing a kind registers it)
    bpe,
    sentencepiece,
    unigram,
    wordpiece,
)
from edgeq.formats.gguf.vocab.chat import chat_template_keys
from edgeq.formats.gguf.vocab.registry import KINDS
from edgeq.formats.gguf.vocab.source import read_source


def tokenizer_metadata(directory: Path, vocab_size: int | None = None) -> dict[str, Any]:
    """The ``tokenizer.*`` metadata of the model in ``directory``.

    ``vocab_size`` is the number of rows of the embedding; missing ids become unused ``[PADn]`` tokens.
    None takes config.json's ``vocab_size``, or the highest id. Values are plain str, int, bool and lists.

    Raises FormatError where a file is missing or malformed, UnsupportedTokenizerError (a FormatError) where
    llama.cpp would not split text as `tokenizers` does. Upstream: ``conversion/base.py``
    (``_set_vocab_gpt2``), ``conversion/bert.py`` (``BertModel.set_vocab``).
    """
    source = read_source(Path(directory))
    model_type = source.section("model").get("type")
    for kind in KINDS:
        if kind.matches(source):
            return kind.metadata(source, vocab_size) | chat_template_keys(source)
    known = ", ".join(sorted({kind.model_type for kind in KINDS if kind.model_type}))
    raise source.unsupported(
        f"model.type is {model_type!r}", f"edgeq writes {known}: convert this one with llama.cpp's own script"
    )
