"""What a graph wants to be fed with, and whether given arrays are that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.readers import Role, choices_of, role_of, rows_of
from edgeq.errors import InputError

Arrays = dict[str, NDArray[Any]]
_TOLD = 5  # names in an error


@dataclass(frozen=True)
class Input:
    """One input of a graph: a dimension is a number, a name that inputs share, or None.

    What the graph does with it tells more: ``choices`` are the whole numbers that it is compared with, such as sample
    rates, ``rows`` the rows of the smallest table that it picks from (0: of none), ``role`` what a float input is.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None  # None: of unknown rank
    choices: tuple[int, ...] = ()
    rows: int = 0
    role: Role = "numbers"

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
        found.append(Input(str(value.name), dtype, shape, *_told_by_readers(value, dtype)))
    return found


def _told_by_readers(value: ir.Value, dtype: np.dtype[Any]) -> tuple[tuple[int, ...], int, Role]:
    """Choices, rows and role."""
    if dtype.kind in "iu":
        return choices_of(value), rows_of(value), "numbers"
    return (), 0, role_of(value) if dtype.kind == "f" else "numbers"


def _size(size: Any) -> int | str | None:
    if isinstance(size, int):
        return size
    return None if size.value is None else str(size.value)


def checked(feeds: Mapping[str, NDArray[Any]], inputs: Sequence[Input], where: str) -> Arrays:
    """The arrays in the types that the graph wants; raises InputError where a name, type or shape does not fit."""
    check_names(feeds, inputs, where)
    found = {entry.name: _checked(np.asarray(feeds[entry.name]), entry, where) for entry in inputs}
    if inputs and not any(array.size for array in found.values()):
        raise InputError(f"{where}: holds a sample without a number; leave it out")
    return found


def check_names(given: Iterable[str], inputs: Sequence[Input], where: str) -> None:
    """Raises InputError where the names are not those of the inputs."""
    names, wanted = set(given), {entry.name for entry in inputs}
    missing, unknown = sorted(wanted - names), sorted(names - wanted)
    if missing or unknown:
        what = [f"has no {name}" for name in missing[:_TOLD]] + [f"has {name}" for name in unknown[:_TOLD]]
        more = ", …" if max(len(missing), len(unknown)) > _TOLD else ""
        raise InputError(
            f"{where}: {', '.join(what)}{more}; the model's inputs are {', '.join(map(str, inputs))}"
        )


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
    with np.errstate(over="ignore"):  # what becomes infinite is found below
        given = array.astype(entry.dtype, copy=False)
    if entry.dtype.kind in "iu" and given is not array and not np.array_equal(given, array):
        raise InputError(f"{where}: {entry.name} has numbers that are too large for {entry.dtype}")
    if entry.dtype.kind == "f" and given.size and not np.isfinite(given).any():
        raise InputError(f"{where}: {entry.name} holds no number, only NaN or infinity; leave it out")
    return given
