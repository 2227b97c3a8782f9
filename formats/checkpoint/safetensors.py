"""A checkpoint folder as Hugging Face lays it out: config.json, and one or more .safetensors files."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.safetensors_file import SafetensorsFile, StoredTensor
from edgeq.formats.errors import EdgeqError, FormatError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")


class Checkpoint:
    """A model's tensors by name, mapped: nothing is in memory until it is asked for.

    A tensor's rows are its values with all leading axes taken together: ``[out, in]`` has ``out`` rows,
    ``[experts, out, in]`` has ``experts × out``, and a 1-D or 0-D tensor is one row.

    Attributes:
        path: the folder.
        config: config.json as it stands.
        names: the tensors' names, in the files' order (of a sharded model, the index's).
    """

    def __init__(self, path: Path, config: dict[str, Any], files: dict[str, SafetensorsFile]) -> None:
        self.path, self.config = path, config
        self.names = list(files)
        self._files = files

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Open a folder and check every header in it.

        Raises EdgeqError when it is no folder, and FormatError, naming the file and the tensor or field, for
        anything that is missing or malformed.
        """
        folder = Path(directory)
        if not folder.is_dir():
            hint = f"; pass its folder, {folder.parent}" if folder.is_file() else ""
            raise EdgeqError(f"{folder}: is not a folder with a model{hint}")
        shards: dict[str, SafetensorsFile] = {}
        try:
            # The weights first: where they are missing, that says more about the folder than its config.
            files = _open_weights(folder, shards)
            return cls(folder, read_object(folder / CONFIG, "the model's settings"), files)
        except BaseException:
            for shard in shards.values():
                shard.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for file in set(self._files.values()):
            file.close()

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name)[1].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """The stored dtype; bfloat16 and the 8-bit floats are those of ml_dtypes."""
        return self._find(name)[1].dtype

    def nbytes(self, name: str) -> int:
        return self._find(name)[1].nbytes

    def path_of(self, name: str) -> Path:
        """The file that holds the tensor."""
        return self._find(name)[0].path

    def n_rows(self, name: str) -> int:
        return prod(self.shape(name)[:-1])

    def stored_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """A copy of rows ``start`` to ``stop`` in the stored dtype, ``[stop - start, columns]``."""
        file, tensor = self._find(name)
        n_rows, columns = prod(tensor.shape[:-1]), tensor.shape[-1] if tensor.shape else 1
        if not 0 <= start <= stop <= n_rows:
            raise EdgeqError(
                f"{file.path}: tensor {name!r} has {n_rows} rows; {start} to {stop} are not in it"
            )
        return file.read(tensor, start * columns, (stop - start) * columns).reshape(stop - start, columns)

    def stored_columns(self, name: str, first: int, last: int) -> NDArray[Any]:
        """A copy of columns ``first`` to before ``last`` of a matrix in the stored dtype, ``[rows, last - first]``."""
        file, tensor = self._find(name)
        if len(tensor.shape) != 2 or not 0 <= first <= last <= tensor.shape[1]:
            raise EdgeqError(
                f"{file.path}: tensor {name!r} is {list(tensor.shape)}; columns {first} to {last} are not in it"
            )
        return file.read_columns(tensor, first, last)

    def stored_values(self, name: str, first: int, last: int) -> NDArray[Any]:
        """A copy of values ``first`` to before ``last`` of the tensor laid flat, in the stored dtype."""
        file, tensor = self._find(name)
        if not 0 <= first <= last <= prod(tensor.shape):
            raise EdgeqError(
                f"{file.path}: tensor {name!r} has {prod(tensor.shape)} values; {first} to {last} are not in it"
            )
        return file.read(tensor, first, last - first)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows ``start`` to ``stop`` as float32 ``[stop - start, columns]``, a copy of no more than those.

        Exact for every float of at most 32 bits; F64 and integers beyond 24 bits round to the nearest.
        """
        return self.stored_rows(name, start, stop).astype(np.float32, copy=False)

    def array(self, name: str) -> NDArray[np.float32]:
        """The whole tensor as float32, in its shape; converted as ``rows`` does."""
        return self.rows(name, 0, self.n_rows(name)).reshape(self.shape(name))

    def release(self, name: str) -> None:
        """Let the system drop the tensor's pages from memory; they are read again when next needed."""
        file, tensor = self._find(name)
        file.release(tensor)

    def _find(self, name: str) -> tuple[SafetensorsFile, StoredTensor]:
        file = self._files.get(name)
        if file is None:
            raise EdgeqError(f"{self.path}: has no tensor {name!r}")
        return file, file.tensors[name]


def _open_weights(folder: Path, shards: dict[str, SafetensorsFile]) -> dict[str, SafetensorsFile]:
    """Tensor name → file; every file opened is put into ``shards`` at once, for the caller to close."""
    if (folder / SINGLE).is_file():
        shards[SINGLE] = SafetensorsFile(folder / SINGLE)
        return dict.fromkeys(shards[SINGLE].tensors, shards[SINGLE])
    if not (folder / INDEX).is_file():
        if any((folder / name).exists() for name in _PICKLES):
            raise FormatError(
                folder,
                "has only pickle files, which are not read: they can run code",
                f"convert to safetensors, or download the model's {SINGLE}",
            )
        raise FormatError(folder, f"has neither {SINGLE} nor {INDEX}", "download the model again")
    files = {}
    for tensor, shard in _read_index(folder / INDEX).items():
        if shard not in shards:
            if not (folder / shard).is_file():
                raise FormatError(folder, f"{shard} is missing", "download it again")
            shards[shard] = SafetensorsFile(folder / shard)
        if tensor not in shards[shard].tensors:
            raise FormatError(folder / INDEX, f"tensor {tensor!r} is not in {shard}", "download both again")
        files[tensor] = shards[shard]
    return files


def _read_index(path: Path) -> dict[str, str]:
    """The index's weight_map, tensor → shard, with every shard a plain file name in the same folder."""
    weight_map = read_object(path, "the list of shards").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(path, "weight_map is not an object of tensor names and shards", "download it again")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise FormatError(
                path, f"weight_map: {tensor!r}: {shard!r} is not the name of a file in this folder"
            )
    return weight_map


def _is_plain_name(name: str) -> bool:
    return name.endswith(".safetensors") and not set(name) & set("/\\:\0")


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file, which holds ``what``; raises EdgeqError."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise FormatError(path.parent, f"has no {path.name}, {what}", "download it again") from None
    except OSError as error:
        raise EdgeqError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"is not JSON ({error})", "download it again") from None
    if not isinstance(value, dict):
        raise FormatError(path, "is not a JSON object", "download it again")
    return value
