"""The type of each tensor in a GGUF file, as llama.cpp would choose it. The rules are in ``mix_table``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf import mix_table as table
from edgeq.formats.gguf.mix_table import Facts, FileType, Rule
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

Shape = tuple[int, ...]
_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class ModelShape:
    """What the rules ask about a model: GGUF's architecture name, and the counts of its hyper-parameters.

    ``n_layers`` is ``{arch}.block_count``; a dense model has no experts.
    """

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_experts: int = 0


@dataclass(frozen=True)
class Choice:
    """A tensor's type, the type that the mix wanted (another one where the row does not divide), and why."""

    name: str
    type_name: str
    wanted_type: str
    reason: str

    @property
    def is_fallback(self) -> bool:
        return self.type_name != self.wanted_type


def file_type(quant: str) -> FileType:
    """The kind of file of that name, any case; raises EdgeqError listing the names there are."""
    name = quant.strip().upper()
    try:
        return table.FILE_TYPES[table.ALIASES.get(name, name)]
    except KeyError:
        raise EdgeqError(f"{quant}: no such file type; there are {', '.join(table.FILE_TYPES)}") from None


def choose_types(
    quant: str, model: ModelShape, tensors: Sequence[tuple[str, Shape]], *, has_imatrix: bool = False
) -> list[Choice]:
    """Choose the type of each tensor (GGUF name, shape in NumPy's order); the answers keep the given order.

    Raises EdgeqError for an unknown ``quant``, and for a tensor of a model with experts whose name does not
    say its layer.
    """
    kind = file_type(quant)
    if kind.base in table.UNQUANTIZED:
        return [_plain(name, shape, kind.base) for name, shape in tensors]
    positions = _positions(tensors, model)
    is_tied = all(name != "output.weight" for name, _ in tensors)
    chosen = []
    for name, shape in tensors:
        if not is_quantizable(name, shape):
            chosen.append(_plain(name, shape, table.LAST_RESORT))
            continue
        role = _role(name)
        i, n = positions[name]
        facts = Facts(
            file_type=kind.name,
            architecture=model.architecture,
            # A tied embedding is the output too, and gets the type of one.
            role=table.OUTPUT if is_tied and role == table.TOKEN_EMBD else role,
            i=i,
            n=n,
            row_fits=_fits(kind.base, shape),
            is_stack=len(shape) > 2 and shape[-3] > 1,
            n_experts=model.n_experts,
            heads_per_kv=model.n_heads // model.n_kv_heads if model.n_kv_heads else 0,
            is_70b=_is_70b(model),
            has_imatrix=has_imatrix,
        )
        chosen.append(_choose(name, shape, kind.base, facts))
    return chosen


def is_quantizable(name: str, shape: Shape) -> bool:
    """Whether llama.cpp quantizes the tensor at all. Source: tensor_allows_quantization."""
    outer = [size for size in shape[:-1] if size != 1]  # ggml does not count outer dimensions of 1
    return (
        bool(outer)
        and name.endswith("weight")
        and name not in table.KEPT_NAMES
        and not any(part in name for part in table.KEPT_PARTS)
    )


def stays_f32(name: str, shape: Shape) -> bool:
    """Whether convert_hf_to_gguf leaves the tensor in F32 in any file. Source: prepare_tensors."""
    return (
        len(shape) <= 1
        or not name.endswith(".weight")
        or name in table.F32_NAMES
        or any(part in name for part in table.F32_PARTS)
    )


def _plain(name: str, shape: Shape, base: str) -> Choice:
    if stays_f32(name, shape):
        return Choice(name, "F32", "F32", "small: never below F32")
    return Choice(name, base, base, "not quantized")


def _choose(name: str, shape: Shape, base: str, facts: Facts) -> Choice:
    wanted, reason = base, "base type"
    for rules in (table.CHOICES, table.PROMOTIONS):
        rule = next((r for r in rules if _applies(r, facts, wanted)), None)
        if rule is not None:
            wanted, reason = rule.type_name, rule.reason
    if _fits(wanted, shape):
        return Choice(name, wanted, wanted, reason)
    fallback = table.FALLBACKS.get(wanted, table.LAST_RESORT)
    if not _fits(fallback, shape):
        fallback = table.LAST_RESORT
    size = TENSOR_TYPES_BY_NAME[wanted].block_values
    return Choice(name, fallback, wanted, f"{reason}; {shape[-1]} columns do not divide by {size}")


def _applies(rule: Rule, facts: Facts, wanted: str) -> bool:
    return (
        (not rule.roles or facts.role in rule.roles)
        and (not rule.files or facts.file_type in rule.files)
        and (not rule.of or wanted in rule.of)
        and rule.when(facts)
    )


def _role(name: str) -> str:
    if name in table.ROLES_BY_NAME:
        return table.ROLES_BY_NAME[name]
    return next((role for part, role in table.ROLES_BY_PART.items() if part in name), table.OTHER)


def _layer(name: str) -> int:
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def _positions(tensors: Sequence[tuple[str, Shape]], model: ModelShape) -> dict[str, tuple[int, int]]:
    """(i, n) of each tensor that is quantized: its place in its role, counted in (layer, name) order.

    The FFN of a model with experts has several tensors of a role in a layer, and is counted by layer.
    """
    per_layer = (table.FFN_DOWN, table.FFN_GATE, table.FFN_UP)
    n_values = sum(_role(name) == table.ATTN_V for name, _ in tensors)
    seen: Counter[str] = Counter()
    positions = {}
    for name, shape in sorted(tensors, key=lambda t: (_layer(t[0]), t[0].encode())):
        if not is_quantizable(name, shape):
            continue
        role = _role(name)
        i, n = seen[role], model.n_layers if role in per_layer else n_values
        seen[role] += 1
        if role in per_layer and model.n_experts > 1:
            i = _layer(name)
            if not 0 <= i < n:
                raise EdgeqError(f"tensor {name!r}: its name does not say one of the model's {n} layers")
        positions[name] = i, n
    return positions


def _fits(type_name: str, shape: Shape) -> bool:
    return shape[-1] % TENSOR_TYPES_BY_NAME[type_name].block_values == 0


def _is_70b(model: ModelShape) -> bool:
    if model.n_layers != table.LAYERS_OF_70B.get(model.architecture):
        return False
    # llama's 80-layer model without grouped heads is the 65B.
    return not model.architecture.startswith("llama") or model.n_heads != model.n_kv_heads
