"""``edgeq quantize``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli._effort import EffortOption
from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table, progress_bar, warn
from edgeq.formats.effort import Effort


class OnNan(StrEnum):
    """What a NaN or infinite weight does."""

    error = "error"
    zero = "zero"


def register(app: typer.Typer) -> None:
    app.command("quantize")(quantize)


def quantize(
    source: Annotated[
        Path, typer.Argument(help="A GGUF file (a first shard reads all) or a model directory.")
    ],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", help="The .gguf file to write, or a folder for model-QUANT.gguf."),
    ],
    quant: Annotated[
        str,
        typer.Option(
            "--quant", "-q", help="llama.cpp's name of the mix, any case: Q4_K_M, IQ4_XS, Q8_0, F16 …"
        ),
    ],
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            help="PATTERN=TYPE for single tensors, such as ffn_down=Q6_K; may be repeated, the first match decides. "
            "A pattern that matches nothing is an error.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(help="An importance matrix (`edgeq calibrate`, or llama.cpp's own, GGUF or .dat)."),
    ] = None,
    effort: EffortOption = Effort.normal,
    split_max_size: Annotated[
        str | None, typer.Option(help="Write shards of at most this size, such as 2G or 500M.")
    ] = None,
    nan: Annotated[
        OnNan, typer.Option(help="What NaN and infinite weights do: stop, or become zero.")
    ] = OnNan.error,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Take a source that is quantized already.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print each tensor's type, its fallback and the size; write nothing."),
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", "-t", min=0, help="Threads that encode; 0 is all cores.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Quantize a GGUF file or a model directory to GGUF: llama-quantize's sizes, less error.

    **Examples**

    `edgeq quantize model-F16.gguf -o model-Q4_K_M.gguf --quant Q4_K_M`

    `edgeq quantize tests/assets/tinylm -o out/ --quant Q3_K_M --tensor-type ffn_down=Q5_K --dry-run`
    """
    from edgeq.devices.cpu import usable_cores
    from edgeq.kernels_cpu.threads import set_threads
    from edgeq.quantize import Request, run
    from edgeq.report.facts import megabytes

    set_threads(threads or usable_cores())
    with progress_bar() as progress:
        record = run(
            Request(
                source=source,
                out=out,
                quant=quant,
                tensor_types=tensor_type or (),
                imatrix=imatrix,
                effort=effort,
                split_max_size=split_max_size,
                nan=nan.value,
                allow_requantize=allow_requantize,
                dry_run=dry_run,
                force=force,
                progress=progress,
                warn=warn,
            )
        )
    if as_json:
        print_json(record)
        return
    if dry_run:
        _print_plan(record)
    rows = [
        ("source", f"{record['source']} ({record['architecture']}, {record['parameters']:,} parameters)"),
        (
            "quant",
            f"{record['quant']}, {record['bits_per_weight']:.2f} bits per weight, effort {record['effort']}",
        ),
    ]
    if dry_run:
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
