"""Whether a file's metadata are sound and hold what llama.cpp asks for (sources: llama.cpp 0c1e57098)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, TENSOR_TYPES, ValueType
from edgeq.inspection.about import ARCHITECTURE, CONVERT, EPSILON_KEYS, TYPE, is_model
from edgeq.inspection.findings import Finding, error, note, warning

_QUANTIZATION_VERSION = "general.quantization_version"

# `load_hparams` in src/llama-model.cpp wants the first three of all; without the others the shapes of the
# tensors come out as zero. The epsilon: `load_arch_hparams` of each file in src/models.
_NUMBERS = ("context_length", "embedding_length", "block_count")
_NUMBERS_OR_LISTS = ("feed_forward_length", "attention.head_count")


def metadata_findings(file: GGUFFile) -> Iterator[Finding]:
    yield from _alignment(file)
    yield from _not_finite(file)
    if not is_model(file):
        yield note(TYPE, f"is {file.metadata[TYPE]!r}: the rules for models were not applied")
        return
    yield from _quantization_version(file)
    architecture = file.metadata.get(ARCHITECTURE)
    if not isinstance(architecture, str) or not architecture:
        yield error(ARCHITECTURE, "is missing or no text: no runtime knows what to build", CONVERT)
        return
    yield from _needed_keys(file, architecture)
    if not file.tensors:
        yield note("file", "has no tensors: only its metadata were checked")


def _alignment(file: GGUFFile) -> Iterator[Finding]:
    remedy = "write the file again with 32, or leave the key out"
    first = min((tensor.offset for tensor in file.tensors.values()), default=0)
    if first % DEFAULT_ALIGNMENT:  # TENSOR_ALIGNMENT of ggml/src/ggml-impl.h, of a buffer's first byte
        what = f"{file.alignment} lets the tensors begin at byte {first}, no multiple of 32: llama.cpp aborts"
        yield error(ALIGNMENT_KEY, what, remedy)
    elif file.alignment % 8:
        what = f"{file.alignment} is not a multiple of 8, as the GGUF specification asks"
        yield warning(ALIGNMENT_KEY, what, remedy)


def _not_finite(file: GGUFFile) -> Iterator[Finding]:
    for key, value in file.metadata.items():
        values = value if isinstance(value, list) else [value]
        bad = sum(isinstance(item, float) and not math.isfinite(item) for item in values)
        if bad:
            what = f"{bad:,} of its {len(values):,} values are NaN or infinite"
            yield error(key, what if len(values) > 1 else f"is {value}", CONVERT)


def _quantization_version(file: GGUFFile) -> Iterator[Finding]:
    quantized = any(TENSOR_TYPES[tensor.type_id].block_values > 1 for tensor in file.tensors.values())
    if quantized and _QUANTIZATION_VERSION not in file.metadata:
        what = "is missing, and the GGUF specification asks for it where tensors are quantized"
        yield warning(_QUANTIZATION_VERSION, what, "quantize the model again with a current tool")


def _needed_keys(file: GGUFFile, architecture: str) -> Iterator[Finding]:
    epsilon = EPSILON_KEYS.get(architecture)
    if epsilon is None:
        yield note(
            ARCHITECTURE, f"edgeq has no list of the keys that {architecture!r} needs: they were not checked"
        )
        return
    if not file.tensors:  # a vocabulary alone needs none of them
        return
    wanted = dict.fromkeys((*_NUMBERS, *_NUMBERS_OR_LISTS), ValueType.UINT32) | {epsilon: ValueType.FLOAT32}
    for name, kind in wanted.items():
        key = f"{architecture}.{name}"
        if key not in file.metadata:
            yield error(key, "is missing, and llama.cpp does not load the model without it", CONVERT)
            continue
        found, is_list = file.metadata_types[key], isinstance(file.metadata[key], list)
        if is_list and name in _NUMBERS_OR_LISTS:
            if found not in (ValueType.UINT32, ValueType.INT32):
                yield error(key, f"is a list of {found.name}, where llama.cpp reads UINT32", CONVERT)
        elif is_list or found is not kind:
            what = f"is {'a list of ' if is_list else ''}{found.name}, where llama.cpp reads {kind.name} only"
            yield error(key, what, CONVERT)
