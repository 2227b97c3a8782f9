"""What the layouts share: a weight of several tensors, its settings, and the checks of its parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.safetensors import CONFIG, Checkpoint, read_object
from edgeq.formats.errors import FormatError
from edgeq.formats.grid import Floats, Grid
from edgeq.formats.table_codes import TableCodes

# Where early versions of AutoGPTQ and AutoAWQ left the settings that are now in config.json.
_OLD_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
FLOATS = ("float16", "bfloat16", "float32")  # dtypes of scales


class PackedWeight(ABC):
    """A weight that stands in the checkpoint as several tensors; its rows decode to float32, a few at a time.

    Attributes:
        name: the weight's name as in a checkpoint that nobody quantized.
        shape: ``(out, in)``.
        layout: what to call it in reports, such as "gptq, 4 bits".
        parts: the names of the tensors that it is made of.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    parts: tuple[str, ...]

    @abstractmethod
    def rows(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to before ``stop`` as float32; raises FormatError for parts that contradict one another."""

    def grid(self, start: int, stop: int) -> Grid | None:
        """The same rows as integers, where the layout has such; None otherwise."""
        return None

    def codes(self) -> TableCodes | None:
        """The weight as codes of a table, where the layout has such; None otherwise."""
        return None


class GridWeight(PackedWeight):
    """A packed weight whose layout holds integers with a scale and a zero for each group."""

    @abstractmethod
    def grid(self, start: int, stop: int) -> Grid:
        """Rows ``start`` to before ``stop`` as integers; raises FormatError as ``rows`` does."""

    def rows(self, start: int, stop: int) -> Floats:
        return self.grid(start, stop).values()


@dataclass(frozen=True)
class Settings:
    """The fields of quantization_config, each checked when it is asked for."""

    where: str
    fields: Mapping[str, Any]
    prefix: str = "quantization_config"

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Settings | None:
        """Those of a checkpoint, None where it has none; raises FormatError where they are no object, or missing."""
        fields = checkpoint.config.get("quantization_config")
        if fields is None:
            return cls._of_old_file(checkpoint) if bases(checkpoint, ".qweight") else None
        settings = cls(str(checkpoint.path / CONFIG), {})
        if not isinstance(fields, dict):
            raise settings.wrong(f"must be an object, not {_short(fields)}")
        return cls(settings.where, fields)

    @classmethod
    def _of_old_file(cls, checkpoint: Checkpoint) -> Settings:
        """Those of a checkpoint with packed weights whose config says nothing of them."""
        for name, method in _OLD_FILES.items():
            if (path := checkpoint.path / name).is_file():
                fields = read_object(path, "the quantization's settings")
                return cls(str(path), {"quant_method": method} | fields, "settings")
        raise FormatError(
            checkpoint.path / CONFIG, "has no quantization_config, but there are quantized weights (.qweight)"
        )

    def wrong(self, problem: str, key: str = "") -> FormatError:
        """The error to raise for a field."""
        return FormatError(self.where, f"{self.prefix}{'.' if key else ''}{key}: {problem}")

    def choice(self, key: str, known: Collection[str], default: str | None = None) -> str:
        """One of some names, any case."""
        value = self.fields.get(key)
        value = default if value is None else value
        if not isinstance(value, str) or value.lower() not in known:
            raise self.wrong(f"{_short(value)} is not supported; there are {', '.join(known)}", key)
        return value.lower()

    def count(self, key: str, *others: str) -> int:
        """A positive integer, or −1, under the first of these keys that is there."""
        key = next((k for k in (key, *others) if self.fields.get(k) is not None), key)
        value = self.fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not (0 < value < 2**31 or value == -1):
            raise self.wrong(f"must be a positive integer, not {_short(value)}", key)
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is missing."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(f"must be true or false, not {_short(value)}", key)
        return bool(value)

    def inner(self, key: str) -> Settings:
        """The object under a key."""
        value = self.fields.get(key)
        if not isinstance(value, dict):
            raise self.wrong(f"must be an object, not {_short(value)}", key)
        return Settings(self.where, value, f"{self.prefix}.{key}")


Layout = Callable[[Checkpoint, Settings], Iterator[PackedWeight]]
LAYOUTS: dict[str, Layout] = {}


def layout(*methods: str) -> Callable[[Layout], Layout]:
    """Register what finds the weights of a checkpoint whose quant_method is one of these."""

    def register(find: Layout) -> Layout:
        LAYOUTS.update(dict.fromkeys(methods, find))
        return find

    return register


def bases(checkpoint: Checkpoint, *suffixes: str) -> list[str]:
    """What stands before any of these endings in the checkpoint's names, each once, in the files' order."""
    found = (
        name.removesuffix(suffix) for name in checkpoint.names for suffix in suffixes if name.endswith(suffix)
    )
    return list(dict.fromkeys(found))


def check_part(
    checkpoint: Checkpoint, name: str, dtypes: Collection[str], shape: tuple[int | None, ...] | None = None
) -> tuple[int, ...]:
    """The shape of a tensor that must be there, of one of these dtypes; None in ``shape`` is any size.

    Raises FormatError naming the file and the tensor.
    """
    if name not in checkpoint:
        raise FormatError(checkpoint.path, f"tensor {name} is missing", "download the model again")
    got, dtype = checkpoint.shape(name), str(checkpoint.dtype(name))
    if dtype not in dtypes:
        raise contradiction(checkpoint, name, f"is {dtype}, not {' or '.join(dtypes)}")
    if shape is not None and (
        len(got) != len(shape) or any(want not in (None, size) for want, size in zip(shape, got, strict=True))
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise contradiction(checkpoint, name, f"has shape {list(got)}, not [{wanted}]")
    return got


def contradiction(checkpoint: Checkpoint, name: str, problem: str) -> FormatError:
    """The error to raise for a tensor that does not fit the rest."""
    return FormatError(checkpoint.path_of(name), f"tensor {name} {problem}")


def check_groups(checkpoint: Checkpoint, scales: str, n_groups: int, columns: int, group_size: int) -> int:
    """Columns in a group where groups follow one another; raises FormatError if there are not as many as that makes.

    ``group_size`` −1 is one group of everything.
    """
    size = max(1, columns) if group_size == -1 else group_size
    if n_groups != -(-columns // size):
        raise contradiction(
            checkpoint, scales, f"has {n_groups} groups; {columns} columns by group_size {group_size} make "
            f"{-(-columns // size)}"
        )  # fmt: skip
    return size


def unpack(words: NDArray[np.int32], bits: int) -> NDArray[np.int16]:
    """Words ``[rows, n]`` to the codes in them, lowest bits first: ``[rows, n · 32 / bits]``."""
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8)
    codes = np.empty((*octets.shape, 8 // bits), np.int16)
    for i in range(8 // bits):
        codes[..., i] = (octets >> np.uint8(i * bits)) & np.uint8((1 << bits) - 1)
    return codes.reshape(len(words), words.shape[1] * (32 // bits))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
