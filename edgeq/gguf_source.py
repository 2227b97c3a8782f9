"""A GGUF file seen through its family, as a source for ONNX: rows in Hugging Face's order, and integers."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeq import tokenization
from edgeq.errors import FormatError
from edgeq.families.rope import interleaved_order
from edgeq.formats.blocks.grids import grid_of, has_grid
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import open_gguf
from edgeq.formats.table_codes import TableCodes
from edgeq.gguf_family import ROPE_TENSORS, read_gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FLOATS = ("F32", "F16", "BF16", "F64")
_TOKENS = "tokenizer.ggml."
# tokenizer_config.json's name of a special token → GGUF's key of its number.
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


class GGUFSource:
    """``edgeq.source.ModelSource`` of a GGUF file that is kept open."""

    def __init__(self, file: GGUFFile) -> None:
        self.file, self.path = file, file.path
        self.family, self.hp, self.specs = read_gguf(file)
        known = {*self.specs, *ROPE_TENSORS}
        self.unused = [name for name in file.tensors if name not in known]
        self._orders: dict[str, NDArray[np.int64]] = {}

    @classmethod
    def open(cls, path: str | Path) -> GGUFSource:
        """Open and check a file or its first shard; raises EdgeqError naming what is wrong."""
        return cls(open_gguf(path))

    # --- weights ------------------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """What the file calls the model, or the file's own name."""
        name = self.file.metadata.get("general.name")
        return name if isinstance(name, str) and name else self.path.stem

    def shape(self, name: str) -> tuple[int, ...]:
        return self.specs[name].shape

    def has(self, name: str) -> bool:
        return name in self.specs

    def layout(self, name: str) -> str | None:
        """The tensor's block type; None for floats."""
        type_name = self.file.info(name).type_name
        return None if type_name in _FLOATS else f"GGUF, {type_name}"

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """As ``SourceModel.rows``; raises FormatError for NaN or infinity."""
        from edgeq.devices.detect import instruction_set
        from edgeq.kernels_cpu.decode import decode

        info = self.file.info(name)
        if len(info.shape) == 1:
            values = self._vector(name)[None]
        else:
            values = decode(info.type_name, self._stored(name, start, stop), info.columns, instruction_set())
        if not np.isfinite(values).all():
            raise FormatError(self.path, f"tensor {name} holds NaN or infinity")
        return values

    def _vector(self, name: str) -> NDArray[np.float32]:
        values = self.file.decode(name).reshape(-1)
        return values[self._order(name, len(values))] if self.specs[name].rope_heads else values

    def _stored(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        rows = self.file.rows(name)
        if self.specs[name].rope_heads:
            return np.asarray(rows[self._order(name, len(rows))[start:stop]])
        return np.asarray(rows[start:stop])

    def _order(self, name: str, n_rows: int) -> NDArray[np.int64]:
        """Where each Hugging Face row stands in the file."""
        if name not in self._orders:
            self._orders[name] = np.argsort(interleaved_order(n_rows, self.specs[name].rope_heads))
        return self._orders[name]

    def grid(self, name: str, start: int, stop: int) -> Grid | None:
        """Rows as the integers that the blocks hold, where they hold such."""
        info = self.file.info(name)
        if not has_grid(info.type_name) or len(info.shape) == 1:
            return None
        return grid_of(info.type_name, self._stored(name, start, stop), info.columns)

    def codes(self, name: str) -> TableCodes | None:
        """None: no block type is one of bitsandbytes' tables."""
        return None

    def array(self, name: str) -> NDArray[np.float32]:
        """A whole tensor as float32; raises as ``rows`` does."""
        shape = self.specs[name].shape
        return self.rows(name, 0, prod(shape[:-1])).reshape(shape)

    def release(self, name: str) -> None:
        """Let the operating system drop the tensor's mapped pages."""
        self.file.release(name)

    def parameters(self) -> int:
        return sum(prod(spec.shape) for spec in self.specs.values())

    # --- tokens -------------------------------------------------------------------------------------------------
    def tokenizer(self) -> Tokenizer:
        return tokenization.from_gguf(self.path, self.file.metadata)

    def end_tokens(self) -> frozenset[int]:
        return tokenization.end_tokens(self.path, self.file.metadata)

    def generation(self) -> dict[str, Any]:
        """What a generation_config.json would say."""
        ends = sorted(self.end_tokens())
        found: dict[str, Any] = {"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {}
        for key, name in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
            number = self.file.metadata.get(f"{_TOKENS}{name}_token_id")
            if isinstance(number, int):
                found[key] = number
        return found

    def config(self) -> dict[str, Any]:
        """What a runtime reads of a config.json: the family, the shapes, a classifier's labels; not all arithmetic.

        The names are those that transformers maps to a family's own (``PretrainedConfig.attribute_map``).
        """
        hp, labels = self.hp, self.hp.labels
        found: dict[str, Any] = {
            "model_type": self.family.model_types[0],
            "hidden_size": hp.hidden,
            "num_hidden_layers": hp.n_layers,
            "num_attention_heads": hp.n_heads,
            "num_key_value_heads": hp.n_kv_heads,
            "head_dim": hp.head_dim,
            "intermediate_size": hp.ffn,
            "max_position_embeddings": hp.context,
            "vocab_size": hp.vocab,
            "tie_word_embeddings": hp.tied,
        }
        if labels:
            found |= {"id2label": dict(enumerate(labels)), "label2id": {t: i for i, t in enumerate(labels)}}
        return found | self.generation()

    def companions(self) -> dict[str, bytes]:
        """The vocabulary as tokenizer.json, the template and the special tokens, and a config.json of what is known."""
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        tokens = self.file.metadata.get(f"{_TOKENS}tokens")
        for key, name in _SPECIAL.items():
            number = self.file.metadata.get(f"{_TOKENS}{name}_token_id")
            if isinstance(number, int) and isinstance(tokens, list) and 0 <= number < len(tokens):
                config[key] = tokens[number]
        template = self.file.metadata.get("tokenizer.chat_template")
        if isinstance(template, str):
            config["chat_template"] = template
        return {
            "config.json": _json(self.config()),
            "tokenizer.json": self.tokenizer().to_str(pretty=True).encode(),
            "tokenizer_config.json": _json(config),
            "generation_config.json": _json(self.generation()),
        }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
