"""``edgeq warmup``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._options import ThreadsOption
from edgeq.cli._output import JsonFlag, print_json, print_table


def register(app: typer.Typer) -> None:
    app.command("warmup")(warmup)


def warmup(
    model: Annotated[Path, typer.Argument(help="A GGUF file or a model directory, as edgeq run takes it.")],
    threads: ThreadsOption = 0,
    keep_packed: Annotated[
        bool,
        typer.Option(
            "--keep-packed",
            help="Also keep a GGUF file's weights as the kernels take them, in a file of its size: starts are quicker.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compile the kernels that a model needs in the embedded engine, so that its first run need not wait.

    The model is loaded and reads a few tokens. Kernels are kept on disk for each type of weights and instruction
    set; those that are there already are loaded and not compiled.

    **Example**

    `edgeq warmup model-Q4_K_M.gguf`
    """
    from edgeq.devices.cpu import usable_cores
    from edgeq.engine.warmup import warm_up
    from edgeq.kernels_cpu.threads import set_threads

    set_threads(threads or usable_cores())
    done = warm_up(model, threads or usable_cores(), keep_packed)
    if as_json:
        compiled = [line._asdict() for line in done.lines]
        print_json({"compiled": compiled, "loaded": done.loaded, "seconds": done.seconds})
        return
    if done.lines:
        header = ("type", "instruction set", "kernels", "seconds")
        cells = [
            (line.type_name or "any", line.instruction_set or "any", str(line.kernels), f"{line.seconds:.1f}")
            for line in done.lines
        ]
        print_table(header, cells, right=(2, 3))
    count = sum(line.kernels for line in done.lines)
    print(f"{count} kernels compiled, {done.loaded} loaded from the cache; {done.seconds:.1f} s in all")
