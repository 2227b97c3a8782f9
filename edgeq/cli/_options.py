"""Options that several commands have, each of them with one meaning, and a command's options as an object."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


def no_nan(option: typer.CallbackParam, value: float | None) -> float | None:
    """The value of an option, which must be a number: NaN would be within any limit. Raises UsageError."""
    if value is not None and value != value:
        from edgeq.errors import UsageError

        raise UsageError(f"{option.opts[0]} nan: must be a number")
    return value


ThreadsOption = Annotated[
    int, typer.Option("--threads", "-t", min=0, help="Threads to work with; 0 is one for each core.")
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace output files that exist.")]

# Of GGUF files that are written.
TensorTypeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-type",
        help="GGUF: PATTERN=TYPE for single tensors, such as ffn_down=Q6_K; may be repeated, the first match "
        "decides. A pattern that matches nothing is an error.",
    ),
]
ImatrixOption = Annotated[
    Path | None,
    typer.Option(help="GGUF: an importance matrix (`edgeq calibrate`, or llama.cpp's own, GGUF or .dat)."),
]

BudgetOption = Annotated[
    Path | None,
    typer.Option(
        help="A budget.toml of limits (edgeq eval knows them): the file is measured beside what it was made from, on "
        "the calibration data; one line for each limit that is broken, and exit code 3."
    ),
]

# Of ONNX graphs.
FullRangeOption = Annotated[
    bool,
    typer.Option(
        "--full-range",
        help="ONNX int8: do not limit neighbouring weights. A little more exact on CPUs with VNNI and on ARM, but "
        "x86 without VNNI saturates and answers worse; without this option no CPU saturates.",
    ),
]
BlockSizeOption = Annotated[
    int | None,
    typer.Option(help="ONNX weights in blocks: 16, 32 (the default), 64, 128 or 256 weights a scale."),
]
AsymmetricOption = Annotated[
    bool,
    typer.Option(
        "--asymmetric",
        help="ONNX integer weights in blocks: a zero point for each block: nearer, a little slower.",
    ),
]
AccuracyOption = Annotated[
    int | None,
    typer.Option(
        help="ONNX integer weights in blocks, in ONNX Runtime's own operators: 4 (the default) rounds activations to "
        "int8 while multiplying, 1 does not and is slower."
    ),
]


class Engine(StrEnum):
    """What runs a model: the names of ``edgeq.runtimes.engines``."""

    auto = "auto"
    embedded = "embedded"
    llama_cpp = "llama.cpp"
    onnxruntime = "onnxruntime"


EngineOption = Annotated[
    Engine,
    typer.Option(
        help="What runs it; auto is onnxruntime for an ONNX file and embedded (edgeq's own) for the rest."
    ),
]


class KVType(StrEnum):
    """What the embedded engine keeps keys and values in."""

    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"


@dataclass(frozen=True)
class Options:
    """A command's options as they were given; its fields are the command's parameters."""

    def of(self, option: str) -> Any:
        """The value of ``--block-size`` and so on; None where it was not given."""
        value = getattr(self, option.removeprefix("--").replace("-", "_"))
        return None if value is False or value == [] else value
