"""ORT format: a graph that ONNX Runtime has prepared, for builds that do not read ONNX."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from edgeq.errors import EdgeqError


def write_ort(source: Path, target: Path) -> None:
    """Write ``source`` in ORT format, optimized as far as it helps every CPU; raises EdgeqError.

    As onnxruntime/tools/convert_onnx_models_to_ort.py does for ``--target_platform arm``: int8 pairs stay int8, and no
    layout of the machine that converts is built in (extended optimizations, not all).
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgeqError(f"{source}: ONNX Runtime cannot write it in ORT format ({reason})") from None
