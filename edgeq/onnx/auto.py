"""The quant where none was named: the first int8 one whose answers are within 1 % of the float graph's, as fast as it.

Static int8 comes first where there is data, then dynamic activations with int8 weights. Both may put a quarter of their
layers back to float, and must halve the file. Where neither holds the 1 %, as in language models, the target of a named
quant decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgeq.errors import InputError, UsageError
from edgeq.onnx.node_types import FLOAT
from edgeq.onnx.request import Request, target_path
from edgeq.onnx.run import run

WITHIN_1_PERCENT = (
    1 - 0.0075**2 / 2
)  # the closeness of an error of 0.75 % of the answer's size: a margin for other data
_MOST_EXEMPTED, _LARGEST = 0.25, 0.5  # of the layers; of the float numbers' bytes
_PATIENCE = 12.0  # seconds to measure layers in, for each quant that is tried


def candidates(request: Request) -> Iterator[Request]:
    """What is tried, in order; the last one is taken as it comes."""
    request = replace(request, patience=_PATIENCE)
    quants = ["int8-dynamic"] if request.calibration is None else ["int8", "int8-dynamic"]
    target = WITHIN_1_PERCENT if request.min_cosine is None else request.min_cosine
    if request.proof:
        for quant in quants:
            yield replace(request, quant=quant, min_cosine=target, most_exempted=_MOST_EXEMPTED)
    yield replace(request, quant=quants[0], min_cosine=request.target)


def run_auto(request: Request) -> dict[str, Any]:
    """The record of the first candidate that no gate refuses, or of the last. Raises EdgeqError."""
    if request.node_types or request.exempt_to != FLOAT:
        raise UsageError("--node-type and --exempt-to go with a quant of your choice; name it with --quant")
    path, missed = target_path(request, "int8"), ""
    tried = list(candidates(request))
    for number, candidate in enumerate(tried, start=1):
        said: list[str] = []
        last = number == len(tried)
        try:
            record = run(replace(candidate, out=path, force=request.force or number > 1, warn=said.append))
        except InputError:
            if last:
                raise
            continue
        share = record["bytes"] / record["float32_bytes"]
        large = (
            share > _LARGEST and number < len(tried) - 1
        )  # another quant may be smaller, the last is no closer
        if last or not (record["gates"] or large):
            break
        why = "; ".join(record["gates"]) or f"within 1 % it has {share:.0%} of the float size"
        missed = f"{candidate.quant} was tried before: {why}"
    for note in [*said, *([missed] if missed else [])]:
        request.warn(note)
    return record
