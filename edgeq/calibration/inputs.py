"""What a graph wants to be fed with, and whether given arrays are that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import InputError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Input:
    """One input of a graph: a dimension is a number, a name that inputs share, or None.

    ``choices`` are the whole numbers that the graph compares it with, such as the sample rates that it knows.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None  # None: of unknown rank
    choices: tuple[int, ...] = ()

    def __str__(self) -> str:
        shape = (
            "any shape" if self.shape is None else f"[{', '.join(str(size or '?') for size in self.shape)}]"
        )
        return f"{self.name} {self.dtype} {shape}"


def inputs_of(model: ir.Model) -> list[Input]:
    """The inputs that a caller must give. Raises InputError for one that is no plain tensor."""
    found = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if not isinstance(value.type, ir.TensorType):
            raise InputError(f"input {value.name} is no tensor; edgeq feeds graphs with tensors only")
        shape = None if value.shape is None else tuple(map(_size, value.shape))
        dtype = np.dtype(value.type.dtype.numpy())
        choices = tuple(dict.fromkeys(_compared_with(value))) if dtype.kind in "iu" else ()
        found.append(Input(str(value.name), dtype, shape, choices))
    return found


_PASSED_ON = frozenset(("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"))


def _compared_with(value: ir.Value) -> Iterator[int]:
    """The whole numbers that Equal nodes hold a value against, as it is or passed on."""
    for node, index in value.uses():
        if node.op_type in _PASSED_ON and index == 0:
            yield from _compared_with(node.outputs[0])
        elif node.op_type == "Equal":
            other = node.inputs[1 - index]
            tensor = None if other is None else ir.convenience.get_const_tensor(other)
            if tensor is not None and tensor.size == 1 and tensor.dtype.is_integer():
                yield int(tensor.numpy().reshape(-1)[0])


def _size(size: Any) -> int | str | None:
    if isinstance(size, int):
        return size
    return None if size.value is None else str(size.value)


def checked(feeds: Mapping[str, NDArray[Any]], inputs: Sequence[Input], where: str) -> Arrays:
    """The arrays in the types that the graph wants; raises InputError where a name, type or shape does not fit."""
    wanted = {entry.name: entry for entry in inputs}
    missing, unknown = wanted.keys() - feeds.keys(), feeds.keys() - wanted.keys()
    if missing or unknown:
        what = [f"has no {name}" for name in sorted(missing)] + [f"has {name}" for name in sorted(unknown)]
        raise InputError(f"{where}: {', '.join(what)}; the model's inputs are {', '.join(map(str, inputs))}")
    return {name: _checked(np.asarray(feeds[name]), entry, where) for name, entry in wanted.items()}


def _checked(array: NDArray[Any], entry: Input, where: str) -> NDArray[Any]:
    same_kind = np.can_cast(array.dtype, entry.dtype, "same_kind") or array.dtype.kind == entry.dtype.kind
    if not same_kind:
        raise InputError(f"{where}: {entry.name} is {array.dtype}, the model wants {entry}")
    fits = entry.shape is None or (
        len(array.shape) == len(entry.shape)
        and all(
            not isinstance(size, int) or size == have
            for size, have in zip(entry.shape, array.shape, strict=True)
        )
    )
    if not fits:
        raise InputError(f"{where}: {entry.name} has the shape {list(array.shape)}, the model wants {entry}")
    return array.astype(entry.dtype, copy=False)
