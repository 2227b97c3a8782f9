"""The export from its beginning to its report."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeq.calibration.text import Text, read_text
from edgeq.errors import UsageError
from edgeq.export.apps import find_layouts, pack_for
from edgeq.export.proof import prove_file
from edgeq.export.request import Converted, Request, Result, canonical_quant
from edgeq.export.to_gguf import to_gguf
from edgeq.export.to_onnx import to_onnx
from edgeq.file_hash import sha256
from edgeq.outputs import output_folder
from edgeq.peak_memory import peak_memory
from edgeq.source import ModelSource, SourceModel
from edgeq.versions import versions


def run(request: Request) -> Result:
    """Convert, prove, and write edgeq.json and report.html beside the file; raises EdgeqError."""
    quant = canonical_quant(request)
    layouts = find_layouts(request)
    source = _open(request)
    text = read_text(request.calibration)
    with output_folder(request.out):
        result = _run(request, quant, source, text)
        pack_for(request, layouts, result)
        return result


def _open(request: Request) -> ModelSource:
    """A model directory, or a GGUF file that becomes ONNX."""
    if not request.model.is_file():
        return SourceModel.open(request.model)
    if request.to != "onnx":
        raise UsageError(f"{request.model}: is GGUF already; edgeq quantize gives it other types")
    from edgeq.gguf_source import GGUFSource

    return GGUFSource.open(request.model)


def _run(request: Request, quant: str, source: ModelSource, text: Text) -> Result:
    from edgeq.report.files import JSON_NAME, read_exports, write_report

    read_exports(request.out / JSON_NAME)  # a file there that is not ours is refused before the work
    started = time.perf_counter()
    convert = to_gguf if request.to == "gguf" else to_onnx
    converted = convert(request, quant, source, text)
    seconds = time.perf_counter() - started
    record = _record(request, quant, source, converted, seconds)
    if request.proof:
        record["proof"] = prove_file(request, source, text, converted.path, quant)
    if request.target is not None:
        record["target"] = request.target.record()
    settings = _write_session(request, converted.path) if request.to == "onnx" else []
    report_files = write_report(request.out, record)
    return Result(converted.path, record, [*converted.files, *settings, *report_files])


def _write_session(request: Request, path: Path) -> list[Path]:
    """session_config.json, where the target asks for something; what an earlier file of that name had is taken out."""
    from edgeq.onnx.sessions import PROVIDER, write_config
    from edgeq.targeting.settings import CUDA

    entries = {} if request.target is None else request.target.session_entries()
    if request.dialect == "cuda":
        entries[PROVIDER] = CUDA
    config = write_config(path, entries)
    return [] if config is None else [config]


def _record(
    request: Request, quant: str, source: ModelSource, converted: Converted, seconds: float
) -> dict[str, Any]:
    """What edgeq.json says of the file; ``proof`` is None until there is one."""
    return {
        "file": converted.path.name,
        "format": request.to,
        "quant": quant,
        "model": {
            "name": source.name,
            "family": source.family.architecture,
            "kind": "decoder" if source.family.generates(source.hp) else "encoder",
            "parameters": source.parameters(),
        },
        "bytes": sum(file.stat().st_size for file in converted.files),
        "float32_bytes": 4 * source.parameters(),
        "sha256": {file.name: sha256(file) for file in converted.files},
        "seconds": seconds,
        "peak_memory_bytes": peak_memory(),
        "tensors": [asdict(tensor) for tensor in converted.tensors],
        "notes": converted.notes,
        "proof": None,
        "versions": versions(),
    } | converted.record
