"""``edgeq quantize model.onnx``: its options parsed, its result printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.cli._output import print_facts, print_json, progress_bar, warn
from edgeq.cli._quantize_options import Given
from edgeq.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgeq.export import Progress
    from edgeq.onnx import Request

_MOST_PIXELS = 1 << 24
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def quantize(given: Given) -> None:
    """Run, print, and raise GateError where a gate said no. Without ``out`` the file comes beside the source."""
    from edgeq.cli._evaluation import say_broken
    from edgeq.evaluation.budget import read_budget
    from edgeq.onnx import quantize as run
    from edgeq.onnx.measured import measured
    from edgeq.report.facts import facts

    limits = read_budget(given.budget) if given.budget else None
    with progress_bar() as progress:
        record = run(_request(given, progress))
        if limits is not None:
            progress("checking the budget", 0, 1)
            found = measured(record, Path(record["files"][0]), given.threads)
            record |= {"measured": found, "broken": limits.broken(found)}
    if given.as_json:
        print_json(record)
    else:
        print_facts([*facts(record), *(("written", path) for path in record["files"])])
    if record.get("broken"):
        say_broken([*record["gates"], *record["broken"]])
    if record["gates"]:
        raise GateError("; ".join(record["gates"]))


def _request(given: Given, progress: Progress) -> Request:
    from edgeq.calibration.sources import Images
    from edgeq.onnx import Request

    quant, isa = given.quant, given.isa
    if given.target is not None:
        quant, isa = _for_target(given, given.target)
    if given.min_cosine is not None and not 0 < given.min_cosine <= 1:
        raise UsageError(f"--min-cosine {given.min_cosine:g}: must be above 0 and at most 1")
    size, (mean, std) = _size(given.resize), _normalization(given.normalize)
    return Request(
        source=given.source,
        out=given.source.parent if given.out is None else given.out,
        quant=quant or "auto",
        calibration=given.calibration,
        method=given.calibration_method or "minmax",
        samples=given.samples or 0,
        images=Images(size, mean, std, declared=given.normalize is not None),
        isa=isa or "generic",
        scheme=given.scheme,
        full_range=given.full_range,
        block_size=given.block_size,
        asymmetric=given.asymmetric,
        dialect="ort" if given.dialect is None else given.dialect.value,
        accuracy_level=given.accuracy_level,
        nearest=given.nearest,
        block_method=given.method,
        granularity="tensor" if given.per_tensor else "channel",
        ort=given.ort,
        keep_float=given.keep_float or (),
        node_types=given.node_type or (),
        max_kl=given.max_kl,
        exempt_to=given.exempt_to or "float",
        min_cosine=given.min_cosine,
        allow_slower=given.allow_slower,
        cache=not given.no_cache,
        proof=not given.no_proof,
        force=given.force,
        threads=given.threads,
        progress=progress,
        warn=warn,
    )


def _for_target(given: Given, target: str) -> tuple[str, str]:
    """(quant, CPU) for a device: on a GPU float16, on a CPU int8, static where there is data to calibrate on.

    Raises EdgeqError for a device that is not known, and UsageError for options that any graph has no use for.
    """
    from edgeq.cli.devices import device
    from edgeq.targeting.settings import isa_of

    if given.context or given.most_loss is not None:
        raise UsageError("--context and --most-loss are for GGUF; give --min-cosine for an ONNX file")
    profile = device(target, None)
    if profile.gpus and not profile.clusters:
        return given.quant or "float16", given.isa or "generic"
    on_cpu = "int8" if given.calibration is not None else "int8-dynamic"
    return given.quant or on_cpu, given.isa or isa_of(profile.isa)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    known = all(side.isdecimal() and len(side) < 6 for side in (height, width))
    if not known or not 0 < int(height) * int(width) <= _MOST_PIXELS:
        raise UsageError(f"--resize {text}: must be HEIGHTxWIDTH, such as 224x224")
    return int(height), int(width)


def _normalization(text: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if text is None:
        return (0.0,), (1.0,)
    if text.lower() == "imagenet":
        return _IMAGENET
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    in_range = all(0 <= number <= 1 for number in mean) and all(1e-4 < number < 16 for number in std)
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or not in_range:
        raise UsageError(
            f"--normalize {text}: must be imagenet or MEANS/DEVIATIONS of numbers from 0 to 1, such as 0.5/0.5"
        )
    return mean, std
