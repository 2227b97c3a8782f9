"""From GGUF metadata back to a working tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.vocab import (  # noqa: F401  (importing a kind registers it)
    bpe,
    sentencepiece,
    unigram,
    wordpiece,
)
from edgeq.formats.gguf.vocab.keys import MODEL
from edgeq.formats.gguf.vocab.registry import KINDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokenizer_from_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's ``tokenizer.ggml.*`` metadata describes.

    Special tokens in a text are recognised (llama.cpp's ``parse_special``), and bos and eos are added as the
    file says unless ``add_special_tokens=False``. Raises EdgeqError for a tokenizer model or pre-tokenizer
    that edgeq does not know, and for metadata that contradict themselves.
    """
    from tokenizers import Tokenizer

    model = metadata.get(MODEL)
    for kind in KINDS:
        if kind.ggml_model == model:
            described = kind.tokenizer_json(metadata)
            try:
                return Tokenizer.from_str(json.dumps({"version": "1.0", **described}, ensure_ascii=False))
            except Exception as error:  # `tokenizers` raises bare Exception
                raise EdgeqError(f"tokenizer.ggml: {error}; convert the model again") from error
    known = ", ".join(sorted(kind.ggml_model for kind in KINDS))
    raise EdgeqError(f"{MODEL} is {model!r}: edgeq runs {known}; run this file in llama.cpp")
