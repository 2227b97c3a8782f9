"""A checkpoint directory seen through its family: tensors by GGUF name, shapes checked against the config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq import families
from edgeq.errors import FormatError, InputError
from edgeq.families import Family, HyperParameters, TensorSpec
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.checkpoint.weights import StoredWeights
from edgeq.formats.table_codes import TableCodes
from edgeq.hub import model_name
from edgeq.json_files import read_json
from edgeq.sentence_transformers import PROMPTS, read_modules

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TIED_HEAD = ("lm_head.weight", "output.weight")


# What an application needs beside a graph to feed it.
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    PROMPTS,
)


class ModelSource(Protocol):
    """A model that can be read a few rows at a time, in Hugging Face's order: a checkpoint or a GGUF file."""

    path: Path
    family: Family
    hp: HyperParameters
    specs: dict[str, TensorSpec]
    unused: list[str]

    @property
    def name(self) -> str:
        """What to call the model."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, by its GGUF name."""

    def has(self, name: str) -> bool:
        """Whether the model has the tensor."""

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows of a tensor as float32; a vector is one row. Raises FormatError for NaN or infinity."""

    def layout(self, name: str) -> str | None:
        """How others quantized the tensor, in words; None where they did not."""

    def grid(self, name: str, start: int, stop: int) -> Grid | None:
        """Rows as the integers that others quantized them to, where they did so."""

    def codes(self, name: str) -> TableCodes | None:
        """A whole tensor as the codes of a table that others quantized it to, where they did so."""

    def array(self, name: str) -> NDArray[np.float32]:
        """A whole tensor as float32."""

    def release(self, name: str) -> None:
        """Let the operating system drop the tensor's mapped pages."""

    def parameters(self) -> int:
        """How many numbers the model has."""

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation and padding."""

    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a text."""

    def generation(self) -> dict[str, Any]:
        """How its authors let it generate, in the words of generation_config.json."""

    def companions(self) -> dict[str, bytes]:
        """The small files that an application needs beside the weights."""


@dataclass
class SourceModel:
    """An opened Hugging Face directory. ``specs`` holds the tensors that the checkpoint really has, in file order.

    Weights that others quantized (GPTQ, AWQ, bitsandbytes, FP8) are decoded as they are read.
    """

    path: Path
    checkpoint: StoredWeights
    family: Family
    hp: HyperParameters
    specs: dict[str, TensorSpec]
    unused: list[str]  # checkpoint tensors that the family has no place for
    _names: dict[str, list[str]]  # GGUF name -> checkpoint names; several are stacked

    @classmethod
    def open(cls, path: str | Path) -> SourceModel:
        """Open and check a directory; raises EdgeqError naming the file, tensor or field that is wrong."""
        path = Path(path)
        checkpoint = StoredWeights(Checkpoint.open(path))
        family = families.for_config(checkpoint.config, str(path / "config.json"))
        try:
            hp = family.from_config(checkpoint.config)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        modules = read_modules(path)
        if modules is not None:
            hp = modules.applied(hp, path)
            checkpoint.add_folders([layer.source for layer in hp.dense])
        specs: dict[str, TensorSpec] = {}
        names: dict[str, list[str]] = {}
        for spec in family.tensors(hp):
            found = _find(checkpoint, spec, ("", *family.source_prefixes))
            if found:
                specs[spec.name], names[spec.name] = spec, found
        used = {name for found in names.values() for name in found}
        tied = set(_TIED_HEAD) if hp.tied else set()
        unused = sorted(set(checkpoint.names) - used - tied)
        return cls(path, checkpoint, family, hp, specs, unused, names)

    @property
    def name(self) -> str:
        """What to call the model: its folder's name, or its repository's."""
        return model_name(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.specs[name].shape

    def has(self, name: str) -> bool:
        return name in self.specs

    def dtype(self, name: str) -> np.dtype[Any]:
        return self.checkpoint.dtype(self._names[name][0])

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows of a tensor as float32, in the checkpoint's own (Hugging Face) row order.

        A stack's rows are those of its matrices one after the other, and a vector is one row. Raises FormatError for
        NaN or infinity: nothing that edgeq makes of such a weight is of use.
        """
        spec, stored = self.specs[name], self._names[name]
        height = prod(spec.shape[1:-1]) if spec.stacked else prod(spec.shape[:-1])
        pieces = [
            self._stored_rows(
                stored[i], spec, max(start, i * height) - i * height, min(stop - i * height, height)
            )
            for i in range(start // height, max(start // height + 1, -(-stop // height)))
        ]
        values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return values + np.float32(spec.shift) if spec.shift else values

    def _stored_rows(self, stored: str, spec: TensorSpec, start: int, stop: int) -> NDArray[np.float32]:
        if spec.transposed:
            values = np.ascontiguousarray(self.checkpoint.array(stored).T[start:stop])
        else:
            values = self.checkpoint.rows(stored, start + spec.skipped, stop + spec.skipped)
        if not np.isfinite(values).all():
            raise FormatError(
                self.checkpoint.path_of(stored), f"tensor {stored} holds NaN or infinity", "download it again"
            )
        return values

    def layout(self, name: str) -> str | None:
        """How others quantized the tensor, in words; None where they did not."""
        stored = self._names[name]
        return self.checkpoint.layout(stored[0]) if stored else None

    def grid(self, name: str, start: int, stop: int) -> Grid | None:
        """Rows as the integers that others quantized them to, where they did so; in the checkpoint's row order.

        None for a tensor that is put together of several, or changed on the way: its rows are not stored as they are.
        """
        if not self._as_stored(name):
            return None
        spec, stored = self.specs[name], self._names[name]
        return self.checkpoint.grid(stored[0], start + spec.skipped, stop + spec.skipped)

    def codes(self, name: str) -> TableCodes | None:
        """A whole tensor as the codes of a table that others quantized it to; None as in ``grid``."""
        if not self._as_stored(name) or self.specs[name].skipped:
            return None
        return self.checkpoint.codes(self._names[name][0])

    def _as_stored(self, name: str) -> bool:
        """Whether the tensor's rows stand in the checkpoint as they are."""
        spec = self.specs[name]
        return len(self._names[name]) == 1 and not (spec.transposed or spec.shift or spec.stacked)

    def array(self, name: str) -> NDArray[np.float32]:
        """A whole tensor as float32; raises as ``rows`` does."""
        shape = self.specs[name].shape
        return self.rows(name, 0, prod(shape[:-1])).reshape(shape)

    def release(self, name: str) -> None:
        """Let the operating system drop the tensor's mapped pages."""
        for stored in self._names[name]:
            self.checkpoint.release(stored)

    def parameters(self) -> int:
        return sum(int(np.prod(spec.shape)) for spec in self.specs.values())

    def tokenizer(self) -> Tokenizer:
        from edgeq import tokenization

        return tokenization.from_directory(self.path)

    def end_tokens(self) -> frozenset[int]:
        from edgeq import tokenization

        return tokenization.end_tokens(self.path)

    def generation(self) -> dict[str, Any]:
        """generation_config.json, and of config.json the tokens."""
        own = {key: value for key, value in self.checkpoint.config.items() if key.endswith("_token_id")}
        path = self.path / "generation_config.json"
        return own | (read_json(path, dict) if path.is_file() else {})

    def companions(self) -> dict[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in COMPANIONS if (self.path / name).is_file()}


def _find(checkpoint: StoredWeights, spec: TensorSpec, prefixes: Sequence[str]) -> list[str]:
    """The checkpoint's names of a tensor's parts, their shapes checked; none where it is optional and missing."""
    found = []
    for source in spec.sources():
        called = (source, spec.old_source) if spec.old_source else (source,)
        name = next(
            (prefix + one for one in called for prefix in prefixes if prefix + one in checkpoint), None
        )
        if name is None:
            if spec.optional:
                return []
            raise FormatError(
                checkpoint.path, f"tensor {source} is missing from the checkpoint", "download it again"
            )
        if checkpoint.shape(name) != spec.stored_shape():
            raise FormatError(
                checkpoint.path_of(name),
                f"tensor {name} has shape {list(checkpoint.shape(name))}, "
                f"config.json says {list(spec.stored_shape())}",
            )
        found.append(name)
    return found
