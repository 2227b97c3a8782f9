"""``--effort``, the same on every command that encodes GGUF."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeq.formats.effort import Effort

_HELP = (
    "How long to look for codes of less error at the same size: as llama-quantize does (ggml, its bytes), further "
    "(normal), or ten times as long (best; with --calibration by GPTQ and descent on what the layers read)."
)

EffortOption = Annotated[Effort, typer.Option(help=_HELP)]
GGUFEffortOption = Annotated[
    Effort | None,
    typer.Option(help=f"GGUF, and best for ONNX weights in blocks: {_HELP[0].lower()}{_HELP[1:]}"),
]
