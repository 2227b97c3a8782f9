"""A checkpoint's weights by name, whether they are stored plainly or somebody quantized them."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.quantized import Grid, PackedWeight, find_packed
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.errors import EdgeqError
from edgeq.formats.table_codes import TableCodes


class StoredWeights:
    """A checkpoint in which a quantized weight is one tensor of float32, decoded as its rows are read.

    ``path`` and ``config`` are the checkpoint's; ``names`` are the weights' names, those of quantized ones after the
    others. Raises FormatError, as ``find_packed`` does, when it is made.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.path, self.config = checkpoint.path, checkpoint.config
        self._checkpoint = checkpoint
        self._packed = find_packed(checkpoint)
        parts = {part for weight in self._packed.values() for part in weight.parts}
        self.names = [*(name for name in checkpoint.names if name not in parts), *self._packed]
        self._names = set(self.names)
        self._folders: dict[str, Checkpoint] = {}

    def add_folders(self, folders: Iterable[str]) -> None:
        """Take in the tensors of folders inside the checkpoint's, each under its folder's name and a slash.

        Raises EdgeqError as ``Checkpoint.open`` does.
        """
        for folder in dict.fromkeys(folders):
            self._folders[folder] = Checkpoint.open(self.path / folder)
            names = [f"{folder}/{name}" for name in self._folders[folder].names]
            self.names += names
            self._names.update(names)

    def _home(self, name: str) -> tuple[Checkpoint, str]:
        """The checkpoint that holds a plain weight, and what it is called there."""
        folder, _, own = name.rpartition("/")
        return (self._folders[folder], own) if folder in self._folders else (self._checkpoint, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._packed:
            return self._packed[name].shape
        home, own = self._home(name)
        return home.shape(own)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype in which the weight is stored; of a quantized one float32."""
        if name in self._packed:
            return np.dtype(np.float32)
        home, own = self._home(name)
        return home.dtype(own)

    def layout(self, name: str) -> str | None:
        """How the weight was quantized, in words; None for a plain one."""
        return self._packed[name].layout if name in self._packed else None

    def path_of(self, name: str) -> Path:
        """The file that holds the weight, or the first of its parts."""
        home, own = self._home(self._parts(name)[0])
        return home.path_of(own)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows ``start`` to before ``stop`` as float32, ``[stop - start, columns]``; raises EdgeqError."""
        packed = self._packed.get(name)
        if packed is None:
            home, own = self._home(name)
            return home.rows(own, start, stop)
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are the caller's to refuse
            return _checked(packed, start, stop).rows(start, stop)

    def grid(self, name: str, start: int, stop: int) -> Grid | None:
        """The same rows as the integers they were quantized to, where they were; raises EdgeqError."""
        packed = self._packed.get(name)
        return None if packed is None else _checked(packed, start, stop).grid(start, stop)

    def codes(self, name: str) -> TableCodes | None:
        """The whole weight as the codes of a table that it was quantized to, where it was."""
        packed = self._packed.get(name)
        return None if packed is None else packed.codes()

    def array(self, name: str) -> NDArray[np.float32]:
        """The whole weight as float32, in its shape."""
        shape = self.shape(name)
        return self.rows(name, 0, prod(shape[:-1])).reshape(shape)

    def release(self, name: str) -> None:
        """Let the system drop the weight's pages from memory; they are read again when next needed."""
        for part in self._parts(name):
            home, own = self._home(part)
            home.release(own)

    def _parts(self, name: str) -> tuple[str, ...]:
        return self._packed[name].parts if name in self._packed else (name,)


def _checked(packed: PackedWeight, start: int, stop: int) -> PackedWeight:
    if not 0 <= start <= stop <= packed.shape[0]:
        raise EdgeqError(f"tensor {packed.name} has {packed.shape[0]} rows; {start} to {stop} are not in it")
    return packed
