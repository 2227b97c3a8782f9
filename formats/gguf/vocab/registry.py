"""The kinds of tokenizer, found by Hugging Face's name of the model or by llama.cpp's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.formats.gguf.vocab.source import Source


class Kind(ABC):
    """One kind of tokenizer, both ways; naming ``ggml_model`` registers the subclass.

    ``model_type`` is tokenizer.json's ``model.type``; empty where edgeq only reads that kind from GGUF.
    """

    model_type: ClassVar[str] = ""
    ggml_model: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if cls.ggml_model:
            KINDS.append(cls())

    def matches(self, source: Source) -> bool:
        """Whether a tokenizer.json is of this kind."""
        return bool(self.model_type) and source.section("model").get("type") == self.model_type

    @abstractmethod
    def metadata(self, source: Source, vocab_size: int | None) -> dict[str, Any]:
        """tokenizer.json to metadata. Raises FormatError."""

    @abstractmethod
    def tokenizer_json(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Metadata to tokenizer.json. Raises EdgeqError."""


KINDS: list[Kind] = []
