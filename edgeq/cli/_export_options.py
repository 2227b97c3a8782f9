"""The options of ``edgeq export`` as they were given, what they choose, and which of them go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.cli import _allocation
from edgeq.cli._dialect import Dialect
from edgeq.cli._export_optimum import Exporter
from edgeq.cli._options import Options
from edgeq.errors import UsageError
from edgeq.formats.effort import Effort

if TYPE_CHECKING:
    from edgeq.allocation.goal import Wanted
    from edgeq.targeting.settings import Settings

_BLOCKED = ("int4", "int8-blocks")


class Format(StrEnum):
    """The runtimes' formats."""

    gguf = "gguf"
    onnx = "onnx"


class Method(StrEnum):
    """Methods that need to know what layers read (``edgeq.methods``)."""

    descent = "descent"
    gptq = "gptq"
    clip = "clip"
    awq = "awq"


@dataclass(frozen=True)
class Given(Options):
    """Each option as the command line has it."""

    model: str
    to: Format | None
    quant: str | None
    target: str | None
    context: int
    most_loss: float | None
    max_size: str | None
    target_bpw: float | None
    max_kl: float | None
    min_cosine: float | None
    min_tps: float | None
    types: str | None
    out: Path | None
    calibration: Path | None
    percentile: float | None
    full_range: bool
    dialect: Dialect | None
    block_size: int | None
    asymmetric: bool
    accuracy_level: int | None
    tied_bits: int | None
    external_from: str | None
    effort: Effort | None
    imatrix: Path | None
    method: Method | None
    tensor_type: list[str] | None
    app: list[str] | None
    budget: Path | None
    proof: bool
    threads: int
    exporter: Exporter
    exporter_python: Path | None
    force: bool
    as_json: bool


@dataclass(frozen=True)
class Choice:
    """What is going to be written: options, format and quant, chosen by whatever chose them."""

    given: Given
    to: Format
    quant: str  # what the file is called by, where ``wanted`` chooses types
    wanted: Wanted
    settings: Settings | None

    @property
    def onnx_quant(self) -> str:
        """The canonical name of the graph's quant, "" for a GGUF file."""
        if self.to is not Format.onnx:
            return ""
        return "int4" if self.wanted else self.quant.lower().replace("_", "-")

    @property
    def accuracy_level(self) -> int:
        """Of the products with blocked weights: as given, else the target's, else 4."""
        if self.given.accuracy_level is not None:
            return self.given.accuracy_level
        of_target = None if self.settings is None else self.settings.onnx
        return of_target.accuracy_level if of_target is not None and self.quant in _BLOCKED else 4


def choose(given: Given) -> Choice:
    """The choice; raises UsageError for what is missing and for options that do not go together."""
    to = given.to and given.to.value
    wanted = _allocation.wanted(
        given.max_size,
        given.target_bpw,
        given.max_kl,
        given.min_cosine,
        given.min_tps,
        given.types,
        given.target,
        to,
    )
    if wanted:
        _allocation.check_alone(given.quant, given.context, given.most_loss, given.tensor_type, given.imatrix)
        choice = Choice(given, given.to or Format.gguf, wanted.label(), wanted, None)
    elif given.target is not None:
        choice = _for_target(given, given.target, wanted)
    elif given.context or given.most_loss is not None:
        raise UsageError("--context and --most-loss go with --target")
    elif given.to is None or given.quant is None:
        raise UsageError("give --to and --quant, or --target DEVICE, which chooses them")
    else:
        choice = Choice(given, given.to, given.quant, wanted, None)
    check(choice)
    return choice


def _for_target(given: Given, target: str, wanted: Wanted) -> Choice:
    """Any format that this command makes, or those that --to and --quant leave; options that were not given, too."""
    from edgeq.cli._target import chosen
    from edgeq.convert.onnx_file import canonical_quant
    from edgeq.formats.gguf.mixes import file_type
    from edgeq.hub import resolve
    from edgeq.options import parsed
    from edgeq.planning.formats import GGUF_QUANTS, ONNX_BLOCKS, ONNX_QUANTS

    to, quant, folder = given.to, given.quant, resolve(given.model)
    quants = {"gguf": list(GGUF_QUANTS), "onnx": [*ONNX_QUANTS, *ONNX_BLOCKS]}
    if quant is not None:
        if to is None:
            raise UsageError("--quant goes with --to")
        quant = canonical_quant(quant) if to is Format.onnx else parsed("--quant", quant, file_type).name
        quants = {to.value: [quant]}
    settings = chosen(
        target,
        folder,
        quants,
        to=to.value if to else "",
        quant=quant or "",
        context=given.context,
        most_loss=given.most_loss,
    )
    if settings.onnx is not None:
        is_int8 = settings.quant.startswith("int8")
        of_blocks = settings.onnx.block_size if settings.quant in _BLOCKED else None
        given = replace(
            given,
            full_range=given.full_range or (is_int8 and not settings.onnx.reduced_range),
            dialect=given.dialect or Dialect(settings.onnx.dialect),
            block_size=given.block_size or of_blocks,
        )
    return Choice(given, Format(settings.to), settings.quant, wanted, settings)


@dataclass(frozen=True)
class _Rule:
    """Options that go with some choices only, and how those are called."""

    options: tuple[str, ...]
    goes: Callable[[Choice], bool]
    where: str


def _calibrates(choice: Choice) -> bool:
    """Whether ``--calibration`` chooses codes: in GGUF files, and blocks of a quant that was named."""
    blocks = choice.onnx_quant in _BLOCKED and not choice.wanted
    return choice.given.calibration is not None and (choice.to is Format.gguf or blocks)


def _has_effort(choice: Choice) -> bool:
    return choice.to is Format.gguf or (choice.given.effort is Effort.best and _calibrates(choice))


_RULES = (
    _Rule(("--percentile",), lambda c: c.onnx_quant == "int8", "--to onnx --quant int8"),
    _Rule(
        ("--full-range",),
        lambda c: c.onnx_quant.startswith("int8"),
        "--to onnx --quant int8 or int8-dynamic",
    ),
    _Rule(
        ("--block-size",),
        lambda c: c.onnx_quant in (*_BLOCKED, "nf4", "fp4"),
        "--to onnx --quant int4, int8-blocks, nf4 or fp4",
    ),
    _Rule(
        ("--asymmetric", "--accuracy-level", "--tied-bits"),
        lambda c: c.onnx_quant in _BLOCKED,
        "--to onnx --quant int4 or int8-blocks",
    ),
    _Rule(
        ("--accuracy-level",),
        lambda c: c.given.dialect in (Dialect.ort, Dialect.cuda),
        "--dialect ort or cuda: the standard form leaves it to the session",
    ),
    _Rule(("--dialect", "--external-from"), lambda c: c.to is Format.onnx, "--to onnx"),
    _Rule(("--method",), _calibrates, "--calibration, to gguf and to onnx int4 and int8-blocks"),
    _Rule(
        ("--effort",),
        _has_effort,
        "--to gguf; as best, with --calibration, with --quant int4 and int8-blocks too",
    ),
    _Rule(("--imatrix", "--tensor-type"), lambda c: c.to is Format.gguf, "--to gguf"),
    _Rule(("--exporter-python",), lambda c: c.given.exporter is Exporter.optimum, "--exporter optimum"),
)


def check(choice: Choice) -> None:
    """Raise UsageError for options that do not go with the choice, or with each other, or mean nothing."""
    from edgeq.formats.onnx.blocked import SIZES

    given = choice.given
    for rule in _RULES:
        for option in rule.options:
            if given.of(option) is not None and not rule.goes(choice):
                raise UsageError(f"{option} goes with {rule.where}")
    if given.percentile is not None and not 50 < given.percentile <= 100:
        raise UsageError(f"--percentile {given.percentile:g}: must be above 50 and at most 100")
    for option, allowed in (("--block-size", SIZES), ("--accuracy-level", (1, 4)), ("--tied-bits", (4, 8))):
        number = given.of(option)
        if number is not None and number not in allowed:
            raise UsageError(f"{option} {number}: must be one of {', '.join(map(str, allowed))}")
    if given.method is not None and given.imatrix is not None:
        raise UsageError("--method measures what --imatrix holds, and more: give one of them")
    if given.exporter is Exporter.optimum and choice.to is not Format.onnx:
        raise UsageError("--exporter optimum goes with --to onnx")
