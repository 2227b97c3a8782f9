"""Whether a file's metadata fit its tensors, and hold what llama.cpp asks for (sources: llama.cpp 0c1e57098)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, TENSOR_TYPES, Value, ValueType
from edgeq.inspection.findings import Finding, error, note, warning

ARCHITECTURE = "general.architecture"
_FILE_TYPE = "general.file_type"
_TYPE = "general.type"
_QUANTIZATION_VERSION = "general.quantization_version"
_BLOCK = re.compile(r"blk\.(\d+)\.")
_CONVERT = "convert the model again"

# `load_hparams` in src/llama-model.cpp wants the first three of all; without the others the shapes of the
# tensors come out as zero. The epsilon: `load_arch_hparams` of each file in src/models.
_NUMBERS = ("context_length", "embedding_length", "block_count")
_NUMBERS_OR_LISTS = ("feed_forward_length", "attention.head_count")
_RMS, _LAYER = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
EPSILON_KEYS = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "phi3"), _RMS
    ),
    **dict.fromkeys(("bert", "nomic-bert", "gpt2", "phi2", "falcon", "stablelm", "starcoder2"), _LAYER),
}

# enum llama_ftype (include/llama.h) → the type of most tensors; no entry where the mix has no such type.
MAIN_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q3_K", 13: "Q3_K", 14: "Q4_K", 15: "Q4_K", 16: "Q5_K", 17: "Q5_K", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K", 22: "IQ3_S", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_S",
    28: "IQ2_XS", 29: "IQ2_S", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
# What stands outside the blocks of these architectures (src/llama-arch.cpp, LLM_TENSOR_NAMES).
_OUTSIDE_BLOCKS = frozenset(
    ("token_embd", "token_embd_norm", "token_types", "position_embd", "output", "output_norm", "rope_freqs")
    + ("rope_factors_long", "rope_factors_short", "cls", "cls.output", "cls.norm", "dense_2", "dense_3")
)
_GUESSED = 1024  # LLAMA_FTYPE_GUESSED
_MAIN_SHARE = 0.25  # of the blocks' weights: no mix of llama.cpp has less of its main type


def metadata_findings(file: GGUFFile) -> Iterator[Finding]:
    yield from _alignment(file)
    yield from _not_finite(file)
    if not is_model(file):
        yield note(_TYPE, f"is {file.metadata[_TYPE]!r}: the rules for models were not applied")
        return
    if is_shard(file):
        what = "is one file of a split model: what the others hold was not checked"
        yield note("split.count", what, "check each of them, or join them first (llama-gguf-split --merge)")
        if file.metadata.get("split.no") != 0:  # only the first has the model's metadata
            return
    yield from _quantization_version(file)
    architecture = file.metadata.get(ARCHITECTURE)
    if not isinstance(architecture, str) or not architecture:
        yield error(ARCHITECTURE, "is missing or no text: no runtime knows what to build", _CONVERT)
        return
    yield from _needed_keys(file, architecture)
    if not file.tensors:
        yield note("file", "has no tensors: only its metadata were checked")
    elif not is_shard(file):
        yield from _blocks(file, architecture)
        yield from _embedding(file, architecture)
        if architecture in EPSILON_KEYS:
            yield from _uneven_blocks(file)
            yield from _strange_tensors(file)
    yield from _file_type(file)


def is_model(file: GGUFFile) -> bool:
    """False for what says to be something else: an adapter, an importance matrix, a vision projector."""
    return file.metadata.get(_TYPE, "model") == "model"


def is_shard(file: GGUFFile) -> bool:
    count = file.metadata.get("split.count", 0)
    return isinstance(count, int) and count > 1


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
            yield error(key, what if len(values) > 1 else f"is {value}", _CONVERT)


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
            yield error(key, "is missing, and llama.cpp does not load the model without it", _CONVERT)
            continue
        found, is_list = file.metadata_types[key], isinstance(file.metadata[key], list)
        if is_list and name in _NUMBERS_OR_LISTS:
            if found not in (ValueType.UINT32, ValueType.INT32):
                yield error(key, f"is a list of {found.name}, where llama.cpp reads UINT32", _CONVERT)
        elif is_list or found is not kind:
            what = f"is {'a list of ' if is_list else ''}{found.name}, where llama.cpp reads {kind.name} only"
            yield error(key, what, _CONVERT)


def _blocks(file: GGUFFile, architecture: str) -> Iterator[Finding]:
    key = f"{architecture}.block_count"
    count = file.metadata.get(key)
    if not isinstance(count, int):
        return
    present = {int(match[1]) for name in file.tensors if (match := _BLOCK.match(name))}
    missing = [i for i in range(min(count, 1 << 16)) if i not in present]
    beyond = sorted(i for i in present if i >= count)
    if missing:
        yield error(key, f"says {count}, but there are no tensors of {_some_blocks(missing)}", _CONVERT)
    if beyond:
        yield error(key, f"says {count}, but there are tensors of {_some_blocks(beyond)}", _CONVERT)


def _some_blocks(numbers: list[int]) -> str:
    names = ", ".join(f"blk.{i}" for i in numbers[:4])
    return names if len(numbers) <= 4 else f"{names} and {len(numbers) - 4} more"


def _embedding(file: GGUFFile, architecture: str) -> Iterator[Finding]:
    tensor = file.tensors.get("token_embd.weight")
    if tensor is None:
        if architecture in EPSILON_KEYS:
            yield error(
                "token_embd.weight", "is missing, and the model has no embeddings without it", _CONVERT
            )
        return
    width = file.metadata.get(f"{architecture}.embedding_length")
    if isinstance(width, int) and width != tensor.columns:
        what = f"has {tensor.columns} columns, but {architecture}.embedding_length is {width}"
        yield error(tensor.name, what, _CONVERT)


def _uneven_blocks(file: GGUFFile) -> Iterator[Finding]:
    """A tensor that most blocks have and one lacks: these architectures repeat one layer, but for some experts."""
    names: dict[int, set[str]] = {}
    for name in file.tensors:
        if match := _BLOCK.match(name):
            names.setdefault(int(match[1]), set()).add(name[match.end() :])
    counts = Counter(name for own in names.values() for name in own)
    usual = {name for name, count in counts.items() if 2 * count > len(names)}
    for i, own in sorted(names.items()):
        for name in sorted(usual - own):
            what = "is missing, where most other blocks have theirs"
            yield warning(f"blk.{i}.{name}", what, f"{_CONVERT}, unless its layers are meant to differ")


def _strange_tensors(file: GGUFFile) -> Iterator[Finding]:
    for name in file.tensors:
        if not _BLOCK.match(name) and name.rsplit(".", 1)[0] not in _OUTSIDE_BLOCKS:
            what = "has a name unknown to edgeq; llama.cpp refuses a file with tensors that it does not use"
            yield warning(name, what, "leave it out of the file if llama.cpp does not load it")


def _file_type(file: GGUFFile) -> Iterator[Finding]:
    """Compare with the types of the blocks' matrices; embeddings and rows that do not divide have their own."""
    value: Value = file.metadata.get(_FILE_TYPE, 0)
    if _FILE_TYPE not in file.metadata or not isinstance(value, int):
        return
    main = MAIN_TYPES.get(value & ~_GUESSED)
    if main is None:
        yield note(_FILE_TYPE, f"{value} names no single type of most tensors: it was not checked")
        return
    divisor = next(kind.block_values for kind in TENSOR_TYPES.values() if kind.name == main)
    weights: Counter[str] = Counter()
    for tensor in file.tensors.values():
        is_matrix = len(tensor.shape) > 1 and _BLOCK.match(tensor.name) and tensor.name.endswith(".weight")
        if is_matrix and tensor.columns % divisor == 0:
            weights[tensor.type_name] += tensor.n_rows * tensor.columns
    if weights.total() and weights[main] < _MAIN_SHARE * weights.total():
        most = weights.most_common(1)[0][0]
        what = f"{value} stands for a file of mostly {main}, but most weights are {most}"
        yield warning(_FILE_TYPE, what, "set it to the number of the type that the tensors have")
