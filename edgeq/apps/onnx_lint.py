"""What the lints of ONNX layouts share: opening a graph, and what every ONNX Runtime refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeq.apps.onnx_model import ONNXModel, onnx_model
from edgeq.errors import FormatError
from edgeq.inspection.findings import Finding, error, warning

Rule = Callable[[str, ONNXModel], Iterator[Finding]]
_MOST_BYTES = 2**31 - 1  # of a buffer that a browser or a phone hands over


def onnx_findings(folder: Path, paths: Sequence[Path], rule: Rule) -> Iterator[Finding]:
    """``rule`` for each graph; one that cannot be read, or whose external data is gone, is an error."""
    for path in paths:
        where = path.relative_to(folder).as_posix()
        try:
            model = onnx_model(path)
        except FormatError as breach:
            yield error(where, breach.problem, breach.remedy)
            continue
        yield from _sizes(folder, model)
        if model.precision == "bfloat16":
            yield error(
                where, "has bfloat16 weights, which JavaScript has no arrays for", "take float16 or int8"
            )
        yield from rule(where, model)


def _sizes(folder: Path, model: ONNXModel) -> Iterator[Finding]:
    for path in (model.path, *(model.path.parent / name for name in model.data_files)):
        size = path.stat().st_size
        if size > _MOST_BYTES:
            where = path.relative_to(folder).as_posix()
            yield error(
                where,
                f"has {size / 1e9:.1f} GB; one buffer ends at 2.1",
                "take fewer bits or a smaller model",
            )


def unused_data(folder: Path, models: Sequence[ONNXModel]) -> Iterator[Finding]:
    """Files of external data that no graph reads: an app downloads them for nothing."""
    used = {(model.path.parent / name).resolve() for model in models for name in model.data_files}
    for path in sorted(folder.rglob("*.onnx_data*")):
        if path.resolve() not in used:
            yield warning(path.relative_to(folder).as_posix(), "is read by no graph here", "delete it")
