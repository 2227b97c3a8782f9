"""``edgeq quantize``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli._dialect import Form
from edgeq.cli._effort import GGUFEffortOption
from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table, progress_bar, warn
from edgeq.cli._target import ContextOption, LossOption, TargetOption
from edgeq.formats.effort import Effort


class OnNan(StrEnum):
    """What a NaN or infinite weight does."""

    error = "error"
    zero = "zero"


def register(app: typer.Typer) -> None:
    app.command("quantize")(quantize)


def quantize(
    source: Annotated[
        Path,
        typer.Argument(help="A GGUF file (a first shard reads all), a model directory, or an ONNX file."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The .gguf or .onnx file to write, or a folder for one named after the quant. ONNX: without it, "
            "NAME_int8.onnx beside the source.",
        ),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            "-q",
            help="GGUF: llama.cpp's name of the mix, any case: Q4_K_M, IQ4_XS, Q8_0, F16 … "
            "ONNX: int8 (static, QDQ), int8-dynamic, int4 and int8-blocks (weights only), float16, bfloat16; "
            "without it, the int8 that stays within 1 % of the float answers.",
        ),
    ] = None,
    target: TargetOption = None,
    context: ContextOption = 0,
    most_loss: LossOption = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            help="GGUF: PATTERN=TYPE for single tensors, such as ffn_down=Q6_K; may be repeated, the first match "
            "decides. A pattern that matches nothing is an error.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            help="GGUF: an importance matrix (`edgeq calibrate`, or llama.cpp's own, GGUF or .dat)."
        ),
    ] = None,
    effort: GGUFEffortOption = None,
    split_max_size: Annotated[
        str | None, typer.Option(help="GGUF: write shards of at most this size, such as 2G or 500M.")
    ] = None,
    nan: Annotated[
        OnNan | None,
        typer.Option(help="GGUF: what NaN and infinite weights do: stop (error), or become zero."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="GGUF: take a source that is quantized already.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="GGUF: print each tensor's type, its fallback and the size; write nothing."
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="ONNX: the data that ranges and proof come from: a text file or JSON lines (with the tokenizer "
            "beside the model), or a folder of .npz, .npy or image files. GGUF: a text that the model reads, so that "
            "codes and scales fit what its layers read (--effort best, which it implies)."
        ),
    ] = None,
    calibration_method: Annotated[
        str | None,
        typer.Option(
            help="ONNX: minmax (the default), moving-average, percentile:99.99, entropy, mse or mean-std:6."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="ONNX: read so many samples at most; without it, all.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="ONNX: HEIGHTxWIDTH of images, where the graph does not say it.")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="ONNX: how images become numbers: `imagenet`, or MEANS/DEVIATIONS of numbers from 0 to 1, such as "
            "0.5/0.5 or 0.485,0.456,0.406/0.229,0.224,0.225."
        ),
    ] = None,
    isa: Annotated[
        str | None,
        typer.Option(
            help="ONNX int8: the CPU that will run it: generic (the default), avx2, avx-vnni, avx512-vnni, amx, "
            "neon-dotprod or neon-i8mm."
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            help="ONNX int8: types of activations and weights, if not the CPU's: u8s8, s8s8 or u8u8."
        ),
    ] = None,
    full_range: Annotated[
        bool,
        typer.Option("--full-range", help="ONNX int8: do not limit neighbouring weights, whatever the CPU."),
    ] = False,
    block_size: Annotated[
        int | None,
        typer.Option(help="ONNX weights in blocks: 16, 32 (the default), 64, 128 or 256 weights a scale."),
    ] = None,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric",
            help="ONNX int2, int4, int8-blocks: a zero point for each block: nearer, a little slower.",
        ),
    ] = False,
    dialect: Annotated[
        Form | None,
        typer.Option(
            help="ONNX int2, int4, int8-blocks: ort (the default) writes ONNX Runtime's MatMulNBits and "
            "GatherBlockQuantized, standard DequantizeLinear of ONNX 21 (of ONNX 25 in 2 bits)."
        ),
    ] = None,
    accuracy_level: Annotated[
        int | None,
        typer.Option(
            help="ONNX int2, int4, int8-blocks: 4 (the default) rounds activations to int8 while multiplying, 1 does "
            "not and is slower."
        ),
    ] = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest",
            help="ONNX int2, int4, int8-blocks: round to the nearest, the bytes of ONNX Runtime's own quantizer; "
            "without it each block's scale is searched, for less error.",
        ),
    ] = False,
    per_tensor: Annotated[
        bool,
        typer.Option(
            "--per-tensor",
            help="ONNX float8: one scale for all of a weight, not one for each output channel.",
        ),
    ] = False,
    ort: Annotated[
        bool,
        typer.Option(
            "--ort",
            help="ONNX: write the file in ONNX Runtime's mobile format (.ort), too, with the list of operators that a "
            "build for it needs.",
        ),
    ] = False,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-float",
            help="ONNX: a regular expression of node or tensor names to leave alone; may be repeated.",
        ),
    ] = None,
    node_type: Annotated[
        list[str] | None,
        typer.Option(
            "--node-type",
            help="ONNX int8, int8-dynamic: PATTERN=TYPE for single layers: float, int8 (static), int16 (activations of "
            "16 bits) or dynamic. The pattern is a regular expression of the names of a layer, its input and its "
            "weight; may be repeated, the first match decides. One that decides nothing is an error.",
        ),
    ] = None,
    exempt_to: Annotated[
        str | None,
        typer.Option(
            "--exempt-to",
            help="ONNX int8: what layers become that break the target: float (the default), or int16 (activations of "
            "16 bits; ONNX Runtime's CPU computes them in float, and slower).",
        ),
    ] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            help="ONNX: put layers back to float until every output is this close, or end with exit code 3 (0.99)."
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="ONNX: the same by the KL divergence (nats) of the outputs named as logits, scores or classes.",
        ),
    ] = None,
    allow_slower: Annotated[
        bool, typer.Option("--allow-slower", help="ONNX: take a file that is slower than float here.")
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="ONNX: calibrate anew, and do not keep what was seen for the next run on the same model and data.",
        ),
    ] = False,
    no_proof: Annotated[
        bool, typer.Option("--no-proof", help="ONNX: compare with nothing, and have no gates.")
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", "-t", min=0, help="Threads to work with; 0 is all cores.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Quantize a GGUF file or a model directory to GGUF, or any ONNX file to ONNX with a proof.

    **Examples**

    `edgeq quantize model-F16.gguf -o model-Q4_K_M.gguf --quant Q4_K_M`

    `edgeq quantize tests/assets/tinylm -o out/ --quant Q3_K_M --tensor-type ffn_down=Q5_K --dry-run`

    `edgeq quantize model.onnx`

    `edgeq quantize model-F16.gguf -o model-Q4_K_M.gguf --quant Q4_K_M --effort best --calibration text.txt`

    `edgeq quantize model.onnx -o model_int8.onnx --quant int8 --calibration samples/`

    `edgeq quantize model-F16.gguf -o out/ --target iphone-15-pro`
    """
    from edgeq.cli import _quantize_onnx as onnx
    from edgeq.errors import UsageError

    for_gguf = {
        "--tensor-type": tensor_type,
        "--imatrix": imatrix,
        "--effort": effort,
        "--split-max-size": split_max_size,
        "--nan": nan,
        "--allow-requantize": allow_requantize,
        "--dry-run": dry_run,
    }
    for_onnx = {
        "--calibration-method": calibration_method,
        "--samples": samples,
        "--resize": resize,
        "--normalize": normalize,
        "--isa": isa,
        "--scheme": scheme,
        "--full-range": full_range,
        "--block-size": block_size,
        "--asymmetric": asymmetric,
        "--dialect": None if dialect is None else dialect.value,
        "--accuracy-level": accuracy_level,
        "--nearest": nearest,
        "--per-tensor": per_tensor,
        "--ort": ort,
        "--keep-float": keep_float,
        "--node-type": node_type,
        "--exempt-to": exempt_to,
        "--min-cosine": min_cosine,
        "--max-kl": max_kl,
        "--allow-slower": allow_slower,
        "--no-cache": no_cache,
        "--no-proof": no_proof,
    }
    if target is None and (context or most_loss is not None):
        raise UsageError("--context and --most-loss go with --target")
    if onnx.is_onnx(source):
        onnx.only(source, "GGUF", for_gguf)
        if target is not None:
            quant, for_onnx["--isa"] = onnx.for_target(
                target, quant, isa, bool(calibration), context, most_loss
            )
        options: dict[str, Any] = {option: value for option, value in for_onnx.items() if value}
        if calibration is not None:
            options["--calibration"] = calibration
        onnx.quantize(source, out, quant, options, threads=threads, force=force, as_json=as_json)
        return
    onnx.only(source, "ONNX", for_onnx)
    if target is not None:
        quant = _for_target(target, source, quant, context, most_loss)
    if out is None or quant is None:
        missing = "--output" if out is None else "--quant"
        raise UsageError(
            f"{missing} is missing: to GGUF, `edgeq quantize SOURCE -o OUT -q Q4_K_M`, or --target DEVICE"
        )
    _quantize_gguf(
        as_json,
        source=source,
        out=out,
        quant=quant,
        tensor_types=tensor_type or (),
        imatrix=imatrix,
        calibration=calibration,
        effort=effort or (Effort.best if calibration else Effort.normal),
        split_max_size=split_max_size,
        nan=(nan or OnNan.error).value,
        allow_requantize=allow_requantize,
        dry_run=dry_run,
        force=force,
        threads=threads,
    )


def _for_target(target: str, source: Path, quant: str | None, context: int, most_loss: float | None) -> str:
    """The mix for a device."""
    from edgeq.cli._target import chosen
    from edgeq.formats.gguf.mixes import file_type
    from edgeq.options import parsed
    from edgeq.planning.formats import GGUF_QUANTS

    names = [parsed("--quant", quant, file_type).name] if quant else list(GGUF_QUANTS)
    fixed = names[0] if quant else ""
    found = chosen(
        target, source, {"gguf": names}, to="gguf", quant=fixed, context=context, most_loss=most_loss
    )
    return found.quant


def _quantize_gguf(as_json: bool, threads: int, **options: Any) -> None:
    from edgeq.devices.cpu import usable_cores
    from edgeq.kernels_cpu.threads import set_threads
    from edgeq.quantize import Request, run
    from edgeq.report.facts import megabytes

    set_threads(threads or usable_cores())
    with progress_bar() as progress:
        record = run(Request(**options, progress=progress, warn=warn))
    if as_json:
        print_json(record)
        return
    if options["dry_run"]:
        _print_plan(record)
    rows = [
        ("source", f"{record['source']} ({record['architecture']}, {record['parameters']:,} parameters)"),
        (
            "quant",
            f"{record['quant']}, {record['bits_per_weight']:.2f} bits per weight, effort {record['effort']}",
        ),
    ]
    if options["dry_run"]:
        rows.append(("size", f"{megabytes(record['tensor_bytes'])} of tensors"))
    else:
        rows.append(("size", megabytes(record["written_bytes"])))
        rate = record["values_per_second"] / 1e6
        rows.append(("time", f"{record['seconds']:.1f} s, {rate:,.0f} million values a second"))
        rows += [("written", path) for path in record["files"]]
    print_facts(rows)


def _print_plan(record: dict[str, Any]) -> None:
    """The table of a dry run."""
    rows = [
        (
            t["name"],
            " × ".join(map(str, t["shape"])),
            t["stored_type"] or "",
            t["type_name"] + (f" (not {t['wanted_type']})" if t["type_name"] != t["wanted_type"] else ""),
            f"{t['nbytes']:,}",
            t["reason"],
        )
        for t in record["tensors"]
    ]
    print_table(("tensor", "shape", "from", "to", "bytes", "why"), rows, right=(4,))
    print()
