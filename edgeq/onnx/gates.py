"""Which gates a quantized graph does not pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeq.onnx.compare import shown
from edgeq.onnx.exempt import Exemption
from edgeq.onnx.subject import Subject

_SLOWER = 0.95  # of the float graph's speed; two runs of one graph are often 3 % apart
_LOST_SECONDS = 2e-4  # a run; below that the cost of starting a few more nodes decides


def refusals(subject: Subject, found: Exemption, proof: dict[str, Any]) -> Iterator[str]:
    """What the gates say that said no, without the file's name."""
    yield from _nothing_quantized(subject, found)
    yield from _not_close(subject, proof)
    yield from _diverges(subject, proof)
    yield from _slower(subject, proof)


def _nothing_quantized(subject: Subject, found: Exemption) -> Iterator[str]:
    if subject.quant.rounds_layers and not found.layers:
        kl = "" if subject.request.max_kl is None else f" or --max-kl {subject.request.max_kl:g}"
        yield (
            f"nothing is quantized, since every layer misses --min-cosine {subject.request.target:g}{kl}; ask for "
            "less, or give more calibration data"
        )


def _not_close(subject: Subject, proof: dict[str, Any]) -> Iterator[str]:
    target = subject.request.target
    if proof["closeness"] < target:
        counted = [output for output in proof["outputs"] if "judged_by" not in output]
        least = min(counted, key=lambda output: output["closeness"])
        yield (
            f"closeness {shown(proof['closeness'])} of output {least['name']} is below {shown(target)}; give more "
            "calibration data, or --keep-float what report.html shows"
        )


def _diverges(subject: Subject, proof: dict[str, Any]) -> Iterator[str]:
    most, kl = subject.request.max_kl, proof["kl"]
    if most is not None and (kl is None or kl > most):
        known = "unknown, for no output has rows of classes," if kl is None else f"{kl:.4g}"
        yield f"the KL divergence is {known} and --max-kl is {most:g}"


def _slower(subject: Subject, proof: dict[str, Any]) -> Iterator[str]:
    lost = proof["seconds_per_run"] - proof["seconds_per_run_float"]
    slower = proof["speed_against_float"] < _SLOWER and lost > _LOST_SECONDS
    if slower and not subject.request.allow_slower:
        yield (
            f"runs at {proof['speed_against_float']:.2f} times the speed of float here; take another --quant, or "
            "--allow-slower for the smaller file"
        )
