"""Statistics kept in the user's cache, so that another scheme or method does not run the calibration again.

The key is a hash of the graph that gives the watched values, of all the data it is fed with, and of what is collected:
whatever changes one of them, options, a tokenizer, a preparation of pictures, an edgeq that folds otherwise, makes
another key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeq import user_cache
from edgeq.calibration.collect import collectors_of, observe
from edgeq.calibration.inputs import Arrays
from edgeq.calibration.ranges import RangeCollector
from edgeq.calibration.smoothed import Scales, SmoothedCollector
from edgeq.calibration.sources.arrays import read_npz
from edgeq.errors import EdgeqError
from edgeq.formats.atomic import atomic_file
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.runtimes.onnxruntime import VERSION

_SUFFIX = ".calibration.npz"
_LIMIT_BYTES = 500_000_000
_LAYOUT = 2  # of the file and of what is collected; changes with either
_PIECE = 1 << 20


def data_hash(samples: Iterable[Arrays]) -> bytes:
    """SHA-256 over all arrays with their names, types and shapes, in order."""
    digest = hashlib.sha256()
    for feeds in samples:
        for name in sorted(feeds):
            array = feeds[name]
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(array.tobytes())
    return digest.digest()


def cached_ranges(
    model: ir.Model,
    samples: Iterable[Arrays],
    data: bytes,
    folder: Path,
    values: Sequence[ir.Value],
    progress: Callable[[int], None] = lambda done: None,
    most: int = 0,
    smoothed: Mapping[ir.Value, Scales] | None = None,
) -> tuple[dict[str, RangeCollector], bool]:
    """(what ``collect_ranges`` gives for ``values`` and ``smoothed``, whether it came from the cache).

    ``data`` is ``data_hash``'s of the samples, or of those whose first ``most`` they are (0: all).

    A cache that cannot be written is no error, a file in it that is no good is made anew.
    """
    collectors = collectors_of(model, values, smoothed)
    if not collectors:
        return {}, False
    copy, outputs = watched_copy(model, list(collectors))
    with tempfile.TemporaryDirectory(prefix=".edgeq-calibration-", dir=folder) as temporary:
        graph = Path(temporary) / "watched.onnx"
        files = save_model(copy, graph, force=False, external_from=0)
        path = user_cache.folder() / f"{_key(files, data, most, collectors)[:40]}{_SUFFIX}"
        known = _read(path, collectors)
        if known is not None:
            user_cache.used(path)
            return known, True
        observe(copy, graph, outputs, collectors, samples, progress)
    _write(path, collectors)
    return collectors, False


def _key(files: Sequence[Path], data: bytes, most: int, collectors: Mapping[str, RangeCollector]) -> str:
    digest = hashlib.sha256(data)
    watched = [
        (name, collector.channels, isinstance(collector, SmoothedCollector))
        for name, collector in collectors.items()
    ]
    digest.update(json.dumps([_LAYOUT, VERSION, most, watched]).encode())
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


def _read(path: Path, wanted: Mapping[str, RangeCollector]) -> dict[str, RangeCollector] | None:
    """Collectors like the wanted ones from a file; None where it is not there or not theirs."""
    if not path.is_file():
        return None
    found = {name: collector.fresh() for name, collector in wanted.items()}
    try:
        arrays = read_npz(path)
        for index, collector in enumerate(found.values()):
            collector.restore({name: arrays[f"{name}_{index}"] for name in collector.state()})
    except Exception:  # zipfile raises anything; what is cut or another's is made anew
        return None
    return found


def _write(path: Path, collectors: Mapping[str, RangeCollector]) -> None:
    arrays = {
        f"{name}_{index}": array
        for index, collector in enumerate(collectors.values())
        for name, array in collector.state().items()
    }
    with contextlib.suppress(EdgeqError):
        user_cache.made_folder()
        with atomic_file(path, force=True) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        user_cache.prune(_SUFFIX, path, _LIMIT_BYTES)
