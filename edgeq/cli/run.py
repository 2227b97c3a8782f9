"""``edgeq run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._options import Engine, EngineOption, KVType, ThreadsOption
from edgeq.cli._output import JsonFlag


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    model: Annotated[Path, typer.Argument(help="A GGUF file, an exported ONNX file, or a model directory.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The text to continue; with --chat, the message.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=1, help="Tokens to generate at most.")] = 128,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Answer through the model's chat template; without --prompt, a conversation."
        ),
    ] = False,
    system: Annotated[
        str | None, typer.Option("--system", help="With --chat, what the system message says.")
    ] = None,
    context: Annotated[
        int,
        typer.Option(
            "--context",
            "-c",
            min=0,
            help="Tokens that a conversation may have; 0 is what the model was trained for, 8192 at most.",
        ),
    ] = 0,
    engine: EngineOption = Engine.auto,
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
    min_p: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Sample among tokens at least this likely, as a share of the likeliest; 0 is all.",
        ),
    ] = 0.0,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            "--repetition-penalty",
            "--repeat-penalty",
            min=0,
            help="Above 1 makes tokens that were there before less likely; 1.1 is usual, 1 is off.",
        ),
    ] = 1.0,
    seed: Annotated[
        int,
        typer.Option("--seed", "-s", min=0, help="With a temperature, the same seed gives the same text."),
    ] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", help="End before this text; may be given several times."),
    ] = None,
    threads: ThreadsOption = 0,
    kv_type: Annotated[
        KVType | None,
        typer.Option(
            help="What the embedded engine keeps keys and values of a GGUF file in: f16, or q8_0 in half of it."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Generate text with the embedded engine, llama.cpp or ONNX Runtime.

    **Examples**

    `edgeq run out/model-Q4_K_M.gguf -p "def main(" -n 40`

    `edgeq run chat-Q4_K_M.gguf --chat --temp 0.7 --min-p 0.05`
    """
    from edgeq.cli import _generation as generation
    from edgeq.devices.cpu import usable_cores
    from edgeq.engine.sampling import Sampler
    from edgeq.errors import UsageError
    from edgeq.kernels_cpu.cached import CACHE_TYPES
    from edgeq.kernels_cpu.threads import set_threads

    sampler = Sampler(temperature, top_k, top_p, seed, min_p, repetition_penalty)
    if prompt is None and (as_json or not chat):
        raise UsageError("give --prompt, the text to continue" + ("" if as_json else ", or --chat"))
    if not chat and (system is not None or context):
        raise UsageError("--system and --context belong to --chat")
    if stop and not all(stop):
        raise UsageError("--stop: an empty text would end at once")
    for name, text in (("--prompt", prompt), ("--system", system)):
        generation.check_text(name, text)
    threads = threads or usable_cores()
    set_threads(threads)
    cache_type = None if kv_type is None else CACHE_TYPES[kv_type.value]
    how = generation.How(sampler, tokens, tuple(stop or ()), engine.value, threads, cache_type)
    if not chat:
        assert prompt is not None
        generation.continue_text(model, prompt, how, as_json)
    elif prompt is not None:
        generation.answer(model, prompt, system, context, how, as_json)
    else:
        generation.converse(model, system, context, how)
