"""``--ort``: the file for mobile builds of ONNX Runtime beside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.onnx.compare import compare, worst
from edgeq.onnx.subject import Subject
from edgeq.runtimes.onnxruntime import OnnxSession
from edgeq.runtimes.ort_format import required_operators, write_ort

_SAMPLES = 4  # on which the file is compared with the graph


def write_mobile(subject: Subject, path: Path) -> dict[str, Any]:
    """What was written of the graph ``path``, the operators that it needs, and whether it answers alike."""
    session = subject.job.session
    target, config = write_ort(path, session, force=subject.request.force)
    mobile = OnnxSession(target, subject.threads, session)
    found: dict[str, Any] = {
        "files": [target.name, config.name],
        "bytes": target.stat().st_size,
        "operators": required_operators(config),
    }
    if subject.proven:
        graph = OnnxSession(path, subject.threads, session)
        found["closeness"] = worst(compare(graph, mobile, subject.test.first(_SAMPLES)))
    return found
