"""Writing a model atomically, with external data where protobuf's 2 GB would not hold it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import onnx_ir as ir

from edgeq.formats.atomic import sync_folder
from edgeq.formats.errors import EdgeqError, OutputExistsError, innermost
from edgeq.formats.onnx import stream
from edgeq.formats.onnx.stream import Progress

EXTERNAL_FROM = 1_800_000_000  # bytes of weights from which they go into a file of their own


def save_model(
    model: ir.Model,
    path: Path,
    *,
    force: bool,
    external_from: int | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Write ``path`` (and ``path`` + ``_data`` for large weights); returns the files written.

    ``external_from`` is how many bytes of weights go into the second file, ``EXTERNAL_FROM`` where nothing is said; its
    name is the one that transformers.js looks for. One weight is in memory at a time.

    Everything is written into a hidden folder beside the target first, so a killed run leaves no half file under
    the final name. Raises OutputExistsError, and EdgeqError when the disk is full or the folder cannot be written.
    """
    size = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    least = EXTERNAL_FROM if external_from is None else external_from
    data = f"{path.name}_data" if size >= least and stream.weights_of(model) else None
    for name in filter(None, (path.name, data)):
        if path.with_name(name).exists() and not force:
            raise OutputExistsError(path.with_name(name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise EdgeqError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        try:
            if data is None:
                stream.write_inline(model, folder / path.name, progress)
            else:
                stream.write_external(model, folder / path.name, data, progress)
        except ir.serde.SerdeError as error:  # wraps, once a level, what a weight raised when it was read
            raise innermost(error) from None
        written = []
        for name in filter(None, (data, path.name)):  # the graph last: it is what a reader opens
            target = path.with_name(name)
            _sync(folder / name)
            (folder / name).replace(target)
            written.append(target)
        if data is None and force:  # a larger model of that name left its weights here
            path.with_name(f"{path.name}_data").unlink(missing_ok=True)
        sync_folder(path.parent)
        return written
    except OSError as error:
        raise EdgeqError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
