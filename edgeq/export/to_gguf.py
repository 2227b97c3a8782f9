"""A model directory as a GGUF file: types by a mix, by the user, or by allocation; codes by calibration where asked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.calibration.text import Text
from edgeq.convert import gguf_file
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.convert.column_weights import column_weights
from edgeq.convert.tensor_result import TensorResult, handling_summary
from edgeq.export.request import Converted, Request, left_out, no_warning, own_calibration
from edgeq.formats.atomic import check_output
from edgeq.formats.gguf.overrides import Override, parse_override
from edgeq.options import parsed
from edgeq.source import ModelSource, SourceModel

if TYPE_CHECKING:
    from edgeq.calibration.samples import Calibration


def to_gguf(request: Request, quant: str, source: ModelSource, text: Text) -> Converted:
    """Write the file; raises EdgeqError."""
    path = request.out / f"model-{quant}.gguf"
    check_output(path, force=request.force)
    assert isinstance(source, SourceModel)
    rows = CheckpointRows(source)
    if request.wanted:
        return _allocated(request, rows, text, path)
    overrides = [parsed("--tensor-type", text, parse_override) for text in request.tensor_types]
    return _written(request, quant, rows, overrides, path)


def _allocated(request: Request, rows: CheckpointRows, text: Text, path: Path) -> Converted:
    """The file whose types meet what the user wants of it, out of several that are written and measured."""
    from edgeq.allocation.gguf import choose_types
    from edgeq.allocation.goal import exactly, nearest_mix
    from edgeq.allocation.job import Job

    quiet = replace(request, warn=no_warning, force=True)

    def write(types: Mapping[str, str], made: Path, compared: int) -> Converted:
        quant = nearest_mix(types, rows.source.shape)
        return _written(quiet, quant, rows, exactly(types), made, compared)

    job = Job(rows.source, request.wanted, text, request.progress)
    with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=request.out) as folder:
        chosen, record = choose_types(job, rows, Path(folder), write)
        chosen.path.replace(path)
    return replace(chosen, path=path, files=[path], record={"allocation": record})


def _written(
    request: Request,
    quant: str,
    rows: CheckpointRows,
    overrides: Sequence[Override],
    path: Path,
    compared: int = 0,
) -> Converted:
    """Plan and write one file; ``compared`` tokens at the text's beginning, at least, are not calibrated on."""
    importance, imatrix_keys = column_weights(request.imatrix, rows, request.warn)
    calibration = own_calibration(request, compared)
    weighted = importance is not None or calibration is not None
    planned = gguf_file.plan(rows, quant, overrides, has_imatrix=weighted)
    notes = planned.fallback_notes()
    for line in (*planned.fallback_summary(), *rows.notes):
        request.warn(line)
    notes += rows.notes
    notes += left_out(rows.source)
    options = gguf_file.WriteOptions(
        force=request.force,
        progress=lambda name, done, total: request.progress("encoding", done, total),
        effort=request.effort,
        importance=importance,
        metadata=imatrix_keys,
        measure_error=True,
    )
    paths, tensors = _encoded(rows, planned, path, options, calibration, notes)
    return Converted(path, paths, tensors, notes + handling_summary(tensors))


def _encoded(
    rows: CheckpointRows,
    planned: gguf_file.GGUFPlan,
    path: Path,
    options: gguf_file.WriteOptions,
    calibration: Calibration | None,
    notes: list[str],
) -> tuple[list[Path], list[TensorResult]]:
    """Write the file by the calibration's method, where there is one, and note what it did."""
    if calibration is None:
        return gguf_file.write(rows, planned, path, options)
    from edgeq.convert.calibrated import encoded_tensors
    from edgeq.convert.folded_source import awq_source
    from edgeq.methods import BlockGrid
    from edgeq.methods.awq import AWQ

    if calibration.method == AWQ:
        grids = {t.name: BlockGrid(t.type_name) for t in planned.tensors if BlockGrid.fits(t.type_name)}
        folded, note = awq_source(rows.source, grids.get, calibration)
        notes.append(note)
        rows = CheckpointRows(folded)
    with encoded_tensors(rows, planned, calibration, path.parent) as encoded:
        encoded.use_in(options)
        notes.append(encoded.note())
        return gguf_file.write(rows, planned, path, options)
