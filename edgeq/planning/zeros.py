"""Files of zeros with a model's shapes: they take as long, and as much memory, as the model would.

What products with blocks take does not depend on what the weights say, so formats can be tried before one is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan
from edgeq.planning.model import PlannedModel

_PIECE = 1 << 24  # bytes of zeros written at a time


def write_zeros(planned: PlannedModel, types: Mapping[str, str], path: Path) -> None:
    """Write a GGUF file with these types by tensor name, which llama.cpp and edgeq load. Raises EdgeqError."""
    metadata = _tokenizer(planned.vocab) | dict(planned.gguf_keys())
    plans = [TensorPlan(name, types[name], shape) for name, shape in planned.tensors]
    zeros = np.zeros(_PIECE, np.uint8)
    with GGUFWriter(path, planned.shape.architecture, metadata, plans) as writer:
        for plan in plans:
            left = writer.planned_bytes(plan.name)
            while left:
                writer.write_rows(plan.name, zeros[: min(left, _PIECE)])
                left -= min(left, _PIECE)


def _tokenizer(vocab: int) -> dict[str, Any]:
    """Words that say nothing: llama.cpp loads no decoder without a vocabulary."""
    words = ["<unk>", "<s>", "</s>", "<0x0A>", *(f"t{i}" for i in range(vocab - 4))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words[:vocab],
        "tokenizer.ggml.scores": [0.5] * vocab,
        "tokenizer.ggml.token_type": Typed([2, 3, 3, 6, *[1] * (vocab - 4)][:vocab], ValueType.INT32),
    }
