"""``edgeq quantize model.onnx``: its options parsed, its result printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.cli._output import print_facts, print_json, progress_bar, warn
from edgeq.errors import GateError, UsageError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def for_target(
    target: str, quant: str | None, isa: str | None, has_data: bool, context: int, most_loss: float | None
) -> tuple[str, str]:
    """(quant, CPU) for a device: on a GPU float16, on a CPU int8, static where there is data to calibrate on.

    Raises EdgeqError for a device that is not known, and UsageError for options that any graph has no use for.
    """
    from edgeq.cli.devices import device
    from edgeq.errors import UsageError
    from edgeq.targeting.settings import isa_of

    if context or most_loss is not None:
        raise UsageError("--context and --most-loss are for GGUF; give --min-cosine for an ONNX file")
    profile = device(target, None)
    if profile.gpus and not profile.clusters:
        return quant or "float16", isa or "generic"
    return quant or ("int8" if has_data else "int8-dynamic"), isa or isa_of(profile.isa)


def is_onnx(path: Path) -> bool:
    """Whether a source is an ONNX file, by its name."""
    return path.suffix.lower() == ".onnx"


def only(source: Path, kind: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option of the other kind of source."""
    for option, value in options.items():
        if value:
            raise UsageError(
                f"{option} goes with {kind}, but {source} is {'no ' if kind == 'ONNX' else 'an '}ONNX file"
            )


def quantize(
    source: Path,
    out: Path | None,
    quant: str | None,
    options: Mapping[str, Any],
    *,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Run, print, and raise GateError where a gate said no. Without ``out`` the file comes beside the source."""
    from edgeq.calibration.sources import Images
    from edgeq.onnx import Request
    from edgeq.onnx import quantize as run
    from edgeq.report.facts import facts

    min_cosine = options.get("--min-cosine")
    if min_cosine is not None and not 0 < min_cosine <= 1:
        raise UsageError(f"--min-cosine {min_cosine:g}: must be above 0 and at most 1")
    size, (mean, std) = _size(options.get("--resize")), _normalization(options.get("--normalize"))
    with progress_bar() as progress:
        record = run(
            Request(
                source=source,
                out=source.parent if out is None else out,
                quant=quant or "auto",
                calibration=options.get("--calibration"),
                method=options.get("--calibration-method", "minmax"),
                samples=options.get("--samples", 0),
                images=Images(size, mean, std, declared="--normalize" in options),
                isa=options.get("--isa", "generic"),
                scheme=options.get("--scheme"),
                full_range=options.get("--full-range", False),
                block_size=options.get("--block-size"),
                asymmetric=options.get("--asymmetric", False),
                dialect=options.get("--dialect", "ort"),
                accuracy_level=options.get("--accuracy-level"),
                nearest=options.get("--nearest", False),
                per_tensor=options.get("--per-tensor", False),
                ort=options.get("--ort", False),
                keep_float=options.get("--keep-float", ()),
                node_types=options.get("--node-type", ()),
                max_kl=options.get("--max-kl"),
                exempt_to=options.get("--exempt-to", "float"),
                min_cosine=min_cosine,
                allow_slower=options.get("--allow-slower", False),
                cache=not options.get("--no-cache", False),
                proof=not options.get("--no-proof", False),
                force=force,
                threads=threads,
                progress=progress,
                warn=warn,
            )
        )
    if as_json:
        print_json(record)
    else:
        print_facts([*facts(record), *(("written", path) for path in record["files"])])
    if record["gates"]:
        raise GateError("; ".join(record["gates"]))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and 0 < int(height) < 10**5 and 0 < int(width) < 10**5):
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
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or not all(number > 0 for number in std):
        raise UsageError(f"--normalize {text}: must be imagenet or MEANS/DEVIATIONS, such as 0.5/0.5")
    return mean, std
