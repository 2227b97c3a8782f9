"""How many layers of a GGUF model a GPU with memory of its own holds: llama.cpp's ``n_gpu_layers``.

Its last layers go to the GPU, the output matrix first: n_gpu_layers 1 is that alone, layers + 1 is everything but the
table of embeddings, which stays with the CPU (``llama_model_base::load_tensors`` in src/llama-model.cpp of
llama-cpp-python 0.3.36's llama.cpp). A tied output is stored a second time on the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeq.devices.predict import BATCH
from edgeq.devices.work import Work
from edgeq.planning.from_config import tensor_bytes
from edgeq.planning.model import PlannedModel

_CONTEXT_BYTES = 400_000_000  # assumed: what CUDA's context, its kernels and cuBLAS take
_BATCH_VALUES = 16  # float32 hidden states of a batch that live at once, as on a CPU (devices/memory.py)
_FLOAT_BYTES = 4
_TABLES = ("token_embd.weight", "position_embd.weight", "token_types.weight")


@dataclass(frozen=True)
class Offload:
    """``layers`` for ``n_gpu_layers`` (0: nothing fits), the bytes that the GPU then holds, and each side's work."""

    layers: int
    gpu_bytes: int
    on_gpu: Work
    on_cpu: Work


def plan_offload(
    model: PlannedModel, types: Mapping[str, str], context: int, limit: float, kv_bytes: float
) -> Offload:
    """The most layers that fit into ``limit`` bytes of GPU memory with a cache of ``context`` positions."""
    count, sizes = model.shape.n_layers, _bytes_of_layers(model, types)
    cache = model.work(types, kv_bytes).cache_values(context, extra=BATCH) * kv_bytes / max(1, count)
    used: float = _CONTEXT_BYTES + BATCH * _FLOAT_BYTES * (_BATCH_VALUES * model.hidden + model.vocab)
    layers = 0
    for layer in range(count, -1, -1):  # the output, then layers from the last
        more = sizes[layer] + (0.0 if layer == count else cache)
        if used + more > limit:
            break
        used += more
        layers += 1
    first = count + 1 - layers  # the first layer on the GPU; past all of them where the GPU has nothing
    on_gpu = _part(model, types, kv_bytes, range(first, count), output=layers > 0)
    on_cpu = _part(model, types, kv_bytes, range(min(first, count)), output=layers == 0)
    return Offload(layers, round(used) if layers else 0, on_gpu, on_cpu)


def _bytes_of_layers(model: PlannedModel, types: Mapping[str, str]) -> list[int]:
    """Of each layer, and last of the output: its norm, and its matrix or the tied table."""
    count = model.shape.n_layers
    sizes = [0] * (count + 1)
    names = {name for name, _ in model.tensors}
    for name, shape in model.tensors:
        size = tensor_bytes(types[name], shape)
        layer = _layer_of(name)
        if layer is not None and layer < count:
            sizes[layer] += size
        elif name not in _TABLES or (name == _TABLES[0] and "output.weight" not in names):
            sizes[count] += size
    return sizes


def _layer_of(name: str) -> int | None:
    prefix, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return int(number) if prefix == "blk" and number.isdecimal() else None


def _part(
    model: PlannedModel, types: Mapping[str, str], kv_bytes: float, layers: range, output: bool
) -> Work:
    """The work of some layers, with or without the output matrix."""
    tied = all(name != "output.weight" for name, _ in model.tensors)
    head = _TABLES[0] if tied else "output.weight"
    tensors = [
        (name, shape)
        for name, shape in model.tensors
        if _layer_of(name) in layers or (output and name == head)
    ]
    part = replace(model, tensors=tensors).work(types, kv_bytes)
    if not output or not tied:  # without its output matrix a part looks tied, and its table is looked up only
        kept = [(name, shape) for name, shape in tensors if name not in _TABLES]
        part = replace(model, tensors=kept).work(types, kv_bytes)
    share = len(layers) / max(1, model.shape.n_layers)
    cached = [replace(group, values=round(group.values * share)) for group in part.cached]
    return replace(part, layers=len(layers), cached=cached)
