"""Formats tried on this machine: files of zeros with a model's shapes, timed in turns in its runtime.

What products with blocks take does not depend on what the weights say. Models whose files would be too large to write
for a trial are left to the prediction.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.bench.child import Job
from edgeq.bench.models import in_child
from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan
from edgeq.planning.formats import Made, formats_of
from edgeq.planning.model import PlannedModel, open_model
from edgeq.runtimes.engines import EngineName

MOST = 4  # formats
BEHIND = 0.8  # of the fastest predicted speed: what is slower is not tried
SAME = 0.98  # of the fastest measured speed: what is as fast is chosen by its quality
_ROUNDS, _PROMPT, _GEN, _REPEAT = 3, 8, 16, 2
_PIECE = 1 << 24  # bytes of zeros written at a time
_MOST_BYTES = 6_000_000_000  # of all files


def measured_speeds(
    model: Path, quants: Sequence[str], *, engine: EngineName, threads: int, cpu_time: bool = False
) -> dict[str, float]:
    """Tokens per second of generating, by quant: medians over rounds in which every format has its turn.

    Empty where the files would take too much. ``cpu_time`` is as in ``edgeq.bench.child.Job``. Raises EdgeqError where
    the engine does not load a file.
    """
    planned = open_model(model)
    made = [one for one in formats_of(planned, tuple(quants)) if one.target == "gguf" and one.quant in quants]
    size = sum(one.file_bytes for one in made)
    if size > min(_MOST_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2):
        return {}
    seconds: dict[str, list[float]] = {quant: [] for quant in quants}
    with tempfile.TemporaryDirectory(prefix="edgeq-trial-") as folder:
        paths = {one.quant: _write(planned, one, Path(folder)) for one in made}
        for _ in range(_ROUNDS):
            for quant, path in paths.items():
                found = in_child(Job(str(path), engine, threads, _PROMPT, _GEN, _REPEAT, cpu_time))
                seconds[quant] += found.steps
    return {quant: 1 / statistics.median(taken) for quant, taken in seconds.items()}


def _write(planned: PlannedModel, made: Made, folder: Path) -> Path:
    """A GGUF file of zeros."""
    path = folder / f"{made.quant}.gguf"
    metadata = _tokenizer(planned.vocab) | dict(planned.gguf_keys())
    plans = [TensorPlan(name, made.types[name], shape) for name, shape in planned.tensors]
    zeros = np.zeros(_PIECE, np.uint8)
    with GGUFWriter(path, planned.shape.architecture, metadata, plans) as writer:
        for plan in plans:
            left = writer.planned_bytes(plan.name)
            while left:
                writer.write_rows(plan.name, zeros[: min(left, _PIECE)])
                left -= min(left, _PIECE)
    return path


def _tokenizer(vocab: int) -> dict[str, Any]:
    """Words that say nothing: llama.cpp loads no decoder without a vocabulary."""
    words = ["<unk>", "<s>", "</s>", "<0x0A>", *(f"t{i}" for i in range(vocab - 4))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words[:vocab],
        "tokenizer.ggml.scores": [0.5] * vocab,
        "tokenizer.ggml.token_type": Typed([2, 3, 3, 6, *[1] * (vocab - 4)][:vocab], ValueType.INT32),
    }
