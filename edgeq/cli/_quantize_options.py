"""The options of ``edgeq quantize`` as they were given, and which of them go with which kind of source."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeq.cli._dialect import Form
from edgeq.cli._options import Options
from edgeq.errors import UsageError
from edgeq.formats.effort import Effort


class OnNan(StrEnum):
    """What a NaN or infinite weight does."""

    error = "error"
    zero = "zero"


_OF_GGUF = (
    "--tensor-type", "--imatrix", "--effort", "--split-max-size", "--nan", "--allow-requantize", "--dry-run",
)  # fmt: skip
_OF_ONNX = (
    "--calibration-method", "--samples", "--resize", "--normalize", "--isa", "--scheme", "--full-range", "--block-size",
    "--asymmetric", "--dialect", "--accuracy-level", "--nearest", "--method", "--per-tensor", "--ort", "--keep-float",
    "--node-type", "--exempt-to", "--min-cosine", "--max-kl", "--allow-slower", "--no-cache", "--no-proof",
)  # fmt: skip
_OF_DATA = ("--samples", "--resize", "--normalize")


@dataclass(frozen=True)
class Given(Options):
    """Each option as the command line has it."""

    source: Path
    out: Path | None
    quant: str | None
    target: str | None
    context: int
    most_loss: float | None
    tensor_type: list[str] | None
    imatrix: Path | None
    effort: Effort | None
    split_max_size: str | None
    nan: OnNan | None
    allow_requantize: bool
    dry_run: bool
    calibration: Path | None
    budget: Path | None
    calibration_method: str | None
    samples: int | None
    resize: str | None
    normalize: str | None
    isa: str | None
    scheme: str | None
    full_range: bool
    block_size: int | None
    asymmetric: bool
    dialect: Form | None
    accuracy_level: int | None
    nearest: bool
    method: str | None
    per_tensor: bool
    ort: bool
    keep_float: list[str] | None
    node_type: list[str] | None
    exempt_to: str | None
    min_cosine: float | None
    max_kl: float | None
    allow_slower: bool
    no_cache: bool
    no_proof: bool
    threads: int
    force: bool
    as_json: bool

    @property
    def is_onnx(self) -> bool:
        """Whether the source is an ONNX file, by its name."""
        return self.source.suffix.lower() == ".onnx"

    def check(self) -> None:
        """Raise UsageError for options of the other kind of source, or without the one that they go with."""
        if self.target is None and (self.context or self.most_loss is not None):
            raise UsageError("--context and --most-loss go with --target")
        others, kind, what = (
            (_OF_GGUF, "GGUF", "an ONNX file") if self.is_onnx else (_OF_ONNX, "ONNX", "no ONNX file")
        )
        for option in others:
            if self.of(option) is not None:
                raise UsageError(f"{option} goes with {kind}, but {self.source} is {what}")
        made, foreign = (".onnx", ".gguf") if self.is_onnx else (".gguf", ".onnx")
        if self.out is not None and self.out.suffix.lower() == foreign and not self.out.is_dir():
            raise UsageError(
                f"--output {self.out}: {self.source} becomes {made}; name such a file or a folder"
            )
        for option in _OF_DATA:
            if self.calibration is None and self.of(option) is not None:
                raise UsageError(f"{option} goes with --calibration, the data that it is about")
        if self.budget is not None and (self.dry_run or self.no_proof):
            raise UsageError("--budget measures the file, which --dry-run and --no-proof leave out")
