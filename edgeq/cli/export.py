"""``edgeq export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli import _allocation
from edgeq.cli._dialect import Dialect
from edgeq.cli._effort import GGUFEffortOption
from edgeq.cli._export_optimum import Exporter
from edgeq.cli._export_optimum import export as export_with_optimum
from edgeq.cli._output import JsonFlag, print_facts, print_json, progress_bar, warn
from edgeq.cli._target import ContextOption, LossOption, TargetOption

if TYPE_CHECKING:
    from edgeq.targeting.settings import Settings


class Format(StrEnum):
    """The runtimes' formats."""

    gguf = "gguf"
    onnx = "onnx"


class Method(StrEnum):
    """Methods that need to know what layers read (``edgeq.methods``)."""

    descent = "descent"
    gptq = "gptq"
    awq = "awq"


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A model directory (config.json, safetensors), a hub id, or, to onnx, a GGUF file."
        ),
    ],
    to: Annotated[
        Format | None, typer.Option("--to", help="The format: gguf for llama.cpp, onnx for ONNX Runtime.")
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            "-q",
            help="For gguf llama.cpp's name of the mix, any case: Q4_K_M, Q5_K_M, Q8_0, IQ4_XS, Q2_K, F16 … "
            "For onnx: float32, float16, int4 and int8-blocks (weights only), int8 (static, QDQ), int8-dynamic.",
        ),
    ] = None,
    target: TargetOption = None,
    context: ContextOption = 0,
    most_loss: LossOption = None,
    max_size: _allocation.SizeOption = None,
    target_bpw: _allocation.BpwOption = None,
    max_kl: _allocation.KlOption = None,
    min_tps: _allocation.TpsOption = None,
    types: _allocation.TypesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder to write to; without it, ./NAME-edgeq of the model's name."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A UTF-8 text file to calibrate and compare on: one sentence a line for sentence encoders, any "
            "text for models that generate. Without it, a small built-in text. To gguf, and to onnx "
            "int4 and int8-blocks, it calibrates with --effort best."
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            help="ONNX int8: activation ranges hold this per cent of the values, such as 99.99; without it, all."
        ),
    ] = None,
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range",
            help="ONNX int8: do not limit neighbouring weights. A little more exact on CPUs with VNNI and on ARM, but "
            "x86 without VNNI saturates and answers worse; without this option no CPU saturates.",
        ),
    ] = False,
    dialect: Annotated[
        Dialect | None,
        typer.Option(
            help="ONNX: the operators of a model that generates, and the form of blocked weights. standard (the "
            "default): ONNX opset 23; ort: ONNX Runtime's own, for onnxruntime-genai and transformers.js; cuda: those "
            "that its CUDA provider runs, blocked weights with float16."
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(help="ONNX int4, int8-blocks: weights that share a scale: 16, 32 (the default) … 256."),
    ] = None,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric",
            help="ONNX int4, int8-blocks: a zero point for each block: nearer, a little slower.",
        ),
    ] = False,
    accuracy_level: Annotated[
        int | None,
        typer.Option(
            help="ONNX int4, int8-blocks in the ort dialect: 4 (the default) rounds activations to int8 while "
            "multiplying, 1 does not and is slower."
        ),
    ] = None,
    tied_bits: Annotated[
        int | None,
        typer.Option(
            help="ONNX int4: bits of an embedding table that is the output matrix, too: 8 (the default) or 4, which is "
            "smaller and faster and answers worse."
        ),
    ] = None,
    external_from: Annotated[
        str | None,
        typer.Option(
            help="ONNX: weights of this size and more go into a file of their own, such as 500M; without it, from "
            "1800M on, where one file could not hold them."
        ),
    ] = None,
    effort: GGUFEffortOption = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            help="GGUF: an importance matrix (`edgeq calibrate`, or llama.cpp's own, GGUF or .dat)."
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="With --calibration, to gguf and to onnx int4 and int8-blocks: how numbers are chosen on it. descent "
            "is that of --effort best; gptq is quicker; awq scales columns into the norms before them."
        ),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            help="GGUF: PATTERN=TYPE for single tensors, such as ffn_down=Q6_K; may be repeated, the first match "
            "decides. A pattern that matches nothing is an error.",
        ),
    ] = None,
    app: Annotated[
        list[str] | None,
        typer.Option(
            "--app",
            help="Also lay the files out as a library loads them, in a folder of its name: transformers.js, "
            "onnxruntime-web, onnxruntime-react-native; wllama, node-llama-cpp, llama.rn, ollama, lm-studio, edgeq. "
            "May be repeated. (The kinds of app that `edgeq plan --app` knows are about memory.)",
        ),
    ] = None,
    budget: Annotated[
        Path | None,
        typer.Option(
            help="A budget.toml of limits (edgeq eval knows them): the file is evaluated beside the model on the "
            "calibration text; one line for each limit that is broken, and exit code 3."
        ),
    ] = None,
    proof: Annotated[
        bool,
        typer.Option(
            "--proof/--no-proof", help="Open the file in its runtime and compare with the float model."
        ),
    ] = True,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of the runtime in the proof; 0 is one for each core.")
    ] = 0,
    exporter: Annotated[
        Exporter,
        typer.Option(
            help="ONNX: who makes the float graph: edgeq, or optimum (extra [optimum]) for families that edgeq does "
            "not know; quantized as `edgeq quantize model.onnx` does."
        ),
    ] = Exporter.edgeq,
    exporter_python: Annotated[
        Path | None,
        typer.Option(help="The Python interpreter that has optimum, where it is not this one."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace output files that exist.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Convert a model, prove the result in its real runtime, and write a report.

    **Examples**

    `edgeq export tests/assets/tinylm --to gguf --quant Q4_K_M -o out/`

    `edgeq export path/to/all-MiniLM-L6-v2 --to onnx --quant int8 --calibration sentences.txt -o out/`

    `edgeq export model-Q4_0.gguf --to onnx --quant int4 --dialect ort -o out/`

    `edgeq export path/to/electra-small --to onnx --quant int8 --exporter optimum --exporter-python env/bin/python`

    `edgeq export path/to/SmolLM2-135M-Instruct --to gguf --quant Q4_K_M --app ollama --app wllama -o out/`

    `edgeq export tests/assets/tinylm --target raspberry-pi-5 -o out/`

    `edgeq export tests/assets/tinylm --max-kl 0.02 --calibration text.txt -o out/`
    """
    from edgeq.apps.manifest import note_gates
    from edgeq.cli._evaluation import say_broken
    from edgeq.errors import GateError, UsageError
    from edgeq.evaluation.apart import evaluate_apart
    from edgeq.evaluation.budget import read_budget
    from edgeq.export import Request, run
    from edgeq.formats.effort import Effort
    from edgeq.hub import model_name, resolve
    from edgeq.report.facts import facts

    wanted = _allocation.wanted(max_size, target_bpw, max_kl, min_tps, types, target, to and to.value)
    settings = None
    if wanted:
        _allocation.check_alone(quant, context, most_loss, tensor_type, imatrix)
        to, quant = to or Format.gguf, wanted.label()
    elif target is not None:
        folder = resolve(model)
        settings = _for_target(target, folder, to, quant, context, most_loss)
        to, quant = Format(settings.to), settings.quant
        if settings.onnx is not None:
            full_range = full_range or (quant.startswith("int8") and not settings.onnx.reduced_range)
            dialect = dialect or Dialect(settings.onnx.dialect)
            block_size = block_size or (settings.onnx.block_size if quant in _BLOCKED else None)
    elif context or most_loss is not None:
        raise UsageError("--context and --most-loss go with --target")
    if to is None or quant is None:
        raise UsageError("give --to and --quant, or --target DEVICE, which chooses them")
    if percentile is not None and (to is not Format.onnx or quant.lower() != "int8"):
        raise UsageError("--percentile goes with --to onnx --quant int8")
    if percentile is not None and not 50 < percentile <= 100:
        raise UsageError(f"--percentile {percentile:g}: must be above 50 and at most 100")
    if full_range and (to is not Format.onnx or not quant.lower().startswith("int8")):
        raise UsageError("--full-range goes with --to onnx --quant int8 or int8-dynamic")
    check_blocks(to, "int4" if wanted else quant, dialect, block_size, asymmetric, accuracy_level, tied_bits)
    only_onnx = {"--dialect": dialect, "--external-from": external_from}
    for option, chosen in only_onnx.items():
        if chosen and to is not Format.onnx:
            raise UsageError(f"{option} goes with --to onnx")
    blocks = quant.lower().replace("_", "-") in ("int4", "int8-blocks")
    if method is not None and (calibration is None or (to is Format.onnx and not blocks)):
        raise UsageError("--method goes with --calibration, to gguf and to onnx int4 and int8-blocks")
    if method is not None and imatrix is not None:
        raise UsageError("--method measures what --imatrix holds, and more: give one of them")
    calibrated_blocks = effort is Effort.best and calibration is not None and blocks
    if effort is not None and to is Format.onnx and not calibrated_blocks:
        raise UsageError(
            "--effort goes with --to gguf; as best, with --calibration, with --quant int4 and int8-blocks too"
        )
    only_gguf = {"--imatrix": imatrix, "--tensor-type": tensor_type}
    for option, value in only_gguf.items():
        if value and to is not Format.gguf:
            raise UsageError(f"{option} goes with --to gguf")
    if exporter is Exporter.optimum and to is not Format.onnx:
        raise UsageError("--exporter optimum goes with --to onnx")
    if exporter_python is not None and exporter is not Exporter.optimum:
        raise UsageError("--exporter-python goes with --exporter optimum")
    limits = read_budget(budget) if budget else None
    folder = resolve(model)
    if exporter is Exporter.optimum:
        options = {
            "quant": quant,
            "python": exporter_python,
            "calibration": calibration,
            "block_size": block_size,
            "full_range": full_range,
            "proof": proof,
            "force": force,
            "threads": threads,
        }
        others = {
            "--percentile": percentile,
            "--dialect": dialect,
            "--asymmetric": asymmetric,
            "--accuracy-level": accuracy_level,
            "--tied-bits": tied_bits,
            "--external-from": external_from,
            "--app": app,
            "--target": settings,
            "--effort": effort,
            "--budget": budget,
            "--max-size, --target-bpw, --max-kl": wanted,
        }
        destination = out or Path(f"{model_name(folder)}-edgeq")
        export_with_optimum(folder, destination, options, others, as_json=as_json)
        return
    if quant in _BLOCKED and accuracy_level is None and settings is not None and settings.onnx is not None:
        accuracy_level = settings.onnx.accuracy_level
    with progress_bar() as progress:
        request = Request(
            model=folder,
            to=to.value,
            quant=quant,
            out=out or Path(f"{model_name(folder)}-edgeq"),
            calibration=calibration,
            percentile=percentile,
            full_range=full_range,
            dialect=(dialect or Dialect.standard).value,
            block_size=block_size or 32,
            symmetric=not asymmetric,
            accuracy_level=4 if accuracy_level is None else accuracy_level,
            tied_bits=tied_bits or 8,
            external_from=external_from,
            effort=effort or Effort.normal,
            imatrix=imatrix,
            method=None if method is None else method.value,
            tensor_types=tensor_type or (),
            apps=app or (),
            proof=proof,
            force=force,
            threads=threads,
            target=settings,
            wanted=wanted,
            progress=progress,
            warn=warn,
        )
        result = run(request)
        broken = []
        if limits is not None:
            progress("checking the budget", 0, 1)
            measured = evaluate_apart(result.path, folder, calibration, result.path.parent, threads)
            broken = result.record["broken"] = limits.broken(measured)
            for bundle in result.record.get("apps", ()):
                bundle["gates"] = broken
                note_gates(Path(bundle["folder"]), broken)
    if as_json:
        print_json(result.record)
    else:
        for note in result.record["notes"][:4]:
            warn(note)
        print_facts([*facts(result.record), *(("written", str(path)) for path in result.files)])
    say_broken(broken)
    if result.refused:
        raise GateError("; ".join(result.refused))


_BLOCKED = ("int4", "int8-blocks")


def _for_target(
    target: str, folder: Path, to: Format | None, quant: str | None, context: int, most_loss: float | None
) -> Settings:
    """Any format that this command makes, or those that --to and --quant leave."""
    from edgeq.cli._target import chosen
    from edgeq.convert.onnx_file import canonical_quant
    from edgeq.errors import UsageError
    from edgeq.formats.gguf.mixes import file_type
    from edgeq.options import parsed
    from edgeq.planning.formats import GGUF_QUANTS, ONNX_BLOCKS, ONNX_QUANTS

    quants = {"gguf": list(GGUF_QUANTS), "onnx": [*ONNX_QUANTS, *ONNX_BLOCKS]}
    if quant is not None and to is None:
        raise UsageError("--quant goes with --to")
    if quant is not None and to is not None:
        quant = canonical_quant(quant) if to is Format.onnx else parsed("--quant", quant, file_type).name
        quants = {to.value: [quant]}
    return chosen(
        target,
        folder,
        quants,
        to=to.value if to else "",
        quant=quant or "",
        context=context,
        most_loss=most_loss,
    )


def check_blocks(
    to: Format,
    quant: str,
    dialect: Dialect | None,
    block_size: int | None,
    asymmetric: bool,
    accuracy_level: int | None,
    tied_bits: int | None,
) -> None:
    """Raise UsageError for options of blocked weights that do not go with the rest, or with each other."""
    from edgeq.errors import UsageError
    from edgeq.formats.onnx.blocked import SIZES

    blocks = to is Format.onnx and quant.lower().replace("_", "-") in ("int4", "int8-blocks")
    given = {
        "--block-size": block_size is not None,
        "--asymmetric": asymmetric,
        "--accuracy-level": accuracy_level is not None,
        "--tied-bits": tied_bits is not None,
    }
    for option, is_given in given.items():
        if is_given and not blocks:
            raise UsageError(f"{option} goes with --to onnx --quant int4 or int8-blocks")
    if accuracy_level is not None and dialect not in (Dialect.ort, Dialect.cuda):
        raise UsageError(
            "--accuracy-level goes with --dialect ort or cuda: the standard form leaves it to the session"
        )
    for option, number, allowed in (
        ("--block-size", block_size, SIZES),
        ("--accuracy-level", accuracy_level, (1, 4)),
        ("--tied-bits", tied_bits, (4, 8)),
    ):
        if number is not None and number not in allowed:
            raise UsageError(f"{option} {number}: must be one of {', '.join(map(str, allowed))}")
