"""Whether a file's tensors are those that its metadata announce (sources: llama.cpp 0c1e57098)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME
from edgeq.inspection.about import ARCHITECTURE, BLOCK, CONVERT, EPSILON_KEYS, is_model
from edgeq.inspection.findings import Finding, error, note, warning

_FILE_TYPE = "general.file_type"

# enum llama_ftype (include/llama.h) → the type of most tensors; no entry where the mix has no such type.
MAIN_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q3_K", 13: "Q3_K", 14: "Q4_K", 15: "Q4_K", 16: "Q5_K", 17: "Q5_K", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K", 22: "IQ3_S", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_S",
    28: "IQ2_XS", 29: "IQ2_S", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
# What stands outside the blocks of these architectures (src/llama-arch.cpp, LLM_TENSOR_NAMES).
_OUTSIDE_BLOCKS = {
    "token_embd", "token_embd_norm", "token_types", "position_embd", "output", "output_norm", "rope_freqs",
    "rope_factors_long", "rope_factors_short", "cls", "cls.output", "cls.norm", "dense_2", "dense_3",
}  # fmt: skip
# What a block may lack by design: ModernBERT's first follows the norm of the embeddings (src/models/modern-bert.cpp).
_MISSING_BY_DESIGN = {("modern-bert", "blk.0.attn_norm.weight")}
_GUESSED = 1024  # LLAMA_FTYPE_GUESSED
_MAIN_SHARE = 0.25  # of the blocks' weights: no mix of llama.cpp has less of its main type


def layout_findings(file: GGUFFile) -> Iterator[Finding]:
    architecture = file.metadata.get(ARCHITECTURE)
    if not is_model(file) or not isinstance(architecture, str) or not file.tensors:
        return
    yield from _blocks(file, architecture)
    yield from _embedding(file, architecture)
    if architecture in EPSILON_KEYS:
        yield from _uneven_blocks(file, architecture)
        yield from _strange_tensors(file)
    yield from _file_type(file)


def _blocks(file: GGUFFile, architecture: str) -> Iterator[Finding]:
    key = f"{architecture}.block_count"
    count = file.metadata.get(key)
    if not isinstance(count, int):
        return
    present = {int(match[1]) for name in file.tensors if (match := BLOCK.match(name))}
    missing = [i for i in range(min(count, 1 << 16)) if i not in present]
    beyond = sorted(i for i in present if i >= count)
    if missing:
        yield error(key, f"says {count}, but there are no tensors of {_some_blocks(missing)}", CONVERT)
    if beyond:
        yield error(key, f"says {count}, but there are tensors of {_some_blocks(beyond)}", CONVERT)


def _some_blocks(numbers: list[int]) -> str:
    names = ", ".join(f"blk.{i}" for i in numbers[:4])
    return names if len(numbers) <= 4 else f"{names} and {len(numbers) - 4} more"


def _embedding(file: GGUFFile, architecture: str) -> Iterator[Finding]:
    tensor = file.tensors.get("token_embd.weight")
    if tensor is None:
        if architecture in EPSILON_KEYS:
            yield error(
                "token_embd.weight", "is missing, and the model has no embeddings without it", CONVERT
            )
        return
    width = file.metadata.get(f"{architecture}.embedding_length")
    if isinstance(width, int) and width != tensor.columns:
        what = f"has {tensor.columns} columns, but {architecture}.embedding_length is {width}"
        yield error(tensor.name, what, CONVERT)


def _uneven_blocks(file: GGUFFile, architecture: str) -> Iterator[Finding]:
    """A tensor that most blocks have and one lacks: these architectures repeat one layer, but for some experts."""
    names: dict[int, set[str]] = {}
    for name in file.tensors:
        if match := BLOCK.match(name):
            names.setdefault(int(match[1]), set()).add(name[match.end() :])
    counts = Counter(name for own in names.values() for name in own)
    usual = {name for name, count in counts.items() if 2 * count > len(names)}
    for i, own in sorted(names.items()):
        for name in sorted(f"blk.{i}.{name}" for name in usual - own):
            if (architecture, name) not in _MISSING_BY_DESIGN:
                what = "is missing, where most other blocks have theirs"
                yield warning(name, what, f"{CONVERT}, unless its layers are meant to differ")


def _strange_tensors(file: GGUFFile) -> Iterator[Finding]:
    for name in file.tensors:
        if not BLOCK.match(name) and name.rsplit(".", 1)[0] not in _OUTSIDE_BLOCKS:
            what = "has a name unknown to edgeq; llama.cpp refuses a file with tensors that it does not use"
            yield warning(name, what, "leave it out of the file if llama.cpp does not load it")


def _file_type(file: GGUFFile) -> Iterator[Finding]:
    """Compare with the types of the blocks' matrices; embeddings and rows that do not divide have their own."""
    value = file.metadata.get(_FILE_TYPE)
    if not isinstance(value, int):
        return
    main = MAIN_TYPES.get(value & ~_GUESSED)
    if main is None:
        yield note(_FILE_TYPE, f"{value} names no single type of most tensors: it was not checked")
        return
    divisor = TENSOR_TYPES_BY_NAME[main].block_values
    weights: Counter[str] = Counter()
    for tensor in file.tensors.values():
        is_matrix = len(tensor.shape) > 1 and BLOCK.match(tensor.name) and tensor.name.endswith(".weight")
        if is_matrix and tensor.columns % divisor == 0:
            weights[tensor.type_name] += tensor.n_rows * tensor.columns
    if weights.total() and weights[main] < _MAIN_SHARE * weights.total():
        most = weights.most_common(1)[0][0]
        what = f"{value} stands for a file of mostly {main}, but most weights are {most}"
        yield warning(_FILE_TYPE, what, "set it to the number of the type that the tensors have")
