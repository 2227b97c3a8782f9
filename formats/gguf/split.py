"""GGUF models in several files: their names and keys, and one view of all shards.

Shard i of n is called ``{prefix}-{i:05}-of-{n:05}.gguf``, i from 1. The first one holds the metadata, and
each one ``split.no`` (from 0), ``split.count`` and ``split.tensors.count`` (of the whole model). Sources:
``llama_split_path`` in src/llama.cpp, the loading of splits in src/llama-model-loader.cpp and
tools/gguf-split (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.errors import EdgeqError, FormatError
from edgeq.formats.gguf.parse import TensorInfo
from edgeq.formats.gguf.reader import GGUFFile

NUMBER_KEY = "split.no"
COUNT_KEY = "split.count"
TENSORS_KEY = "split.tensors.count"
SPLIT_KEYS = (NUMBER_KEY, COUNT_KEY, TENSORS_KEY)
MAX_SHARDS = (1 << 16) - 1  # split.count is a UINT16
_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5,})-of-(?P<count>\d{5,})\.gguf")


def shard_path(prefix: Path, index: int, count: int) -> Path:
    """The path of shard ``index`` (from 0) of ``count``; ``prefix`` is the path without ``.gguf``."""
    return prefix.with_name(f"{prefix.name}-{index + 1:05}-of-{count:05}.gguf")


def open_gguf(path: str | Path) -> GGUFFile:
    """Open a GGUF file, or all shards of a split model by any one of them; raises as GGUFFile.open does.

    A model is split where ``split.count`` says so; then the shards must bear their names and lie together.
    """
    path = Path(path)
    file = GGUFFile.open(path)
    try:
        count = _number(file, COUNT_KEY, default=1)
    except BaseException:
        file.close()
        raise
    if count <= 1:
        return file
    file.close()
    return SplitGGUFFile.open(path)


class SplitGGUFFile(GGUFFile):
    """All shards of a model as one GGUFFile.

    ``metadata`` is the first shard's without the ``split`` keys, ``path`` its path. A TensorInfo's ``offset``
    counts from the start of the shard that holds it. Raises FormatError where a shard's number or count, or
    the number of all tensors, is not what it must be, and where two shards have a tensor of one name.
    """

    def __init__(self, shards: Sequence[GGUFFile]) -> None:
        first = shards[0]
        self.path, self.version, self.alignment = first.path, first.version, first.alignment
        self.metadata = {key: value for key, value in first.metadata.items() if key not in SPLIT_KEYS}
        self.metadata_types = {key: first.metadata_types[key] for key in self.metadata}
        self.tensors: dict[str, TensorInfo] = {}
        self.shards = list(shards)
        self._owners: dict[str, GGUFFile] = {}
        for index, shard in enumerate(shards):
            _check_place(shard, index, len(shards))
            for name, tensor in shard.tensors.items():
                if name in self._owners:
                    raise FormatError(shard.path, f"tensor {name!r} is in {self._owners[name].path.name} too")
                self.tensors[name], self._owners[name] = tensor, shard
        expected = _number(first, TENSORS_KEY, default=len(self.tensors))
        if expected != len(self.tensors):
            raise FormatError(
                first.path,
                f"{TENSORS_KEY} is {expected}, and the {len(shards)} shards hold {len(self.tensors)} tensors",
                "download the shards again",
            )

    @property
    def paths(self) -> list[Path]:
        return [shard.path for shard in self.shards]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open all shards of a model by the path of any one; raises as GGUFFile.open does."""
        paths = _all_paths(Path(path))
        with ExitStack() as stack:
            view = cls([stack.enter_context(GGUFFile.open(shard)) for shard in paths])
            stack.pop_all()
        return view

    def close(self) -> None:
        for shard in self.shards:
            shard.close()

    def rows(self, name: str) -> NDArray[np.uint8]:
        self.info(name)
        return self._owners[name].rows(name)

    def release(self, name: str, first: int = 0, last: int | None = None) -> None:
        self.info(name)
        self._owners[name].release(name, first, last)


def _all_paths(path: Path) -> list[Path]:
    """The paths of all shards, from the name of one; raises EdgeqError, naming those that are missing."""
    match = _NAME.fullmatch(path.name)
    count = int(match["count"]) if match else 0
    if match is None or not 1 <= int(match["number"]) <= count <= MAX_SHARDS:
        raise FormatError(
            path, "is a shard of a split model, but not named so", "rename it -00001-of-0000N.gguf"
        )
    paths = [shard_path(path.with_name(match["prefix"]), i, count) for i in range(count)]
    missing = [shard.name for shard in paths if not shard.exists()]
    if missing:
        raise EdgeqError(
            f"{path}: {len(missing)} of its {count} shards are missing, the first is {missing[0]}; "
            "put all shards into one folder"
        )
    return paths


def _check_place(shard: GGUFFile, index: int, count: int) -> None:
    for key, expected in ((NUMBER_KEY, index), (COUNT_KEY, count)):
        number = _number(shard, key)
        if number != expected:
            raise FormatError(
                shard.path, f"{key} is {number}, and by its name {expected}", "rename the shards"
            )


def _number(file: GGUFFile, key: str, default: int | None = None) -> int:
    value = file.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FormatError(file.path, f"key {key!r} must be a number, not {value!r}")
    return value
