"""``edgeq export``: a model directory becomes a file for a runtime, proven there, with a report."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeq.allocation.goal import Wanted
from edgeq.calibration.text import Text, read_text
from edgeq.convert import gguf_file
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.convert.column_weights import column_weights
from edgeq.convert.gguf_file import TensorResult
from edgeq.devices.cpu import saturates_int8, usable_cores
from edgeq.errors import UsageError
from edgeq.file_hash import sha256
from edgeq.formats.atomic import atomic_file, check_output
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mixes import file_type
from edgeq.formats.gguf.overrides import Override, parse_override
from edgeq.formats.gguf.split_writer import parse_size
from edgeq.hub import model_name
from edgeq.options import parsed
from edgeq.outputs import output_folder
from edgeq.peak_memory import peak_memory
from edgeq.source import ModelSource, SourceModel
from edgeq.versions import versions

if TYPE_CHECKING:
    from edgeq.allocation.candidates import Candidate
    from edgeq.allocation.meter import GivesLogits
    from edgeq.allocation.search import Goal
    from edgeq.apps.registry import Layout
    from edgeq.calibration.samples import Calibration
    from edgeq.convert.onnx_quants import QuantOptions
    from edgeq.runtimes.onnxruntime import Feeds
    from edgeq.targeting.settings import Settings

Progress = Callable[[str, int, int], None]
Format = Literal["gguf", "onnx"]

_SPEED_BATCH = 16
_ALLOCATED_CHARACTERS = 4_000_000  # of a text, when types are chosen
_GRAPH_SLACK = 4096  # bytes of a graph that other choices of bits may add
_SHOWN = 8  # names of tensors in one note


def _no_progress(stage: str, done: int, total: int) -> None:
    pass


@dataclass
class Request:
    """What the user asked for."""

    model: Path
    to: Format
    quant: str
    out: Path
    calibration: Path | None = None
    percentile: float | None = None
    full_range: bool = False
    dialect: str = "standard"
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 4
    tied_bits: int = 8
    external_from: str | None = None
    effort: Effort = Effort.normal
    imatrix: Path | None = None
    method: str | None = None  # of edgeq.methods, or awq; needs calibration
    tensor_types: Sequence[str] = ()
    apps: Sequence[str] = ()
    proof: bool = True
    force: bool = False
    threads: int = 0
    target: Settings | None = None
    wanted: Wanted = field(default_factory=Wanted)
    progress: Progress = _no_progress
    warn: Callable[[str], None] = lambda message: None


@dataclass
class Result:
    """What came of it; ``record`` is the entry in edgeq.json, ``refused`` what apps' libraries would not load."""

    path: Path
    record: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def run(request: Request) -> Result:
    """Convert, prove, and write edgeq.json and report.html beside the file; raises EdgeqError."""
    quant = _canonical_quant(request)
    layouts = _layouts(request)
    source = _open(request)
    text = read_text(request.calibration)
    with output_folder(request.out):
        result = _run(request, quant, source, text)
        _pack(request, layouts, result)
        return result


def _run(request: Request, quant: str, source: ModelSource, text: Text) -> Result:
    from edgeq.report.files import JSON_NAME, read_exports, write_report

    read_exports(request.out / JSON_NAME)  # a file there that is not ours is refused before the work
    started = time.perf_counter()
    convert = _to_gguf if request.to == "gguf" else _to_onnx
    path, files, tensors, notes, more = convert(request, quant, source, text)
    seconds = time.perf_counter() - started
    record: dict[str, Any] = {
        "file": path.name,
        "format": request.to,
        "quant": quant,
        "model": {
            "name": source.name,
            "family": source.family.architecture,
            "kind": source.family.kind,
            "parameters": source.parameters(),
        },
        "bytes": sum(file.stat().st_size for file in files),
        "float32_bytes": 4 * source.parameters(),
        "sha256": {file.name: sha256(file) for file in files},
        "seconds": seconds,
        "peak_memory_bytes": peak_memory(),
        "tensors": [asdict(tensor) for tensor in tensors],
        "notes": notes,
        "proof": _prove(request, source, text, path, quant) if request.proof else None,
        "versions": versions(),
    } | more
    if request.target is not None:
        record["target"] = request.target.record()
        if entries := request.target.session_entries():
            from edgeq.onnx.sessions import write_config

            write_config(path, entries)
    report_files = write_report(request.out, record)
    return Result(path, record, [*files, *report_files])


def _open(request: Request) -> ModelSource:
    """A model directory, or a GGUF file that becomes ONNX."""
    if not request.model.is_file():
        return SourceModel.open(request.model)
    if request.to != "onnx":
        raise UsageError(f"{request.model}: is GGUF already; edgeq quantize gives it other types")
    from edgeq.gguf_source import GGUFSource

    return GGUFSource.open(request.model)


def _layouts(request: Request) -> list[Layout]:
    """The layouts that ``--app`` names; what would refuse to be written is refused before the work."""
    if not request.apps:
        return []
    from edgeq.apps.pack import check_format, check_target
    from edgeq.apps.registry import find

    layouts = [find(name) for name in dict.fromkeys(request.apps)]
    for layout in layouts:
        check_format(layout, request.to)
        check_target(request.out / layout.name, request.force)
    return layouts


def _pack(request: Request, layouts: Sequence[Layout], result: Result) -> None:
    """Lay the written files out for each app; the lint's warnings are told, its errors kept."""
    if not layouts:
        return
    from edgeq.apps.pack import pack

    name = model_name(request.model)
    result.record["apps"] = []
    for layout in layouts:
        request.progress(f"packing for {layout.name}", 0, 1)
        bundle = pack(result.path, layout, request.out, name=name, record=result.record, force=request.force)
        for line in bundle.warnings():
            request.warn(f"{layout.name}: {line}")
        result.refused += [f"{bundle.folder}: {line}" for line in bundle.errors()]
        result.record["apps"].append(bundle.record())
        result.files.append(bundle.folder)


def _canonical_quant(request: Request) -> str:
    """The quant's name as its format writes it; raises UsageError listing the names."""
    if request.wanted:
        return request.wanted.label()
    if request.to == "onnx":
        from edgeq.convert import onnx_file

        return onnx_file.canonical_quant(request.quant)
    return parsed("--quant", request.quant, lambda text: file_type(text).name)


# The file, all files, what became of the tensors, notes, and what else the record says.
Converted = tuple[Path, list[Path], list[TensorResult], list[str], dict[str, Any]]


def _to_gguf(request: Request, quant: str, source: ModelSource, text: Text) -> Converted:
    path = request.out / f"model-{quant}.gguf"
    check_output(path, force=request.force)
    assert isinstance(source, SourceModel)
    rows = CheckpointRows(source)
    if request.wanted:
        return _allocated(request, source, rows, text, path)
    overrides = [parsed("--tensor-type", text, parse_override) for text in request.tensor_types]
    return *_write_gguf(request, quant, rows, overrides, path), {}


def _write_gguf(
    request: Request,
    quant: str,
    rows: CheckpointRows,
    overrides: Sequence[Override],
    path: Path,
    compared: int = 0,
) -> tuple[Path, list[Path], list[TensorResult], list[str]]:
    """Plan and write one file; ``compared`` tokens at the text's beginning, at least, are not calibrated on."""
    importance, imatrix_keys = column_weights(request.imatrix, rows, request.warn)
    calibration = _own_calibration(request, compared)
    weighted = importance is not None or calibration is not None
    planned = gguf_file.plan(rows, quant, overrides, has_imatrix=weighted)
    notes = planned.fallback_notes()
    for line in (*planned.fallback_summary(), *rows.notes):
        request.warn(line)
    notes += rows.notes
    notes += _left_out(rows.source)
    options = gguf_file.WriteOptions(
        force=request.force,
        progress=lambda name, done, total: request.progress("encoding", done, total),
        effort=request.effort,
        importance=importance,
        metadata=imatrix_keys,
        measure_error=True,
    )
    paths, tensors = _encoded(rows, planned, path, options, calibration, notes)
    return path, paths, tensors, notes + gguf_file.handling_summary(tensors)


def _encoded(
    rows: CheckpointRows,
    planned: gguf_file.GGUFPlan,
    path: Path,
    options: gguf_file.WriteOptions,
    calibration: Calibration | None,
    notes: list[str],
) -> tuple[list[Path], list[TensorResult]]:
    """Write the file by the calibration's method, where there is one, and note what it did."""
    if calibration is None:
        return gguf_file.write(rows, planned, path, options)
    from edgeq.convert.calibrated import encoded_tensors
    from edgeq.convert.folded_source import AWQ, awq_source
    from edgeq.methods import BlockGrid

    if calibration.method == AWQ:
        grids = {t.name: BlockGrid(t.type_name) for t in planned.tensors if BlockGrid.fits(t.type_name)}
        folded, note = awq_source(rows.source, grids.get, calibration)
        notes.append(note)
        return gguf_file.write(CheckpointRows(folded), planned, path, options)
    with encoded_tensors(rows, planned, calibration, path.parent) as encoded:
        encoded.use_in(options)
        notes.append(encoded.note())
        return gguf_file.write(rows, planned, path, options)


def _allocated(
    request: Request, source: SourceModel, rows: CheckpointRows, text: Text, path: Path
) -> Converted:
    """The file whose types meet what the user wants of it, out of several that are written and measured."""
    from edgeq.allocation import gguf
    from edgeq.allocation.allocate import held_out
    from edgeq.allocation.candidates import candidates
    from edgeq.allocation.goal import exactly, nearest_mix

    tokens = source.tokenizer().encode(text.content[:_ALLOCATED_CHARACTERS]).ids
    compared, quiet = held_out(source, len(tokens)), replace(request, warn=_say_nothing, force=True)
    written: dict[tuple[str, ...], tuple[Path, list[TensorResult], list[str]]] = {}
    options = candidates(
        ((name, spec.shape) for name, spec in source.specs.items()), request.wanted.candidates()
    )
    with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=request.out) as folder:

        def trial(types: Mapping[str, str]) -> AbstractContextManager[GivesLogits]:
            made, quant = Path(folder) / f"trial-{len(written)}.gguf", nearest_mix(types, source.shape)
            _, _, tensors, notes = _write_gguf(quiet, quant, rows, exactly(types), made, compared)
            written[tuple(types.values())] = made, tensors, notes
            return gguf.opened(made)

        around = gguf.around(rows)
        goal = request.wanted.goal(source.parameters(), around.header)
        record = _searched(request, source, tokens, goal, options, around.total, trial)
        made, tensors, notes = written[tuple(record["types"].values())]
        made.replace(path)
    return path, [path], tensors, notes, {"allocation": record}


def _searched(
    request: Request,
    source: ModelSource,
    tokens: Sequence[int],
    goal: Goal,
    options: Mapping[str, Sequence[Candidate]],
    fixed_bytes: int,
    trial: Callable[[Mapping[str, str]], AbstractContextManager[GivesLogits]],
    all_types: Callable[[Mapping[str, str]], Mapping[str, str]] = dict,
) -> dict[str, Any]:
    """What the search for the user's goal found, as edgeq.json has it."""
    from edgeq.allocation import allocate
    from edgeq.allocation.goal import times
    from edgeq.evaluation.proof import model_of

    wanted = allocate.Request(
        source=source,
        model=model_of(source),
        tokens=tokens,
        goal=goal,
        options=options,
        fixed_bytes=fixed_bytes,
        trial=trial,
        all_types=all_types,
        times=times(source, request.wanted.machine),
        progress=request.progress,
    )
    return allocate.allocate(wanted).record()


def _say_nothing(message: str) -> None:
    pass


def _own_calibration(request: Request, compared: int = 0) -> Calibration | None:
    """What ``--effort best`` or a method calibrates on; what is compared on is left out of it."""
    wanted = request.effort is Effort.best or request.method is not None
    if not wanted or request.calibration is None or request.imatrix is not None:
        return None
    from edgeq.calibration.samples import DEFAULT_METHOD, Calibration
    from edgeq.evaluation.proof import COMPARED_TOKENS

    skip = max(compared, COMPARED_TOKENS if request.proof else 0)
    return Calibration(
        request.calibration, request.method or DEFAULT_METHOD, skip, request.progress, request.warn
    )


def _left_out(source: ModelSource) -> list[str]:
    """A line that names the checkpoint's tensors for which the family has no place."""
    if not source.unused:
        return []
    shown, more = source.unused[:_SHOWN], len(source.unused) - _SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return [f"not part of the model, left out: {', '.join(shown)}{rest}"]


def _to_onnx(request: Request, quant: str, source: ModelSource, text: Text) -> Converted:
    from edgeq.convert import onnx_file
    from edgeq.convert.genai_config import genai_config

    path = request.out / onnx_file.file_name(quant)
    check_output(path, force=request.force)
    options = _quant_options(request, text)
    companions = _companions(request, source)
    if request.dialect == "ort" and source.family.kind == "decoder":
        if source.hp.attention_cap:
            options.notes.append(
                "needs ONNX Runtime 1.24: earlier ones cap the mask with the attention scores"
            )
        config = genai_config(source, path.name, options.notes)
        companions |= _checked(request, "genai_config.json", json.dumps(config, indent=2).encode() + b"\n")
    if request.full_range and saturates_int8():
        request.warn(
            "--full-range: this CPU has no VNNI, so the file saturates and answers worse here than elsewhere"
        )
    more = {}
    if request.wanted:
        more, quant = {"allocation": _chosen_bits(request, source, text, options)}, "int4"
    with _onnx_calibrated(request, quant, source, options) as weights:
        written = onnx_file.write(weights, quant, path, options, force=request.force)
    for target, content in companions.items():
        with atomic_file(target, force=request.force) as file:
            file.write(content)
    return path, written.files, written.tensors, options.notes + _left_out(source), more


def _chosen_bits(request: Request, source: ModelSource, text: Text, options: QuantOptions) -> dict[str, Any]:
    """Choose the bits of each weight, out of several graphs that are written and measured; they go into the options."""
    from edgeq.allocation import onnx
    from edgeq.convert import onnx_file

    kinds = onnx.parse_names(request.wanted.types)
    layers = onnx.layers_of(source, request.dialect, kinds, request.block_size)
    tokens = source.tokenizer().encode(text.content[:_ALLOCATED_CHARACTERS]).ids
    with tempfile.TemporaryDirectory(prefix=".edgeq-trial-", dir=request.out) as folder:
        made = Path(folder) / "trial.onnx"

        def write(types: Mapping[str, str]) -> int:
            chosen = replace(options, bits=layers.bits(types), notes=[], progress=_no_progress)
            files = onnx_file.write(source, "int4", made, chosen, force=True).files
            return sum(file.stat().st_size for file in files)

        def trial(types: Mapping[str, str]) -> AbstractContextManager[GivesLogits]:
            write(types)
            return onnx.opened(made, request.threads)

        least = {name: kinds[0] for name, kinds in layers.options.items()}
        fixed = write({name: kind.type_name for name, kind in least.items()})
        fixed += _GRAPH_SLACK - sum(kind.nbytes for kind in least.values())
        goal = request.wanted.goal(source.parameters())
        record = _searched(request, source, tokens, goal, layers.options, fixed, trial, layers.all_types)
    options.bits = layers.bits(record["types"])
    return record


@contextmanager
def _onnx_calibrated(
    request: Request, quant: str, source: ModelSource, options: QuantOptions
) -> Iterator[ModelSource]:
    """The source, with integers chosen on the calibration text where ``--effort best`` asks for them."""
    from edgeq.convert.onnx_quants import WEIGHT_ONLY

    calibration = _own_calibration(request)
    if calibration is None or quant not in WEIGHT_ONLY:
        yield source
        return
    from edgeq.convert.calibrated_source import calibrated_source
    from edgeq.convert.folded_source import AWQ, awq_source
    from edgeq.formats.onnx.blocked import Scheme
    from edgeq.methods import IntegerGrid

    scheme = Scheme(WEIGHT_ONLY[quant], request.block_size, request.symmetric)
    if calibration.method == AWQ:
        if not isinstance(source, SourceModel):
            raise UsageError(f"{request.model}: --method awq takes a model directory")
        grid = IntegerGrid(scheme)
        folded, note = awq_source(
            source, lambda name: grid if grid.fits(source.shape(name)[-1]) else None, calibration
        )
        options.notes.append(note)
        yield folded
        return
    with calibrated_source(source, scheme, calibration, request.out) as (weights, found):
        options.notes.append(found.note())
        yield weights


def _quant_options(request: Request, text: Text) -> QuantOptions:
    from edgeq.convert.onnx_quants import QuantOptions

    options = QuantOptions(
        text,
        request.out,
        request.percentile,
        request.full_range,
        dialect=request.dialect,
        block_size=request.block_size,
        symmetric=request.symmetric,
        accuracy_level=request.accuracy_level,
        tied_bits=request.tied_bits,
        provider="cuda" if _for_cuda(request) else "",
        progress=request.progress,
    )
    if request.external_from is not None:
        options.external_from = parsed("--external-from", request.external_from, parse_size)
    return options


def _for_cuda(request: Request) -> bool:
    on_gpu = (
        request.target is not None and request.target.onnx is not None and request.target.onnx.api == "cuda"
    )
    return on_gpu or request.dialect == "cuda"


def _companions(request: Request, source: ModelSource) -> dict[Path, bytes]:
    """The small files to write beside the graph; raises OutputExistsError for another model's file of that name."""
    found: dict[Path, bytes] = {}
    for name, content in source.companions().items():
        found |= _checked(request, name, content)
    return found


def _checked(request: Request, name: str, content: bytes) -> dict[Path, bytes]:
    """The small file, unless it is there as it should be; raises OutputExistsError for another of that name."""
    target = request.out / name
    if target.is_file() and target.read_bytes() == content:
        return {}
    check_output(target, force=request.force)
    return {target: content}


def _prove(request: Request, source: ModelSource, text: Text, path: Path, quant: str) -> dict[str, Any]:
    from edgeq.evaluation import runtimes
    from edgeq.evaluation.proof import WINDOW, Reference, prove

    reference = Reference(source, text)

    def progress(done: int, total: int) -> None:
        request.progress("comparing with the float model", done, total)

    if request.to == "gguf":
        is_encoder = source.family.kind == "encoder"
        context = source.hp.context if is_encoder else 2 * WINDOW
        with runtimes.gguf_runtime(path, context, request.threads or usable_cores(), is_encoder) as runtime:
            return prove(reference, runtime, progress)
    proof = prove(reference, runtimes.OnnxRuntime(path, source.hp.pooling, request.threads), progress)
    if quant != "float32":
        proof["speed_against_float"] = _speed_against_float(request, source, text, path, quant)
        if proof["speed_against_float"] < 1:
            request.warn(
                f"{path.name} is slower than float here ({proof['speed_against_float']:.2f} times its speed)"
            )
    return proof


def _speed_against_float(request: Request, source: ModelSource, text: Text, path: Path, quant: str) -> float:
    """The quantized graph against the float one, which is built for this and thrown away.

    Decoders read a window of tokens; with only the weights quantized they generate, which is what that is for.
    """
    from edgeq.convert import onnx_graph
    from edgeq.convert.onnx_quants import WEIGHT_ONLY, calibration_samples
    from edgeq.evaluation.speed import speed_ratio
    from edgeq.formats.onnx.save import save_model
    from edgeq.runtimes.onnxruntime import encoder_feeds

    if source.family.kind == "encoder":
        tokenizer = source.tokenizer()
        tokenizer.enable_truncation(source.hp.context)
        lines = text.lines()[:_SPEED_BATCH]
        feeds = [encoder_feeds([tokenizer.encode(line).ids for line in lines])]
        output = "last_hidden_state" if source.hp.head == "none" else "logits"
    else:
        feeds, output = [next(calibration_samples(source, text))], "logits"
        if quant in WEIGHT_ONLY:
            feeds = [_one_token(feeds[0])] * _SPEED_BATCH
    request.progress("timing against float", 0, 1)
    with tempfile.TemporaryDirectory(prefix=".edgeq-float-", dir=request.out) as folder:
        float_path = Path(folder) / "model.onnx"
        save_model(onnx_graph.build(source, request.dialect), float_path, force=False)
        ratio = speed_ratio(path, float_path, feeds, output, request.threads or usable_cores())
    request.progress("timing against float", 1, 1)
    return ratio


def _one_token(window: Feeds) -> Feeds:
    """The last token of a window, after the others."""
    before = window["input_ids"].shape[1] - 1
    last: Feeds = {name: window[name][:, -1:] for name in ("input_ids", "position_ids")}
    past = {name: cache for name, cache in window.items() if name.startswith("past_key_values.")}
    caches: Feeds = {
        name: np.zeros((*cache.shape[:2], before, cache.shape[3]), np.float32) for name, cache in past.items()
    }
    return last | caches | {"attention_mask": window["attention_mask"]}
