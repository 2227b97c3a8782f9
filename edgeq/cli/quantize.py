"""``edgeq quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._dialect import Form
from edgeq.cli._effort import GGUFEffortOption
from edgeq.cli._options import (
    AccuracyOption,
    AsymmetricOption,
    BlockSizeOption,
    BudgetOption,
    ForceOption,
    FullRangeOption,
    ImatrixOption,
    TensorTypeOption,
    ThreadsOption,
    no_nan,
)
from edgeq.cli._output import JsonFlag
from edgeq.cli._quantize_options import Given, OnNan
from edgeq.cli._target import ContextOption, LossOption, TargetOption


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
    tensor_type: TensorTypeOption = None,
    imatrix: ImatrixOption = None,
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
    budget: BudgetOption = None,
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
    full_range: FullRangeOption = False,
    block_size: BlockSizeOption = None,
    asymmetric: AsymmetricOption = False,
    dialect: Annotated[
        Form | None,
        typer.Option(
            help="ONNX int2, int4, int8-blocks: ort (the default) writes ONNX Runtime's MatMulNBits and "
            "GatherBlockQuantized, standard DequantizeLinear of ONNX 21 (of ONNX 25 in 2 bits)."
        ),
    ] = None,
    accuracy_level: AccuracyOption = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest",
            help="ONNX int2, int4, int8-blocks: round to the nearest, the bytes of ONNX Runtime's own quantizer; "
            "without it each block's scale is searched, for less error.",
        ),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="ONNX int2, int4, int8-blocks, with --calibration: how the integers of linear layers are chosen on "
            "what these read: descent (the least error), gptq (quicker) or clip (scales alone)."
        ),
    ] = None,
    per_tensor: Annotated[
        bool,
        typer.Option(
            "--per-tensor",
            help="ONNX int8, int8-dynamic, float8: one scale for all of a weight, not one for each output channel: for "
            "runtimes that know no other, with more error. --node-type decides for single layers.",
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
            "16 bits) or dynamic; int8:tensor says that the weight has one scale, int8:channel one for each output. "
            "The pattern is a regular expression of the names of a layer, its input and its weight; may be repeated, "
            "the first match decides. One that decides nothing is an error.",
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
            callback=no_nan,
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
    threads: ThreadsOption = 0,
    force: ForceOption = False,
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

    `edgeq quantize model-F16.gguf -o model-Q4_K_M.gguf --quant Q4_K_M --budget budget.toml`
    """
    given = Given(**locals())
    from edgeq.cli import _quantize_gguf, _quantize_onnx

    given.check()
    (_quantize_onnx if given.is_onnx else _quantize_gguf).quantize(given)
