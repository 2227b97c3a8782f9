"""``edgeq quantize model.onnx``: read, calibrate, rewrite, prove, and say no where a gate does."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgeq.convert.graph_tensors import tensor_results
from edgeq.errors import InputError
from edgeq.file_hash import sha256
from edgeq.formats.atomic import check_output
from edgeq.formats.onnx.save import save_model
from edgeq.onnx.exempt import Exemption
from edgeq.onnx.gates import refusals
from edgeq.onnx.job import OnnxQuant, find_quant
from edgeq.onnx.layers import quantize_layers
from edgeq.onnx.left import left_in_float, quantized_operators
from edgeq.onnx.mobile import write_mobile
from edgeq.onnx.node_types import shown
from edgeq.onnx.proof import prove
from edgeq.onnx.request import Request, target_path
from edgeq.onnx.sessions import write_config
from edgeq.onnx.subject import Subject, open_subject
from edgeq.outputs import output_folder
from edgeq.peak_memory import peak_memory
from edgeq.runtimes.ort_format import ort_paths
from edgeq.versions import versions


def run(request: Request) -> dict[str, Any]:
    """Quantize and prove; the record that ``--json`` prints and edgeq.json keeps.

    Its ``gates`` are the sentences of the gates that said no; the file is written all the same. Raises EdgeqError.
    """
    if request.quant.lower() == "auto":
        from edgeq.onnx.auto import run_auto

        return run_auto(request)
    quant = find_quant(request.quant)
    path = target_path(request, quant.name)
    with output_folder(path.parent):
        for target in (path, *(ort_paths(path) if request.ort else ())):
            check_output(target, force=request.force)
        return _run(request, quant, path)


def _run(request: Request, quant: OnnxQuant, path: Path) -> dict[str, Any]:
    from edgeq.report.files import JSON_NAME, read_exports, write_report

    read_exports(path.parent / JSON_NAME)  # a file there that is not ours is refused before the work
    started = time.perf_counter()
    subject = open_subject(request, quant, path.parent)
    apply = quant.plan(subject.job)
    found, model = quantize_layers(subject, apply)
    _tell_what_is_left(subject, model, found)
    files = save_model(model, path, force=request.force)
    tensors = [asdict(tensor) for tensor in tensor_results(model)]
    config = write_config(path, subject.job.session)
    files += [config] if config else []
    mobile = write_mobile(subject, path) if request.ort else None
    files += [path.with_name(name) for name in mobile["files"]] if mobile else []
    seconds = time.perf_counter() - started
    proof = prove(subject, apply, found, model, path) if subject.proven else None
    gates = [f"{path.name}: {said}" for said in refusals(subject, found, proof)] if proof else []
    for note in subject.job.notes:
        request.warn(note)
    record = {
        "file": path.name,
        **_about(subject),
        "bytes": sum(file.stat().st_size for file in files),
        "float32_bytes": 4 * subject.float_values,
        "sha256": {file.name: sha256(file) for file in files},
        "seconds": seconds,
        "peak_memory_bytes": peak_memory(),
        "tensors": tensors,
        "layers": found.layers,
        "exempted": found.exempted,
        "ort": mobile,
        "proof": proof,
        "gates": gates,
        "versions": versions(),
    }
    written = write_report(path.parent, record)
    rest = [file for file in files if file != path]
    return record | {"files": [str(file) for file in [path, *rest, *written]]}


def _about(subject: Subject) -> dict[str, Any]:
    """What the record says of the source and of what was asked."""
    request, job = subject.request, subject.job
    return {
        "format": "onnx",
        "quant": subject.quant.name,
        "model": {
            "name": request.source.name,
            "family": "onnx",
            "kind": "graph",
            "parameters": subject.float_values,
        },
        "calibration": _calibration(subject),
        "exempted_to": request.exempt_to,
        "granularity": job.granularity,
        "node_types": {name: shown(kind, job.scales.get(name)) for name, kind in job.types.items()},
        "session": job.session,
        "notes": job.notes,
    }


def _calibration(subject: Subject) -> dict[str, Any] | None:
    """What the ranges come from; None where there are none."""
    job = subject.job
    if not job.passes:
        return None
    return {
        "data": subject.samples.name,
        "method": str(job.method),
        "passes": [asdict(one) for one in job.passes],
    }


def _tell_what_is_left(subject: Subject, model: ir.Model, found: Exemption) -> None:
    """Note the weights that no quant took; raise InputError where that is all of them."""
    if not subject.quant.rounds_layers:
        return
    if found.layers and not quantized_operators(model):
        raise InputError(
            f"{subject.request.source}: {subject.quant.name} rounds none of its weights, which are few or of operators "
            "that it leaves alone; take another --quant, or give --calibration"
        )
    left = left_in_float(model, subject.float_values, frozenset(found.exempted))
    if left is not None:
        subject.job.notes.append(left)
