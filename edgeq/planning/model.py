"""The model to plan for, as shapes: of a config.json alone, a model directory, a GGUF file or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from edgeq.devices.work import CachedLayers, Product, Work
from edgeq.errors import FormatError
from edgeq.formats.gguf.mixes import ModelShape

Shape = tuple[int, ...]
_LOOKED_UP = ("token_embd.weight", "position_embd.weight", "token_types.weight")  # rows of them, no products


@dataclass(frozen=True)
class PlannedModel:
    """A model's shapes under GGUF's names. ``stored`` are its types where it is a file that runs as it is.

    ``gguf_bytes`` gives the bytes of a GGUF file without its tensors' data, from the (name, type, shape) of those;
    ``exact`` says whether it knows all metadata or estimates the tokenizer.
    """

    name: str
    kind: Literal["decoder", "encoder"]
    shape: ModelShape
    tensors: Sequence[tuple[str, Shape]]
    context: int
    hidden: int
    vocab: int
    head_values: int  # query heads × head width
    cached: Sequence[CachedLayers]
    gguf_bytes: Callable[[Sequence[tuple[str, str, Shape]]], int]
    exact: bool = True
    experts_used: int = 0
    stored: Mapping[str, str] = field(default_factory=dict)
    stored_name: str = ""  # what the file's types are called, such as Q4_K_M
    stored_bytes: int = 0
    to: tuple[str, ...] = ("gguf", "onnx")  # what could be made of it
    folder: Path | None = None  # where an edgeq.json may lie
    gguf_keys: Callable[[], Mapping[str, Any]] = (
        dict  # metadata of a GGUF file; the tokenizer's where it is known
    )

    @property
    def parameters(self) -> int:
        return sum(prod(shape) for _, shape in self.tensors)

    def work(self, types: Mapping[str, str], cache_bytes: float = 2.0) -> Work:
        """The work of running it with these types, by tensor name."""
        merged: dict[tuple[str, float, bool], tuple[int, int]] = {}
        tied = all(name != "output.weight" for name, _ in self.tensors)
        last = "output.weight", "token_embd.weight", f"blk.{self.shape.n_layers - 1}.ffn_"
        for name, shape in self.tensors:
            if len(shape) < 2 or (name in _LOOKED_UP and not (tied and self._is_head(name))):
                continue
            share = self.experts_used / shape[0] if len(shape) > 2 and self.experts_used else 1.0
            last_only = self.kind == "decoder" and name.startswith(last)
            key = types[name], share, last_only
            weights, rows = merged.get(key, (0, 0))
            merged[key] = weights + prod(shape), rows + prod(shape[:-1])
        products = [
            Product(type_name, weights, share, rows, last_only)
            for (type_name, share, last_only), (weights, rows) in merged.items()
        ]
        return Work(
            products=products,
            layers=self.shape.n_layers,
            hidden=self.hidden,
            vocab=self.vocab if self.kind == "decoder" else 0,
            attention=self.head_values,
            cached=self.cached,
            cache_bytes=cache_bytes,
        )

    def _is_head(self, name: str) -> bool:
        return self.kind == "decoder" and name == "token_embd.weight"


def open_model(path: Path) -> PlannedModel:
    """What there is at a path; raises EdgeqError for what is no model, or of a family that edgeq does not know."""
    weights = path.is_dir() and any(path.glob("*.safetensors"))
    if not weights and (path.is_dir() or path.suffix == ".json"):
        from edgeq.planning.from_config import config_file

        return config_file(path / "config.json" if path.is_dir() else path)
    from edgeq.inspection.overview import is_gguf
    from edgeq.planning import from_files  # takes longer to import than a plan from a config takes

    if weights:
        return from_files.directory(path)
    if is_gguf(path):
        return from_files.gguf(path)
    if path.suffix == ".onnx":
        return from_files.onnx(path)
    raise FormatError(path, "is neither a config.json nor a GGUF or ONNX file")


def cached_layers(hp: Any, windows: bool) -> list[CachedLayers]:
    """What a decoder caches; ``windows`` says whether the runtime forgets what a layer's window has left."""
    values = 2 * hp.n_kv_heads * hp.head_dim
    groups: dict[int, int] = {}
    for layer in range(hp.n_layers):
        window = hp.window_of(layer) if windows else 0
        groups[window] = groups.get(window, 0) + 1
    return [CachedLayers(layers, values, window) for window, layers in groups.items()]
