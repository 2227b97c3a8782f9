"""``edgeq eval``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._options import Engine, ForceOption, KVType, ThreadsOption
from edgeq.cli._output import JsonFlag, print_json, progress_bar


class ScoredTokens(StrEnum):
    """Which tokens of a window count."""

    half = "half"
    all = "all"


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    model: Annotated[
        Path, typer.Argument(help="A GGUF file, an ONNX file with its tokenizer.json, or a model directory.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="A UTF-8 text: any for models that generate, one sentence a line for encoders, for classifiers lines "
            'of {"text": "...", "label": "..."}. Without it, a small built-in text.',
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            help="The model to compare with, of the same tokens: the float directory, an F16 file, another export; or "
            "a log that --save-log wrote.",
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs it; auto is onnxruntime for an ONNX file, llama.cpp for a decoder's GGUF file where it is "
            "installed, and embedded (edgeq's own) for the rest. The reference runs in it, too, where it can."
        ),
    ] = Engine.auto,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "-c",
            help="Tokens of a window, each read without the ones before; 512 (as in llama-perplexity) where the model "
            "and the text have so many.",
        ),
    ] = None,
    scored: Annotated[
        ScoredTokens,
        typer.Option(
            help="half: the second half of each window counts, as in llama-perplexity; all: every token but the first."
        ),
    ] = ScoredTokens.half,
    max_tokens: Annotated[
        int | None, typer.Option(min=4, help="Read at most this many tokens; without it, the whole text.")
    ] = None,
    kv_type: Annotated[
        KVType | None,
        typer.Option(
            help="What the embedded engine keeps the model's keys and values in; with the same file as --reference, "
            "what that alone costs."
        ),
    ] = None,
    save_log: Annotated[
        Path | None,
        typer.Option(
            help="Write the model's likeliest tokens of every place to this .safetensors file, to be given as "
            "--reference later."
        ),
    ] = None,
    log_top: Annotated[
        int,
        typer.Option(min=5, help="Tokens of every place that --save-log keeps; KL sees the rest as one."),
    ] = 256,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='JSONL of {"prompt": "...", "schema": {...}} (or "messages"): how many answers begin with JSON that '
            "the schema allows."
        ),
    ] = None,
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of an answer to --prompts at most.")
    ] = 256,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Look at every tensor: its error, its layer's, and what it alone does to the answers; a graph beside "
            "its float graph, other formats beside the float directory or file.",
        ),
    ] = False,
    speed: Annotated[
        bool, typer.Option("--speed/--no-speed", help="Time the model, and note its memory and energy.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A folder whose edgeq.json and report.html take the result, too."
        ),
    ] = None,
    budget: Annotated[
        Path | None,
        typer.Option(help="A budget.toml of limits; one line for each that is broken, and exit code 3."),
    ] = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure how good a model's answers are on a text, how far from a reference's, and what they cost.

    **Examples**

    `edgeq eval out/model-Q4_K_M.gguf --data heldout.txt --reference tests/assets/tinylm`

    `edgeq eval model_int8.onnx --data sentences.txt --reference path/to/all-MiniLM-L6-v2 --budget budget.toml`

    `edgeq eval model-Q4_K_M.gguf -d heldout.txt -r float/ --layers -o out/`

    `edgeq eval model_int8.onnx -d sentences.txt -r model.onnx --layers -o out/`
    """
    from edgeq.cli._evaluation import print_evaluation, say_broken
    from edgeq.evaluate import Request, run
    from edgeq.evaluation.budget import read_budget
    from edgeq.kernels_cpu.cached import CACHE_TYPES
    from edgeq.report.files import JSON_NAME, read_exports, write_evaluation

    limits = read_budget(budget) if budget else None
    if out is not None:
        read_exports(out / JSON_NAME)  # a file there that is not ours is refused before the work
    with progress_bar() as progress:
        record = run(
            Request(
                model=model,
                data=data,
                reference=reference,
                engine=engine.value,
                context=context,
                scored=scored.value,
                max_tokens=max_tokens,
                cache_type=None if kv_type is None else CACHE_TYPES[kv_type.value],
                save_log=save_log,
                log_top=log_top,
                prompts=prompts,
                answer_tokens=answer_tokens,
                layers=layers,
                speed=speed,
                threads=threads,
                force=force,
                progress=progress,
            )
        )
    broken = limits.broken(record) if limits else []
    record["broken"] = broken
    written = write_evaluation(out, record) if out else []
    if as_json:
        print_json(record)
    else:
        print_evaluation(record, written)
    say_broken(broken)
