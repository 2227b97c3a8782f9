"""The types that each tensor may get, and what the tensor takes in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from edgeq.errors import UsageError
from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.mixes import is_quantizable
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

Shape = tuple[int, ...]
# Of types of about the same size the one that loses least; rows that super-blocks do not divide have the others.
DEFAULT_TYPES = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
SMALL_BLOCKS = ("IQ4_NL", "Q5_0", "Q8_0")


@dataclass(frozen=True)
class Candidate:
    """One type of one tensor."""

    type_name: str
    nbytes: int


def parse_types(text: str) -> tuple[str, ...]:
    """``Q4_K,Q6_K`` as types that edgeq encodes, smallest first; raises UsageError."""
    names = []
    for part in text.split(","):
        try:
            kind = by_name(part.strip())
            kind.check_encodes()
        except EdgeqError as error:
            raise UsageError(f"--types {text}: {error}") from None
        names.append(kind.name)
    return tuple(sorted(dict.fromkeys(names), key=bits))


def bits(type_name: str) -> float:
    """Bits per weight of a type."""
    kind = TENSOR_TYPES_BY_NAME[type_name]
    return 8 * kind.block_bytes / kind.block_values


def candidates(
    tensors: Iterable[tuple[str, Shape]],
    types: Sequence[str] = DEFAULT_TYPES,
) -> dict[str, list[Candidate]]:
    """By tensor, smallest first: only of what llama.cpp quantizes, and only types that its rows divide by.

    Rows that none of ``types`` fits have types of small blocks, at the last F16.
    """
    found = {}
    for name, shape in tensors:
        if not is_quantizable(name, shape):
            continue
        fitting = [kind for kind in types if _divides(kind, shape)]
        fitting = fitting or [kind for kind in SMALL_BLOCKS if _divides(kind, shape)] or ["F16"]
        found[name] = [Candidate(kind, size_of(kind, shape)) for kind in sorted(fitting, key=bits)]
    return found


def size_of(type_name: str, shape: Shape) -> int:
    """Bytes of a tensor in a type that its rows divide by."""
    kind = TENSOR_TYPES_BY_NAME[type_name]
    return prod(shape) // kind.block_values * kind.block_bytes


def _divides(type_name: str, shape: Shape) -> bool:
    return shape[-1] % TENSOR_TYPES_BY_NAME[type_name].block_values == 0
