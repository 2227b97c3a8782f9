"""A quantized graph as budgets read it: its answers from the proof, its costs from a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.bench.child import Job
from edgeq.bench.models import percentile
from edgeq.bench.worker import in_child

_PROMPT, _TOKENS, _TURNS = 128, 16, 20  # of a model that reads tokens; other graphs run on made-up inputs


def measured(record: Mapping[str, Any], path: Path, threads: int) -> dict[str, Any]:
    """What ``evaluation.budget`` looks for, from the record of ``edgeq.onnx.quantize`` and the written file.

    Of several outputs the worst counts. ``latency_*`` are seconds of one run, of a decoder those of one token. Raises
    EdgeqError where the runtime refuses.
    """
    return {
        "file": record["file"],
        "bytes": record["bytes"],
        "answers": _answers(record["proof"]) if record["proof"] else {},
        "cost": _cost(path, threads),
    }


def _answers(proof: Mapping[str, Any]) -> dict[str, float]:
    counted = [output for output in proof["outputs"] if "judged_by" not in output]
    found = {
        key: min(output[key] for output in counted if key in output)
        for key in ("cosine_mean", "top1_agreement")
        if any(key in output for output in counted)
    }
    return found if proof["kl"] is None else found | {"kl_mean": proof["kl"]}


def _cost(path: Path, threads: int) -> dict[str, float]:
    found = in_child(Job(str(path), "onnxruntime", threads, _PROMPT, _TOKENS, _TURNS))
    seconds = found.steps or found.prefill
    cost = {
        "load_seconds": found.load,
        "latency_p50": percentile(seconds, 50),
        "latency_p95": percentile(seconds, 95),
        "peak_memory_bytes": float(found.peak_memory),
    }
    return cost | ({"decode_tokens_per_second": 1 / percentile(seconds, 50)} if found.steps else {})
