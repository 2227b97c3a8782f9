"""``edgeq quantize``: a GGUF file or a checkpoint directory to a GGUF file of other types."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeq.convert import gguf_file
from edgeq.convert.column_weights import column_weights
from edgeq.convert.gguf_file import GGUFPlan
from edgeq.convert.gguf_sources import GGUFRows, RowSource
from edgeq.convert.tensor_result import handling_summary
from edgeq.errors import InputError, OutputExistsError, UsageError
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mixes import file_type
from edgeq.formats.gguf.overrides import Override, parse_override
from edgeq.formats.gguf.split import open_gguf
from edgeq.formats.gguf.split_writer import parse_size
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME
from edgeq.options import parsed
from edgeq.outputs import output_folder, refuse_source


@dataclass
class Request:
    """What the user asked for; options as the command's help has them."""

    source: Path
    out: Path
    quant: str
    tensor_types: Sequence[str] = ()
    imatrix: Path | None = None
    calibration: Path | None = None  # with Effort.best
    effort: Effort = Effort.normal
    split_max_size: str | None = None
    nan: Literal["error", "zero"] = "error"
    allow_requantize: bool = False
    dry_run: bool = False
    force: bool = False
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    warn: Callable[[str], None] = field(default=lambda message: None)


def run(request: Request) -> dict[str, Any]:
    """Plan, and write unless it is a dry run; the record that ``--json`` prints. Raises EdgeqError."""
    quant, overrides, split_bytes = _checked(request)
    with _opened(request.source) as source:
        requantized = _requantized(source)
        if requantized and not request.allow_requantize:
            raise InputError(
                f"{request.source}: is quantized already ({', '.join(sorted(requantized))}); rounding twice costs "
                "quality: start from F16, BF16 or F32, or pass --allow-requantize"
            )
        importance, imatrix_keys = column_weights(request.imatrix, source, request.warn)
        weighted = importance is not None or request.calibration is not None
        planned = gguf_file.plan(source, quant, overrides, has_imatrix=weighted)
        for line in (*planned.fallback_summary(), *source.notes):
            request.warn(line)
        path = _target(request.out, planned.quant)
        record = _record(request, source, planned)
        if request.dry_run:
            return record
        for output in gguf_file.output_paths(planned, path, split_bytes):
            _check_output(output, source, request.force)
        options = gguf_file.WriteOptions(
            force=request.force,
            progress=lambda name, done, total: request.progress("encoding", done, total),
            nan=request.nan,
            effort=request.effort,
            split_bytes=split_bytes,
            importance=importance,
            metadata=imatrix_keys,
        )
        started = time.perf_counter()
        with (
            output_folder(path.parent) if path != request.out else nullcontext(),
            _calibrated(request, source, planned, options, path.parent),
        ):
            paths, results = gguf_file.write(source, planned, path, options)
        seconds = time.perf_counter() - started
    for line in handling_summary(results):
        request.warn(line)
    for tensor, result in zip(record["tensors"], results, strict=True):
        if result.origin:
            tensor["handling"] = result.handling
    return record | {
        "files": [str(path) for path in paths],
        "written_bytes": sum(path.stat().st_size for path in paths),
        "seconds": seconds,
        "values_per_second": record["parameters"] / seconds,
    }


@contextmanager
def _calibrated(
    request: Request,
    source: RowSource,
    planned: GGUFPlan,
    options: gguf_file.WriteOptions,
    folder: Path,
) -> Iterator[None]:
    """The options with what the calibration text makes of the tensors, where there is one."""
    if request.calibration is None:
        yield
        return
    from edgeq.calibration.samples import Calibration
    from edgeq.convert.calibrated import encoded_tensors

    calibration = Calibration(request.calibration, progress=request.progress, warn=request.warn)
    with encoded_tensors(source, planned, calibration, folder) as encoded:
        encoded.use_in(options)
        yield


def _checked(request: Request) -> tuple[str, list[Override], int | None]:
    """The options that need no file, parsed; raises UsageError."""
    if request.calibration is not None and request.effort is not Effort.best:
        raise UsageError("--calibration goes with --effort best")
    if request.calibration is not None and request.imatrix is not None:
        raise UsageError("--calibration measures what --imatrix holds, and more: give one of them")
    return (
        parsed("--quant", request.quant, lambda text: file_type(text).name),
        [parsed("--tensor-type", text, parse_override) for text in request.tensor_types],
        None
        if request.split_max_size is None
        else parsed("--split-max-size", request.split_max_size, parse_size),
    )


@contextmanager
def _opened(path: Path) -> Iterator[RowSource]:
    if path.is_dir():
        from edgeq.convert.checkpoint_rows import CheckpointRows
        from edgeq.source import SourceModel

        yield CheckpointRows(SourceModel.open(path))
    elif path.is_file():
        with open_gguf(path) as file:
            yield GGUFRows(file)
    else:
        raise InputError(f"{path}: no such file or directory")


def _requantized(source: RowSource) -> set[str]:
    """Block types of the source that have been rounded already."""
    stored = {source.stored_type(name) for name, _ in source.tensors}
    return {kind for kind in stored if kind is not None and TENSOR_TYPES_BY_NAME[kind].block_values > 1}


def _check_output(path: Path, source: RowSource, force: bool) -> None:
    """Raises EdgeqError for a file that is being read, or that is there and shall not be replaced."""
    if not path.exists():
        return
    refuse_source(path, *source.files)
    if not force:
        raise OutputExistsError(path)


def _target(out: Path, quant: str) -> Path:
    """The file to write: ``-o`` itself where it ends in .gguf, else model-QUANT.gguf in that folder."""
    return out if out.suffix.lower() == ".gguf" else out / f"model-{quant}.gguf"


def _record(request: Request, source: RowSource, planned: GGUFPlan) -> dict[str, Any]:
    """What is going to be written, tensor by tensor."""
    tensors = []
    parameters = 0
    for tensor, choice in zip(planned.tensors, planned.choices, strict=True):
        count = 1
        for size in tensor.shape:
            count *= size
        parameters += count
        tensors.append(
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "stored_type": source.stored_type(tensor.name),
                "origin": source.layout(tensor.name) or "",
                "type_name": choice.type_name,
                "wanted_type": choice.wanted_type,
                "reason": choice.reason,
                "nbytes": planned.nbytes(tensor),
            }
        )
    return {
        "source": str(request.source),
        "architecture": source.shape.architecture,
        "quant": planned.quant,
        "effort": request.effort.value,
        "parameters": parameters,
        "bits_per_weight": 8 * planned.total() / max(1, parameters),
        "tensor_bytes": planned.total(),
        "tensors": tensors,
        "fallbacks": planned.fallback_notes(),
    }
