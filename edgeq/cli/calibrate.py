"""``edgeq calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._options import ForceOption
from edgeq.cli._output import JsonFlag, print_facts, print_json, progress_bar, warn


def register(app: typer.Typer) -> None:
    app.command("calibrate")(calibrate)


def calibrate(
    model: Annotated[
        Path, typer.Argument(help="A model directory (config.json, safetensors) or a GGUF file.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="The GGUF file to write, imatrix.gguf by custom.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="A UTF-8 text file to read: one sentence a line for sentence encoders, any text for models that "
            "generate; the more it is like the model's real input, the better. Without it, --merge alone.",
        ),
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            "--merge",
            help="An importance matrix of the same model to add, edgeq's or llama.cpp's (GGUF or the older .dat); "
            "may be given several times.",
        ),
    ] = None,
    chunk_size: Annotated[
        int,
        typer.Option(
            min=2,
            help="Tokens that a model that generates reads at a time, each chunk without the ones before.",
        ),
    ] = 512,
    max_tokens: Annotated[
        int | None, typer.Option(min=8, help="Read at most this many tokens; without it, the whole text.")
    ] = None,
    process_output: Annotated[
        bool,
        typer.Option(
            "--process-output",
            help="Include the output layer, as llama-imatrix does with the option of that name; where its weight is "
            "token_embd.weight, under that name.",
        ),
    ] = False,
    force: ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure on a text which columns of the weights matter: an importance matrix, as llama-quantize reads it.

    **Examples**

    `edgeq calibrate tests/assets/tinylm --data code.txt -o imatrix.gguf`

    `edgeq calibrate model.gguf --merge first.gguf --merge second.dat -o both.gguf`
    """
    from edgeq.calibrate import Request, run

    with progress_bar() as progress:
        result = run(
            Request(
                model=model,
                data=data,
                out=out,
                merge=merge or [],
                chunk_size=chunk_size,
                max_tokens=max_tokens,
                head=process_output,
                force=force,
                progress=progress,
            )
        )
    record, found = result.record(), result.coverage
    if as_json:
        print_json(record)
        return
    for names, problem in (
        (found.missing, "weights have no entry and will be quantized without"),
        (found.unknown, "entries belong to no weight of the model"),
        (list(found.unused), "weights have experts that no token reached"),
    ):
        if names:
            warn(f"{len(names)} {problem}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
    unseen, columns = sum(found.unseen.values()), record["columns"]
    print_facts(
        [
            ("weights", f"{found.tensors} of {found.tensors + len(found.missing)}"),
            ("tokens", f"{result.tokens:,} read" + (f", {len(merge)} merged files" if merge else "")),
            ("chunks", f"{record['chunks']:,} of {record['chunk_size']}"),
            ("columns", f"{columns:,}, {unseen:,} of them always 0, none NaN or infinite"),
            ("texts", ", ".join(record["datasets"])),
            ("written", str(result.path)),
        ]
    )
