"""What the user asks of ``edgeq export`` and what comes of it, and what its options mean to both formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeq.allocation.goal import Wanted
from edgeq.convert.tensor_result import TensorResult
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mixes import file_type
from edgeq.options import parsed

if TYPE_CHECKING:
    from edgeq.calibration.samples import Calibration
    from edgeq.source import ModelSource
    from edgeq.targeting.settings import Settings

Progress = Callable[[str, int, int], None]
Format = Literal["gguf", "onnx"]

_SHOWN = 8  # names of tensors in one note


def no_progress(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def no_warning(message: str) -> None:
    """Says nothing."""


@dataclass
class Request:
    """What the user asked for; options as the command's help has them."""

    model: Path
    to: Format
    quant: str
    out: Path
    calibration: Path | None = None
    percentile: float | None = None
    full_range: bool = False
    dialect: str = "standard"
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 4
    tied_bits: int = 8
    external_from: str | None = None
    effort: Effort = Effort.normal
    imatrix: Path | None = None
    method: str | None = None  # of edgeq.methods; needs calibration
    tensor_types: Sequence[str] = ()
    apps: Sequence[str] = ()
    proof: bool = True
    force: bool = False
    threads: int = 0
    target: Settings | None = None
    wanted: Wanted = field(default_factory=Wanted)
    progress: Progress = no_progress
    warn: Callable[[str], None] = no_warning


@dataclass
class Converted:
    """What a converter made: the file and all that go with it, what became of the tensors, and notes.

    ``record`` is what edgeq.json says besides.
    """

    path: Path
    files: list[Path]
    tensors: list[TensorResult]
    notes: list[str]
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """What came of it; ``record`` is the entry in edgeq.json, ``refused`` what apps' libraries would not load."""

    path: Path
    record: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def canonical_quant(request: Request) -> str:
    """The quant's name as its format writes it; raises UsageError listing the names."""
    if request.wanted:
        return request.wanted.label()
    if request.to == "onnx":
        from edgeq.convert import onnx_file

        return onnx_file.canonical_quant(request.quant)
    return parsed("--quant", request.quant, lambda text: file_type(text).name)


def own_calibration(request: Request, compared: int = 0) -> Calibration | None:
    """What ``--effort best`` or a method calibrates on; what is compared on is left out of it."""
    wanted = request.effort is Effort.best or request.method is not None
    if not wanted or request.calibration is None or request.imatrix is not None:
        return None
    from edgeq.calibration.samples import DEFAULT_METHOD, Calibration
    from edgeq.evaluation.proof import COMPARED_TOKENS

    skip = max(compared, COMPARED_TOKENS if request.proof else 0)
    return Calibration(
        request.calibration, request.method or DEFAULT_METHOD, skip, request.progress, request.warn
    )


def left_out(source: ModelSource) -> list[str]:
    """A line that names the checkpoint's tensors for which the family has no place."""
    if not source.unused:
        return []
    shown, more = source.unused[:_SHOWN], len(source.unused) - _SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return [f"not part of the model, left out: {', '.join(shown)}{rest}"]
