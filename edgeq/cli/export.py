"""``edgeq export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli import _allocation
from edgeq.cli._dialect import Dialect
from edgeq.cli._effort import GGUFEffortOption
from edgeq.cli._export_optimum import Exporter
from edgeq.cli._export_options import Format, Given, Method
from edgeq.cli._options import (
    AccuracyOption,
    AsymmetricOption,
    BlockSizeOption,
    BudgetOption,
    ForceOption,
    FullRangeOption,
    ImatrixOption,
    TensorTypeOption,
)
from edgeq.cli._output import JsonFlag
from edgeq.cli._target import ContextOption, LossOption, TargetOption


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
            "For onnx: float32, float16, int4, int8-blocks, nf4 and fp4 (weights only), int8 (static, QDQ), "
            "int8-dynamic.",
        ),
    ] = None,
    target: TargetOption = None,
    context: ContextOption = 0,
    most_loss: LossOption = None,
    max_size: _allocation.SizeOption = None,
    target_bpw: _allocation.BpwOption = None,
    max_kl: _allocation.KlOption = None,
    min_cosine: _allocation.CosineOption = None,
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
    full_range: FullRangeOption = False,
    dialect: Annotated[
        Dialect | None,
        typer.Option(
            help="ONNX: the operators of a model that generates, and the form of blocked weights. standard (the "
            "default): ONNX opset 23; ort: ONNX Runtime's own, for onnxruntime-genai and transformers.js; cuda: those "
            "that its CUDA provider runs, blocked weights with float16."
        ),
    ] = None,
    block_size: BlockSizeOption = None,
    asymmetric: AsymmetricOption = False,
    accuracy_level: AccuracyOption = None,
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
    imatrix: ImatrixOption = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="With --calibration, to gguf and to onnx int4 and int8-blocks: how numbers are chosen on it. descent "
            "is that of --effort best; gptq is quicker; clip only chooses scales; awq scales columns, too, and divides "
            "what feeds them."
        ),
    ] = None,
    tensor_type: TensorTypeOption = None,
    app: Annotated[
        list[str] | None,
        typer.Option(
            "--app",
            help="Also lay the files out as a library loads them, in a folder of its name: transformers.js, "
            "onnxruntime-web, onnxruntime-react-native; wllama, node-llama-cpp, llama.rn, ollama, lm-studio, edgeq. "
            "May be repeated. (The kinds of app that `edgeq plan --app` knows are about memory.)",
        ),
    ] = None,
    budget: BudgetOption = None,
    proof: Annotated[
        bool,
        typer.Option(
            "--proof/--no-proof", help="Open the file in its runtime and compare with the float model."
        ),
    ] = True,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", "-t", min=0, help="Threads of the runtime in the proof; 0 is one for each core."
        ),
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
    force: ForceOption = False,
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
    given = Given(**locals())
    from edgeq.cli._export import run_export

    run_export(given)
