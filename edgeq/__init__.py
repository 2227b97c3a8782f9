"""edgeq: models for edge devices. Nothing heavy is imported here: importing ``edgeq.formats`` runs this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.api import LoadedModel

__version__ = "0.1.0"


def load(path: str | Path, threads: int = 0) -> LoadedModel:
    """Open a GGUF file or a model directory in the embedded engine: ``edgeq.load(path).generate("Once")``.

    An ONNX file is opened in ONNX Runtime, with the tokenizer and the session options that lie beside it.

    ``threads`` 0 is one for each core; it holds for all models of this process. Raises EdgeqError.
    """
    from edgeq.api import LoadedModel

    return LoadedModel(path, threads)
