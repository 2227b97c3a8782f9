"""What the user asks of ``edgeq quantize model.onnx``, and his options checked against each other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.calibration.inputs import Arrays
from edgeq.calibration.methods import Method, parse_method
from edgeq.calibration.sources import Images
from edgeq.errors import InputError, UsageError
from edgeq.formats.onnx.blocked import SIZES
from edgeq.formats.onnx.int8 import Granularity
from edgeq.formats.onnx.passes.blocked_weights import Form
from edgeq.onnx.isa import Profile, changed, find_profile, find_types
from edgeq.onnx.job import Blocks, OnnxQuant
from edgeq.onnx.node_types import FLOAT, INT16, NodeType, parse_node_types
from edgeq.options import parsed
from edgeq.outputs import refuse_source

DEFAULT_MIN_COSINE = 0.99
_BLOCKED = ("int2", "int4", "int8-blocks")
_METHODS = ("descent", "gptq", "clip")  # of edgeq.methods
_ONLY_FOR = {
    "--block-size": (*_BLOCKED, "nf4", "fp4"),
    **dict.fromkeys(("--asymmetric", "--dialect", "--accuracy-level", "--nearest", "--method"), _BLOCKED),
    "--per-tensor": ("int8", "int8-dynamic", "float8"),
}


@dataclass
class Request:
    """What the user asked for; options as the command's help has them.

    ``calibration`` is a file, a folder, or an iterable of ``{input: array}`` that can be read again and again.
    ``method`` is of ranges, ``block_method`` of integers in blocks, ``granularity`` of weights that are in no blocks:
    a scale for each output channel, or for each tensor. ``min_cosine`` None is the quant's own target; of
    all layers, ``most_exempted`` may go back to float, and measuring them may take ``patience`` seconds, or longer with
    few trials.
    """

    source: Path
    out: Path
    quant: str = "auto"
    calibration: Path | Iterable[Arrays] | None = None
    method: str = "minmax"
    samples: int = 0
    images: Images = field(default_factory=Images)
    isa: str = "generic"
    scheme: str | None = None
    full_range: bool = False
    keep_float: Sequence[str] = ()
    node_types: Sequence[str] = ()
    exempt_to: str = FLOAT
    block_size: int | None = None
    asymmetric: bool = False
    dialect: Form = "ort"
    accuracy_level: int | None = None
    nearest: bool = False
    block_method: str | None = None
    granularity: Granularity = "channel"
    ort: bool = False
    min_cosine: float | None = None
    max_kl: float | None = None
    most_exempted: float = 1.0
    patience: float = math.inf
    allow_slower: bool = False
    cache: bool = True
    proof: bool = True
    force: bool = False
    threads: int = 0
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    warn: Callable[[str], None] = field(default=lambda message: None)

    @property
    def target(self) -> float:
        """The closeness that the answers must have."""
        return DEFAULT_MIN_COSINE if self.min_cosine is None else self.min_cosine


@dataclass(frozen=True)
class Options:
    """Options that need no file, as what they mean."""

    method: Method
    profile: Profile
    blocks: Blocks
    keep_float: list[re.Pattern[str]]
    node_types: list[NodeType]


def parse_options(request: Request, quant: OnnxQuant) -> Options:
    """Raises UsageError for what means nothing, or what the quant would not heed."""
    method = parsed("--calibration-method", request.method, parse_method)
    types = None if request.scheme is None else parsed("--scheme", request.scheme, find_types)
    profile = changed(parsed("--isa", request.isa, find_profile), types, request.full_range)
    blocks = _blocks(request, profile)
    _check_heeded(request, quant.name)
    patterns = [_pattern(text) for text in request.keep_float]
    node_types = parse_node_types(request.node_types, quant.node_types, quant.name)
    if request.exempt_to not in {FLOAT, INT16} & {FLOAT, *quant.node_types}:
        known = "float or int16" if INT16 in quant.node_types else "float"
        raise UsageError(f"--exempt-to {request.exempt_to}: for {quant.name} there is {known}")
    return Options(method, profile, blocks, patterns, node_types)


def target_path(request: Request, quant: str) -> Path:
    """The file to write: ``-o`` itself where it ends in .onnx, else NAME_QUANT.onnx in that folder."""
    out = request.out
    if out.suffix.lower() != ".onnx":
        out = out / f"{request.source.stem}_{quant.replace('-', '_')}.onnx"
    if not request.source.is_file():
        raise InputError(f"{request.source}: no such file")
    refuse_source(out, request.source)
    return out


def _check_heeded(request: Request, quant: str) -> None:
    """Raise UsageError for an option that the quant would not heed."""
    given = {
        "--block-size": request.block_size is not None,
        "--asymmetric": request.asymmetric,
        "--dialect": request.dialect != "ort",
        "--accuracy-level": request.accuracy_level is not None,
        "--nearest": request.nearest,
        "--method": request.block_method is not None,
        "--per-tensor": request.granularity == "tensor",
    }
    for option, quants in _ONLY_FOR.items():
        if given[option] and quant not in quants:
            raise UsageError(f"{option} goes with --quant {', '.join(quants)}, not with {quant}")


def _blocks(request: Request, profile: Profile) -> Blocks:
    """What the user chose of blocks, or what the CPU wants."""
    size = profile.block_size if request.block_size is None else request.block_size
    if size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise UsageError(f"--block-size {size}: ONNX Runtime has kernels for {sizes}")
    level = profile.accuracy_level if request.accuracy_level is None else request.accuracy_level
    if level not in (1, 4):
        raise UsageError(f"--accuracy-level {level}: on the CPU only 1 and 4 differ")
    method = None if request.block_method is None else _block_method(request, request.block_method)
    return Blocks(size, not request.asymmetric, request.dialect, level, request.nearest, method)


def _block_method(request: Request, name: str) -> str:
    if name.lower() not in _METHODS:
        raise UsageError(f"--method {name}: for an ONNX file there are {', '.join(_METHODS)}")
    if request.nearest:
        raise UsageError("--method and --nearest round in two ways: give one of them")
    if request.calibration is None:
        raise UsageError(f"--method {name} needs --calibration, data that the layers read")
    return name.lower()


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--keep-float {text}: is no regular expression ({error})") from None
