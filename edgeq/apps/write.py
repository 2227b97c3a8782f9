"""Putting a GGUF model into a bundle: whole, as it lies, or in shards of a largest size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.place import place
from edgeq.formats.gguf.reader import TensorInfo
from edgeq.formats.gguf.split import shard_path
from edgeq.formats.gguf.split_writer import split_gguf


def whole_gguf(model: GGUFModel, target: Path) -> None:
    """One file, put together where the source is in shards."""
    if len(model.paths) == 1:
        place(model.paths[0], target)
        return
    split_gguf(
        model.file, target, max_bytes=sum(info.nbytes + model.file.alignment for info in _tensors(model))
    )


def placed_gguf(model: GGUFModel, target: Path) -> str:
    """The source's file or files under the target's name; returns the name of the file to load."""
    count = len(model.paths)
    targets = (
        [target]
        if count == 1
        else [shard_path(target.with_suffix(""), index, count) for index in range(count)]
    )
    for source, path in zip(model.paths, targets, strict=True):
        place(source, path)
    return targets[0].name


def split_below(model: GGUFModel, target: Path, most: int) -> str:
    """Files of at most ``most`` bytes, where no single tensor is larger; returns the name of the file to load."""
    if max(path.stat().st_size for path in model.paths) <= most:
        return placed_gguf(model, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    weights = sum(info.nbytes for info in _tensors(model))
    header = sum(path.stat().st_size for path in model.paths) - weights  # the first shard carries it
    return split_gguf(model.file, target, max(1, most - header))[0].name


def _tensors(model: GGUFModel) -> Iterable[TensorInfo]:
    return model.file.tensors.values()
