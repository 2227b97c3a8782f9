"""A model as an ONNX graph: the float graph built, its weights quantized, small files laid beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.calibration.text import Text
from edgeq.devices.cpu import saturates_int8
from edgeq.errors import UsageError
from edgeq.export.request import Converted, Request, left_out, no_progress, own_calibration
from edgeq.formats.atomic import atomic_file, check_output
from edgeq.formats.gguf.split_writer import parse_size
from edgeq.options import parsed
from edgeq.source import ModelSource, SourceModel

if TYPE_CHECKING:
    from edgeq.convert.onnx_quants import QuantOptions


def to_onnx(request: Request, quant: str, source: ModelSource, text: Text) -> Converted:
    """Write the graph and what goes with it; raises EdgeqError."""
    from edgeq.convert import onnx_file

    path = request.out / onnx_file.file_name(quant)
    check_output(path, force=request.force)
    options = _quant_options(request, text)
    companions = _companions(request, source, path.name, options.notes)
    if request.full_range and saturates_int8():
        request.warn(
            "--full-range: this CPU has no VNNI, so the file saturates and answers worse here than elsewhere"
        )
    record: dict[str, Any] = {}
    if request.wanted:
        options.bits, record["allocation"] = _chosen_bits(request, source, text, options)
        quant = "int4"
    with _calibrated(request, quant, source, options) as weights:
        written = onnx_file.write(weights, quant, path, options, force=request.force)
    for target, content in companions.items():
        with atomic_file(target, force=request.force) as file:
            file.write(content)
    return Converted(path, written.files, written.tensors, options.notes + left_out(source), record)


def _chosen_bits(
    request: Request, source: ModelSource, text: Text, options: QuantOptions
) -> tuple[dict[str, int], dict[str, Any]]:
    """The bits of each weight, out of several graphs that are written and measured, and how they were found."""
    from edgeq.allocation.job import Job
    from edgeq.allocation.onnx import choose_bits, layers_of, parse_names
    from edgeq.convert import onnx_file

    def write(bits: Mapping[str, int], made: Path) -> int:
        chosen = replace(options, bits=bits, notes=[], progress=no_progress)
        files = onnx_file.write(source, "int4", made, chosen, force=True).files
        return sum(file.stat().st_size for file in files)

    kinds = parse_names(request.wanted.types)
    layers = layers_of(source, request.dialect, kinds, request.block_size)
    job = Job(source, request.wanted, text, request.progress)
    with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=request.out) as folder:
        return choose_bits(job, layers, Path(folder), write, request.threads)


@contextmanager
def _calibrated(
    request: Request, quant: str, source: ModelSource, options: QuantOptions
) -> Iterator[ModelSource]:
    """The source, with integers chosen on the calibration text where ``--effort best`` asks for them."""
    from edgeq.convert.onnx_quants import WEIGHT_ONLY

    calibration = own_calibration(request)
    if calibration is None or quant not in WEIGHT_ONLY:
        yield source
        return
    from edgeq.convert.calibrated_source import calibrated_source
    from edgeq.convert.folded_source import awq_source
    from edgeq.formats.onnx.blocked import Scheme
    from edgeq.methods import IntegerGrid
    from edgeq.methods.awq import AWQ

    scheme = Scheme(WEIGHT_ONLY[quant], request.block_size, request.symmetric)
    if calibration.method == AWQ:
        if not isinstance(source, SourceModel):
            raise UsageError(f"{request.model}: --method awq takes a model directory")
        grid = IntegerGrid(scheme)
        shape = source.shape
        folded, note = awq_source(
            source, lambda name: grid if grid.fits(shape(name)[-1]) else None, calibration
        )
        options.notes.append(note)
        source = folded
    with calibrated_source(source, scheme, calibration, request.out) as (weights, found):
        options.notes.append(found.note())
        yield weights


def _quant_options(request: Request, text: Text) -> QuantOptions:
    from edgeq.convert.onnx_quants import QuantOptions

    options = QuantOptions(
        text,
        request.out,
        request.percentile,
        request.full_range,
        dialect=request.dialect,
        block_size=request.block_size,
        symmetric=request.symmetric,
        accuracy_level=request.accuracy_level,
        tied_bits=request.tied_bits,
        provider="cuda" if _for_cuda(request) else "",
        progress=request.progress,
    )
    if request.external_from is not None:
        options.external_from = parsed("--external-from", request.external_from, parse_size)
    return options


def _for_cuda(request: Request) -> bool:
    target = None if request.target is None else request.target.onnx
    return request.dialect == "cuda" or (target is not None and target.api == "cuda")


def _companions(request: Request, source: ModelSource, graph: str, notes: list[str]) -> dict[Path, bytes]:
    """The small files to write beside the graph; raises OutputExistsError for another model's file of that name."""
    from edgeq.convert.genai_config import genai_config

    wanted = dict(source.companions())
    if request.dialect == "ort" and source.family.generates(source.hp):
        if source.hp.attention_cap:
            notes.append("needs ONNX Runtime 1.24: earlier ones cap the mask with the attention scores")
        config = genai_config(source, graph, notes)
        wanted["genai_config.json"] = json.dumps(config, indent=2).encode() + b"\n"
    found = {}
    for name, content in wanted.items():
        target = request.out / name
        if not (target.is_file() and target.read_bytes() == content):
            check_output(target, force=request.force)
            found[target] = content
    return found
