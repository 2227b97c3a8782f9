"""``edgeq run``."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._output import JsonFlag, print_json, warn


class Engine(StrEnum):
    """What runs the model."""

    auto = "auto"
    embedded = "embedded"
    llama_cpp = "llama.cpp"
    onnxruntime = "onnxruntime"


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    model: Annotated[Path, typer.Argument(help="A GGUF file, an exported ONNX file, or a model directory.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The text to continue.")],
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=1, help="Tokens to generate at most.")] = 128,
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs it; auto is onnxruntime for an ONNX file and embedded (edgeq's own) for the rest."
        ),
    ] = Engine.auto,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            "--temp",
            min=0,
            help="0 takes the likeliest token each time; higher samples more freely, 0.8 is usual.",
        ),
    ] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample among this many likeliest tokens; 0 is all.")] = 0,
    top_p: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Sample among the likeliest tokens of this total probability; 1 is all."
        ),
    ] = 1.0,
    seed: Annotated[
        int,
        typer.Option("--seed", "-s", min=0, help="With a temperature, the same seed gives the same text."),
    ] = 0,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", "-t", min=0, help="Threads of llama.cpp or ONNX Runtime; 0 is one for each core."
        ),
    ] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Generate text with the embedded engine, llama.cpp or ONNX Runtime.

    **Example**

    `edgeq run out/model-Q4_K_M.gguf -p "def main(" -n 40`
    """
    from edgeq.devices.cpu import usable_cores
    from edgeq.engine.decoders import open_decoder
    from edgeq.engine.generate import Timing, generate, stream_text
    from edgeq.engine.sampling import Sampler
    from edgeq.errors import InputError, UsageError

    if not math.isfinite(temperature) or not math.isfinite(top_p):
        raise UsageError("--temperature and --top-p must be finite numbers")
    # Below this the likeliest token is certain in float64, and the division would overflow.
    sampler = Sampler(temperature if temperature > 1e-6 else 0.0, top_k, top_p, seed)
    threads = threads or usable_cores()
    if any("\ud800" <= c <= "\udfff" for c in prompt):
        raise InputError("--prompt: is not UTF-8; check the terminal's encoding")
    # llama.cpp allots its cache at the start; a token is at least one byte of the prompt, plus a few special ones.
    room = len(prompt.encode()) + tokens + 8
    with open_decoder(model, engine.value, threads, room) as opened:
        ids = opened.tokenizer.encode(prompt).ids
        if not ids:
            raise InputError("--prompt: is empty; give the text to continue")
        if len(ids) + tokens > opened.context:
            warn(f"{len(ids) + tokens} tokens are more than the {opened.context} the model was trained for")
        timing = Timing()
        pieces = stream_text(
            opened.tokenizer, generate(opened.decoder, ids, tokens, sampler, opened.stop, timing)
        )
        text = ""
        if not as_json:
            print(prompt, end="", flush=True)
        for piece in pieces:
            text += piece
            if not as_json:
                print(piece, end="", flush=True)
        decode_rate = (len(timing.tokens) - 1) / timing.seconds if timing.seconds else 0.0
        if as_json:
            print_json(
                {
                    "engine": opened.engine,
                    "prompt": prompt,
                    "text": text,
                    "tokens": timing.tokens,
                    "prompt_tokens": timing.prompt_tokens,
                    "prompt_seconds": timing.prompt_seconds,
                    "decode_tokens_per_second": decode_rate,
                }
            )
            return
        print()
        sys.stdout.flush()
        prompt_rate = timing.prompt_tokens / timing.prompt_seconds
        warn(
            f"{opened.engine}: {timing.prompt_tokens} tokens read at {prompt_rate:,.0f}/s, "
            f"{len(timing.tokens)} generated at {decode_rate:,.0f}/s"
        )
