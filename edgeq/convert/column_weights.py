"""An importance matrix's file as weights for the tensors of a model that is being quantized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.convert.gguf_sources import RowSource
from edgeq.errors import InputError
from edgeq.formats.gguf.mixes import is_quantizable


def column_weights(
    path: Path | None, source: RowSource, warn: Callable[[str], None]
) -> tuple[dict[str, NDArray[np.float32]] | None, dict[str, Any]]:
    """Column weights by tensor name, a row for each expert, and the keys that llama-quantize records.

    None without a file.

    Raises InputError for a matrix that belongs to another model; warns of tensors that it does not weigh.
    """
    if path is None:
        return None, {}
    from edgeq.formats.gguf.imatrix import ImportanceMatrix

    matrix = ImportanceMatrix.read(path)
    found = {}
    for name, shape in source.tensors:
        weights = matrix.importance_of(name, shape) if is_quantizable(name, shape) else None
        if weights is not None:
            found[name] = weights
    if not found:
        raise InputError(f"{path}: has no tensor of {source.where}; it belongs to another model")
    quantized = [name for name, shape in source.tensors if is_quantizable(name, shape)]
    if missing := [name for name in quantized if name not in found]:
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warn(f"{path}: says nothing of {missing[0]}{rest}, quantized without weights")
    keys: dict[str, Any] = {"quantize.imatrix.file": path.name}
    if matrix.datasets:
        keys["quantize.imatrix.dataset"] = ", ".join(matrix.datasets)
    counts = {"entries_count": len(matrix.entries), "chunks_count": matrix.chunk_count}
    return found, keys | {f"quantize.imatrix.{key}": count for key, count in counts.items()}
