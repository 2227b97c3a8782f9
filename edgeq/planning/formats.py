"""The formats that make sense for a model, with the types that its tensors would have and the bytes they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from edgeq.formats.gguf.mixes import choose_types, file_type
from edgeq.planning.from_config import tensor_bytes
from edgeq.planning.model import PlannedModel, Shape

# Legacy and ternary ones are left out: another one is better at their size, or only fits models trained for them.
GGUF_QUANTS = (
    "F16",
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q5_K_S",
    "Q4_K_M",
    "Q4_K_S",
    "IQ4_NL",
    "IQ4_XS",
    "Q4_0",
    "Q3_K_L",
    "Q3_K_M",
    "Q3_K_S",
    "Q2_K",
)
# ONNX quants and what matrices are then stored in; those with blocks only for decoders, which are read token by token.
ONNX_QUANTS = {"float32": "F32", "float16": "F16", "int8": "I8", "int8-dynamic": "I8"}
ONNX_BLOCKS = {"int8-blocks": "Q8_0", "int4": "Q4_0"}
_BLOCK = 32  # weights with one scale
# What runs a file in an app, and what is known to stop it there.
RUNNERS: Mapping[tuple[str, str], str] = {
    ("gguf", "ios"): "llama.cpp (llama.rn)",
    ("gguf", "android"): "llama.cpp (llama.rn)",
    ("gguf", "browser"): "wllama",
    ("gguf", "desktop"): "llama.cpp, Ollama, LM Studio",
    ("gguf", "server"): "llama.cpp",
    ("onnx", "ios"): "onnxruntime-react-native",
    ("onnx", "android"): "onnxruntime-react-native",
    ("onnx", "browser"): "onnxruntime-web, transformers.js",
    ("onnx", "desktop"): "ONNX Runtime",
    ("onnx", "server"): "ONNX Runtime",
}
_ONNX_GRAPH_BYTES = 500_000  # nodes, names and shapes


@dataclass(frozen=True)
class Made:
    """A format of a model: every tensor's type, the bytes of their values, the bytes of the file."""

    target: str  # gguf or onnx
    quant: str
    types: Mapping[str, str]
    tensor_bytes: int
    file_bytes: int
    exact: bool
    stored: bool = False  # it is there already

    @property
    def name(self) -> str:
        return f"{self.target} {self.quant}"


def formats_of(model: PlannedModel, quants: tuple[str, ...] = GGUF_QUANTS) -> Iterator[Made]:
    """The file as it is where it is one, then what could be made of the model."""
    if model.stored:
        yield _as_it_is(model)
    if "gguf" in model.to:
        for quant in quants:
            if not (model.stored and quant == model.stored_name):
                yield _gguf(model, quant)
    if "onnx" in model.to:
        for quant in ONNX_QUANTS | (ONNX_BLOCKS if model.kind == "decoder" else {}):
            yield _onnx(model, quant)


def named_quants(names: Sequence[str]) -> dict[str, list[str]]:
    """Quants that a user named, by target; raises EdgeqError for one that neither target has."""
    onnx = ONNX_QUANTS | ONNX_BLOCKS
    gguf = [file_type(name).name for name in names if name not in onnx]
    return {"gguf": gguf, "onnx": [name for name in names if name in onnx]}


def _as_it_is(model: PlannedModel) -> Made:
    target = "gguf" if "gguf" in model.to else "onnx"
    size = sum(tensor_bytes(model.stored[name], shape) for name, shape in model.tensors)
    return Made(target, model.stored_name, model.stored, size, model.stored_bytes, True, stored=True)


def _gguf(model: PlannedModel, quant: str) -> Made:
    choices = choose_types(quant, model.shape, model.tensors)
    types = {choice.name: choice.type_name for choice in choices}
    size = sum(tensor_bytes(types[name], shape) for name, shape in model.tensors)
    plans = [(name, types[name], shape) for name, shape in model.tensors]
    return Made("gguf", quant, types, size, size + model.gguf_bytes(plans), model.exact)


def _onnx(model: PlannedModel, quant: str) -> Made:
    """int8 has a scale and a zero point for each row, blocks have float32 scales; experts stay whole matrices."""
    kind = (ONNX_QUANTS | ONNX_BLOCKS)[quant]
    types = {name: _onnx_type(kind, name, shape) for name, shape in model.tensors}
    size = sum(tensor_bytes(types[name], shape) for name, shape in model.tensors)
    if kind == "I8":
        size += sum(5 * prod(shape[:-1]) for name, shape in model.tensors if types[name] == kind)
    if quant in ONNX_BLOCKS:  # scales of 4 bytes where GGUF's blocks have 2
        weights = sum(prod(shape) for name, shape in model.tensors if types[name] in ("Q4_0", "Q8_0"))
        size += 2 * weights // _BLOCK
    return Made("onnx", quant, types, size, size + _ONNX_GRAPH_BYTES, exact=False)


def _onnx_type(kind: str, name: str, shape: Shape) -> str:
    """Of float16 everything; tables of blocks in 8 bits, as the tied head is by default."""
    if kind == "F16":
        return kind
    if not _is_matrix(name, shape) or (kind in ("Q4_0", "Q8_0") and shape[-1] % _BLOCK):
        return "F32"
    return "Q8_0" if kind == "Q4_0" and name in _TABLES else kind


_TABLES = ("token_embd.weight", "position_embd.weight")


def _is_matrix(name: str, shape: Shape) -> bool:
    return len(shape) > 1 and name.endswith(".weight")
